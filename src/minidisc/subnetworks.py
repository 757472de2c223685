"""Which sub-networks there are: heads and neurons per layer for every sparsity on the grid.

METHOD: arXiv 2205.14570, section 3 ("gridding and pruning"): the fraction of all heads and, apart from it, of all
FFN neurons, ranked globally over the layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minidisc.errors import UserError

FULL_GRID = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class SubnetworkSpec:
    """The width of every layer of a sub-network.

    ``heads[i]`` and ``neurons[i]`` are what layer ``i`` keeps, counted from the most important one; a layer may
    keep none. ``sparsity`` is the fraction asked for; rounding makes the actual one differ slightly.
    """

    sparsity: float
    heads: tuple[int, ...]
    neurons: tuple[int, ...]

    @property
    def name(self) -> str:
        """Short label, such as ``90 %``."""
        return f"{100 * self.sparsity:g} %"

    def contains(self, other: SubnetworkSpec) -> bool:
        """Whether ``other`` is a prefix of this one in every layer."""
        pairs = zip(self.heads + self.neurons, other.heads + other.neurons, strict=True)
        return all(mine >= theirs for mine, theirs in pairs)


def full_width(layers: int, heads: int, neurons: int) -> SubnetworkSpec:
    """The specification of the teacher's own shape."""
    return SubnetworkSpec(0.0, (heads,) * layers, (neurons,) * layers)


def candidate_sparsities(target: float, grid: Sequence[float] | None = None) -> list[float]:
    """Sparsities of the candidates, ascending, the target last.

    Candidates sparser than the target are never trained. Without a grid: from 0.5 on for targets above 0.5
    (larger candidates cost much and are hardly ever chosen), else every tenth below the target.

    Raises:
        UserError: a grid whose every point is sparser than the target.
    """
    if grid is None:
        points = [s for s in FULL_GRID if (s >= 0.5 or target <= 0.5) and s < target]
    else:
        points = sorted({s for s in grid if s < target})
        if not points:
            raise UserError(
                f"--grid {','.join(f'{s:g}' for s in sorted(grid))} has no candidate larger than the student "
                f"(target sparsity {target:g}); add a smaller sparsity, or use --schedule direct."
            )
    return [*points, target]


def make_spec(
    head_scores: np.ndarray, neuron_scores: np.ndarray, sparsity: float, neuron_multiple: int = 1
) -> SubnetworkSpec:
    """Keep the globally highest-scored heads and neurons.

    Args:
        head_scores: (layers, heads) importance.
        neuron_scores: (layers, neurons) importance.
        sparsity: fraction removed, in [0, 1).
        neuron_multiple: each layer's neuron count is rounded to the nearest multiple (halves up).

    Returns:
        A specification that is contained in that of every smaller sparsity.
    """
    heads = _kept_per_layer(head_scores, sparsity)
    neurons = _kept_per_layer(neuron_scores, sparsity)
    width = neuron_scores.shape[1]
    rounded = [min(width, int(n / neuron_multiple + 0.5) * neuron_multiple) for n in neurons]
    return SubnetworkSpec(float(sparsity), tuple(int(h) for h in heads), tuple(rounded))


def even_spec(layers: int, heads: int, neurons: int, sparsity: float, neuron_multiple: int = 1) -> SubnetworkSpec:
    """What a sparsity leaves where all layers are equally important, as is assumed before importance is known."""
    return make_spec(*even_scores(layers, heads, neurons), sparsity, neuron_multiple)


def even_scores(layers: int, heads: int, neurons: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of heads and of neurons where all layers are equally important."""
    return (
        np.tile(-np.arange(heads, dtype=float), (layers, 1)),
        np.tile(-np.arange(neurons, dtype=float), (layers, 1)),
    )


def check_grid(sparsities: Sequence[float], heads: int, neurons: int) -> None:
    """Refuse sparsities that a model is too small to tell apart.

    Args:
        sparsities: of the candidates.
        heads: attention heads of the whole model.
        neurons: FFN neurons of the whole model.

    Raises:
        UserError: if two sparsities keep as many heads and neurons, or one keeps all.
    """
    seen = {(heads, neurons): "the teacher"}
    for sparsity in sparsities:
        kept = (_kept(heads, sparsity), _kept(neurons, sparsity))
        if kept in seen:
            raise UserError(
                f"sparsity {100 * sparsity:g} % gives the same network as {seen[kept]}: the model has only {heads} "
                f"heads and {neurons} neurons; choose sparsities further apart (--grid, --target-sparsity)."
            )
        seen[kept] = f"sparsity {100 * sparsity:g} %"


def _kept(total: int, sparsity: float) -> int:
    return round(total * (1 - sparsity))


def _kept_per_layer(scores: np.ndarray, sparsity: float) -> np.ndarray:
    # A stable sort makes ties deterministic, so that a sparser choice is always a part of a denser one.
    best = np.argsort(-scores, axis=None, kind="stable")[: _kept(scores.size, sparsity)]
    return np.bincount(best // scores.shape[1], minlength=scores.shape[0])
