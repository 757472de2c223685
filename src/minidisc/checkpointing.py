"""Activation checkpointing: less memory for the activations, for one more forward pass."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint

from minidisc.architectures import Architecture
from minidisc.layer_calls import wrapped_layers


def checkpointed(model: Any, architecture: Architecture, on: bool = True) -> AbstractContextManager[None]:
    """Within the block, a layer keeps its input alone for the backward pass, which runs it again (arXiv 1604.06174).

    Unlike transformers' own, which some families lack, it also works in evaluation mode. Nothing is put into a cache
    of keys and values: a layer that runs twice would put them there twice.

    Args:
        model: full-width, narrow or nested.
        architecture: its family.
        on: whether anything is to be done at all.
    """
    if not on:
        return nullcontext()
    return wrapped_layers(model, architecture, lambda forward: partial(checkpoint, forward, use_reentrant=False))
