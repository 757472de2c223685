"""ModernBERT."""

from minidisc.architectures.architecture import Architecture

ARCHITECTURE = Architecture(
    model_type="modernbert",
    name="ModernBERT",
    layers="layers",
    embeddings="embeddings",
    query="attn.Wqkv",
    key="attn.Wqkv",
    value="attn.Wqkv",
    attention_output="attn.Wo",
    ffn_up="mlp.Wi",
    ffn_gate="mlp.Wi",
    ffn_down="mlp.Wo",
    attention="attn",
    # It has no norm before its attention.
    first_layer_differs=True,
    per_layer=("layer_types",),
)
