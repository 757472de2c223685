"""The prunable linear layers of a model, found through its family's architecture."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from torch import nn

from minidisc.architectures import Architecture


@dataclass(frozen=True)
class PrunableLayer:
    """The linear maps of one transformer layer that heads and neurons live in."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    attention_output: nn.Linear
    ffn_up: nn.Linear
    ffn_down: nn.Linear


def prunable_layers(model: Any, architecture: Architecture) -> list[PrunableLayer]:
    """All layers of ``model`` (any head, or the base model), first to last."""
    names = PrunableLayer.__dataclass_fields__
    layers = attrgetter(architecture.layers)(model.base_model)
    return [PrunableLayer(**{n: attrgetter(getattr(architecture, n))(layer) for n in names}) for layer in layers]


def head_size(config: Any, architecture: Architecture) -> int:
    """Dimensions of one attention head."""
    return getattr(config, architecture.hidden) // getattr(config, architecture.heads)
