"""Qwen3: Qwen2 with norms, which all heads share, on queries and keys."""

import dataclasses

from minidisc.architectures import qwen2

ARCHITECTURE = dataclasses.replace(qwen2.ARCHITECTURE, model_type="qwen3", name="Qwen3")
