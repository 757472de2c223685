"""The method: all assistants in one trial, the best one chosen by the λ-tradeoff, the student distilled from it.

METHOD: arXiv 2205.14570, section 3. With ``stages`` = 2 there is one assistant, with 3 two, chosen one after the
other; with 1 the student is taken straight from the sandwich.
"""

from __future__ import annotations

from collections.abc import Sequence

from minidisc.schedules.job import Assistant, Job, Outcome
from minidisc.selection import Candidate, choose_assistant


def minidisc(job: Job) -> Outcome:
    """Find the assistant (or assistants) and distil the student through it."""
    outcome = Outcome()
    teachers, source = [job.teacher], job.teacher
    remaining, trained = job.candidates, job.pool
    for number in range(1, max(2, job.settings.stages)):
        stage = job.train(f"sandwich-{number}", teachers, source, trained, number)
        outcome.add_stage(f"sandwich-{number}", stage)
        table = stage.candidates(job, remaining)
        outcome.candidates.append(table)
        chosen = _choose(job, table, number)
        no_gap = chosen.spec == job.target
        if job.settings.stages == 1 or (no_gap and job.settings.no_gap == "stop"):
            outcome.take_student(stage, job.target)
            return outcome
        if no_gap:
            remaining, source = [job.target], stage.network(job.target)
            break
        assistant = stage.network(chosen.spec)
        outcome.assistants.append(Assistant(chosen, assistant.model))
        teachers = job.teachers_with(assistant)
        remaining = trained = [c for c in remaining if c.sparsity > chosen.spec.sparsity]
        # Several candidates in a next sandwich need weights that are good for all of them, the student its own.
        between = number < job.settings.stages - 1 and len(remaining) > 1
        source = stage.network(chosen.spec if between else job.target, width=remaining[0])

    if job.settings.second_stage == "sandwich":
        # The candidates between assistant and student need weights that are good for all of them: the assistant's.
        source = stage.network(chosen.spec, width=remaining[0])
    else:
        remaining = [job.target]
    # Without a gap the student goes on from its own weights, also behind an assistant that was chosen before.
    if not no_gap and job.settings.second_importance == "assistant":
        source, target = outcome.reorder(job, assistant)
        remaining = [target]
    last = job.train("student", teachers, source, remaining, left_out=job.settings.stages - 1 - number)
    outcome.add_stage("student", last)
    outcome.take_student(last, remaining[-1])
    return outcome


def _choose(job: Job, table: Sequence[Candidate], number: int) -> Candidate:
    """The assistant of this stage: the one of the best tradeoff, or whatever the settings name."""
    settings = job.settings
    if settings.no_gap == "assume":
        sparsity = job.target.sparsity
    elif settings.assistants:
        sparsity = settings.assistants[number - 1]
    else:
        return choose_assistant(table)
    return next(row for row in table if row.spec.sparsity == sparsity)
