"""What this process holds in memory, and giving back what it no longer needs."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from typing import Any

import torch
from torch import nn

HOLES = 0.2
"""How much larger than it has to be the heap may grow where batches differ in length (see `HeapGuard`)."""

# Large tensors in pages of 2 MiB, where the system gives them to those who ask: fewer pages come anew, and fewer holes
# are left. torch asks for them if this is there before its first tensor.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def resident_memory() -> int:
    """Bytes of this process that are in memory now; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="utf-8") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def available_memory() -> int | None:
    """Bytes that processes can still have without swapping; None where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="utf-8") as file:
            found = next((line for line in file if line.startswith("MemAvailable:")), None)
    except OSError:
        return None
    return int(found.split()[1]) * 1024 if found else None


def release_memory() -> None:
    """Hand what is free back to the system, and to the device.

    glibc keeps freed memory below the last block that is in use, and a phase that comes later and asks for other
    sizes would come on top of it.
    """
    gc.collect()
    trim_heap()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def trim_heap() -> None:
    """Hand the free pages of main memory alone back to the system, where glibc keeps them."""
    if sys.platform == "linux":
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)(0)


class HeapGuard:
    """Keeps main memory from growing step by step, or batch by batch.

    Batches of ever other lengths leave holes that glibc neither fills nor gives back. They are given back once memory
    has grown by `HOLES` over what the largest batch so far has left, which for that starts without holes. Doing so
    more often has its price, since pages come anew then: docs/benchmarks.md has what each costs in time and memory.
    """

    def __init__(self) -> None:
        # What is there at the beginning is another phase's.
        self._level, self._largest, self._trimmed = 0, 0, False

    def step(self, size: int) -> None:
        """Call before every step; ``size`` is the number of its tokens, padding included."""
        now = resident_memory()
        if self._trimmed:
            # What a step leaves behind that the next one uses again.
            self._level = max(self._level, now)
        self._trimmed = size > self._largest or self._has_grown(now)
        self._largest = max(self._largest, size)
        if self._trimmed:
            trim_heap()

    def part(self) -> None:
        """Call before a part of a step whose tensors are larger than those of the parts before."""
        if self._trimmed or self._has_grown(resident_memory()):
            trim_heap()

    def _has_grown(self, now: int) -> bool:
        return now > (1 + HOLES) * self._level


def free_weights(model: Any) -> None:
    """Drop the weights of a model and keep everything else: it can tell its shape, but not run.

    See `give_weights`. Buffers stay, for not all of them are in files.
    """
    freed: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter not in freed:
                freed[parameter] = nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
            if parameter is not None:
                # Weights with two names stay one.
                module._parameters[name] = freed[parameter]
    freed.clear()
    release_memory()


def give_weights(model: Any, source: Any) -> None:
    """Let a model whose weights were dropped use those of ``source``, another of its class."""
    # The parameters themselves, so that weights with two names are one.
    model.load_state_dict(source.state_dict(keep_vars=True), assign=True)


def is_freed(model: Any) -> bool:
    """Whether the weights of a model were dropped."""
    return next(model.parameters()).is_meta
