"""EncT5: T5 whose decoder reads one learnt prompt."""

import dataclasses

from minidisc.architectures import t5

*_SELF, _CROSS = t5.ARCHITECTURE.attention_parts
ARCHITECTURE = dataclasses.replace(
    t5.ARCHITECTURE,
    model_type="t5-enct5",
    name="EncT5",
    attention_parts=(*_SELF, dataclasses.replace(_CROSS, needed=True)),
    decoder_length=1,
    pools_end_token=False,
)
