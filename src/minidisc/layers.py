"""The prunable linear layers of a model, found through its family's architecture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from minidisc.architectures import Architecture, Parts
from minidisc.modeling.narrow import head_rows, head_sizes, modules_at, neuron_rows


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
class Part:
    """One attention or one FFN, and the linear maps that its heads or neurons live in.

    ``down`` has ``size`` columns for each of them; ``place`` says which tokens the part sees.
    """

    module: Any
    place: Parts
    rows: list[Rows]
    down: nn.Linear
    size: int = 1

    @property
    def width(self) -> int:
        """Its heads or neurons."""
        return self.down.in_features // self.size


def attentions_of(model: Any, architecture: Architecture) -> list[Part]:
    """All attentions of ``model`` (any head, or the base model); in families of plain layers, first layer to last."""
    layout, size = architecture.layout, head_sizes(model.config, architecture.layout)[0]
    return [
        Part(
            module,
            parts,
            [
                Rows(module.get_submodule(path), *numbers)
                for path, numbers in head_rows(module, layout, model.config).items()
            ],
            module.get_submodule(architecture.attention_output),
            size,
        )
        for parts in architecture.attentions
        for module in modules_at(model, (parts.path,))
    ]


def ffns_of(model: Any, architecture: Architecture) -> list[Part]:
    """All FFNs of ``model`` (any head, or the base model); in families of plain layers, first layer to last."""
    layout = architecture.layout
    return [
        Part(
            module,
            parts,
            [Rows(module.get_submodule(path), blocks) for path, blocks in neuron_rows(module, layout).items()],
            module.get_submodule(architecture.ffn_down),
        )
        for parts in architecture.ffns
        for module in modules_at(model, (parts.path,))
    ]


def set_dropout(model: nn.Module, probability: float) -> None:
    """Give every dropout of ``model`` the same probability."""
    modules: Iterator[Any] = model.modules()
    for module in modules:
        if isinstance(module, nn.Dropout):
            module.p = probability
        # Some attention classes keep the number itself.
        for name in ("attention_dropout", "dropout"):
            if isinstance(getattr(module, name, None), float | int):
                setattr(module, name, probability)
