"""Which device a run uses, and which precision on it."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from minidisc.errors import UserError


def resolve_device(name: str) -> torch.device:
    """The device of ``auto``, ``cpu``, ``cuda`` or ``mps``; ``auto`` takes an accelerator where there is one.

    Raises:
        UserError: a device that this machine, or this build of torch, does not have.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, available in there.items() if available))
    if not there[name]:
        raise UserError(f"--device is {name}, but torch sees none here; use --device auto or cpu.")
    return torch.device(name)


# How many times faster a linear map has to be in bf16 to be worth its rounding. On a CPU the casts around it count:
# with AVX512-BF16 the map is twice as fast, a step of MiniLM's sandwich 1.2 times.
_WORTH = {"cpu": 3.0, "cuda": 1.2, "mps": 1.2}
# Rows and width of that map: enough to fill the device.
_TIMED = {"cpu": (256, 256), "cuda": (8192, 2048), "mps": (8192, 2048)}


@cache
def resolve_precision(name: str, device: torch.device) -> str:
    """The precision of ``auto``, ``fp32`` or ``bf16``; ``auto`` is bf16 where a linear map is faster in it.

    What a processor is called says little: many take bf16 and are ten times slower with it.
    """
    if name != "auto":
        return name
    rows, width = _TIMED[device.type]
    linear, inputs = nn.Linear(width, 4 * width).to(device), torch.ones(rows, width, device=device)
    try:
        times = [_seconds(linear, inputs, half) for _ in range(7) for half in (False, True)]
    except RuntimeError:  # a device without bf16
        return "fp32"
    return "bf16" if min(times[::2]) >= _WORTH[device.type] * min(times[1::2]) else "fp32"


def _seconds(linear: nn.Linear, inputs: torch.Tensor, half: bool) -> float:
    """Of a pass through the map and back; on a CPU those of the processor, which other work leaves alone."""
    clock = time.process_time if inputs.device.type == "cpu" else time.perf_counter
    begin = clock()
    with torch.enable_grad(), torch.autocast(inputs.device.type, torch.bfloat16, enabled=half):
        gradient = torch.autograd.grad(linear(inputs).sum(), linear.weight)[0]
    gradient[0, 0].item()  # waits for the device
    return clock() - begin


def moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the CPU on a device. Nobody waits for a GPU to take it, which does so after what it is doing."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def attention_kernels() -> AbstractContextManager[None]:
    """Within the block, attention on a GPU does without cuDNN, which plans every new shape of it anew.

    On an H100, ten candidates of BERT-base's shape took up to 0.9 seconds more for a batch of a new length.
    """
    if not torch.cuda.is_available():
        return nullcontext()
    return sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])
