"""Logits of a whole data set, for one network or for many sub-networks of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch.nn import functional as F
from torch.utils.data import DataLoader

from minidisc.devices import attention_kernels, moved
from minidisc.memory import HeapGuard
from minidisc.nested import NestedNetwork
from minidisc.subnetworks import SubnetworkSpec

Collate = Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]


def model_inputs(batch: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """What a model's forward takes of a collated batch, on its device."""
    return {k: moved(v, device) for k, v in batch.items() if k not in ("labels", "row")}


def batches_by_length(rows: Any, collate: Collate, batch_size: int) -> Iterator[tuple[list[int], dict]]:
    """Batches of rows of similar length, longest first, each with the rows' positions.

    Args:
        rows: a ``datasets.Dataset`` with a ``length`` column.
        collate: pads a list of rows to tensors.
        batch_size: rows in a batch.
    """
    order = np.argsort(-np.asarray(rows["length"][:]), kind="stable").tolist()
    chunks = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    loader = DataLoader(rows, batch_sampler=chunks, collate_fn=collate, generator=torch.Generator())
    # Its first step also takes back what the phase before, such as training, has left.
    heap = HeapGuard()
    for positions, batch in zip(chunks, loader, strict=True):
        heap.step(batch["attention_mask"].numel())
        yield positions, batch


def flops_over(lengths: ArrayLike, batch_size: int, flops: Callable[[int, int], float]) -> float:
    """FLOPs of one pass over all rows, batched by length; ``flops(rows, length)`` are a batch's."""
    longest_first = np.sort(np.asarray(lengths))[::-1]
    batches = [longest_first[i : i + batch_size] for i in range(0, len(longest_first), batch_size)]
    return sum(flops(len(batch), int(batch[0])) for batch in batches)


@torch.no_grad()
def predict(
    model: Any, rows: Any, collate: Collate, batch_size: int, outputs: Sequence[int] | None = None
) -> np.ndarray:
    """Logits in the rows' order, as `minidisc.tasks.Task.evaluate` takes them; the model is put in evaluation mode.

    Args:
        model: what predicts.
        rows: encoded (see `minidisc.tasks.encode`).
        collate: pads a list of rows to tensors.
        batch_size: rows in a batch.
        outputs: the model's outputs to keep, in this order; all if not given.

    Returns:
        (rows, outputs); for rows of words (rows,), of arrays (words, outputs) with the logits at the first token of
        each word and -inf for a word that has none. For packed text (rows, 3), not the logits themselves: how many
        tokens had to be predicted, how many were predicted right, and the sum of -ln p over them.
    """
    model.eval()
    words, order, found = _first_tokens(rows), [], []
    with attention_kernels(), _without_autocast(model):
        for positions, batch in batches_by_length(rows, collate, batch_size):
            logits = model(**model_inputs(batch, model.device)).logits
            order += positions
            found.append(_by_row(logits, positions, batch, words, outputs))
    return np.concatenate(found)[np.argsort(order)]


@torch.no_grad()
def predict_subnetworks(
    network: NestedNetwork,
    specs: Sequence[SubnetworkSpec],
    rows: Any,
    collate: Collate,
    batch_size: int,
    outputs: Sequence[int] | None = None,
) -> list[np.ndarray]:
    """Logits of every sub-network, each as `predict` gives them; a batch's embeddings are computed once for all."""
    model = network.model.eval()
    words, order = _first_tokens(rows), []
    found: list[list[np.ndarray]] = [[] for _ in specs]
    for positions, batch in batches_by_length(rows, collate, batch_size):
        inputs = model_inputs(batch, model.device)
        order += positions
        with attention_kernels(), _without_autocast(model), network.one_step():
            for spec, own in zip(specs, found, strict=True):
                network.activate(spec)
                own.append(_by_row(model(**inputs).logits, positions, batch, words, outputs))
    network.activate(None)
    return [np.concatenate(own)[np.argsort(order)] for own in found]


@contextmanager
def _without_autocast(model: Any) -> Iterator[None]:
    """Within the block a model computes in the precision of its weights.

    accelerate puts autocast around the forward pass of a model that it trains in bf16, and nothing takes it off again:
    a network's metrics would depend on whether it was evaluated before, while or after it was trained.
    """
    wrapped = vars(model).pop("forward") if "_original_forward" in vars(model) else None
    try:
        yield
    finally:
        if wrapped is not None:
            model.forward = wrapped


def _first_tokens(rows: Any) -> list[list[int]] | None:
    return rows["first_tokens"][:] if "first_tokens" in rows.column_names else None


def _by_row(
    logits: torch.Tensor,
    positions: list[int],
    batch: dict[str, torch.Tensor],
    first_tokens: list[list[int]] | None,
    outputs: Sequence[int] | None,
) -> np.ndarray:
    """A batch's logits as an array of (rows, outputs), or (rows,) of arrays (words, outputs), or scores of text."""
    if first_tokens is None and logits.dim() == 3:
        labels = batch["labels"].to(logits.device)
        return np.array([_next_token_scores(*pair) for pair in zip(logits, labels, strict=True)])
    values = logits.float().cpu().numpy()[..., slice(None) if outputs is None else list(outputs)]
    if first_tokens is None:
        return values
    result = np.empty(len(positions), dtype=object)
    starts = batch["attention_mask"].argmax(1).tolist()  # behind the padding, where that stands on the left
    for row, (position, start) in enumerate(zip(positions, starts, strict=True)):
        tokens = np.asarray(first_tokens[position])
        result[row] = np.full((len(tokens), values.shape[-1]), -np.inf, dtype=np.float32)
        result[row][tokens >= 0] = values[row, tokens[tokens >= 0] + start]
    return result


def _next_token_scores(logits: torch.Tensor, labels: torch.Tensor) -> tuple[int, int, float]:
    """Of a row: tokens that had to be predicted, those predicted right, and the sum of -ln p over them.

    Row by row, since a whole batch's probabilities over a vocabulary are gigabytes.
    """
    wanted = labels >= 0
    logits, labels = logits[wanted].float(), labels[wanted]
    # Apple's GPUs have no double precision.
    surprise = F.cross_entropy(logits, labels, reduction="none").cpu().double().sum()
    return len(labels), int((logits.argmax(-1) == labels).sum()), float(surprise)
