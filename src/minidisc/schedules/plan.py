"""Which stages a schedule will train, as far as that is known before it starts."""

from __future__ import annotations

from minidisc.schedules.job import Job
from minidisc.subnetworks import SubnetworkSpec


def planned(job: Job) -> list[list[SubnetworkSpec]]:
    """The sub-networks of every stage; where a choice will shorten a run, the long way is planned."""
    settings, target = job.settings, job.target
    if settings.schedule == "minidisc":
        sandwiches = [job.pool, *[job.candidates] * (settings.stages - 2)]
        return [*sandwiches, [target]] if settings.stages > 1 else [job.pool]
    if settings.schedule == "maxidisc":
        return [stage for spec in job.candidates[:-1] for stage in ([spec], [target])]
    if settings.schedule == "chain":
        return [*([job.spec(sparsity)] for sparsity in settings.assistants or ()), [target]]
    return [[target]]
