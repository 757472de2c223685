"""What has to be known about a model family to make its layers narrower."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Parts:
    """Attentions or FFNs that lie at a path.

    ``decodes`` says whether its tokens are the decoder's, ``crosses`` whether it attends to the encoder's from there,
    ``needed`` whether it has to keep a head, since nothing else brings the input to the output.
    """

    path: str
    decodes: bool = False
    crosses: bool = False
    needed: bool = False


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Where the prunable parts of a family lie.

    Paths are attribute paths; those of a layer start at the layer. All parts from ``query`` to ``ffn_down`` are
    ``nn.Linear``, or transformers' ``Conv1D``, which stores the transposed weights. Heads are contiguous blocks of
    rows of ``query``, ``key`` and ``value`` and of columns of ``attention_output``; FFN neurons are rows of ``ffn_up``
    (and ``ffn_gate``) and columns of ``ffn_down``. Where several parts are one linear map, such as
    [query | key | value], they have the same path.

    Where several query heads share a key and a value head, all of them are pruned together: everywhere but in the
    configuration, a head is then such a group.
    """

    model_type: str
    """``config.model_type`` of the full-width model."""
    name: str
    """What people call the family."""
    layers: str
    """The list of layers, from the base model (``model.base_model``); ``*`` stands for every member of a list.

    Of an encoder-decoder model: of its encoder's layers.
    """
    embeddings: str
    """The module, from the base model, whose output enters the first layer (or the projection before it).

    Where the base model itself sums several embeddings, the one of tokens, if it runs once in a pass; else what
    follows the sum. ``tables`` then names the others that hold parameters.
    """
    tables: tuple[str, ...] = ()
    """Further modules, from the base model, whose parameters are embeddings."""
    query: str
    key: str
    value: str
    attention_output: str
    ffn_up: str
    ffn_down: str
    attention: str
    """The attention module, which is passed over where it has no heads."""
    attention_norm: str = ""
    """The norm, from that module, that it applies to the sum of its input and its output, if it does."""
    attention_parts: tuple[Parts, ...] = ()
    """Where attentions lie, if layers do not have one each: the paths of one, and ``attention``, start there."""
    ffn_parts: tuple[Parts, ...] = ()
    """Where FFNs lie, if layers do not have one each: the paths of one start there."""
    decoder_length: int | None = None
    """Tokens that a decoder reads; if nothing is said, as many as the encoder."""
    position_rows: tuple[str, ...] = ()
    """Linear maps of positions whose rows are heads; a model may lack them."""
    interleaved: bool = False
    """Whether, in one linear map for query, key and value, each head's rows of all three stand together."""
    ffn_gate: str = ""
    """The linear map whose output is multiplied with that of ``ffn_up``, if there is one."""
    gated_ffn: tuple[str, ...] = ()
    """Both of these, where a model may have them instead of ``ffn_up``."""
    depth: str = "num_hidden_layers"
    """Name of the configuration's number of layers."""
    heads: str = "num_attention_heads"
    """Name of the configuration's number of (query) heads."""
    key_value_heads: str = ""
    """Name of the configuration's number of key and value heads, if query heads may share them."""
    head_size: str = ""
    """Name of the configuration's dimensions of a query, where heads times these may differ from the hidden size."""
    neurons: str = "intermediate_size"
    """Name of the configuration's number of FFN neurons (see `full_neurons`)."""
    hidden: str = "hidden_size"
    """Name of the configuration's hidden size."""
    reserved_positions: Callable[[Any], int] | None = None
    """From the configuration, how many position embeddings no token can use, if any."""
    head_count: str = ""
    """Name of the attention's attribute that holds the number of heads, if it has to be set."""
    head_width: str = ""
    """Name of its attribute that holds the number of heads times their size, if it has to be set."""
    own_config: bool = False
    """Whether the attention reads the number of its (query) heads from its ``config``: it then gets one of its own."""
    shared_bias: Literal["", "given", "handed on"] = ""
    """Whether its scores get a ``position_bias`` of every head of the full width added, the same in all layers.

    It is given to every layer; or the first one computes it, and each hands it on to the next.
    """
    first_layer_differs: bool = False
    """Whether the first layer has or lacks something that others do not, so that none of them can take its place."""
    scores_by_number: str = ""
    """Name of the configuration's switch that divides a layer's scores by the layer's number, if there is one."""
    runs: Callable[[Any], list[int]] | None = None
    """From the configuration, how often each of the ``layers`` runs in one pass; once, if nothing is said."""
    positions: Callable[[Any], int] | None = None
    """From the configuration, how many relative positions each head compares with every token, if any."""
    pools_end_token: bool = False
    """Whether a sentence gets its label from the configuration's end token, which every row has to hold."""
    pools_last_token: bool = False
    """Whether a sentence gets its label from the last token that is not the configuration's padding."""
    generates: bool = False
    """Whether the family has causal language models."""
    per_layer: tuple[str, ...] = ()
    """Names of the configuration's lists that hold one entry for each layer."""

    @property
    def prunable_heads(self) -> str:
        """Name of the configuration's number of heads that can be pruned."""
        return self.key_value_heads or self.heads

    def full_neurons(self, config: Any) -> int:
        """FFN neurons of the full width; where the configuration says None (GPT-2), four times the hidden size."""
        return getattr(config, self.neurons) or 4 * getattr(config, self.hidden)

    @property
    def pools_late(self) -> bool:
        """Whether a sentence gets its label from its last token: an end token stands there, too."""
        return self.pools_last_token or self.pools_end_token

    @property
    def plain_if_uniform(self) -> bool:
        """Whether transformers' own class can have as many heads and neurons in every layer as are kept."""
        return bool(self.head_size) and not self.shared_bias

    @property
    def attentions(self) -> tuple[Parts, ...]:
        """Where the attentions lie, from the base model."""
        return self.attention_parts or (Parts(f"{self.layers}.*"),)

    @property
    def ffns(self) -> tuple[Parts, ...]:
        """Where the FFNs lie, from the base model."""
        return self.ffn_parts or (Parts(f"{self.layers}.*"),)

    @property
    def body(self) -> tuple[str, ...]:
        """Where layers (the lists of them) and embeddings lie, from the base model."""
        lists = (parts.path.partition(".*")[0] for parts in (*self.attentions, *self.ffns))
        return tuple(dict.fromkeys((*lists, self.embeddings, *self.tables)))

    @property
    def layout(self) -> dict[str, Any]:
        """What a small model has to know of its family (see `minidisc.modeling.narrow`)."""
        return {
            "attentions": tuple(parts.path for parts in self.attentions),
            "ffns": tuple(parts.path for parts in self.ffns),
            "head_rows": (self.query, self.key, self.value),
            "interleaved": self.interleaved,
            "position_rows": self.position_rows,
            "attention_output": self.attention_output,
            "neuron_rows": tuple(path for path in (self.ffn_up, self.ffn_gate, *self.gated_ffn) if path),
            "ffn_down": self.ffn_down,
            "heads": self.heads,
            "prunable_heads": self.prunable_heads,
            "head_size": self.head_size,
            "hidden": self.hidden,
            "attention": self.attention,
            "attention_norm": self.attention_norm,
            "head_count": self.head_count,
            "head_width": self.head_width,
            "own_config": self.own_config,
            "shared_bias": self.shared_bias,
        }
