"""Students with fewer layers, each of full width: the usual alternative to pruning."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from torch import nn

from minidisc.architectures import Architecture
from minidisc.modeling.classes import build_narrow
from minidisc.subnetworks import SubnetworkSpec, full_width


def kept_layers(layers: int, kept: int) -> list[int]:
    """Which layers stay when ``kept`` of ``layers`` do: every k-th, the last among them."""
    return [round((i + 1) * layers / kept) - 1 for i in range(kept)]


def drop_layers(model: Any, architecture: Architecture, sparsity: float) -> tuple[Any, SubnetworkSpec]:
    """Keep every k-th layer of a full-width model, as many as come nearest to ``sparsity``, at least one.

    Returns:
        A model of the narrow class (see `minidisc.modeling`), on the CPU, in evaluation mode, that shares no memory
        with ``model``; and its widths.
    """
    layers = attrgetter(architecture.layers)(model.base_model)
    kept = kept_layers(len(layers), max(1, round(len(layers) * (1 - sparsity))))
    heads, neurons = getattr(model.config, architecture.heads), getattr(model.config, architecture.neurons)
    widths = full_width(len(kept), heads, neurons)
    small = build_narrow(model, widths.heads, widths.neurons, **{architecture.depth: len(kept)})
    # The same modules under the same names, but for the numbers of the layers.
    shallow = nn.ModuleList([layers[i] for i in kept])
    parent, _, name = architecture.layers.rpartition(".")
    owner = attrgetter(parent)(model.base_model) if parent else model.base_model
    setattr(owner, name, shallow)
    try:
        small.load_state_dict(model.state_dict())
    finally:
        setattr(owner, name, layers)
    return small.eval(), SubnetworkSpec(float(sparsity), widths.heads, widths.neurons)
