"""DistilBERT."""

from minidisc.architectures.architecture import Architecture

ARCHITECTURE = Architecture(
    model_type="distilbert",
    name="DistilBERT",
    layers="transformer.layer",
    embeddings="embeddings",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    attention_output="attention.out_lin",
    ffn_up="ffn.lin1",
    ffn_down="ffn.lin2",
    attention="attention",
    depth="n_layers",
    heads="n_heads",
    neurons="hidden_dim",
    hidden="dim",
)
