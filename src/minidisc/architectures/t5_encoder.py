"""T5's encoder as a sentence classifier."""

import dataclasses

from minidisc.architectures import t5

ARCHITECTURE = dataclasses.replace(
    t5.ARCHITECTURE,
    model_type="t5-encoder",
    name="T5 (encoder)",
    attention_parts=t5.ARCHITECTURE.attention_parts[:1],
    ffn_parts=t5.ARCHITECTURE.ffn_parts[:1],
    pools_end_token=False,
)
