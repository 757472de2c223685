"""Gemma: Llama with scaled embeddings."""

import dataclasses

from minidisc.architectures import llama

ARCHITECTURE = dataclasses.replace(llama.ARCHITECTURE, model_type="gemma", name="Gemma")
