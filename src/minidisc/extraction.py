"""From a prefix of the shared weights to a real, dense, saved network."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from minidisc.architectures import STUDENT_PREFIX, architecture_for
from minidisc.files import new_folder
from minidisc.layers import attentions_of, ffns_of
from minidisc.low_rank import student_state
from minidisc.modeling.classes import build_narrow, build_plain
from minidisc.subnetworks import SubnetworkSpec

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Of saved weights."""
# Not max_length, which is what transformers' models generate.
_LENGTH = "minidisc_max_length"


def extract(model: Any, spec: SubnetworkSpec, state: dict[str, torch.Tensor] | None = None) -> Any:
    """Build the dense network of a sub-network.

    Args:
        model: a model ordered by importance, at least as wide as ``spec`` in every layer; not changed. With ``state``
            its width does not matter.
        spec: what each layer keeps.
        state: weights to use instead of the model's own, with the same names; then these have to be wide enough.

    Returns:
        A model with the head of ``model``, on the CPU, in evaluation mode, that shares no memory with it.
    """
    state = student_state(model) if state is None else state
    small = build_narrow(model, spec.heads, spec.neurons)
    architecture = architecture_for(model.config.model_type.removeprefix(STUDENT_PREFIX))
    of_rows = {
        id(parameter): rows
        for part in (*attentions_of(small, architecture), *ffns_of(small, architecture))
        for rows in part.rows
        for parameter in rows.linear.parameters()
    }
    with torch.no_grad():
        for name, target in small.state_dict(keep_vars=True).items():
            rows, source = of_rows.get(id(target)), state[name]
            pairs = zip(rows.blocks(target), rows.blocks(source), strict=True) if rows else [(target, source)]
            for narrow, wide in pairs:
                # Every pruned dimension keeps its first entries, every other one is whole: a slice serves both.
                narrow.copy_(wide[tuple(slice(0, n) for n in narrow.shape)])
    return small.eval()


def round_weights(model: Any, dtype: str) -> bool:
    """Give a model the weights, still in fp32, that it will have once it was saved in a key of `DTYPES`.

    Returns:
        Whether it has them; nothing is changed where some are beyond the range.
    """
    if dtype == "fp32":
        return True
    with torch.no_grad():
        rounded = [parameter.to(DTYPES[dtype]) for parameter in model.parameters()]
        if not all(values.isfinite().all() for values in rounded):
            return False
        for parameter, values in zip(model.parameters(), rounded, strict=True):
            parameter.copy_(values)
    return True


def save_small(model: Any, tokenizer: Any, folder: Path, dtype: str = "fp32") -> None:
    """Save a small model in the Hugging Face layout, with its tokenizer; whole or not at all.

    It is saved as a model of transformers' own if it can be one (see `build_plain`), else with its code file.

    Args:
        model: in fp32; not changed.
        tokenizer: its tokenizer.
        folder: is replaced if it is there.
        dtype: a key of `DTYPES`.
    """
    with new_folder(folder, replaces=True) as temporary:
        write_small(model, tokenizer, temporary, dtype)


def write_small(model: Any, tokenizer: Any, folder: Path, dtype: str = "fp32") -> None:
    """The files of `save_small`, one by one into a folder that is there."""
    save_model(build_plain(model) or model, folder, dtype)
    tokenizer.save_pretrained(folder)


def note_length(model: Any, length: float) -> None:
    """Have a model's configuration say how many tokens the rows were cut to that it was trained on."""
    setattr(model.config, _LENGTH, int(length))


def noted_length(config: Any) -> int | None:
    """What `note_length` has noted, if it has."""
    length = getattr(config, _LENGTH, None)
    return length if isinstance(length, int) and length > 0 else None


def save_model(model: Any, folder: Path, dtype: str = "fp32") -> None:
    """Save a model; its configuration keeps keys and values again, if `load_model` has told it not to."""
    if dtype != "fp32":
        model = copy.deepcopy(model).to(DTYPES[dtype])
    if not getattr(model, "saved_with_cache", False):
        model.save_pretrained(folder)
        return
    model.config.use_cache = True
    try:
        model.save_pretrained(folder)
    finally:
        model.config.use_cache = False
