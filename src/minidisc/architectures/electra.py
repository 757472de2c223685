"""ELECTRA."""

from minidisc.architectures.architecture import Architecture

ARCHITECTURE = Architecture(
    model_type="electra",
    name="ELECTRA",
    layers="encoder.layer",
    embeddings="embeddings",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_output="attention.output.dense",
    ffn_up="intermediate.dense",
    ffn_down="output.dense",
    attention="attention.self",
)
