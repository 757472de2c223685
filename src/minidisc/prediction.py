"""Logits of a whole data set, for one network or for many sub-networks of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from minidisc.nested import NestedNetwork
from minidisc.subnetworks import SubnetworkSpec

Collate = Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]


def model_inputs(batch: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """What a model's forward takes of a collated batch, on its device."""
    return {k: v.to(device) for k, v in batch.items() if k not in ("labels", "row")}


def batches_by_length(rows: Any, collate: Collate, batch_size: int) -> Iterator[tuple[list[int], dict]]:
    """Batches of rows of similar length, longest first, each with the rows' positions.

    Args:
        rows: a ``datasets.Dataset`` with a ``length`` column.
        collate: pads a list of rows to tensors.
        batch_size: rows in a batch.
    """
    order = np.argsort(-np.asarray(rows["length"]), kind="stable").tolist()
    chunks = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    loader = DataLoader(rows, batch_sampler=chunks, collate_fn=collate, generator=torch.Generator())
    yield from zip(chunks, loader, strict=True)


@torch.no_grad()
def predict(model: Any, rows: Any, collate: Collate, batch_size: int) -> np.ndarray:
    """Logits, (rows, classes), in the rows' order; the model is put in evaluation mode."""
    model.eval()
    logits: np.ndarray | None = None
    for positions, batch in batches_by_length(rows, collate, batch_size):
        output = model(**model_inputs(batch, model.device)).logits.float().cpu().numpy()
        if logits is None:
            logits = np.zeros((len(rows), output.shape[1]), dtype=np.float32)
        logits[positions] = output
    assert logits is not None
    return logits


@torch.no_grad()
def predict_subnetworks(
    network: NestedNetwork, specs: Sequence[SubnetworkSpec], rows: Any, collate: Collate, batch_size: int
) -> list[np.ndarray]:
    """Logits of every sub-network, each (rows, classes); the embeddings of a batch are computed once for all."""
    model = network.model.eval()
    logits: list[np.ndarray] = []
    for positions, batch in batches_by_length(rows, collate, batch_size):
        inputs = model_inputs(batch, model.device)
        with network.shared_embeddings():
            for i, spec in enumerate(specs):
                network.activate(spec)
                output = model(**inputs).logits.float().cpu().numpy()
                if i == len(logits):
                    logits.append(np.zeros((len(rows), output.shape[1]), dtype=np.float32))
                logits[i][positions] = output
    network.activate(None)
    return logits
