"""MPNet."""

from minidisc.architectures.architecture import Architecture

ARCHITECTURE = Architecture(
    model_type="mpnet",
    name="MPNet",
    layers="encoder.layer",
    embeddings="embeddings",
    query="attention.attn.q",
    key="attention.attn.k",
    value="attention.attn.v",
    attention_output="attention.attn.o",
    ffn_up="intermediate.dense",
    ffn_down="output.dense",
    # Positions count from behind a padding that is 1, whatever the configuration says.
    reserved_positions=lambda config: 2,
    attention="attention.attn",
    head_width="all_head_size",
    shared_bias="given",
    per_layer=("head_order",),
)
