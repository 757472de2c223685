"""A transformer whose layers have their own numbers of attention heads and FFN neurons.

Made by minidisc (https://arxiv.org/abs/2205.14570). This file needs nothing but torch and transformers: a copy of
it travels with every saved model, so that ``trust_remote_code=True`` loads it where minidisc is not installed.
"""

import copy
import warnings
from collections import Counter
from operator import attrgetter
from typing import Any, ClassVar

from torch import nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D


class NarrowModel:
    """Mixed in before a transformers model class: builds the full width, then makes each layer narrow.

    ``layout`` names the parts of the family, as attribute paths. The configuration's ``heads_per_layer`` and
    ``neurons_per_layer`` say what each layer keeps; a layer may keep none and then passes its input on.
    """

    layout: ClassVar[dict[str, Any]] = {}

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        if self.can_generate():  # type: ignore[attr-defined]
            for layer in counting_layers(config):
                if not config.heads_per_layer[layer]:
                    raise ValueError(
                        f"layer {layer} has no attention head: the length of its key-value cache is what generation "
                        "takes for the number of tokens so far; keep one at least."
                    )
        own_class = type(config)
        # Decoders' classifiers find the class of their body by that of the configuration: here, the family's own.
        config.__class__ = own_class.__bases__[0]
        try:
            super().__init__(config, *args, **kwargs)  # type: ignore[call-arg]
        finally:
            config.__class__ = own_class
        make_narrow(self, self.layout, config.heads_per_layer, config.neurons_per_layer)
        self.post_init()  # type: ignore[attr-defined]


def make_narrow(model: Any, layout: dict[str, Any], heads_per_layer: list[int], neurons_per_layer: list[int]) -> None:
    """Replace the prunable linear maps of ``model`` by freshly initialised narrower ones, in place."""
    head_size, _ = head_sizes(model.config, layout)
    adapt_attention(model, layout)
    for layer, heads, neurons in zip(layers_of(model, layout), heads_per_layer, neurons_per_layer, strict=True):
        for path, sizes in head_rows(layer, layout, model.config).items():
            _replace(layer, path, outputs=heads * sum(sizes))
        _replace(layer, layout["attention_output"], inputs=heads * head_size)
        for path, blocks in Counter(layout["neuron_rows"]).items():
            _replace(layer, path, outputs=blocks * neurons)
        _replace(layer, layout["ffn_down"], inputs=neurons)
        set_heads(layer, layout, heads, model.config)


class TransposedLinear(Conv1D):
    """transformers' ``Conv1D``, a linear map whose weights are (inputs, outputs), that may have no inputs."""

    def forward(self, values: Any) -> Any:
        """Map (..., inputs) to (..., outputs)."""
        return functional.linear(values, self.weight.T, self.bias)


def outputs_first(linear: Any, parameter: Any) -> Any:
    """A linear map's weights as (outputs, inputs), or its bias; a view."""
    return parameter.T if isinstance(linear, Conv1D) and parameter.dim() == 2 else parameter


def inputs_of(linear: Any) -> int:
    """How many inputs a linear map has."""
    return outputs_first(linear, linear.weight).shape[1]


