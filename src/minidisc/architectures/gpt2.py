"""GPT-2."""

from minidisc.architectures.architecture import Architecture

ARCHITECTURE = Architecture(
    model_type="gpt2",
    name="GPT-2",
    layers="h",
    # The body adds embeddings of tokens, positions and token types, the first and the last from one table.
    embeddings="drop",
    tables=("wte", "wpe"),
    query="attn.c_attn",
    key="attn.c_attn",
    value="attn.c_attn",
    attention_output="attn.c_proj",
    ffn_up="mlp.c_fc",
    ffn_down="mlp.c_proj",
    depth="n_layer",
    neurons="n_inner",
    attention="attn",
    head_width="split_size",
    scores_by_number="scale_attn_by_inverse_layer_idx",
    pools_last_token=True,
    generates=True,
)
