"""How sure the choice of the assistant is, as far as that depends on which rows it was made on.

A paired bootstrap: the selection rows are drawn anew, with replacement and as many, a thousand times; every candidate
is scored on the same drawn rows, and the assistant is chosen again. What other training seeds would change is not
in it, nor that each candidate's weights are those of its best evaluation on these very rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minidisc.selection import Candidate, Confidence, choose_assistant, largest, tradeoff

if TYPE_CHECKING:
    from minidisc.tasks import Task

RESAMPLES = 1000


def bootstrap(
    task: Task,
    logits: Sequence[np.ndarray],
    labels: np.ndarray,
    sparsities: Sequence[float],
    lam: float,
    seed: int,
    resamples: int = RESAMPLES,
) -> list[Confidence]:
    """Interval of each candidate's metric, and how often it would be chosen.

    Args:
        task: scores the candidates.
        logits: of each candidate, as ``task.evaluate`` takes them; rows on the first axis, in the same order.
        labels: of the rows, on the first axis.
        sparsities: of each candidate.
        lam: λ of the tradeoff.
        seed: of the resampling; equal input and seed give equal results.
        resamples: how often the rows are drawn.

    Returns:
        One for each candidate, in the order of ``logits``; the probabilities sum to 1.
    """
    random = np.random.default_rng(seed)
    digests = [task.digest(values, labels) for values in logits]
    metrics = np.empty((resamples, len(logits)))
    chosen = np.zeros(len(logits))
    for resample in range(resamples):
        rows = random.integers(0, len(labels), len(labels))
        drawn = labels[rows]
        metrics[resample] = [task.score(digest[rows], drawn)["metric"] for digest in digests]
        pairs = zip(metrics[resample].tolist(), sparsities, strict=True)
        chosen[largest([tradeoff(m, s, lam) for m, s in pairs], sparsities)] += 1
    low, high = np.percentile(metrics, [2.5, 97.5], axis=0)
    return [Confidence((float(a), float(b)), float(c)) for a, b, c in zip(low, high, chosen / resamples, strict=True)]


def drops(
    task: Task,
    teacher: np.ndarray,
    logits: Sequence[np.ndarray],
    labels: np.ndarray,
    limit: float,
    seed: int,
    resamples: int = RESAMPLES,
) -> list[tuple[float, tuple[float, float], float]]:
    """How much less than its teacher's each candidate's metric is, and how sure it is that this is within a limit.

    Args:
        task: scores the models.
        teacher: its logits, as ``task.evaluate`` takes them.
        logits: of each candidate, on the same rows.
        labels: of the rows, on the first axis.
        limit: the largest drop that is accepted.
        seed: of the resampling; equal input and seed give equal results.
        resamples: how often the rows are drawn.

    Returns:
        For each candidate the drop, its 95 % percentile interval over the resamples, and the share of them in which
        the drop is at most ``limit``.
    """
    random = np.random.default_rng(seed)
    digests = [task.digest(values, labels) for values in (teacher, *logits)]

    def dropped(rows: Any) -> np.ndarray:
        before, *metrics = (task.score(digest[rows], labels[rows])["metric"] for digest in digests)
        # Rounded, because 0.9 - 0.8 is more than 0.1 in floating point.
        return np.round([before - metric for metric in metrics], 9)

    found = np.array([dropped(random.integers(0, len(labels), len(labels))) for _ in range(resamples)])
    low, high = np.percentile(found, [2.5, 97.5], axis=0)
    shares = (found <= limit).mean(axis=0)
    return [
        (float(drop), (float(a), float(b)), float(share))
        for drop, a, b, share in zip(dropped(slice(None)), low, high, shares, strict=True)
    ]


def is_coin_toss(probability: float) -> bool:
    """Whether a choice of this probability is a coin toss: other rows would as likely as not have led to another."""
    # As it is printed: the third digit of a share of a thousand resamples is chance.
    return round(probability, 2) <= 0.5


def coin_toss(table: Sequence[Candidate]) -> str | None:
    """One line for the user if the choice among ``table`` is a coin toss, else None."""
    chosen = choose_assistant(table)
    if not is_coin_toss(_probability(chosen)):
        return None
    other = max((c for c in table if c is not chosen), key=_probability)
    return (
        f"the choice of {chosen.spec.name} is a coin toss: probability {_probability(chosen):.2f}, {other.spec.name} "
        f"has {_probability(other):.2f}; more selection rows would tell them apart, or show that either will do."
    )


def _probability(candidate: Candidate) -> float:
    assert candidate.confidence is not None
    return candidate.confidence.probability
