"""Layers compiled by torch.compile, once for every width that they are trained at.

A whole model would have to be compiled for every candidate; a layer that two candidates have at the same widths, as is
likelier after rounding to a multiple (``--neuron-multiple``), is compiled once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FunctionType, MethodType
from typing import Any

import torch

from minidisc.architectures import Architecture
from minidisc.errors import UserError
from minidisc.layer_calls import wrapped_layers
from minidisc.layers import layers_of

# Of one layer: so many widths, with and without a gradient of its input, for one row and for several.
_VERSIONS = 64
# What transformers calls the hook.
_RECORDER = "output_capturing_hook"


@contextmanager
def compiled(
    model: Any,
    architecture: Architecture,
    on: bool = True,
    backend: str | Callable = "inductor",
) -> Iterator[None]:
    """Within the block, layers whose gradients are wanted run compiled; evaluations do not pay for it.

    Rows may have any length; widths are constants of what is compiled, so that whoever makes kernels knows them.

    Args:
        model: full-width, narrow or nested.
        architecture: its family.
        on: whether anything is to be done at all.
        backend: torch.compile's.

    Raises:
        UserError: if this PyTorch, or this machine, cannot.
    """
    if not on:
        yield
        return
    check_compilation()
    from torch._dynamo import config
    from torch._dynamo.exc import BackendCompilerFailed

    recorders = _Recorders(layers_of(model, architecture))

    def wrap(forward: Any) -> Any:
        fast = torch.compile(_apart(forward), backend=backend, dynamic=True)

        def run(*args: Any, **kwargs: Any) -> Any:
            if not torch.is_grad_enabled():
                return forward(*args, **kwargs)
            recorders.take_out()
            return fast(*args, **kwargs)

        return run

    limits = {"recompile_limit": _VERSIONS, "accumulated_recompile_limit": 100_000}
    with config.patch(limits), wrapped_layers(model, architecture, wrap):
        try:
            yield
        except BackendCompilerFailed as error:
            reason = str(error.inner_exception).strip().partition("\n")[0]
            raise UserError(f"--compile failed on this machine: {reason}; go on without, by --resume.") from error
        finally:
            recorders.put_back()


def _apart(forward: Any) -> Any:
    """A layer's forward method with code of its own.

    torch keeps what it compiles with the code, and tries all of it at every call; layers of a class have the same.
    """
    if not isinstance(forward, MethodType):
        return forward
    old: Any = forward.__func__
    new = FunctionType(old.__code__.replace(), old.__globals__, old.__name__, old.__defaults__, old.__closure__)
    new.__kwdefaults__ = old.__kwdefaults__
    return MethodType(new, forward.__self__)


class _Recorders:
    """Hooks inside of layers with which transformers records attention maps, for which nobody asks here.

    It puts them there in the first pass from which any other outputs are wanted. Where one is, what is compiled falls
    into pieces.
    """

    def __init__(self, layers: Iterable[Any]) -> None:
        self._inside = [module for layer in layers for module in layer.modules() if module is not layer]
        self._taken: list[tuple[Any, int, Any]] = []
        self._looked = False

    def take_out(self) -> None:
        """Look for them, once, when a layer is about to run."""
        if self._looked:
            return
        self._looked = True
        for module in self._inside:
            for key, hook in list(module._forward_hooks.items()):
                if getattr(hook, "__name__", "") == _RECORDER:
                    self._taken.append((module, key, module._forward_hooks.pop(key)))

    def put_back(self) -> None:
        """Leave the layers as they were."""
        for module, key, hook in self._taken:
            module._forward_hooks[key] = hook


def check_compilation() -> None:
    """Refuse ``--compile`` where PyTorch is too old for it.

    Raises:
        UserError: then.
    """
    from torch._dynamo import config

    if not hasattr(config, "accumulated_recompile_limit"):
        raise UserError(f"--compile needs a newer PyTorch than {torch.__version__}; 2.11 will do. Or leave it out.")
