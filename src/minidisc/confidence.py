"""How sure the choice of the assistant is, as far as that depends on which rows it was made on.

A paired bootstrap: the selection rows are drawn anew, with replacement and as many, a thousand times; every candidate
is scored on the same drawn rows, and the assistant is chosen again. What other training seeds would change is not
in it, nor that each candidate's weights are those of its best evaluation on these very rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minidisc.selection import Candidate, Confidence, choose_assistant, largest, tradeoff
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
    metrics = np.empty((resamples, len(logits)))
    chosen = np.zeros(len(logits))
    for resample in range(resamples):
        rows = random.integers(0, len(labels), len(labels))
        drawn = labels[rows]
        metrics[resample] = [task.evaluate(values[rows], drawn)["metric"] for values in logits]
        pairs = zip(metrics[resample].tolist(), sparsities, strict=True)
        chosen[largest([tradeoff(m, s, lam) for m, s in pairs], sparsities)] += 1
    low, high = np.percentile(metrics, [2.5, 97.5], axis=0)
    return [Confidence((float(a), float(b)), float(c)) for a, b, c in zip(low, high, chosen / resamples, strict=True)]


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
