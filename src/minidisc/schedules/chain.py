"""Fixed assistants: teacher → assistant → … → student, each distilled alone from the one before."""

from __future__ import annotations

from collections.abc import Sequence

from minidisc.schedules.job import Assistant, Job, Outcome
from minidisc.subnetworks import SubnetworkSpec


def chain(job: Job) -> Outcome:
    """Through the assistants that the settings name."""
    return distil_through(job, [job.spec(sparsity) for sparsity in job.settings.assistants or ()])


def distil_through(job: Job, specs: Sequence[SubnetworkSpec]) -> Outcome:
    """Through assistants of the given sizes, largest first."""
    outcome = Outcome()
    teachers, source, way = [job.teacher], job.teacher, ""
    for spec in specs:
        way += f"-{100 * spec.sparsity:g}"
        stage = job.train(f"assistant{way}", teachers, source, [spec])
        outcome.add_stage(f"assistant{way}", stage)
        source = stage.network(spec)
        outcome.assistants.append(Assistant(stage.table(job)[0], source.model))
        teachers = job.teachers_with(source)
    target = job.target
    if outcome.assistants and job.settings.second_importance == "assistant":
        source, target = outcome.reorder(job, source)
    name = f"student-via{way}" if way else "student"
    stage = job.train(name, teachers, source, [target])
    outcome.add_stage(name, stage)
    outcome.take_student(stage, target)
    return outcome
