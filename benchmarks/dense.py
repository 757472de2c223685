"""Separately built dense networks of the candidates' shapes, which one pass of the embeddings serves: the floor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from minidisc.extraction import extract
from minidisc.layers import set_dropout
from minidisc.subnetworks import SubnetworkSpec


class Given(torch.nn.Module):
    """Stands where a network's embeddings were, and hands out ``value``, which another has computed."""

    value: Any = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What was computed."""
        return self.value


def dense_networks(model: Any, candidates: Sequence[SubnetworkSpec]) -> tuple[dict[SubnetworkSpec, Any], Any, Given]:
    """A network for each candidate, in training mode without dropout, on the device of ``model``.

    Args:
        model: ordered by importance; of the BERT family.
        candidates: what is built.

    Returns:
        The networks; the embeddings of the widest; what stands in their place in all of them.
    """
    networks = {spec: extract(model, spec).to(model.device).train() for spec in candidates}
    embeddings = networks[min(candidates, key=lambda spec: spec.sparsity)].base_model.embeddings
    given = Given()
    for network in networks.values():
        set_dropout(network, 0.0)
        network.base_model.embeddings = given
    return networks, embeddings, given
