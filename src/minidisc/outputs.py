"""A network's outputs as losses compare them."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from torch import Tensor

from minidisc.architectures import Architecture
from minidisc.layers import prunable_layers
from minidisc.losses import Outputs

_RELATED = ("query", "key", "value")


class OutputReader:
    """Runs a network and hands back its logits, some hidden states, and perhaps its attention relations.

    Args:
        model: full-width, narrow or nested.
        architecture: its family.
        states: which hidden states, 0 being the embeddings' output.
        relations: whether the queries, keys and values of the last layer that has heads are wanted too.
    """

    def __init__(self, model: Any, architecture: Architecture, states: Sequence[int], relations: bool) -> None:
        self._model = model
        self._states = list(states)
        self._seen: list[dict[str, list[Tensor]]] = []
        self._handles = []
        # Only then: a checkpointed layer runs again in the backward pass.
        self._listening = False
        paths = [getattr(architecture, name) for name in _RELATED]
        for i, layer in enumerate(prunable_layers(model, architecture) if relations else []):
            self._seen.append({name: [] for name in _RELATED})
            for j, (name, path) in enumerate(zip(_RELATED, paths, strict=True)):
                block = paths[:j].count(path), paths.count(path)
                hook = self._hook(self._seen[i][name], *block)
                self._handles.append(attrgetter(path)(layer.module).register_forward_hook(hook))

    def __call__(self, inputs: dict[str, Any]) -> Outputs:
        """One forward pass."""
        self._listening = True
        try:
            output = self._model(**inputs, output_hidden_states=bool(self._states))
        finally:
            self._listening = False
        return Outputs(output.logits, [output.hidden_states[i] for i in self._states], self._relations())

    def close(self) -> None:
        """Stop listening to the model."""
        for handle in self._handles:
            handle.remove()

    def _hook(self, seen: list[Tensor], block: int, blocks: int) -> Any:
        def keep(module: Any, inputs: Any, output: Tensor) -> None:
            if self._listening:
                seen.append(output.chunk(blocks, dim=-1)[block])

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
