"""DeBERTa-v2 and -v3."""

from typing import Any

from minidisc.architectures.architecture import Architecture


def _positions(config: Any) -> int:
    """Relative positions in both directions, from content to position and from position to content."""
    if not config.relative_attention:
        return 0
    span = getattr(config, "position_buckets", -1)
    if span < 1:
        span = config.max_relative_positions
    if span < 1:
        span = config.max_position_embeddings
    return 2 * span * len(config.pos_att_type or ())


ARCHITECTURE = Architecture(
    model_type="deberta-v2",
    name="DeBERTa-v2, -v3",
    layers="encoder.layer",
    embeddings="embeddings",
    query="attention.self.query_proj",
    key="attention.self.key_proj",
    value="attention.self.value_proj",
    position_rows=("attention.self.pos_key_proj", "attention.self.pos_query_proj"),
    attention_output="attention.output.dense",
    ffn_up="intermediate.dense",
    ffn_down="output.dense",
    attention="attention.self",
    head_count="num_attention_heads",
    positions=_positions,
)
