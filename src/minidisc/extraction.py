"""From a prefix of the shared weights to a real, dense, saved network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from minidisc.architectures import STUDENT_PREFIX, architecture_for
from minidisc.files import new_folder
from minidisc.layers import attentions_of, ffns_of
from minidisc.modeling.classes import build_narrow, write_code_file
from minidisc.subnetworks import SubnetworkSpec


def extract(model: Any, spec: SubnetworkSpec, state: dict[str, torch.Tensor] | None = None) -> Any:
    """Build the dense network of a sub-network.

    Args:
        model: a model ordered by importance, at least as wide as ``spec`` in every layer; not changed.
        spec: what each layer keeps.
        state: weights to use instead of the model's own, same names and shapes.

    Returns:
        A model with the head of ``model``, on the CPU, in evaluation mode, that shares no memory with it.
    """
    state = model.state_dict() if state is None else state
    small = build_narrow(model, spec.heads, spec.neurons)
    architecture = architecture_for(model.config.model_type.removeprefix(STUDENT_PREFIX))
    blocks = {
        id(parameter): rows.blocks
        for part in (*attentions_of(small, architecture), *ffns_of(small, architecture))
        for rows in part.rows
        for parameter in rows.linear.parameters()
    }
    with torch.no_grad():
        for name, target in small.state_dict(keep_vars=True).items():
            count = blocks.get(id(target), 1)
            for block, source in zip(target.chunk(count), state[name].chunk(count), strict=True):
                # Every pruned dimension keeps its first entries, every other one is whole: a slice serves both.
                block.copy_(source[tuple(slice(0, n) for n in block.shape)])
    return small.eval()


def save_small(model: Any, tokenizer: Any, folder: Path) -> None:
    """Save a small model in the Hugging Face layout, with its code file and tokenizer; whole or not at all."""
    with new_folder(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        write_code_file(temporary, model)
