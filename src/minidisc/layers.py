"""The prunable linear layers of a model, found through its family's architecture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from torch import nn

from minidisc.architectures import Architecture
from minidisc.modeling.narrow import head_rows, layers_of


@dataclass(frozen=True)
class PrunableLayer:
    """The linear maps of one transformer layer that heads and neurons live in.

    ``head_rows`` and ``neuron_rows`` are linear maps whose rows are heads or neurons, each with the number of equal
    blocks that its rows consist of: three for [query | key | value], two for [up | gate], else one.
    """

    module: nn.Module
    head_rows: list[tuple[nn.Linear, int]]
    attention_output: nn.Linear
    neuron_rows: list[tuple[nn.Linear, int]]
    ffn_down: nn.Linear


def prunable_layers(model: Any, architecture: Architecture) -> list[PrunableLayer]:
    """All layers of ``model`` (any head, or the base model), first to last."""
    layout = architecture.layout

    def linears(layer: nn.Module, blocks: dict[str, int]) -> list[tuple[nn.Linear, int]]:
        return [(attrgetter(path)(layer), count) for path, count in blocks.items()]

    return [
        PrunableLayer(
            module=layer,
            head_rows=linears(layer, head_rows(layer, layout)),
            attention_output=attrgetter(architecture.attention_output)(layer),
            neuron_rows=linears(layer, Counter(layout["neuron_rows"])),
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
    """Dimensions of one attention head."""
    return getattr(config, architecture.hidden) // getattr(config, architecture.heads)
