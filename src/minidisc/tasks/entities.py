"""Entity-level F1 by the rules of conlleval, the script of the CoNLL shared tasks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from seqeval.metrics.sequence_labeling import get_entities


def entity_f1(predictions: Sequence[Sequence[str]], labels: Sequence[Sequence[str]]) -> float:
    """F1 of entities: one counts as found if its type and both its ends are right; 0 if there is none at all.

    An ``I-x`` that no ``x`` precedes begins an entity, as it does for conlleval and for seqeval's default mode.

    Args:
        predictions: IOB tags, one sequence a sentence.
        labels: as many sequences, of the same lengths.
    """
    right = predicted = true = 0
    for guess, truth in zip(predictions, labels, strict=True):
        found, wanted = _entities(tuple(guess)), _entities(tuple(truth))
        right += len(found & wanted)
        predicted += len(found)
        true += len(wanted)
    return 2 * right / (predicted + true) if predicted + true else 0.0


# Whoever resamples rows to learn a metric's spread scores the same sentences a thousand times.
@lru_cache(maxsize=2**15)
def _entities(tags: tuple[str, ...]) -> frozenset[tuple[str, int, int]]:
    return frozenset(get_entities(list(tags)))
