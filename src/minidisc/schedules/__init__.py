"""Ways from a teacher to a student; one file each."""

from minidisc.schedules.direct import direct
from minidisc.schedules.job import Assistant, Job, Outcome
from minidisc.schedules.minidisc import minidisc

SCHEDULES = {"minidisc": minidisc, "direct": direct}

__all__ = ["SCHEDULES", "Assistant", "Job", "Outcome"]
