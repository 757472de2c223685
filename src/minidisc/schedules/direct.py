"""No assistant: the student learns from the teacher, or, with the loss ``labels``, from the labels alone."""

from __future__ import annotations

import dataclasses

from minidisc.schedules.job import Job, Outcome


def direct(job: Job) -> Outcome:
    """Cut to the student's size, then train, in one stage."""
    source, spec = job.untrained_student()
    stage = job.train("student", [job.teacher], source, [spec])
    outcome = Outcome()
    outcome.add_stage("student", stage)
    outcome.take_student(stage, spec)
    return outcome


def finetune(job: Job) -> Outcome:
    """The small network on labels, without a teacher."""
    return direct(dataclasses.replace(job, settings=dataclasses.replace(job.settings, loss="labels")))
