"""Experiment trackers, through the integrations of transformers' Trainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import TrainerCallback
from transformers.integrations import (
    INTEGRATION_TO_CALLBACK,
    TensorBoardCallback,
    get_available_reporting_integrations,
)

from minidisc.errors import UserError


def check_trackers(names: Sequence[str]) -> None:
    """Refuse what cannot be reported to, before anything is computed.

    Raises:
        UserError: transformers knows no such tracker, or its package is not installed.
    """
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            raise UserError(f"--report-to names {name!r}; allowed are {', '.join(sorted(INTEGRATION_TO_CALLBACK))}.")
        if name not in get_available_reporting_integrations():
            raise UserError(f"--report-to {name} needs a package that is not installed; install it, or leave it out.")


def trackers(names: Sequence[str], folder: Path) -> list[TrainerCallback]:
    """The callbacks of one stage of training.

    Args:
        names: see `check_trackers`.
        folder: where TensorBoard's files go; the other trackers have settings of their own, in environment variables.
    """
    return [_tensorboard(folder) if name == "tensorboard" else INTEGRATION_TO_CALLBACK[name]() for name in names]


def _tensorboard(folder: Path) -> TrainerCallback:
    from torch.utils.tensorboard import SummaryWriter

    return TensorBoardCallback(SummaryWriter(str(folder)))
