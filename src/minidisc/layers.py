"""The prunable linear layers of a model, found through its family's architecture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from torch import nn

from minidisc.architectures import Architecture
from minidisc.modeling.narrow import head_rows, head_sizes, layers_of


@dataclass(frozen=True)
class Rows:
    """A linear map whose rows are heads or neurons.

    They consist of so many equal ``blocks``: three for [query | key | value], two for [up | gate], else one. In every
    block a head or neuron has ``size`` rows.
    """

    linear: nn.Linear
    blocks: int
    size: int = 1


@dataclass(frozen=True)
class PrunableLayer:
    """The linear maps of one transformer layer that heads and neurons live in."""

    module: nn.Module
    head_rows: list[Rows]
    attention_output: nn.Linear
    neuron_rows: list[Rows]
    ffn_down: nn.Linear


def prunable_layers(model: Any, architecture: Architecture) -> list[PrunableLayer]:
    """All layers of ``model`` (any head, or the base model), first to last."""
    layout = architecture.layout
    return [
        PrunableLayer(
            module=layer,
            head_rows=[
                Rows(attrgetter(path)(layer), *numbers)
                for path, numbers in head_rows(layer, layout, model.config).items()
            ],
            attention_output=attrgetter(architecture.attention_output)(layer),
            neuron_rows=[
                Rows(attrgetter(path)(layer), blocks) for path, blocks in Counter(layout["neuron_rows"]).items()
            ],
            ffn_down=attrgetter(architecture.ffn_down)(layer),
        )
        for layer in layers_of(model, layout)
    ]


def set_dropout(model: nn.Module, probability: float) -> None:
    """Give every dropout of ``model`` the same probability."""
    modules: Iterator[Any] = model.modules()
    for module in modules:
        if isinstance(module, nn.Dropout):
            module.p = probability
        # Some attention classes keep the number itself.
        if isinstance(getattr(module, "attention_dropout", None), float | int):
            module.attention_dropout = probability


def head_size(config: Any, architecture: Architecture) -> int:
    """Dimensions of one head in the attention's output."""
    return head_sizes(config, architecture.layout)[0]
