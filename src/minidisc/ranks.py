"""The processes of one run, where a launcher (``accelerate launch``, torchrun) has started several.

Started without a launcher there is one, and everything here does nothing. A rank is a process's number; rank 0 alone
writes files and speaks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

from minidisc.errors import CheckFailed, UserError

# Rank 0 may work for hours while the others wait; when a process dies, the launcher ends the others.
_PATIENCE = timedelta(days=1)

T = TypeVar("T")


def world_size() -> int:
    """How many processes the launcher has started."""
    return int(os.environ.get("WORLD_SIZE", 1)) if "RANK" in os.environ else 1


def rank() -> int:
    """The number of this process."""
    return int(os.environ["RANK"]) if world_size() > 1 else 0


def join(device: str) -> None:
    """Meet the other processes of the run, before anything else here is called.

    Args:
        device: ``cpu``, or ``cuda``, of which each process then uses its own.

    Raises:
        UserError: an engine that cannot shard weights on this device.
    """
    if world_size() == 1:
        return
    if device == "cpu" and wanted("FSDP"):
        raise UserError(
            "accelerate has no FSDP on CPUs and would silently run another engine; launch with "
            "examples/accelerate/ddp-cpu.yaml, or on GPUs."
        )
    if wanted("FSDP"):
        if os.environ.get("FSDP_VERSION", "1") != "2":
            raise UserError(
                "minidisc trains under the second version of FSDP alone; set fsdp_version: 2 in accelerate's "
                "configuration, as in examples/accelerate/fsdp2.yaml."
            )
        # The launcher's default is that rank 0 alone has weights until they are sharded; but teachers never are.
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
    import torch
    from accelerate import PartialState

    if device == "cpu" and wanted("DEEPSPEED") and torch.cuda.is_available():
        raise UserError(
            "DeepSpeed takes GPUs where there are some; leave out --device cpu, or hide them (CUDA_VISIBLE_DEVICES=)."
        )
    cpu, backend = what_accelerate_is_told(device)
    PartialState(cpu=cpu, backend=backend, timeout=_PATIENCE)


def what_accelerate_is_told(device: str) -> tuple[bool, str | None]:
    """Whether this is a run on CPUs, and how its processes talk to each other, None being accelerate's own choice.

    accelerate has DeepSpeed on CPUs if it is told of no CPUs and finds nothing else; if told, it silently runs another
    engine.
    """
    if is_deepspeed_on_cpus(device):
        return False, "gloo"
    return device == "cpu", None


def is_deepspeed_on_cpus(device: str) -> bool:
    """Whether several processes train on CPUs under DeepSpeed, of which accelerate must not be told."""
    return device == "cpu" and world_size() > 1 and wanted("DEEPSPEED")


def wanted(engine: str) -> bool:
    """Whether accelerate's launcher was asked for ``FSDP`` or ``DEEPSPEED``."""
    return os.environ.get(f"ACCELERATE_USE_{engine}") == "true"


def have_joined() -> bool:
    """Whether `join` was called, or there is nobody to meet."""
    import torch

    return world_size() == 1 or torch.distributed.is_initialized()


def by_zero(make: Callable[[], T]) -> T:
    """What rank 0 makes, once all have come here, handed to all; its failure is everyone's.

    Raises:
        UserError, CheckFailed, FloatingPointError: what ``make`` raised; RuntimeError in the others for anything else.
    """
    if world_size() == 1:
        return make()
    from torch.distributed import barrier, broadcast_object_list

    barrier()
    failure, made = _attempt(make) if rank() == 0 else (None, None)
    told: list[Any] = [_portable(failure), made]
    broadcast_object_list(told)
    failed = failure or told[0]
    if failed is not None:
        raise failed
    return cast(T, told[1])


def summed(value: float) -> float:
    """The sum of all processes' values, once all have come here, handed to all."""
    if world_size() == 1:
        return value
    from torch.distributed import all_gather_object

    values = [0.0] * world_size()
    all_gather_object(values, value)
    return sum(values)


@contextmanager
def zero_first() -> Iterator[None]:
    """A block that rank 0 runs before the others, who find what it has written; if it fails in one, it fails in all.

    Nothing in the block may wait for other ranks.
    """
    if world_size() == 1:
        yield
        return
    from torch.distributed import all_gather_object

    failures: list[Exception | None] = [None] * world_size()
    own: Exception | None = None
    if rank() > 0:
        all_gather_object(failures, None)
    if failures[0] is None:
        try:
            yield
        except Exception as error:
            own = error
    if rank() == 0:
        all_gather_object(failures, _portable(own))
    if failures[0] is None:
        all_gather_object(failures, _portable(own))
    for failure in (own, *failures):
        if failure is not None:
            raise failure


def _attempt(make: Callable[[], Any]) -> tuple[Exception | None, Any]:
    try:
        return None, make()
    except Exception as error:
        return error, None


def _portable(failure: Exception | None) -> Exception | None:
    """An exception that can be sent to other processes."""
    if failure is None or isinstance(failure, UserError | CheckFailed | FloatingPointError):
        return failure
    return RuntimeError(f"rank {rank()}: {type(failure).__name__}: {failure}")
