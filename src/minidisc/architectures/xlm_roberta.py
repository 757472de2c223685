"""XLM-RoBERTa: RoBERTa with another vocabulary."""

import dataclasses

from minidisc.architectures import roberta

ARCHITECTURE = dataclasses.replace(roberta.ARCHITECTURE, model_type="xlm-roberta", name="XLM-RoBERTa")
