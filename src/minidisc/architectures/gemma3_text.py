"""Gemma 3 without its eyes: Gemma 2 with norms, which all heads share, on queries and keys."""

import dataclasses

from minidisc.architectures import gemma2

ARCHITECTURE = dataclasses.replace(gemma2.ARCHITECTURE, model_type="gemma3_text", name="Gemma 3 (text)")
