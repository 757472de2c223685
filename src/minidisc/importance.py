"""First-order importance of attention heads and FFN neurons.

METHOD: put a mask of ones on the output of every head and neuron; importance = Σ over batches |∂loss/∂mask|, then
L2-normalised within each layer (arXiv 2205.14570, section 3). The gradient with respect to a mask is the sum over
positions of activation · gradient, so hooks on two linear maps a layer give it without any mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from minidisc.architectures import Architecture
from minidisc.checkpointing import checkpointed
from minidisc.devices import attention_kernels
from minidisc.files import new_file
from minidisc.layers import attentions_of, ffns_of

ABSENT = -1.0


@dataclass(frozen=True)
class Importance:
    """Scores of one model: ``heads`` (attentions, heads) and ``neurons`` (FFNs, neurons), each row of L2 norm 1.

    Most models have one attention and one FFN a layer. Where one has fewer than others, its row ends with `ABSENT`.
    """

    heads: Tensor
    neurons: Tensor

    def save(self, path: Path, notes: dict[str, str] | None = None) -> None:
        """Write both as safetensors, atomically, with ``notes`` as the file's metadata."""
        with new_file(path) as temporary:
            save_file({"heads": self.heads, "neurons": self.neurons}, temporary, metadata=notes)

    @classmethod
    def load(cls, path: Path) -> Importance:
        """Read what `save` wrote."""
        return cls(**load_file(path))


def compute_importance(
    model: Any,
    architecture: Architecture,
    batches: Iterable[dict[str, Tensor]],
    loss_of: Callable[[Tensor, Tensor], Tensor],
    widths: tuple[int, int] | None = None,
    gradient_checkpointing: bool = False,
) -> Importance:
    """Score every head and neuron of ``model``.

    Args:
        model: the teacher, or an assistant whose layers have their own widths; runs in evaluation mode, its parameters
            get no gradients.
        architecture: its family.
        batches: inputs of the model with ``labels``; a batch is the unit over which |·| is taken.
        loss_of: task loss of (logits, labels).
        widths: heads and neurons that a row has room for, if not the first layer's.
        gradient_checkpointing: whether layers keep their inputs alone for the backward pass, and run again in it.

    Returns:
        Scores on the CPU, in fp32.
    """
    attentions = attentions_of(model, architecture)
    parts = [*attentions, *ffns_of(model, architecture)]
    sums: list[Tensor] = []
    scores = [torch.zeros(part.width) for part in parts]

    def tap_input(index: int) -> Callable:
        def hook(module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            activation = args[0]
            if not activation.requires_grad:
                activation.requires_grad_()
            return (_Tap.apply(activation, sums, index), *args[1:])

        return hook

    trainable = [p for p in model.parameters() if p.requires_grad]
    was_training = model.training
    model.eval()
    handles = [part.down.register_forward_pre_hook(tap_input(i)) for i, part in enumerate(parts)]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        for batch in batches:
            inputs = dict(batch)
            labels = inputs.pop("labels")
            sums[:] = [torch.zeros(part.width * part.size) for part in parts]
            with attention_kernels(), torch.enable_grad(), checkpointed(model, architecture, gradient_checkpointing):
                loss_of(model(**inputs).logits, labels).backward()
            # A head's mask scales all its dimensions together, so they are summed before |·|.
            for score, total, part in zip(scores, sums, parts, strict=True):
                score += total.reshape(len(score), part.size).sum(1).abs()
    finally:
        for handle in handles:
            handle.remove()
        for parameter in trainable:
            parameter.requires_grad_(True)
        model.train(was_training)
    heads, neurons = widths or (len(scores[0]), len(scores[-1]))
    return Importance(_table(scores[: len(attentions)], heads), _table(scores[len(attentions) :], neurons))


class _Tap(torch.autograd.Function):
    """Hands an activation on, and adds activation · gradient to ``sums[index]`` in the backward pass.

    The activation is saved in autograd's own way, so that a checkpointed layer does not keep it.
    """

    @staticmethod
    def forward(ctx: Any, activation: Tensor, sums: list[Tensor], index: int) -> Tensor:
        ctx.save_for_backward(activation)
        ctx.sums, ctx.index = sums, index
        return activation.view_as(activation)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (activation,), (gradient,) = ctx.saved_tensors, gradients
        # A layer that runs several times has one mask.
        ctx.sums[ctx.index] += (activation * gradient).flatten(0, -2).sum(0).float().cpu()
        return gradient, None, None


def _table(rows: list[Tensor], width: int) -> Tensor:
    table = torch.full((len(rows), width), ABSENT)
    for own, scores in zip(table, rows, strict=True):
        own[: len(scores)] = scores / scores.norm().clamp_min(torch.finfo(scores.dtype).tiny)
    return table
