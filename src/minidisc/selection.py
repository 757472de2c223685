"""Choosing the teacher assistant by the λ-tradeoff.

METHOD: t_λ(a) = m(a) + λ · s(a), with the candidate's metric m in [0, 1] and its sparsity s (the fraction removed);
the assistant is the candidate with the largest t_λ (arXiv 2205.14570, equation of the λ-tradeoff).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minidisc.measure import Sizes
from minidisc.subnetworks import SubnetworkSpec


@dataclass(frozen=True)
class Candidate:
    """One row of the candidate table.

    ``metrics`` are on the selection rows, at ``step`` of the first stage, whose weights are kept for it;
    ``tradeoff`` is t_λ.
    """

    spec: SubnetworkSpec
    sizes: Sizes
    metrics: dict[str, float]
    step: int
    tradeoff: float

    @property
    def metric(self) -> float:
        """The score that selection goes by."""
        return self.metrics["metric"]


def tradeoff(metric: float, sparsity: float, lam: float) -> float:
    """t_λ = metric + λ · sparsity."""
    return metric + lam * sparsity


def choose_assistant(candidates: Sequence[Candidate]) -> Candidate:
    """The candidate with the largest t_λ; of equal ones the sparser, which is cheaper to go on from.

    When it is the student's own size there is no gap to bridge.
    """
    # Rounded, because 0.92 + 0.1 * 0.5 and 0.91 + 0.1 * 0.6 are not equal in floating point.
    return max(candidates, key=lambda c: (round(c.tradeoff, 9), c.spec.sparsity))
