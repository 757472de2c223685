"""One weight-shared network that holds every sub-network as a prefix of its layers.

Sub-networks run on slices of the shared weights: measured at 1.04 times the cost of separately built small models,
where masks cost 2.4 times.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minidisc import slices
from minidisc.architectures import Architecture
from minidisc.importance import Importance
from minidisc.layers import Rows, attentions_of, ffns_of, split_rows
from minidisc.modeling.narrow import Conv1D, adapt_attention, outputs_first, set_heads
from minidisc.sharing import SharedOutputs
from minidisc.subnetworks import SubnetworkSpec


class Nested:
    """A linear map of which only ``active_out`` heads or neurons, and ``active_in`` columns, are used: the first ones.

    ``None`` means all of them. Its rows consist of blocks, in each of which a head or neuron has so many rows as
    ``sizes`` says; those used are the first of each. If there is one such block, gradients are added up by
    `minidisc.slices` with ``adds_up``, and outputs may be ``shared`` by passes of which the widest uses ``most``.
    An existing map becomes one by having its class swapped, so that parameter names, saved files and optimisers do
    not notice.
    """

    weight: Any
    bias: Any
    active_out: int | None = None
    active_in: int | None = None
    sizes: tuple[int, ...] = (1,)
    adds_up: bool = False
    shared: SharedOutputs | None = None
    most: int = 0

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., active_in) to (..., active_out · the sum of ``sizes``)."""
        if self.shared is not None and self.active_out is not None and self.shared.reads(input):
            return self.shared.first(self, self.active_out * self.sizes[0], partial(self._map, input, self.most))
        return self._map(input, self.active_out)

    def _map(self, input: Tensor, count: int | None) -> Tensor:
        if self.adds_up and len(self.sizes) == 1 and slices.can_add(self.weight, self.bias):
            rows = None if count is None else count * self.sizes[0]
            return slices.linear(input, self.weight, self.bias, rows, self.active_in, isinstance(self, Conv1D))
        bias = None if self.bias is None else self._first_rows(self.bias, count)
        return F.linear(input, self._first_rows(self.weight, count)[:, : self.active_in], bias)

    def _first_rows(self, parameter: Tensor, count: int | None) -> Tensor:
        parameter = outputs_first(self, parameter)
        if count is None:
            return parameter
        blocks = split_rows(parameter, self.sizes)
        parts = [block[: count * size] for block, size in zip(blocks, self.sizes, strict=True)]
        return torch.cat(parts) if len(parts) > 1 else parts[0]


class NestedLinear(Nested, nn.Linear):
    """An ``nn.Linear`` of which a part is used."""


class NestedConv1D(Nested, Conv1D):
    """transformers' ``Conv1D``, of which a part is used."""


def _nest(linear: Any, sizes: tuple[int, ...] = (1,)) -> None:
    linear.__class__ = NestedConv1D if isinstance(linear, Conv1D) else NestedLinear
    linear.sizes = sizes


class NestedNetwork:
    """Switches a model between its sub-networks and lets them share what they can in a step.

    Args:
        model: ordered by importance (see `order_by_importance`); its classes are changed in place, its weights not.
        architecture: the family of the model.
    """

    def __init__(self, model: Any, architecture: Architecture) -> None:
        self.model = model
        self._attentions = attentions_of(model, architecture)
        self._parts: list[Any] = [*self._attentions, *ffns_of(model, architecture)]
        for part in self._parts:
            for rows in part.rows:
                _nest(rows.linear, rows.sizes)
            _nest(part.down)
        # Asked now: an engine may leave each process with a part of the weights, whose shape says nothing.
        self._widths = [part.width for part in self._parts]
        self._layout = architecture.layout
        adapt_attention(model, self._layout)
        embeddings = attrgetter(architecture.embeddings)(model.base_model)
        self._embed = embeddings.forward
        self._shared: SharedOutputs | None = None
        embeddings.forward = self._embed_or_share

    def activate(self, spec: SubnetworkSpec | None) -> None:
        """Make every following forward pass use ``spec``; ``None`` is the full width."""
        widths = self._widths if spec is None else [*spec.heads, *spec.neurons]
        for part, width in zip(self._parts, widths, strict=True):
            for rows in part.rows:
                rows.linear.active_out = None if spec is None else width
            part.down.active_in = width * part.size
        for part, width in zip(self._attentions, widths, strict=False):
            set_heads(part.module, self._layout, width, self.model.config)

    @contextmanager
    def one_step(self, specs: Sequence[SubnetworkSpec] = ()) -> Iterator[None]:
        """Within the block are the passes of one step, forward and backward, all with the same inputs.

        What they compute alike (see `minidisc.sharing`) the first pass computes, and the others use it again:
        gradients of all passes are collected there and sent on once, at the end of the block. Those of the layers'
        weights are added up past autograd (see `minidisc.slices.linear`), which is nothing for an engine that waits
        for them.

        Args:
            specs: the sub-networks that the passes use; without them embeddings alone are shared.
        """
        self._shared = SharedOutputs()
        try:
            self._let_add_up(True)
            if len(specs) > 1:
                self._let_share(specs)
            yield
            self._shared.send_back()
        finally:
            self._let_add_up(False)
            self._let_share(())
            self._shared = None

    def _let_add_up(self, on: bool) -> None:
        for part in self._parts:
            for linear in (*(rows.linear for rows in part.rows), part.down):
                linear.adds_up = on

    def _let_share(self, specs: Sequence[SubnetworkSpec]) -> None:
        for number, part in enumerate(self._attentions):
            for rows in part.rows:
                rows.linear.shared = self._shared if specs and len(rows.sizes) == 1 else None
                rows.linear.most = max((spec.heads[number] for spec in specs), default=0)

    def _embed_or_share(self, *args: Any, **kwargs: Any) -> Tensor:
        if self._shared is None:
            return self._embed(*args, **kwargs)
        return self._shared.embedded(partial(self._embed, *args, **kwargs))


@torch.no_grad()
def order_by_importance(model: Any, architecture: Architecture, importance: Importance) -> None:
    """Permute heads and neurons of every layer, most important first; the network's function stays the same.

    Args:
        model: changed in place.
        architecture: the family of the model.
        importance: scores of this very model.
    """
    if architecture.shared_bias:
        every = range(importance.heads.shape[1])
        before = getattr(model.config, "head_order", None) or [list(every)] * len(importance.heads)
        orders = importance.heads.argsort(dim=1, descending=True, stable=True).tolist()
        model.config.head_order = [[old[h] for h in new] for old, new in zip(before, orders, strict=True)]
        adapt_attention(model, architecture.layout)
    for parts, scores in (
        (attentions_of(model, architecture), importance.heads),
        (ffns_of(model, architecture), importance.neurons),
    ):
        for part, own in zip(parts, scores, strict=True):
            order = own.argsort(descending=True, stable=True)[: part.width].to(part.down.weight.device)
            for rows in part.rows:
                _permute_rows(rows, order)
            _permute_columns(part.down, order, part.size)


def _permute_rows(rows: Rows, order: Tensor) -> None:
    for parameter in rows.linear.parameters():
        for block, size in zip(rows.blocks(parameter), rows.sizes, strict=True):
            block.copy_(block[_dimensions(order, size)])


def _permute_columns(linear: Any, order: Tensor, size: int) -> None:
    weight = outputs_first(linear, linear.weight)
    weight.copy_(weight[:, _dimensions(order, size)])


def _dimensions(order: Tensor, size: int) -> Tensor:
    """The places of dimensions, for the places of what has ``size`` of them each."""
    return (order[:, None] * size + torch.arange(size, device=order.device)).flatten()
