"""Students with fewer layers, each of full width: the usual alternative to pruning."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import nn

from minidisc.architectures import Architecture
from minidisc.errors import UserError
from minidisc.layers import attentions_of, ffns_of
from minidisc.low_rank import student_state
from minidisc.modeling.classes import build_narrow
from minidisc.subnetworks import SubnetworkSpec, full_width


def kept_layers(layers: int, kept: int) -> list[int]:
    """Which layers stay when ``kept`` of ``layers`` do: every k-th, the last among them."""
    return [round((i + 1) * layers / kept) - 1 for i in range(kept)]


def check_droppable(model: Any, architecture: Architecture) -> None:
    """Refuse a model in which several layers are one, or that has a decoder beside its encoder.

    Raises:
        UserError: no layer can be left out of it.
    """
    if _decodes(model, architecture):
        raise UserError(
            f"a model of family {architecture.model_type!r} has an encoder and a decoder, whose layers cannot be left "
            "out; use --student pruned."
        )
    if architecture.runs is not None:
        raise UserError(
            f"the layers of a model of family {architecture.model_type!r} share their weights, so none can be left "
            "out; use --student pruned."
        )


def is_droppable(model: Any, architecture: Architecture) -> bool:
    """Whether layers of a model can be left out (see `check_droppable`)."""
    return architecture.runs is None and not _decodes(model, architecture)


def _decodes(model: Any, architecture: Architecture) -> bool:
    return any(part.place.decodes for part in ffns_of(model, architecture))


def drop_layers(model: Any, architecture: Architecture, sparsity: float) -> tuple[Any, SubnetworkSpec]:
    """Keep every k-th layer of a full-width model, as many as come nearest to ``sparsity``, at least one.

    Returns:
        See `with_layers`; and the model's widths.

    Raises:
        UserError: see `check_droppable`.
    """
    check_droppable(model, architecture)
    layers = len(attrgetter(architecture.layers)(model.base_model))
    kept = kept_layers(layers, max(1, round(layers * (1 - sparsity))))
    if architecture.first_layer_differs:
        kept[0] = 0
    small = with_layers(model, architecture, kept)
    widths = tuple(small.config.heads_per_layer), tuple(small.config.neurons_per_layer)
    return small, SubnetworkSpec(float(sparsity), *widths)


def with_layers(model: Any, architecture: Architecture, kept: Sequence[int]) -> Any:
    """A copy of a full-width model that has some of its layers.

    Returns:
        A model of the narrow class (see `minidisc.modeling`), on the CPU, in evaluation mode, that shares no memory
        with ``model``.
    """
    layers = attrgetter(architecture.layers)(model.base_model)
    heads = getattr(model.config, architecture.prunable_heads)
    widths = full_width(len(kept), heads, architecture.full_neurons(model.config))
    changes: dict[str, Any] = {architecture.depth: len(kept)}
    for name in architecture.per_layer:
        if (every := getattr(model.config, name, None)) is not None:
            changes[name] = [every[i] for i in kept]
    small = build_narrow(model, widths.heads, widths.neurons, **changes)
    # The same modules under the same names, but for the numbers of the layers.
    shallow = nn.ModuleList([layers[i] for i in kept])
    parent, _, name = architecture.layers.rpartition(".")
    owner = attrgetter(parent)(model.base_model) if parent else model.base_model
    setattr(owner, name, shallow)
    try:
        small.load_state_dict(student_state(model))
    finally:
        setattr(owner, name, layers)
    if getattr(small.config, architecture.scores_by_number, False):
        _keep_scores(small, architecture, kept)
    return small.eval()


@torch.no_grad()
def _keep_scores(small: Any, architecture: Architecture, kept: Sequence[int]) -> None:
    """Make up in the queries for scores being divided by a layer's new number, and not by its old one."""
    for new, (old, part) in enumerate(zip(kept, attentions_of(small, architecture), strict=True)):
        queries = part.rows[0]
        for parameter in queries.linear.parameters():
            queries.blocks(parameter)[0].mul_((new + 1) / (old + 1))
