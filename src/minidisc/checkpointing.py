"""Activation checkpointing: less memory for the activations, for one more forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint

from minidisc.architectures import Architecture
from minidisc.layers import layers_of


@contextmanager
def checkpointed(model: Any, architecture: Architecture, on: bool = True) -> Iterator[None]:
    """Within the block, a layer keeps its input alone for the backward pass, which runs it again (arXiv 1604.06174).

    Unlike transformers' own, which some families lack, it also works in evaluation mode. Nothing is put into a cache
    of keys and values: a layer that runs twice would put them there twice.

    Args:
        model: full-width, narrow or nested.
        architecture: its family.
        on: whether anything is to be done at all.
    """
    if not on:
        yield
        return
    layers = layers_of(model, architecture)
    configs = {id(part.config): part.config for part in model.modules() if hasattr(part, "config")}
    caching = [config for config in configs.values() if getattr(config, "use_cache", False)]
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    for config in caching:
        config.use_cache = False
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # and the class's is there again
        for config in caching:
            config.use_cache = True
