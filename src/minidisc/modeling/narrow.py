"""A transformer whose layers have their own numbers of attention heads and FFN neurons.

Made by minidisc (https://arxiv.org/abs/2205.14570). This file needs nothing but torch and transformers: a copy of
it travels with every saved model, so that ``trust_remote_code=True`` loads it where minidisc is not installed.
"""

import warnings
from collections import Counter
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, ClassVar

from torch import nn


class NarrowModel:
    """Mixed in before a transformers model class: builds the full width, then makes each layer narrow.

    ``layout`` names the parts of the family, as attribute paths. The configuration's ``heads_per_layer`` and
    ``neurons_per_layer`` say what each layer keeps; a layer may keep none and then passes its input on.
    """

    layout: ClassVar[dict[str, Any]] = {}

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)  # type: ignore[call-arg]
        make_narrow(self, self.layout, config.heads_per_layer, config.neurons_per_layer)
        self.post_init()  # type: ignore[attr-defined]


def make_narrow(model: Any, layout: dict[str, Any], heads_per_layer: list[int], neurons_per_layer: list[int]) -> None:
    """Replace the prunable linear maps of ``model`` by freshly initialised narrower ones, in place."""
    config = model.config
    head_size = getattr(config, layout["hidden"]) // getattr(config, layout["heads"])
    for layer, heads, neurons in zip(layers_of(model, layout), heads_per_layer, neurons_per_layer, strict=True):
        for path, blocks in blocks_of(layer, layout["head_rows"]).items():
            _replace(layer, path, outputs=blocks * heads * head_size)
        _replace(layer, layout["attention_output"], inputs=heads * head_size)
        for path, blocks in blocks_of(layer, layout["neuron_rows"]).items():
            _replace(layer, path, outputs=blocks * neurons)
        _replace(layer, layout["ffn_down"], inputs=neurons)


def layers_of(model: Any, layout: dict[str, Any]) -> list[Any]:
    """The layers of a model, first to last."""
    head, _, tail = layout["layers"].partition(".*.")
    members = attrgetter(head)(model.base_model)
    return [layer for group in members for layer in attrgetter(tail)(group)] if tail else list(members)


def blocks_of(layer: Any, paths: Sequence[str]) -> dict[str, int]:
    """The linear maps at ``paths``, and how many equal blocks of rows each has: as many as paths lead to it."""
    return dict(Counter(paths))


def _replace(layer: Any, path: str, inputs: int | None = None, outputs: int | None = None) -> None:
    parent, _, name = path.rpartition(".")
    owner = attrgetter(parent)(layer) if parent else layer
    old = getattr(owner, name)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
        new = nn.Linear(
            old.in_features if inputs is None else inputs,
            old.out_features if outputs is None else outputs,
            bias=old.bias is not None,
            device=old.weight.device,
            dtype=old.weight.dtype,
        )
    setattr(owner, name, new)