class HeadsOptional:
    """Mixed in before an attention class that fails without heads, and then hands on an output without dimensions.

    ``output_map`` is the name of the linear map that takes this output, where that is a part of the class.
    """

    kept_heads: int | None = None
    output_map: str = ""

    def forward(self, hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
        """Attend, if there are heads to attend with."""
        if self.kept_heads == 0:
            nothing = hidden_states.new_zeros(*hidden_states.shape[:-1], 0)
            return getattr(self, self.output_map)(nothing) if self.output_map else nothing, None
        return super().forward(hidden_states, *args, **kwargs)  # type: ignore[misc]


class OwnBias:
    """Mixed in before an attention class whose ``position_bias`` holds all heads of the full width, for all layers.

    ``bias_heads`` are the layer's heads as the bias counts them, the ``kept_heads`` that are left first.
    """

    bias_heads: list[int]
    kept_heads: int | None = None

    def forward(self, hidden_states: Any, attention_mask: Any = None, position_bias: Any = None, **kwargs: Any) -> Any:
        """Attend with the biases of the layer's own heads."""
        position_bias = position_bias[:, self.bias_heads[: self.kept_heads]]
        return super().forward(hidden_states, attention_mask, position_bias, **kwargs)  # type: ignore[misc]


def adapt_attention(model: Any, layout: dict[str, Any]) -> None:
    """Swap the classes of attention modules that cannot have other heads without help, in place.

    The configuration's ``head_order`` says, for each layer, which head of the original model each one is.
    """
    order = getattr(model.config, "head_order", None)
    for i, layer in enumerate(layers_of(model, layout)):
        if layout["needs_heads"]:
            attention = attrgetter(layout["attention"])(layer)
            _mix_in(attention, HeadsOptional)
            owner, _, name = layout["attention_output"].rpartition(".")
            attention.output_map = name if owner == layout["attention"] else ""
        if layout["shared_bias"]:
            attention = attrgetter(layout["attention"])(layer)
            _mix_in(attention, OwnBias)
            attention.bias_heads = list(order[i] if order else range(getattr(model.config, layout["heads"])))


def _mix_in(module: Any, mixin: type) -> None:
    if not isinstance(module, mixin):
        module.__class__ = type(mixin.__name__ + type(module).__name__, (mixin, type(module)), {})


def set_heads(layer: Any, layout: dict[str, Any], heads: int, config: Any) -> None:
    """Tell a layer's attention module how many heads it has, if it has to be told; ``config`` is the model's."""
    if layout["attention"]:
        attention = attrgetter(layout["attention"])(layer)
        attention.kept_heads = heads
        if layout["head_count"]:
            setattr(attention, layout["head_count"], heads)
        if layout["head_width"]:
            setattr(attention, layout["head_width"], heads * head_sizes(config, layout)[0])
        if layout["own_config"]:
            queries = getattr(config, layout["heads"]) // getattr(config, layout["prunable_heads"])
            attention.config = copy.copy(config)
            setattr(attention.config, layout["heads"], heads * queries)


def layers_of(model: Any, layout: dict[str, Any]) -> list[Any]:
    """The layers of a model, first to last."""
    head, _, tail = layout["layers"].partition(".*.")
    members = attrgetter(head)(model.base_model)
    return [layer for group in members for layer in attrgetter(tail)(group)] if tail else list(members)


def counting_layers(config: Any) -> list[int]:
    """Layers whose key-value cache tells generation how many tokens there were: the first of each kind."""
    kinds = getattr(config, "layer_types", None) or [""]
    return sorted(kinds.index(kind) for kind in set(kinds))


def head_sizes(config: Any, layout: dict[str, Any]) -> tuple[int, int]:
    """Dimensions that a head has in queries and in the attention's output, and those that it has in keys and values.

    Query heads that share a key head are one head.
    """
    queries = getattr(config, layout["heads"])
    size = getattr(config, layout["head_size"], None) or getattr(config, layout["hidden"]) // queries
    return queries // getattr(config, layout["prunable_heads"]) * size, size


def head_rows(layer: Any, layout: dict[str, Any], config: Any) -> dict[str, tuple[int, ...]]:
    """Where in a layer the linear maps are whose rows are heads.

    Returns:
        For each of them, of which blocks its rows consist, one behind the other: how many rows a head has in each.
    """
    query, other = head_sizes(config, layout)
    found: dict[str, tuple[int, ...]] = {}
    for path, size in zip(layout["head_rows"], (query, other, other), strict=True):
        found[path] = (*found.get(path, ()), size)
    if layout["interleaved"]:
        found = {path: (sum(sizes),) for path, sizes in found.items()}
    for path in layout["position_rows"]:
        owner, _, name = path.rpartition(".")
        if hasattr(attrgetter(owner)(layer), name):
            found[path] = (other,)
    return found


def _replace(layer: Any, path: str, inputs: int | None = None, outputs: int | None = None) -> None:
    parent, _, name = path.rpartition(".")
    owner = attrgetter(parent)(layer) if parent else layer
    old = getattr(owner, name)
    now_out, now_in = outputs_first(old, old.weight).shape
    new_out, new_in = now_out if outputs is None else outputs, now_in if inputs is None else inputs
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
        new = (
            TransposedLinear(new_out, new_in)
            if isinstance(old, Conv1D)
            else nn.Linear(new_in, new_out, bias=old.bias is not None)
        )
    setattr(owner, name, new.to(old.weight.device, old.weight.dtype))
