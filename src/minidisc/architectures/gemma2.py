"""Gemma 2: Qwen2 with norms behind attention and FFN too."""

import dataclasses

from minidisc.architectures import qwen2

ARCHITECTURE = dataclasses.replace(qwen2.ARCHITECTURE, model_type="gemma2", name="Gemma 2")
