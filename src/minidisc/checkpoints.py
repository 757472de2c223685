"""What a training keeps on disk: its newest checkpoint, and a snapshot of the weights of every best evaluation."""

from __future__ import annotations

import os
import shutil
from collections.abc import Set
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from minidisc.files import check_saved, damage_named, new_file, read_json, write_json

_FIGURES, _STATE, _WEIGHTS = "minidisc.json", "trainer_state.json", "model.safetensors"


class CheckpointFolder:
    """The folder of one training; a checkpoint in it is whole or absent.

    One is written to ``staging``, file by file, and then renamed. Only one process may change anything.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.staging = path / ".staging"

    @property
    def newest(self) -> Path | None:
        """The checkpoint of the latest step, if there is one."""
        return max(self._checkpoints(), key=_step_of, default=None)

    def figures(self, checkpoint: Path) -> dict[str, Any]:
        """What `finish` was given with a checkpoint."""
        return read_json(checkpoint / _FIGURES, self.path)

    def state(self, checkpoint: Path) -> dict[str, Any]:
        """What transformers' Trainer wrote down of its progress."""
        return read_json(checkpoint / _STATE, self.path)

    def check(self, checkpoint: Path) -> None:
        """Refuse a checkpoint with files of torch's that are cut short.

        Raises:
            UserError: one is.
        """
        for file in checkpoint.glob("*.pt*"):
            check_saved(file, self.path)

    def has_weights(self, checkpoint: Path) -> bool:
        """Whether it still holds the latest weights; those of a finished training may be gone."""
        return (checkpoint / _WEIGHTS).is_file()

    def weights(self, checkpoint: Path) -> dict[str, torch.Tensor]:
        """The weights at a checkpoint's step."""
        return self._read(checkpoint / _WEIGHTS)

    def snapshot(self, step: int) -> dict[str, torch.Tensor]:
        """The weights at the step of a best evaluation."""
        return self._read(self._snapshot(step))

    def write_weights(self, folder: Path, weights: dict[str, torch.Tensor]) -> None:
        """Write a checkpoint's weights."""
        _write(folder / _WEIGHTS, weights)

    def write_snapshot(self, step: int, weights: dict[str, torch.Tensor]) -> None:
        """Write the weights at a step that no checkpoint is written at."""
        _write(self._snapshot(step), weights)

    def clear_staging(self) -> None:
        """Make room for a checkpoint to be written."""
        shutil.rmtree(self.staging, ignore_errors=True)

    def finish(self, step: int, figures: dict[str, Any], kept: Set[int]) -> None:
        """Turn what is in ``staging`` into the checkpoint of a step, with figures, and drop what it makes useless.

        Args:
            step: the step.
            figures: what `figures` is to give.
            kept: steps of the best evaluations, whose weights stay.
        """
        final = self.path / f"checkpoint-{step}"
        staged = self.staging / final.name
        for copy in staged.glob("pytorch_model_fsdp*"):
            # A second one of the weights, which FSDP's own loading would read.
            shutil.rmtree(copy) if copy.is_dir() else copy.unlink()
        write_json(staged / _FIGURES, figures)
        for file in staged.rglob("*"):
            if file.is_file():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        if step in kept:
            _link(staged / _WEIGHTS, self._snapshot(step))
        shutil.rmtree(final, ignore_errors=True)
        os.replace(staged, final)
        self.drop_older(kept)

    def drop_older(self, kept: Set[int]) -> None:
        """Remove what the newest checkpoint has made useless; see `finish`."""
        self.clear_staging()
        for checkpoint in self._checkpoints() - {self.newest}:
            shutil.rmtree(checkpoint)
        snapshots = {self._snapshot(step) for step in kept}
        for snapshot in self.path.glob("snapshot-*.safetensors"):
            if snapshot not in snapshots:
                snapshot.unlink()

    def keep_figures(self, checkpoint: Path) -> None:
        """Drop what only further training would need."""
        for path in checkpoint.iterdir():
            if path.is_dir():  # DeepSpeed's
                shutil.rmtree(path)
            elif path.name not in (_FIGURES, _STATE):
                path.unlink()

    def _checkpoints(self) -> set[Path]:
        return {*self.path.glob("checkpoint-*")}

    def _snapshot(self, step: int) -> Path:
        return self.path / f"snapshot-{step}.safetensors"

    def _read(self, path: Path) -> dict[str, torch.Tensor]:
        with damage_named(path, self.path):
            return load_file(path)


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def _write(path: Path, weights: dict[str, torch.Tensor]) -> None:
    with new_file(path) as temporary:
        save_file(weights, temporary)


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        with new_file(target) as temporary:
            shutil.copyfile(source, temporary)
