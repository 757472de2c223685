"""Experiment trackers, through the integrations of transformers' Trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback
from transformers.integrations import (
    INTEGRATION_TO_CALLBACK,
    TensorBoardCallback,
    get_available_reporting_integrations,
)

from minidisc import ranks
from minidisc.errors import UserError

# The run that is open now, of trackers whose callbacks start one if there is none, and never finish it.
_RUNS: dict[str, Callable[[Any], Any]] = {
    "wandb": lambda wandb: wandb.run,
    "swanlab": lambda swanlab: swanlab.get_run(),
}


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


@contextmanager
def tracked(trainer: Trainer, names: Sequence[str], folder: Path, finished: bool = False) -> Iterator[None]:
    """Within the block a stage reports to trackers as it is trained, if it is.

    Each stage has a run of its own: what transformers leaves open is finished, but no run that was there before.

    Args:
        trainer: the stage's.
        names: see `check_trackers`.
        folder: where TensorBoard's files go; the other trackers have settings of their own, in environment variables.
        finished: whether it has been trained before, and nothing is left to report.
    """
    if ranks.rank() > 0 or finished:
        yield
        return
    left_open = [name for name in names if name in _RUNS and not _RUNS[name](import_module(name))]
    for name in names:
        callback = _tensorboard(folder) if name == "tensorboard" else INTEGRATION_TO_CALLBACK[name]()
        trainer.add_callback(callback)
        # Some are set up there alone, and the trainer was made before them.
        callback.on_init_end(trainer.args, trainer.state, trainer.control)
    try:
        yield
    finally:
        for name in left_open:
            import_module(name).finish()


def _tensorboard(folder: Path) -> TrainerCallback:
    from torch.utils.tensorboard import SummaryWriter

    return TensorBoardCallback(SummaryWriter(str(folder)))
