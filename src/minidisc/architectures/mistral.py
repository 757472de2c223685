"""Mistral: Llama with attention to a window."""

import dataclasses

from minidisc.architectures import llama

ARCHITECTURE = dataclasses.replace(llama.ARCHITECTURE, model_type="mistral", name="Mistral")
