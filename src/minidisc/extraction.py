"""From a prefix of the shared weights to a real, dense, saved network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from minidisc.architectures import STUDENT_PREFIX
from minidisc.files import new_folder
from minidisc.modeling.classes import narrow_classes, narrow_config, write_code_file
from minidisc.subnetworks import SubnetworkSpec


def extract(model: Any, spec: SubnetworkSpec, state: dict[str, torch.Tensor] | None = None) -> Any:
    """Build the dense network of a sub-network.

    Args:
        model: a model ordered by importance, at least as wide as ``spec`` in every layer; not changed.
        spec: what each layer keeps.
        state: weights to use instead of the model's own, same names and shapes.

    Returns:
        A sequence classification model on the CPU, in evaluation mode, that shares no memory with ``model``.
    """
    state = model.state_dict() if state is None else state
    config = narrow_config(model.config, spec.heads, spec.neurons)
    _, model_class = narrow_classes(config.model_type.removeprefix(STUDENT_PREFIX))
    with torch.random.fork_rng(devices=[]):
        small = model_class._from_config(config, attn_implementation=model.config._attn_implementation)
    with torch.no_grad():
        for name, target in small.state_dict().items():
            # Every pruned dimension keeps its first entries, every other one is whole: a slice serves both.
            target.copy_(state[name][tuple(slice(0, n) for n in target.shape)])
    return small.eval()


def save_small(model: Any, tokenizer: Any, folder: Path) -> None:
    """Save a small model in the Hugging Face layout, with its code file and tokenizer; whole or not at all."""
    with new_folder(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        write_code_file(temporary, model.config.model_type.removeprefix(STUDENT_PREFIX))
