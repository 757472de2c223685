"""A network's outputs as losses compare them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from minidisc.architectures import Architecture
from minidisc.layers import attentions_of
from minidisc.losses import Outputs
from minidisc.modeling.narrow import head_sizes

_RELATED = ("query", "key", "value")
_STATES = ("hidden_states", "encoder_hidden_states", "decoder_hidden_states")


class OutputReader:
    """Runs a network and hands back its logits, some hidden states, and perhaps its attention relations.

    Args:
        model: full-width, narrow or nested.
        architecture: its family.
        states: which hidden states, 0 being the embeddings' output; a decoder's stand behind the encoder's.
        relations: whether the queries, keys and values of the last (encoder) layer that has heads are wanted too.
    """

    def __init__(self, model: Any, architecture: Architecture, states: Sequence[int], relations: bool) -> None:
        self._model = model
        self._states = list(states)
        self._seen: list[dict[str, list[Tensor]]] = []
        self._handles = []
        # Others run the model too, to evaluate it; and a checkpointed layer runs again in the backward pass.
        self._listening = False
        self._interleaved = architecture.interleaved
        paths = [getattr(architecture, name) for name in _RELATED]
        query, other = head_sizes(model.config, architecture.layout)
        sizes = [query, other, other]
        # A decoder's tokens may be others than those of the mask.
        attentions = [part for part in attentions_of(model, architecture) if not part.place.decodes]
        for i, part in enumerate(attentions if relations else []):
            self._seen.append({name: [] for name in _RELATED})
            for j, (name, path) in enumerate(zip(_RELATED, paths, strict=True)):
                blocks = [size for own, size in zip(paths, sizes, strict=True) if own == path]
                hook = self._hook(self._seen[i][name], paths[:j].count(path), blocks)
                self._handles.append(part.module.get_submodule(path).register_forward_hook(hook))

    def __call__(self, inputs: dict[str, Any], engine: Any = None) -> Outputs:
        """One forward pass, through the engine that trains the model if it has to know of it."""
        self._listening = True
        try:
            output = (engine or self._model)(**inputs, output_hidden_states=bool(self._states))
        finally:
            self._listening = False
        found = [output[name] for name in _STATES if output.get(name) is not None]
        states = [state for group in found for state in group]
        return Outputs(_in_full(output.logits), [_in_full(states[i]) for i in self._states], self._relations())

    def close(self) -> None:
        """Stop listening to the model, and forget it: it cannot be run any more."""
        for handle in self._handles:
            handle.remove()
        self._model = None

    def _hook(self, seen: list[Tensor], block: int, sizes: list[int]) -> Any:
        def keep(module: Any, inputs: Any, output: Tensor) -> None:
            if not self._listening:
                return
            heads = output.shape[-1] // sum(sizes)
            if self._interleaved:
                parts = output.unflatten(-1, (heads, sum(sizes))).split(sizes, -1)
                seen.append(parts[block].flatten(-2))
            else:
                seen.append(output.split([heads * size for size in sizes], -1)[block])

        return keep

    def _relations(self) -> list[Tensor]:
        found: list[Tensor] = []
        for seen in self._seen:
            runs = len(seen["value"])
            if runs and seen["value"][-1].numel():
                # In one run of a layer a map of tokens may be used again, behind them, for positions.
                found = [tensors[-(len(tensors) // runs)] for tensors in seen.values()]
            for tensors in seen.values():
                tensors.clear()
        return found


def _in_full(values: Tensor) -> Tensor:
    """In single precision at least, as losses compare them; under autocast a model makes some in half precision."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
