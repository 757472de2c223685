"""Layers compiled by torch.compile, once for every width that they are trained at.

A whole model would have to be compiled for every candidate; a layer that two candidates have at the same widths, as is
likelier after rounding to a multiple (``--neuron-multiple``), is compiled once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from minidisc.architectures import Architecture
from minidisc.errors import UserError
from minidisc.layer_calls import wrapped_layers

# Of one layer: so many widths, with and without a gradient of its input, for one row and for several.
_VERSIONS = 64


@contextmanager
def compiled(
    model: Any,
    architecture: Architecture,
    on: bool = True,
    backend: str | Callable = "inductor",
    mode: str | None = None,
) -> Iterator[None]:
    """Within the block, layers whose gradients are wanted run compiled; evaluations do not pay for it.

    Rows may have any length; widths are constants of what is compiled, so that whoever makes kernels knows them.

    Args:
        model: full-width, narrow or nested.
        architecture: its family.
        on: whether anything is to be done at all.
        backend: torch.compile's.
        mode: torch.compile's.

    Raises:
        UserError: if this PyTorch, or this machine, cannot.
    """
    if not on:
        yield
        return
    check_compilation()
    from torch._dynamo import config
    from torch._dynamo.exc import BackendCompilerFailed

    options: dict[str, Any] = {"dynamic": True, "recompile_limit": _VERSIONS, "isolate_recompiles": True}

    def wrap(forward: Any) -> Any:
        fast = torch.compile(forward, backend=backend, mode=mode, **options)
        return lambda *args, **kwargs: (fast if torch.is_grad_enabled() else forward)(*args, **kwargs)

    # All layers run the same code, for which torch counts them together.
    with config.patch(accumulated_recompile_limit=100_000), wrapped_layers(model, architecture, wrap):
        try:
            yield
        except BackendCompilerFailed as error:
            reason = str(error.inner_exception).strip().partition("\n")[0]
            raise UserError(f"--compile failed on this machine: {reason}; go on without, by --resume.") from error


def check_compilation() -> None:
    """Refuse ``--compile`` where PyTorch is too old for it.

    Raises:
        UserError: then.
    """
    if "isolate_recompiles" not in inspect.signature(torch.compile).parameters:
        raise UserError(f"--compile needs a newer PyTorch than {torch.__version__}; 2.13 will do. Or leave it out.")
