"""What a student may take or lose, in place of a target sparsity."""

from __future__ import annotations

from dataclasses import dataclass

from minidisc.config.options import flag
from minidisc.quantities import BYTES, MILLISECONDS, PARAMETERS, SHARE

DEFAULT_SPARSITY = 0.9
BUDGETS = {
    "target_params": (PARAMETERS, "2M"),
    "target_size": (BYTES, "20MB"),
    "target_latency": (MILLISECONDS, "3ms"),
    "max_drop": (SHARE, "1%"),
}
TARGETS = ("target_sparsity", *BUDGETS)
"""Settings of `CompressSettings` of which one is given at most: the student's size, or what it is solved for."""


@dataclass(frozen=True)
class Budget:
    """What a student may take or lose.

    ``name`` is the setting's, ``text`` its value, ``limit`` the same in parameters, bytes, milliseconds, or units of
    the metric.
    """

    name: str
    text: str
    limit: float

    @property
    def flag(self) -> str:
        """As it was given: ``--target-params 2M``."""
        return f"{flag(self.name)} {self.text}"
