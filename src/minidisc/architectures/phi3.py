"""Phi-3: Llama with fewer, larger linear maps."""

import dataclasses

from minidisc.architectures import llama

ARCHITECTURE = dataclasses.replace(
    llama.ARCHITECTURE,
    model_type="phi3",
    name="Phi-3",
    query="self_attn.qkv_proj",
    key="self_attn.qkv_proj",
    value="self_attn.qkv_proj",
    ffn_up="mlp.gate_up_proj",
    ffn_gate="mlp.gate_up_proj",
    head_count="num_key_value_heads",
    own_config=True,
)
