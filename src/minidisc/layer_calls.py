"""Putting something around every call of a model's layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from minidisc.architectures import Architecture
from minidisc.layers import layers_of


@contextmanager
def wrapped_layers(model: Any, architecture: Architecture, wrap: Callable[[Any], Any]) -> Iterator[None]:
    """Within the block, layers run as ``wrap`` makes them, and keep no keys and values for later tokens.

    Blocks can stand within one another; the inner one's goes around the outer one's.

    Args:
        model: full-width, narrow or nested.
        architecture: its family.
        wrap: from a layer's forward method, what is called instead.
    """
    layers = layers_of(model, architecture)
    # The forward method of an outer block, if there is one, hides the class's.
    before = [layer.__dict__.get("forward") for layer in layers]
    configs = {id(part.config): part.config for part in model.modules() if hasattr(part, "config")}
    caching = [config for config in configs.values() if getattr(config, "use_cache", False)]
    for layer in layers:
        layer.forward = wrap(layer.forward)
    for config in caching:
        config.use_cache = False
    try:
        yield
    finally:
        for layer, own in zip(layers, before, strict=True):
            del layer.forward
            if own is not None:
                layer.forward = own
        for config in caching:
            config.use_cache = True
