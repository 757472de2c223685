"""Qwen2: Llama with biases, and with attention to a window in some layers."""

import dataclasses

from minidisc.architectures import llama

ARCHITECTURE = dataclasses.replace(llama.ARCHITECTURE, model_type="qwen2", name="Qwen2", per_layer=("layer_types",))
