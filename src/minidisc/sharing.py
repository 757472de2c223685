"""What all sub-networks of a step compute alike, once: the embeddings, and what the first layer makes of them.

A narrower sub-network's queries are the first of a wider one's, if both are of the same hidden state. That is so in
the first layer alone, and only where nothing stands between it and the embeddings: in families that normalise behind
an attention, such as BERT, not before it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.autograd.graph import saved_tensors_hooks


class SharedOutputs:
    """Outputs that passes of one step have in common, each computed by the first pass that needs it.

    A pass gets them cut off from what made them, and its gradients are collected there; `send_back` sends them on.
    """

    def __init__(self) -> None:
        self._made: list[tuple[Tensor, Tensor]] = []
        self._embedded: Tensor | None = None
        self._of_maps: dict[Any, Tensor] = {}

    def embedded(self, embed: Callable[[], Tensor]) -> Tensor:
        """The embeddings' output, as ``embed`` gives it."""
        if self._embedded is None:
            self._embedded = self._cut_off(embed())
        return self._embedded

    def reads(self, input: Tensor) -> bool:
        """Whether this is the embeddings' output itself; never on a GPU, for which nobody has measured the gain."""
        return input is self._embedded and input.device.type == "cpu"

    def first(self, name: Any, count: int, compute: Callable[[], Tensor]) -> Tensor:
        """The first of a map's outputs, (..., count).

        Args:
            name: of the map.
            count: how many this pass uses.
            compute: gives as many as the widest pass uses, (..., most).
        """
        if name not in self._of_maps:
            # Not for a checkpoint to compute again, which counts what a layer's every pass keeps.
            with saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor):
                self._of_maps[name] = self._cut_off(compute())
        return cast(Tensor, _First.apply(self._of_maps[name], count))

    def send_back(self) -> None:
        """Send the passes' gradients through what made the outputs, the last that was made first."""
        for made, handed_out in reversed(self._made):
            if handed_out.grad is not None:
                made.backward(handed_out.grad)

    def _cut_off(self, made: Tensor) -> Tensor:
        handed_out = made.detach()
        if made.requires_grad:
            handed_out.requires_grad_()
            self._made.append((made, handed_out))
        return handed_out


class _First(torch.autograd.Function):
    """The first features of a leaf; gradients are added there, where autograd would make one as large as the leaf."""

    @staticmethod
    def forward(ctx: Any, whole: Tensor, count: int) -> Tensor:
        ctx.whole = whole
        return whole[..., :count]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        if ctx.whole.grad is None:
            ctx.whole.grad = torch.zeros_like(ctx.whole)
        ctx.whole.grad[..., : gradient.shape[-1]].add_(gradient)
        return None, None
