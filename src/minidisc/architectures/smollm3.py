"""SmolLM3: Qwen2 in which some layers do not turn queries and keys by their positions."""

import dataclasses

from minidisc.architectures import qwen2

ARCHITECTURE = dataclasses.replace(
    qwen2.ARCHITECTURE, model_type="smollm3", name="SmolLM3", per_layer=("layer_types", "no_rope_layers")
)
