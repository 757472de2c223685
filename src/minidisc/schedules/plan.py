"""Which stages a schedule will train, as far as that is known before it starts."""

from __future__ import annotations

from minidisc.schedules.job import Job
from minidisc.subnetworks import SubnetworkSpec


def planned(job: Job) -> list[list[SubnetworkSpec]]:
    """The sub-networks of every stage; where a choice will shorten a run, the long way is planned."""
    settings, target = job.settings, job.target
    if settings.schedule == "minidisc":
        if settings.stages == 1:
            return [job.pool]
        last = [target]
        if settings.second_stage == "sandwich" and settings.no_gap != "assume":
            # The largest candidates are the assistants, if none are given.
            given = (settings.assistants or (0.0,))[-1]
            last = [spec for spec in job.candidates[settings.stages - 1 :] if spec.sparsity > given] or last
        return [job.pool, *[job.candidates] * (settings.stages - 2), last]
    if settings.schedule == "maxidisc":
        return [stage for spec in job.candidates[:-1] for stage in ([spec], [target])]
    if settings.schedule == "chain":
        return [*([job.spec(sparsity)] for sparsity in settings.assistants or ()), [target]]
    return [[target]]
