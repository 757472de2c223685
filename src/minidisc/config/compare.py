"""Settings of `minidisc compare`."""

from __future__ import annotations

from dataclasses import dataclass

from minidisc.config.budget import DEFAULT_SPARSITY, TARGETS
from minidisc.config.compress import CompressSettings
from minidisc.config.options import SEEDS, flag, option, require


@dataclass(frozen=True, kw_only=True)
class CompareSettings(CompressSettings):
    """`minidisc compare`: several methods on one teacher and task, on equal terms."""

    seed: int = option(0, "seed that draws --max-train-rows, the same rows for every cell")
    methods: tuple[str, ...] = option(
        ("minidisc", "direct"),
        "methods, comma-separated: a schedule, and settings of compress where they differ, such as "
        "minidisc:stages=3:second_stage=sandwich or chain:assistants=0.6/0.8; direct:flops_of=minidisc gets as many "
        "FLOPs as another method spent, and stops early only with a patience of its own (flops_of comes last, since "
        "that method may have settings too)",
    )
    target_sparsities: tuple[float, ...] = option((0.9,), "target sparsities, comma-separated")
    seeds: tuple[int, ...] = option((0, 1, 2), "seeds of training, comma-separated")

    def _check_target(self) -> None:
        """Nothing: the targets are each cell's own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [flag(name) for name in TARGETS if getattr(self, name) not in (None, DEFAULT_SPARSITY)]
        require(not given, f"{', '.join(given)} says what one run makes; a comparison takes --target-sparsities.")
        for name in ("methods", "target_sparsities", "seeds"):
            values = getattr(self, name)
            require(bool(values), f"{flag(name)} is empty; give at least one.")
            require(len(set(values)) == len(values), f"{flag(name)} holds something twice; give each once.")
        for seed in self.seeds:
            require(0 <= seed < SEEDS, f"--seeds holds {seed}; allowed is from 0 to {SEEDS - 1}.")
        for target in self.target_sparsities:
            require(
                0 < target < 1,
                f"--target-sparsities holds {target:g}; each is the fraction removed, between 0 and 1, such as 0.9.",
            )
