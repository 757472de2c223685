"""A transformer whose layers have their own numbers of attention heads and FFN neurons.

Made by minidisc (https://arxiv.org/abs/2205.14570). This file needs nothing but torch and transformers: a copy of
it travels with every saved model, so that ``trust_remote_code=True`` loads it where minidisc is not installed.
"""

import warnings
from collections import Counter
from functools import cache
from typing import Any, ClassVar

from torch import nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D


class NarrowModel:
    """Mixed in before a transformers model class: builds the full width, then makes each layer narrow.

    ``layout`` names the parts of the family, as attribute paths. The configuration's ``heads_per_layer`` and
    ``neurons_per_layer`` say what each layer keeps; a layer may keep none and then passes its input on. Of an
    encoder-decoder model they have an entry for every attention and for every FFN. ``embedding_rank`` is that of the
    word embeddings, if it is lower than their width.
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
        if config.embedding_rank:
            thin_embeddings(self, config.embedding_rank)
        self.post_init()  # type: ignore[attr-defined]


def make_narrow(model: Any, layout: dict[str, Any], heads_per_layer: list[int], neurons_per_layer: list[int]) -> None:
    """Replace the prunable linear maps of ``model`` by freshly initialised narrower ones, in place."""
    head_size, _ = head_sizes(model.config, layout)
    adapt_attention(model, layout)
    for part, heads in zip(modules_at(model, layout["attentions"]), heads_per_layer, strict=True):
        for path, sizes in head_rows(part, layout, model.config).items():
            _replace(part, path, outputs=heads * sum(sizes))
        _replace(part, layout["attention_output"], inputs=heads * head_size)
        set_heads(part, layout, heads, model.config)
    for part, neurons in zip(modules_at(model, layout["ffns"]), neurons_per_layer, strict=True):
        for path, sizes in neuron_rows(part, layout).items():
            _replace(part, path, outputs=neurons * sum(sizes))
        _replace(part, layout["ffn_down"], inputs=neurons)


class ThinEmbedding(nn.Embedding):
    """An embedding of low rank: a table of few numbers a row, and a linear map that makes ``hidden`` of them."""

    def __init__(self, rows: int, rank: int, hidden: int, padding_idx: int | None = None) -> None:
        super().__init__(rows, rank, padding_idx)
        self.expand = nn.Linear(rank, hidden, bias=False)

    def forward(self, input: Any) -> Any:
        """Map (...) to (..., hidden)."""
        return self.expand(super().forward(input))


def thin_embeddings(model: Any, rank: int) -> None:
    """Replace the word embeddings of ``model`` by freshly initialised ones of low rank, in place."""
    old = model.base_model.get_input_embeddings()
    new = ThinEmbedding(old.num_embeddings, rank, old.embedding_dim, old.padding_idx)
    model.base_model.set_input_embeddings(new.to(old.weight.device, old.weight.dtype))


class EmptyLinear(nn.Linear):
    """An ``nn.Linear`` without inputs, which torch's dynamic quantisation, looking for that very class, leaves alone.

    Its kernels would hand back whatever memory happens to hold.
    """


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


class Mixin:
    """What is mixed in before the class of a module that is there: pickle finds the outcome by its two halves."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Made anew from both, and then filled."""
        return _made_of, type(self).__bases__, vars(self)


