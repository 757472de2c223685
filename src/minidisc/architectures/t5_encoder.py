"""T5's encoder as a sentence classifier."""

import dataclasses

from minidisc.architectures import t5

ARCHITECTURE = dataclasses.replace(t5.ARCHITECTURE, model_type="t5-encoder", pools_end_token=False)
