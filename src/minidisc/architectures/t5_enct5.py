"""EncT5: T5 whose decoder reads one learnt prompt."""

import dataclasses

from minidisc.architectures import t5

ARCHITECTURE = dataclasses.replace(t5.ARCHITECTURE, model_type="t5-enct5", decoder_length=1, pools_end_token=False)
