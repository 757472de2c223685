"""Llama."""

from minidisc.architectures.architecture import Architecture

ARCHITECTURE = Architecture(
    model_type="llama",
    name="Llama",
    layers="layers",
    embeddings="embed_tokens",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    attention_output="self_attn.o_proj",
    ffn_up="mlp.up_proj",
    ffn_gate="mlp.gate_proj",
    ffn_down="mlp.down_proj",
    key_value_heads="num_key_value_heads",
    head_size="head_dim",
    attention="self_attn",
    pools_last_token=True,
    generates=True,
)
