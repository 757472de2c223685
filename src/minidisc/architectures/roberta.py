"""RoBERTa."""

from minidisc.architectures.architecture import Architecture

ARCHITECTURE = Architecture(
    model_type="roberta",
    name="RoBERTa",
    layers="encoder.layer",
    embeddings="embeddings",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_output="attention.output.dense",
    ffn_up="intermediate.dense",
    ffn_down="output.dense",
    attention="attention.self",
    # Positions count from behind the padding's number.
    reserved_positions=lambda config: (config.pad_token_id or 0) + 1,
)
