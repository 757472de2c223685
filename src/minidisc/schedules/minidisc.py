"""The method: all assistants in one trial, the best one chosen by the λ-tradeoff, the student distilled from it.

METHOD: arXiv 2205.14570, section 3. With ``stages`` = 2 there is one assistant, with 3 two, chosen one after the
other; with 1 the student is taken straight from the sandwich.
"""

from __future__ import annotations

from minidisc.extraction import extract
from minidisc.schedules.job import Assistant, Job, Outcome
from minidisc.selection import Candidate, choose_assistant, tradeoff
from minidisc.trainer import SandwichTrainer


def minidisc(job: Job) -> Outcome:
    """Find the assistant (or assistants) and distil the student through it."""
    outcome = Outcome(None, {})
    teacher = source = job.teacher
    state = None
    remaining = job.candidates
    for number in range(1, max(2, job.settings.stages)):
        stage = f"sandwich-{number}"
        trainer = job.sandwich(stage, teacher, source, remaining, state)
        outcome.add_stage(stage, trainer)
        table = _table(job, trainer)
        outcome.candidates.append(table)
        chosen = choose_assistant(table)
        source, state = trainer.model, _best_state(trainer, job.target.name)
        if job.settings.stages == 1 or chosen.spec == job.target:
            outcome.student, outcome.selection_metrics = extract(source, job.target, state), table[-1].metrics
            return outcome
        assistant = extract(source, chosen.spec, _best_state(trainer, chosen.spec.name))
        outcome.assistants.append(Assistant(chosen, assistant))
        teacher = {"assistant": assistant, "teacher": job.teacher, "both": [assistant, job.teacher]}[
            job.settings.second_teacher
        ]
        remaining = [c for c in remaining if c.sparsity > chosen.spec.sparsity]

    if job.settings.second_stage == "sandwich":
        # The candidates between assistant and student need weights that are good for all of them: the assistant's.
        state = _best_state(trainer, chosen.spec.name)
    else:
        remaining = [job.target]
    last = job.sandwich("student", teacher, source, remaining, state)
    outcome.add_stage("student", last)
    best = last.best[-1]
    assert best is not None
    outcome.student = extract(last.model, job.target, _best_state(last, job.target.name))
    outcome.selection_metrics = best.metrics
    return outcome


def _table(job: Job, trainer: SandwichTrainer) -> list[Candidate]:
    rows = []
    for spec, best in zip(trainer.candidates, trainer.best, strict=True):
        assert best is not None
        t = tradeoff(best.metrics["metric"], spec.sparsity, job.settings.tradeoff_lambda)
        rows.append(Candidate(spec, job.shape.sizes(spec), best.metrics, best.step, t))
    return rows


def _best_state(trainer: SandwichTrainer, name: str) -> dict:
    return trainer.best_state(trainer.networks.index(name))
