"""GPT-NeoX and Pythia."""

from minidisc.architectures.architecture import Architecture

ARCHITECTURE = Architecture(
    model_type="gpt_neox",
    name="GPT-NeoX, Pythia",
    layers="layers",
    embeddings="embed_in",
    query="attention.query_key_value",
    key="attention.query_key_value",
    value="attention.query_key_value",
    interleaved=True,
    attention_output="attention.dense",
    ffn_up="mlp.dense_h_to_4h",
    ffn_down="mlp.dense_4h_to_h",
    attention="attention",
    pools_last_token=True,
    generates=True,
)
