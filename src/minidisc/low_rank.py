"""Word embeddings of low rank: of a sparse student's parameters they are the most."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from minidisc.errors import UserError


def check_rank(model: Any, rank: int) -> None:
    """Refuse a rank, or a model whose word embeddings cannot be two tables.

    Raises:
        UserError: the rank saves nothing; the table is not a plain one, or serves for something else, too.
    """
    table = model.base_model.get_input_embeddings()
    holders = [m for m in model.modules() if getattr(m, "weight", None) is table.weight]
    if type(table) is not nn.Embedding or len(holders) > 1:
        raise UserError(
            "--embedding-rank is for models whose word embeddings are a table of their own, and this teacher's are "
            "not: they are scaled, shared by an encoder and a decoder, or choose the next token, too; leave it out."
        )
    rows, hidden = table.weight.shape
    if rank * (rows + hidden) >= rows * hidden:
        most = (rows * hidden - 1) // (rows + hidden)
        raise UserError(
            f"--embedding-rank is {rank}, which saves nothing with {rows} pieces of {hidden} numbers; allowed are 1 "
            f"to {most}."
        )


@torch.no_grad()
def factorise(model: Any, rank: int, counts: Tensor) -> dict[str, float]:
    """Have the students that are cut from a model hold its word embeddings as the product of two thinner tables.

    The model keeps its own. The product is the best of its rank by the squared error of the embeddings of a text:
    that of each piece counts as often as the piece occurs, and once more (the projection on the largest eigenvectors
    of the counted embeddings' second moments).

    Args:
        model: full-width; see `check_rank`.
        rank: numbers that are kept of each piece.
        counts: (pieces), how often each occurs.

    Returns:
        ``rank``; the parameters ``saved``; and ``error``, the share of the squared embeddings of that text (each piece
        once more) that is lost.
    """
    own = model.base_model.get_input_embeddings().weight
    table = own.to("cpu", torch.float64)
    weights = counts.to(table) + 1
    moments = (table.T * weights) @ table
    values, vectors = torch.linalg.eigh(moments)
    expand = vectors[:, -rank:]
    model.config.embedding_rank = rank
    # No parameters: they are not the model's.
    model.embedding_factors = ((table @ expand).to(own), expand.to(own).contiguous())
    rows, hidden = own.shape
    return {
        "rank": rank,
        "saved": rows * hidden - rank * (rows + hidden),
        "error": float(1 - values[-rank:].sum() / values.sum()),
    }


def student_state(model: Any) -> dict[str, Tensor]:
    """A model's weights, the word embeddings as its students hold them (see `factorise`)."""
    state = model.state_dict()
    factors = getattr(model, "embedding_factors", None)
    if factors is None:
        return dict(state)
    table = model.base_model.get_input_embeddings()
    name = next(name for name, module in model.named_modules() if module is table)
    return {**state, f"{name}.weight": factors[0], f"{name}.expand.weight": factors[1]}
