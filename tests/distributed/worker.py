"""Sandwiches trained by one of several processes; rank 0 writes their weights and figures.

torchrun --standalone --nproc-per-node 2 tests/distributed/worker.py FOLDER CASES
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed.fsdp
from accelerate import PartialState
from accelerate.utils import DistributedType
from torch.distributed.device_mesh import init_device_mesh
from transformers import training_args

from minidisc import ranks, resumable
from minidisc.errors import UserError
from minidisc.memory import free_weights
from minidisc.teaching import OutputStore
from tests.unit import families
from tests.unit.trainers import SMALL, trainer_for


@contextmanager
def fsdp2() -> Iterator[None]:
    """Let accelerate shard on CPUs, which it does not by itself: it calls them something else, and asks for GPUs."""
    variables = {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_RESHARD_AFTER_FORWARD": "true",
        "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    }
    shard, join = torch.distributed.fsdp.fully_shard, PartialState.__init__

    def shard_cpus(module: Any, **options: Any) -> Any:
        mesh = options.pop("mesh", None) or init_device_mesh("cpu", (ranks.world_size(),))
        return shard(module, mesh=mesh, **options)

    def join_as_gpus(state: Any, *args: Any, **options: Any) -> None:
        join(state, *args, **options)
        if state.distributed_type is DistributedType.MULTI_CPU:
            state.distributed_type = DistributedType.MULTI_GPU

    with (
        patch.dict(os.environ, variables),
        patch.object(torch.distributed.fsdp, "fully_shard", shard_cpus),
        patch.object(PartialState, "__init__", join_as_gpus),
    ):
        yield


@contextmanager
def deepspeed(file: Path, stage: int) -> Iterator[None]:
    """What accelerate's launcher says of an example, but that weights as small as these are sharded too."""
    from deepspeed.runtime.zero.partition_parameters import InsertPostInitMethodToModuleSubClasses

    zero = {"stage": stage, "stage3_param_persistence_threshold": 0}
    auto = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
    config = json.dumps({"zero_optimization": zero, **dict.fromkeys(auto, "auto")})
    ranks.by_zero(lambda: file.write_text(config))
    variables = {
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(file),
        "ACCELERATE_DEEPSPEED_ZERO3_INIT": "false",
    }

    def any_type(context: Any, *_: Any) -> None:
        context.dtype = torch.float32

    with (
        patch.dict(os.environ, variables),
        # Asks for weights in 16 or 32 bits, and has no other reason to.
        patch.object(InsertPostInitMethodToModuleSubClasses, "_set_dtype", any_type),
        patch.object(training_args, "is_torch_bf16_gpu_available", lambda: True),
    ):
        yield


def held(trainer: Any, whole: int) -> tuple[float, float]:
    """Which part of a model's numbers, and of their first moments, this process has."""

    def numbers(tensors: Iterable[Any]) -> int:
        return sum(getattr(tensor, "to_local", lambda own=tensor: own)().numel() for tensor in tensors)

    weights, optimizer = list(trainer.model.parameters()), trainer.optimizer
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    # Under ZeRO-3 a parameter is empty, and has its part beside it.
    own = numbers(weights) + numbers(w.ds_tensor for w in weights if hasattr(w, "ds_tensor"))
    return own / whole, numbers(state["exp_avg"] for state in optimizer.state.values()) / whole


def train(
    folder: Path,
    stored: bool,
    sharded: bool = False,
    zero: int = 0,
    interrupted: int = 0,
    family: str = "BERT",
    smallest: bool = False,
    **changes: Any,
) -> None:
    """Train for twenty steps and write what came out.

    Args:
        folder: of the checkpoints and of ``figures.json``.
        stored: whether the teacher's outputs are computed once.
        sharded: by FSDP2, if there are several processes.
        zero: the stage of DeepSpeed's ZeRO, likewise.
        interrupted: the step at which training ends, to be taken up again.
        family: of `tests.unit.families`.
        smallest: whether the smallest candidate is trained alone, with its layer that has neither heads nor neurons.
        changes: of `tests.unit.trainers.trainer_for`.
    """
    average, sent, parts, weights = resumable.average_gradients, [], [], []

    def watched(parameters: Iterable[torch.nn.Parameter]) -> None:
        parameters = list(parameters)
        own = torch.stack([p.grad.norm() for p in parameters if p.grad is not None])
        others = [torch.zeros_like(own) for _ in range(ranks.world_size())]
        torch.distributed.all_gather(others, own)
        sent.append({"step": trainer.state.global_step, "own": not torch.allclose(*others)})
        average(parameters)

    def progress(step: int, _: int, loss: Any, metrics: Any) -> None:
        if metrics is None:
            parts.append(held(trainer, whole))
            weights[:] = map(weakref.ref, trainer.model.parameters())
        if step == interrupted and metrics is None:
            raise KeyboardInterrupt

    def seconds() -> int:
        # A step takes rank 0 one second of its processor, and rank 1 two.
        return (1 + ranks.rank()) * trainer.state.global_step

    clock = SimpleNamespace(perf_counter=time.perf_counter, process_time=seconds)
    for _ in range(2):
        engine = fsdp2() if sharded else deepspeed(folder / "deepspeed.json", zero) if zero else nullcontext()
        with engine if ranks.world_size() > 1 else nullcontext():
            trainer = trainer_for(
                folder,
                getattr(families, family),
                # Rounding errors are then too small for AdamW to make steps of them where a gradient is zero.
                double=True,
                max_steps=20,
                patience=99,
                stores=[OutputStore(folder / "outputs", 2**30)] if stored else [],
                progress=progress,
                **({"candidates": [SMALL], "cut": True} if smallest else {}),
                **changes,
            )
            whole = sum(p.numel() for p in trainer.model.parameters())
            with (
                patch.object(resumable, "average_gradients", watched),
                patch.object(resumable, "time", clock),
                suppress(KeyboardInterrupt),
            ):
                trainer.fit()
        if not interrupted:
            break
        interrupted = 0
    free_weights(trainer.model)
    kept = sum(weight() is not None for weight in weights)
    if ranks.rank() == 0:
        most = [max(each) for each in zip(*parts, strict=True)]
        figures = {
            "flops": trainer.cost.flops,
            "cpu_seconds": trainer.cost.cpu_seconds,
            "history": trainer.history,
            "sent": sent,
            "held": most,
            "kept": kept,
        }
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
    # As in tests/conftest.py.
    gc.freeze()
    os.fsync = lambda descriptor: None
    ranks.join("cpu")
    fail(Path(sys.argv[1]) / f"rank-{ranks.rank()}.txt")
    for name, case in json.loads(sys.argv[2]).items():
        train(Path(sys.argv[1]) / name, **case)
