"""Sandwiches trained by one of several processes; rank 0 writes their weights and figures.

torchrun --standalone --nproc-per-node 2 tests/distributed/worker.py FOLDER CASES
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from minidisc import ranks, resumable
from minidisc.errors import UserError
from minidisc.layers import state_to_save
from minidisc.teaching import OutputStore
from tests.unit.test_trainer import trainer_for


def train(folder: Path, stored: bool, **changes: Any) -> None:
    """Train for twenty steps and write what came out.

    Args:
        folder: of the checkpoints, and of ``final.safetensors`` and ``figures.json``.
        stored: whether the teacher's outputs are computed once.
        changes: of `tests.unit.test_trainer.trainer_for`.
    """
    trainer = trainer_for(
        folder,
        # Rounding errors are then too small for AdamW to make steps of them where a gradient is zero.
        double=True,
        max_steps=20,
        patience=99,
        stores=[OutputStore(folder / "outputs", 2**30)] if stored else [],
        **changes,
    )
    average, sent = resumable.average_gradients, []

    def watched(parameters: Iterable[torch.nn.Parameter]) -> None:
        parameters = list(parameters)
        own = torch.stack([p.grad.norm() for p in parameters if p.grad is not None])
        others = [torch.zeros_like(own) for _ in range(ranks.world_size())]
        torch.distributed.all_gather(others, own)
        sent.append({"step": trainer.state.global_step, "own": not torch.allclose(*others)})
        average(parameters)

    resumable.average_gradients = watched
    trainer.fit()
    resumable.average_gradients = average
    if ranks.rank() == 0:
        save_file(state_to_save(trainer.model), folder / "final.safetensors")
        figures = {"flops": trainer.cost.flops, "history": trainer.history, "sent": sent}
        (folder / "figures.json").write_text(json.dumps(figures))


def fail(file: Path) -> None:
    """Write down what a rank sees of failures on any of them, and of what rank 0 alone makes."""

    def refuse() -> None:
        raise UserError("no such file")

    def first(action: Callable[[], Any]) -> None:
        with ranks.zero_first():
            action()

    told = []
    for attempt in (
        lambda: ranks.by_zero(refuse),
        lambda: first(refuse),
        lambda: first(lambda: {}["x"] if ranks.rank() == 1 else None),
    ):
        try:
            attempt()
            told.append("nothing")
        except Exception as error:
            told.append(f"{type(error).__name__}: {error}")
    made = [ranks.by_zero(lambda: 4 + ranks.rank()) for _ in range(2)]
    file.write_text("\n".join([*told, "{} {}".format(*made)]))


if __name__ == "__main__":
    ranks.join("cpu")
    fail(Path(sys.argv[1]) / f"rank-{ranks.rank()}.txt")
    for name, case in json.loads(sys.argv[2]).items():
        train(Path(sys.argv[1]) / name, **case)