class HeadsOptional(Mixin):
    """Mixed in before an attention class: without heads, its output has no dimensions.

    Several kernels for attention fail then, or hand back nothing at all. ``output_map`` is the name of the linear map
    that takes the output, where that is a part of the class, and ``output_norm`` that of the norm of its sum with the
    input, likewise.
    """

    kept_heads: int | None = None
    output_map: str = ""
    output_norm: str = ""

    def forward(self, hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
        """Attend, if there are heads to attend with."""
        if self.kept_heads == 0:
            # Some caches are asked in every layer for the tokens so far: one key of a single number for each.
            keys = hidden_states.new_zeros(hidden_states.shape[0], 1, hidden_states.shape[1], 1)
            past = kwargs.get("past_key_values", kwargs.get("layer_past"))
            if past is not None:
                keys, _ = past.update(keys, keys, self.layer_idx)  # type: ignore[attr-defined]
            output = hidden_states.new_zeros(*hidden_states.shape[:-1], 0)
            if self.output_map:
                output = getattr(self, self.output_map)(output)
            if self.output_norm:
                output = getattr(self, self.output_norm)(hidden_states + output)
            return output, _weights_of_no_head(self, hidden_states, keys.shape[2])
        return super().forward(hidden_states, *args, **kwargs)  # type: ignore[misc]


def _weights_of_no_head(attention: Any, hidden_states: Any, keys: int) -> Any:
    """Weights for so many keys, (rows, 0, tokens, keys), as entries of ``attentions``; None if others have none."""
    # DeBERTa has no other kind of attention, and so no configuration to name it.
    config = getattr(attention, "config", None)
    if getattr(config, "_attn_implementation", "eager") != "eager":
        return None
    rows, tokens, _ = hidden_states.shape
    return hidden_states.new_zeros(rows, 0, tokens, keys)


class OwnBias(Mixin):
    """Mixed in before an attention class whose ``position_bias`` holds all heads of the full width, for all layers.

    ``bias_heads`` are the layer's heads as the bias counts them, the ``kept_heads`` that are left first.
    """

    bias_heads: list[int]
    kept_heads: int | None = None

    def forward(self, hidden_states: Any, attention_mask: Any = None, position_bias: Any = None, **kwargs: Any) -> Any:
        """Attend with the biases of the layer's own heads."""
        position_bias = position_bias[:, self.bias_heads[: self.kept_heads]]
        return super().forward(hidden_states, attention_mask, position_bias, **kwargs)  # type: ignore[misc]


class OwnBiasHandedOn(Mixin):
    """Mixed in before an attention class that makes or takes a ``position_bias`` of all heads, and hands it on.

    ``bias_heads`` and ``kept_heads`` are those of `OwnBias`. Cross-attention has no bias. Without heads, a layer hands
    on the bias all the same.
    """

    bias_heads: list[int]
    kept_heads: int | None = None

    def forward(
        self,
        hidden_states: Any,
        mask: Any = None,
        key_value_states: Any = None,
        position_bias: Any = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Attend with the biases of the layer's own heads."""
        layer: Any = self
        if position_bias is None and layer.has_relative_attention_bias:
            past = past_key_values.get_seq_length(layer.layer_idx) if past_key_values is not None else 0
            length = hidden_states.shape[1]
            position_bias = layer.compute_bias(length, past + length, hidden_states.device, past)
        if self.kept_heads == 0:
            others = hidden_states if key_value_states is None else key_value_states
            weights = _weights_of_no_head(self, hidden_states, others.shape[1])
            return layer.o(hidden_states.new_zeros(*hidden_states.shape[:-1], 0)), position_bias, weights
        own = None if position_bias is None else position_bias[:, self.bias_heads[: self.kept_heads]]
        output, _, weights = super().forward(  # type: ignore[misc]
            hidden_states, mask, key_value_states, own, past_key_values, **kwargs
        )
        return output, position_bias, weights


_BIAS = {"given": OwnBias, "handed on": OwnBiasHandedOn}


def adapt_attention(model: Any, layout: dict[str, Any]) -> None:
    """Swap the classes of attention modules for some that can have other heads, or none, in place.

    The configuration's ``head_order`` says, for each layer, which head of the original model each one is.
    """
    order = getattr(model.config, "head_order", None)
    for i, part in enumerate(modules_at(model, layout["attentions"])):
        attention = part.get_submodule(layout["attention"])
        if layout["shared_bias"]:
            _mix_in(attention, _BIAS[layout["shared_bias"]])
            attention.bias_heads = list(order[i] if order else range(getattr(model.config, layout["heads"])))
        else:
            _mix_in(attention, HeadsOptional)
            owner, _, name = layout["attention_output"].rpartition(".")
            attention.output_map = name if owner == layout["attention"] else ""
            attention.output_norm = layout["attention_norm"]


def _mix_in(module: Any, mixin: type) -> None:
    if not isinstance(module, mixin):
        own: Any = type(module)
        module.__class__ = _mixed(mixin, own)


@cache
def _mixed(mixin: Any, base: Any) -> Any:
    return type(mixin.__name__ + base.__name__, (mixin, base), {})


def _made_of(mixin: Any, base: Any) -> Any:
    made = _mixed(mixin, base)
    return made.__new__(made)


def set_heads(part: Any, layout: dict[str, Any], heads: int, config: Any) -> None:
    """Tell an attention module how many heads it has; ``config`` is the model's."""
    attention = part.get_submodule(layout["attention"])
    attention.kept_heads = heads
    if layout["head_count"]:
        setattr(attention, layout["head_count"], heads)
    if layout["head_width"]:
        setattr(attention, layout["head_width"], heads * head_sizes(config, layout)[0])
    if layout["own_config"]:
        queries = getattr(config, layout["heads"]) // getattr(config, layout["prunable_heads"])
        attention.config = OwnHeads(config, {layout["heads"]: heads * queries})


class OwnHeads:
    """A model's configuration as one attention sees it: with its own number of heads, all else as it is by then."""

    def __init__(self, shared: Any, own: dict[str, int]) -> None:
        vars(self).update(own, shared=shared)

    def __getattr__(self, name: str) -> Any:
        if name == "shared":  # of a copy that is not filled yet
            raise AttributeError(name)
        return getattr(self.shared, name)


def modules_at(model: Any, paths: tuple[str, ...]) -> list[Any]:
    """The modules at paths from the base model, in which ``*`` stands for every member of a list.

    What a model lacks, such as a decoder, is left out.
    """
    found = []
    for path in paths:
        modules = [model.base_model]
        for name in path.split("."):
            children = [child for m in modules for child in (m if name == "*" else [getattr(m, name, None)])]
            modules = [child for child in children if child is not None]
        found += modules
    return found


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


def head_rows(part: Any, layout: dict[str, Any], config: Any) -> dict[str, tuple[int, ...]]:
    """Where in an attention the linear maps are whose rows are heads.

    Returns:
        For each of them, of which blocks its rows consist, one behind the other: how many rows a head has in each.
    """
    query, other = head_sizes(config, layout)
    found: dict[str, tuple[int, ...]] = {}
    for path, size in zip(layout["head_rows"], (query, other, other), strict=True):
        found[path] = (*found.get(path, ()), size)
    if layout["interleaved"]:
        found = {path: (sum(sizes),) for path, sizes in found.items()}
    return found | {path: (other,) for path in layout["position_rows"] if _has(part, path)}


def neuron_rows(part: Any, layout: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Where in an FFN the linear maps are whose rows are neurons, and their blocks as in `head_rows`."""
    counts = Counter(path for path in layout["neuron_rows"] if _has(part, path))
    return {path: (1,) * blocks for path, blocks in counts.items()}


def _has(module: Any, path: str) -> bool:
    owner, _, name = path.rpartition(".")
    return hasattr(module.get_submodule(owner), name)


def _replace(part: Any, path: str, inputs: int | None = None, outputs: int | None = None) -> None:
    parent, _, name = path.rpartition(".")
    owner = part.get_submodule(parent)
    old = getattr(owner, name)
    now_out, now_in = outputs_first(old, old.weight).shape
    new_out, new_in = now_out if outputs is None else outputs, now_in if inputs is None else inputs
    kind = nn.Linear if new_in else EmptyLinear
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
        new = (
            TransposedLinear(new_out, new_in)
            if isinstance(old, Conv1D)
            else kind(new_in, new_out, bias=old.bias is not None)
        )
    setattr(owner, name, new.to(old.weight.device, old.weight.dtype))
