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
    keep none. In an encoder-decoder model ``heads[i]`` is of the attention ``i`` and ``neurons[i]`` of the FFN ``i``:
    the encoder's first, then the decoder's, whose cross-attentions are last. ``sparsity`` is the fraction asked for;
    rounding makes the actual one differ slightly.
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
    """The specification of so many layers that keep all, with an attention and an FFN each."""
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
    head_scores: np.ndarray,
    neuron_scores: np.ndarray,
    sparsity: float,
    neuron_multiple: int = 1,
    uniform: bool = False,
    needed: Sequence[int] = (),
) -> SubnetworkSpec:
    """Keep the globally highest-scored heads and neurons, or in every layer as many.

    Args:
        head_scores: (attentions, heads) importance.
        neuron_scores: (FFNs, neurons) importance.
        sparsity: fraction removed, in [0, 1).
        neuron_multiple: each layer's neuron count is rounded to the nearest multiple (halves up).
        uniform: keep the same number in every layer, of each at least one.
        needed: attentions that keep a head whatever their scores.

    Returns:
        A specification that is contained in that of every smaller sparsity.
    """
    width = neuron_scores.shape[1]
    if uniform:
        heads = np.full(len(head_scores), max(1, _kept(head_scores.shape[1], sparsity)))
        neurons = np.full(len(neuron_scores), max(neuron_multiple, _kept(width, sparsity)))
    else:
        first = head_scores.copy()
        for attention in needed:
            first[attention, head_scores[attention].argmax()] = np.inf
        heads = _kept_per_layer(first, max(_kept(first.size, sparsity), len(needed)))
        neurons = _kept_per_layer(neuron_scores, _kept(neuron_scores.size, sparsity))
    rounded = [min(width, int(n / neuron_multiple + 0.5) * neuron_multiple) for n in neurons]
    return SubnetworkSpec(float(sparsity), tuple(int(h) for h in heads), tuple(rounded))


def even_scores(full: SubnetworkSpec) -> tuple[np.ndarray, np.ndarray]:
    """Scores of heads and of neurons where all layers are equally important, as is assumed before more is known.

    Args:
        full: the widths of the whole model.
    """
    heads, neurons = (np.tile(-np.arange(widths[0]), (len(widths), 1)) for widths in (full.heads, full.neurons))
    return heads.astype(float), neurons.astype(float)


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


def _kept_per_layer(scores: np.ndarray, kept: int) -> np.ndarray:
    # A stable sort makes ties deterministic, so that a sparser choice is always a part of a denser one.
    best = np.argsort(-scores, axis=None, kind="stable")[:kept]
    return np.bincount(best // scores.shape[1], minlength=scores.shape[0])
