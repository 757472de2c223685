"""OPT."""

from minidisc.architectures.architecture import Architecture

ARCHITECTURE = Architecture(
    model_type="opt",
    name="OPT",
    layers="decoder.layers",
    embeddings="decoder.embed_tokens",
    tables=("decoder.embed_positions",),
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    attention_output="self_attn.out_proj",
    ffn_up="fc1",
    ffn_down="fc2",
    neurons="ffn_dim",
    attention="self_attn",
    head_count="num_heads",
    pools_last_token=True,
    generates=True,
)
