"""Settings as transformers' Trainer takes them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from minidisc import ranks
from minidisc.config import TrainingSettings
from minidisc.devices import resolve_device
from minidisc.errors import UserError

_PRECISION = "ACCELERATE_MIXED_PRECISION"
# What transformers calls them.
_OPTIMIZERS = {"adamw": "adamw_torch_fused", "adafactor": "adafactor"}


@dataclass
class ResumableArguments(TrainingArguments):
    """Arguments of transformers' Trainer, and when to evaluate and stop."""

    patience: int = field(default=5, metadata={"help": "stop after this many evaluations without gain"})
    evaluations_per_epoch: int = field(default=1, metadata={"help": "evaluations, and checkpoints, in an epoch"})
    checkpointed: bool = field(default=False, metadata={"help": "see minidisc.checkpointing, for every family"})
    recorded: bool = field(default=True, metadata={"help": "see minidisc.recording; on GPUs alone"})

    def __post_init__(self) -> None:
        """Turn off what this trainer does itself."""
        # transformers takes the precision of accelerate's launcher where its own is fp32, and gives it to DeepSpeed.
        launched = os.environ.pop(_PRECISION, None)
        try:
            super().__post_init__()
        finally:
            if launched is not None:
                os.environ[_PRECISION] = launched
        # transformers would otherwise wrap the model in nn.DataParallel as soon as it sees two GPUs.
        self._n_gpu = min(self.n_gpu, 1)
        if self.world_size > 1 and not ranks.have_joined():
            raise UserError(
                "only 'minidisc compress' runs on several processes, started by accelerate launch or torchrun; start "
                "it that way, or without a launcher."
            )


def trainer_arguments(settings: TrainingSettings, folder: Path) -> dict[str, Any]:
    """The settings, `minidisc.runs.settled`, as keyword arguments of `ResumableArguments`."""
    cpu, backend = ranks.what_accelerate_is_told(resolve_device(settings.device).type)
    return {
        "output_dir": str(folder),
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps or -1,
        "per_device_train_batch_size": settings.batch_size,
        "per_device_eval_batch_size": 2 * settings.batch_size,
        "gradient_accumulation_steps": settings.gradient_accumulation_steps,
        "learning_rate": settings.learning_rate,
        "warmup_steps": settings.warmup,
        **_decay(settings.final_learning_rate),
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "seed": settings.seed,
        "use_cpu": cpu,
        "ddp_backend": backend,
        "bf16": settings.precision == "bf16",
        "patience": settings.patience,
        "evaluations_per_epoch": settings.evaluations_per_epoch,
        "checkpointed": settings.gradient_checkpointing,
        "recorded": settings.cuda_graphs == "auto",
        "optim": _OPTIMIZERS[settings.optimizer],
        "eval_strategy": "no",
        "save_strategy": "no",
        "logging_strategy": "no",
        "logging_nan_inf_filter": False,  # it would wait for the device at every step
        "report_to": [],
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
    }


def _decay(final_learning_rate: float) -> dict[str, Any]:
    """How the learning rate falls: linearly, for which transformers has two names."""
    if not final_learning_rate:
        return {"lr_scheduler_type": "linear"}
    return {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"lr_end": final_learning_rate, "power": 1.0}}


def is_evaluated(step: int, steps: int, every: int) -> bool:
    """Whether a stage of ``steps`` is evaluated after ``step``: regularly, and at its end.

    A regular evaluation with less than half of ``every`` to go is left out: it would cost as much as many steps, to
    tell what the last one tells again.
    """
    return step >= steps or (step % every == 0 and 2 * (steps - step) >= every)
