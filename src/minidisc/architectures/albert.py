"""ALBERT."""

from typing import Any

from minidisc.architectures.architecture import Architecture


def _runs(config: Any) -> list[int]:
    """Layers of one group share their weights."""
    # The same rounding as in transformers' AlbertTransformer.
    groups = [int(i / (config.num_hidden_layers / config.num_hidden_groups)) for i in range(config.num_hidden_layers)]
    return [groups.count(group) for group in range(config.num_hidden_groups) for _ in range(config.inner_group_num)]


ARCHITECTURE = Architecture(
    model_type="albert",
    name="ALBERT",
    layers="encoder.albert_layer_groups.*.albert_layers",
    embeddings="embeddings",
    query="attention.query",
    key="attention.key",
    value="attention.value",
    attention_output="attention.dense",
    ffn_up="ffn",
    ffn_down="ffn_output",
    attention="attention",
    attention_norm="LayerNorm",
    runs=_runs,
)
