"""No assistant: the student is distilled from the teacher, in one stage."""

from __future__ import annotations

from minidisc.extraction import extract
from minidisc.schedules.job import Job, Outcome


def direct(job: Job) -> Outcome:
    """Prune to the student's size, then distil."""
    trainer = job.sandwich("student", job.teacher, job.teacher, [job.target])
    best = trainer.best[0]
    assert best is not None
    outcome = Outcome(extract(trainer.model, job.target, trainer.best_state(0)), best.metrics)
    outcome.add_stage("student", trainer)
    return outcome
