"""CamemBERT: RoBERTa with another vocabulary."""

import dataclasses

from minidisc.architectures import roberta

ARCHITECTURE = dataclasses.replace(roberta.ARCHITECTURE, model_type="camembert", name="CamemBERT")
