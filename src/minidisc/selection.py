"""Choosing the teacher assistant by the λ-tradeoff.

METHOD: t_λ(a) = m(a) + λ · s(a), with the candidate's metric m in [0, 1] and its sparsity s (the fraction removed);
the assistant is the candidate with the largest t_λ (arXiv 2205.14570, equation of the λ-tradeoff).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from minidisc.results import Sizes
from minidisc.subnetworks import SubnetworkSpec

_DIGITS = 9  # to which two t_λ are equal


@dataclass(frozen=True)
class Confidence:
    """How much a candidate's row of the table depends on which selection rows it is from.

    Over resamples of these rows (see `minidisc.confidence`): ``interval`` is the 95 % percentile interval of the
    metric, ``probability`` the share of them in which this candidate is the one chosen.
    """

    interval: tuple[float, float]
    probability: float


@dataclass(frozen=True)
class Candidate:
    """One row of the candidate table.

    ``metrics`` are on the selection rows, at ``step`` of the sandwich, whose weights are kept for it;
    ``tradeoff`` is t_λ; ``confidence`` is there if an assistant was chosen from the table.
    """

    spec: SubnetworkSpec
    sizes: Sizes
    metrics: dict[str, float]
    step: int
    tradeoff: float
    confidence: Confidence | None = None

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
    return candidates[largest([c.tradeoff for c in candidates], [c.spec.sparsity for c in candidates])]


def largest(tradeoffs: Sequence[float], sparsities: Sequence[float]) -> int:
    """Position of the largest t_λ; of equal ones, of the sparsest."""
    # Rounded, because 0.92 + 0.1 * 0.5 and 0.91 + 0.1 * 0.6 are not equal in floating point.
    return max(range(len(tradeoffs)), key=lambda i: (round(tradeoffs[i], _DIGITS), sparsities[i]))


class LambdaRange(NamedTuple):
    """The λ, from ``lambda_from`` on and up to ``lambda_to``, for which ``sparsity`` is chosen.

    At ``lambda_to`` the next range's already is, unless ``lambda_to`` is 1.
    """

    lambda_from: float
    lambda_to: float
    sparsity: float


def lambda_sweep(candidates: Sequence[tuple[float, float]]) -> list[LambdaRange]:
    """What each λ in [0, 1] would choose, without training anything.

    Every t_λ is a straight line over λ, so the choice changes at the corners of their upper envelope, which are
    computed in closed form; a larger λ never chooses a less sparse candidate.

    Args:
        candidates: (sparsity, metric) of each candidate of one sandwich, in any order.

    Returns:
        Ranges that follow on one another, from λ = 0 to λ = 1; the flip points have nine decimals.
    """
    sparsity, metric = candidates[largest([m for _, m in candidates], [s for s, _ in candidates])]
    ranges, start = [], 0.0
    while sparser := [(s, m) for s, m in candidates if s > sparsity]:
        flips = [(round((metric - m) / (s - sparsity), _DIGITS), s, m) for s, m in sparser]
        # Where three lines meet, the sparsest is chosen.
        flip, next_sparsity, next_metric = min(flips, key=lambda f: (f[0], -f[1]))
        if flip > 1:
            break
        if flip > start:
            ranges.append(LambdaRange(start, flip, sparsity))
        start, sparsity, metric = max(start, flip), next_sparsity, next_metric
    return [*ranges, LambdaRange(start, 1.0, sparsity)]


def lambda_sweeps(rows: Sequence[dict[str, Any]]) -> list[list[LambdaRange]]:
    """What each λ would have chosen in each sandwich of a run, from the run's ``candidates.json`` alone.

    For example ``lambda_sweeps(json.loads(Path("run/candidates.json").read_text()))``. With two assistants, the
    second sandwich's candidates are those that the first choice left.

    Args:
        rows: the content of ``candidates.json``.

    Returns:
        `lambda_sweep` of each sandwich, in order.
    """
    return [lambda_sweep([(row["sparsity"], row["metric"]) for row in table]) for table in tables_of(rows)]


def tables_of(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The rows of ``candidates.json`` sandwich by sandwich."""
    stages = sorted({row["stage"] for row in rows})
    return [[row for row in rows if row["stage"] == stage] for stage in stages]


def best_row(table: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row of one sandwich that `choose_assistant` chose, or, with a single stage, would have chosen."""
    return table[largest([row["tradeoff"] for row in table], [row["sparsity"] for row in table])]


def range_of(sweep: Sequence[LambdaRange], lam: float) -> LambdaRange:
    """The range that a λ in [0, 1] lies in."""
    return [found for found in sweep if found.lambda_from <= lam][-1]
