"""Ways from a teacher to a student; one file each."""

from minidisc.schedules.chain import chain
from minidisc.schedules.direct import direct, finetune
from minidisc.schedules.job import Assistant, Job, Network, Outcome
from minidisc.schedules.maxidisc import maxidisc
from minidisc.schedules.minidisc import minidisc
from minidisc.schedules.plan import planned

SCHEDULES = {"minidisc": minidisc, "direct": direct, "finetune": finetune, "maxidisc": maxidisc, "chain": chain}

__all__ = ["SCHEDULES", "Assistant", "Job", "Network", "Outcome", "planned"]
