"""Settings of any training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from minidisc.config.options import SEEDS, Settings, choice, flag, option, require

Precision = Literal["auto", "fp32", "bf16"]
Optimizer = Literal["adamw", "adafactor"]


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(Settings):
    """How any network is trained, be it a teacher or a student."""

    epochs: float = option(3.0, "passes over the training rows (of each stage)")
    max_steps: int | None = option(None, "optimiser steps (of each stage); overrides --epochs")
    batch_size: int = option(32, "rows in a batch")
    gradient_accumulation_steps: int = option(1, "batches an optimiser step is averaged over")
    optimizer: Optimizer = option(
        "adamw", "adamw, or adafactor, which keeps next to nothing where AdamW keeps two numbers for every weight"
    )
    learning_rate: float = option(5e-5, "peak learning rate")
    warmup: float = option(0.1, "fraction of the steps over which the learning rate rises; it then falls linearly")
    final_learning_rate: float = option(0.0, "learning rate to which it falls")
    weight_decay: float = option(0.01, "the optimiser's weight decay")
    max_grad_norm: float = option(1.0, "gradients are clipped to this norm")
    patience: int = option(5, "stop after this many evaluations without gain")
    evaluations_per_epoch: int = option(1, "how often an epoch is evaluated (and can be resumed from)")
    seed: int = option(0, "seed of everything random")
    device: str = option("auto", "auto, cpu, cuda or mps")
    precision: Precision = option("auto", "auto, fp32 or bf16 autocast; auto times both on the device")
    gradient_checkpointing: bool = option(
        False, "keep only the layers' inputs for the backward pass: less memory, about a third more time"
    )
    cuda_graphs: str = option(
        "auto",
        "auto or off; auto records each kind of step on a GPU and replays it, where one process trains a network "
        "without --gradient-checkpointing",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("epochs", "batch_size", "gradient_accumulation_steps", "learning_rate", "evaluations_per_epoch"):
            value = getattr(self, name)
            require(value > 0, f"{flag(name)} is {value}; it must be greater than 0.")
        require(self.max_steps is None or self.max_steps > 0, f"--max-steps is {self.max_steps}; it must be positive.")
        require(0 <= self.warmup < 1, f"--warmup is {self.warmup}; it is a fraction of the steps, in [0, 1).")
        require(
            0 <= self.final_learning_rate < self.learning_rate,
            f"--final-learning-rate is {self.final_learning_rate:g}; allowed is from 0 to less than the peak "
            f"({self.learning_rate:g}).",
        )
        require(self.patience >= 1, f"--patience is {self.patience}; it must be at least 1.")
        require(0 <= self.seed < SEEDS, f"--seed is {self.seed}; allowed is from 0 to {SEEDS - 1}.")
        for name in ("weight_decay", "max_grad_norm"):
            value = getattr(self, name)
            require(value >= 0, f"{flag(name)} is {value:g}; it must not be negative.")
        choice("device", self.device, ("auto", "cpu", "cuda", "mps"))
        choice("cuda-graphs", self.cuda_graphs, ("auto", "off"))
        choice("precision", self.precision, get_args(Precision))
        choice("optimizer", self.optimizer, get_args(Optimizer))

    def steps_per_epoch(self, rows: int) -> int:
        """Optimiser steps of a pass over so many rows."""
        return math.ceil(math.ceil(rows / self.batch_size) / self.gradient_accumulation_steps)

    def steps(self, rows: int) -> int:
        """Optimiser steps of a stage on so many rows, if nothing stops it early."""
        return self.max_steps or math.ceil(self.epochs * self.steps_per_epoch(rows))

    def repeats(self, rows: int) -> bool:
        """Whether a stage on so many rows comes to some of them again, if nothing stops it early."""
        return self.steps(rows) > self.steps_per_epoch(rows)
