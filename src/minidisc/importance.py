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
from minidisc.files import new_file
from minidisc.layers import head_size, prunable_layers


@dataclass(frozen=True)
class Importance:
    """Scores of one model: ``heads`` (layers, heads) and ``neurons`` (layers, neurons), each row of L2 norm 1."""

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
) -> Importance:
    """Score every head and neuron of ``model``.

    Args:
        model: the teacher; runs in evaluation mode, its parameters get no gradients.
        architecture: its family.
        batches: inputs of the model with ``labels``; a batch is the unit over which |·| is taken.
        loss_of: task loss of (logits, labels).

    Returns:
        Scores on the CPU, in fp32.
    """
    layers = prunable_layers(model, architecture)
    size = head_size(model.config, architecture)
    taps = [layer.attention_output for layer in layers] + [layer.ffn_down for layer in layers]
    sums: list[Tensor] = []
    heads = torch.zeros(len(layers), taps[0].in_features // size)
    neurons = torch.zeros(len(layers), taps[-1].in_features)

    def tap_input(index: int) -> Callable:
        def hook(module: Any, args: tuple[Tensor, ...]) -> None:
            activation = args[0]
            if not activation.requires_grad:
                activation.requires_grad_()
            saved = activation.detach()

            def keep(gradient: Tensor) -> None:
                # A layer that runs several times has one mask.
                sums[index] = sums[index] + (saved * gradient).flatten(0, -2).sum(0).float().cpu()

            activation.register_hook(keep)

        return hook

    trainable = [p for p in model.parameters() if p.requires_grad]
    was_training = model.training
    model.eval()
    handles = [tap.register_forward_pre_hook(tap_input(i)) for i, tap in enumerate(taps)]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        for batch in batches:
            inputs = dict(batch)
            labels = inputs.pop("labels")
            sums[:] = [torch.zeros(())] * len(taps)
            with torch.enable_grad():
                loss_of(model(**inputs).logits, labels).backward()
            # A head's mask scales all its dimensions together, so they are summed before |·|.
            heads += torch.stack(sums[: len(layers)]).unflatten(1, (-1, size)).sum(2).abs()
            neurons += torch.stack(sums[len(layers) :]).abs()
    finally:
        for handle in handles:
            handle.remove()
        for parameter in trainable:
            parameter.requires_grad_(True)
        model.train(was_training)
    return Importance(_normalise(heads), _normalise(neurons))


def _normalise(scores: Tensor) -> Tensor:
    return (scores / scores.norm(dim=1, keepdim=True).clamp_min(torch.finfo(scores.dtype).tiny)).contiguous()
