"""T5: transformers' sentence classifier (encoder and decoder) and token classifier (encoder alone)."""

from minidisc.architectures.architecture import Architecture, Parts

ARCHITECTURE = Architecture(
    model_type="t5",
    name="T5",
    layers="encoder.block",
    embeddings="encoder.embed_tokens",
    attention_parts=(
        Parts("encoder.block.*.layer.0.SelfAttention"),
        Parts("decoder.block.*.layer.0.SelfAttention", decodes=True),
        Parts("decoder.block.*.layer.1.EncDecAttention", decodes=True, crosses=True),
    ),
    ffn_parts=(
        Parts("encoder.block.*.layer.1.DenseReluDense"),
        Parts("decoder.block.*.layer.2.DenseReluDense", decodes=True),
    ),
    query="q",
    key="k",
    value="v",
    attention_output="o",
    ffn_up="wi",
    gated_ffn=("wi_0", "wi_1"),
    ffn_down="wo",
    depth="num_layers",
    heads="num_heads",
    head_size="d_kv",
    neurons="d_ff",
    hidden="d_model",
    attention="",
    head_count="n_heads",
    head_width="inner_dim",
    shared_bias="handed on",
    # It holds the position bias of all.
    first_layer_differs=True,
    pools_end_token=True,
    per_layer=("head_order",),
)
