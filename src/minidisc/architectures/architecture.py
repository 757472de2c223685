"""What has to be known about a model family to make its layers narrower."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Where the prunable parts of a family lie.

    Paths are attribute paths; those of a layer start at the layer. All named parts are ``nn.Linear``. Heads are
    contiguous blocks of rows of ``query``, ``key`` and ``value`` and of columns of ``attention_output``; FFN neurons
    are rows of ``ffn_up`` and columns of ``ffn_down``.
    """

    model_type: str
    """``config.model_type`` of the full-width model."""
    layers: str
    """The list of layers, from the base model (``model.base_model``)."""
    embeddings: str
    """The module, from the base model, whose output enters the first layer (or the projection before it)."""
    query: str
    key: str
    value: str
    attention_output: str
    ffn_up: str
    ffn_down: str
    heads: str = "num_attention_heads"
    """Name of the configuration's number of heads."""
    neurons: str = "intermediate_size"
    """Name of the configuration's number of FFN neurons."""
    hidden: str = "hidden_size"
    """Name of the configuration's hidden size."""
    reserved_positions: int = 0
    """Position embeddings that no token can use."""
