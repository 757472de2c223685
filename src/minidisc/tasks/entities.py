"""Entity-level F1 by the rules of conlleval, the script of the CoNLL shared tasks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from seqeval.metrics.sequence_labeling import get_entities


def entity_counts(predictions: Sequence[Sequence[str]], labels: Sequence[Sequence[str]]) -> np.ndarray:
    """How many entities each sentence has: found, predicted and there, shape (sentences, 3).

    One counts as found if its type and both its ends are right. An ``I-x`` that no ``x`` precedes begins an entity, as
    it does for conlleval and for seqeval's default mode.

    Args:
        predictions: IOB tags, one sequence a sentence.
        labels: as many sequences, of the same lengths.
    """
    counts = np.zeros((len(labels), 3), dtype=np.int64)
    for row, (guess, truth) in enumerate(zip(predictions, labels, strict=True)):
        predicted, there = set(get_entities(list(guess))), set(get_entities(list(truth)))
        counts[row] = len(predicted & there), len(predicted), len(there)
    return counts


def entity_f1(counts: np.ndarray) -> float:
    """F1 of the entities of all sentences that `entity_counts` counted; 0 if there is none at all."""
    found, predicted, there = counts.sum(axis=0).tolist()
    return 2 * found / (predicted + there) if predicted + there else 0.0
