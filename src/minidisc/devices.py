"""Which device a run uses."""

from __future__ import annotations

import torch

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
