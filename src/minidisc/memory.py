"""What this process holds in memory, and giving back what it no longer needs."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from typing import Any

import torch
from torch import nn

HOLES = 0.1
"""How much larger than it has to be the heap may grow where batches differ in length (see `HeapGuard`)."""


def resident_memory() -> int:
    """Bytes of this process that are in memory now; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="utf-8") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


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

    Batches of ever other lengths leave holes that glibc neither fills nor gives back: a sandwich of MiniLM grew from
    1.2 to 2.6 GiB in 200 steps. To give them back once memory has grown by a tenth has its price, since pages that
    come anew are slow: 15 % of the processor time of 60 such steps on one machine (1.14 to 1.21 seconds a step for
    1.02 to 1.07, 1.4 GiB for 1.8; four runs with and three without), and about 4 % on another (one run each).
    """

    def __init__(self) -> None:
        # What is there at the beginning is another phase's.
        self._level, self._trimmed = 0, False

    def step(self) -> None:
        """Call before every step, or every larger part of one."""
        now = resident_memory()
        if self._trimmed:
            # What a step leaves behind that the next one uses again.
            self._level, self._trimmed = max(self._level, now), False
        if now > (1 + HOLES) * self._level:
            trim_heap()
            self._trimmed = True


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
