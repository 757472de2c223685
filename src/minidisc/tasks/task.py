"""What a task is: its columns, its labels, and how its predictions are scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from minidisc.tasks.entities import entity_counts, entity_f1
from minidisc.tasks.metrics import METRICS

Kind = Literal["classification", "regression", "token-classification", "causal-lm"]


@dataclass(frozen=True)
class Task:
    """A task on sentences (or pairs of them): one label a sentence, or for token classification one a word.

    In causal language modelling the label of a token is the next one.

    Attributes:
        name: ``glue/NAME``, ``conll2003``, a Hub dataset id, or for own files the kind.
        kind: ``classification``, ``regression``, ``token-classification`` or ``causal-lm``.
        text_columns: one or two columns of text in the source; for token classification one, of lists of words.
        label_column: column of labels in the source.
        label_names: names of the classes, in the order of the integer labels; None for regression and language
            modelling. Those of token classification are IOB tags, ``O`` among them.
        named: True if the data gave the names, False if they were made up from integers.
        metrics: keys of `minidisc.tasks.metrics.METRICS`; of token classification ``entity_f1``, of language modelling
            ``next_token_accuracy`` and ``perplexity``.
    """

    name: str
    kind: Kind
    text_columns: tuple[str, ...]
    label_column: str
    label_names: tuple[str, ...] | None
    named: bool
    metrics: tuple[str, ...]

    def evaluate(self, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Score a model's outputs; any rows will do, if both arguments have the same ones.

        Args:
            logits: shape (N, C), in the order of `label_names`; regression (N, 1) or (N,). For token classification
                (N,), of arrays (words, C); a word whose logits are all -inf was not seen by the model and counts as
                predicted ``O``. For language modelling (N, 3), of each row the number of tokens that had to be
                predicted, how many were predicted right, and the sum of -ln p over them.
            labels: shape (N,); of language modelling they are not used. For token classification its items are arrays
                (words,).

        Returns:
            The value of each metric (fractions, or correlations in [-1, 1]) and under ``metric`` their mean,
            the score that selection goes by; for language modelling that is the next token's accuracy alone.

        Raises:
            FloatingPointError: if a logit is NaN or infinite.
        """
        return self.score(self.digest(logits, labels), labels)

    def digest(self, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """What `score` needs to know of each row: who draws rows anew a thousand times does this once.

        Args:
            logits: as `evaluate` takes them.
            labels: as `evaluate` takes them.

        Returns:
            Of classification the classes and of regression the numbers predicted, shape (N,); of token classification
            the entities found, predicted and there, shape (N, 3); of language modelling ``logits``.

        Raises:
            FloatingPointError: if a logit is NaN or infinite.
        """
        if self.kind == "token-classification":
            return entity_counts(*self.tag_sequences(logits, labels))
        _check_finite(logits.reshape(len(logits), -1), "rows")
        if self.kind == "causal-lm":
            return logits
        return logits.argmax(axis=1) if self.kind == "classification" else logits.reshape(len(logits))

    def score(self, digest: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """What `evaluate` returns, of rows of a `digest`, any of them, and the labels of the same rows."""
        if self.kind == "causal-lm":
            tokens, right, surprise = digest.sum(axis=0)
            values = {"next_token_accuracy": float(right / tokens), "perplexity": float(np.exp(surprise / tokens))}
            return {**values, "metric": values["next_token_accuracy"]}
        if self.kind == "token-classification":
            values = {"entity_f1": entity_f1(digest)}
        else:
            values = {name: METRICS[name](digest, labels) for name in self.metrics}
        return {**values, "metric": sum(values.values()) / len(values)}

    def chance(self, labels: np.ndarray) -> float:
        """The ``metric`` of a model that always predicts the majority class; 0 for entities, and without classes.

        Args:
            labels: as `evaluate` takes them.
        """
        if self.kind != "classification":
            return 0.0
        majority = np.bincount(labels.astype(np.int64)).argmax()
        return self.score(np.full(len(labels), majority), labels)["metric"]

    def tag_sequences(self, logits: np.ndarray, labels: np.ndarray) -> tuple[list[list[str]], list[list[str]]]:
        """The tags that outputs stand for and those that labels do, row by row; arguments as `evaluate` takes them."""
        assert self.label_names is not None
        names = np.array(self.label_names, dtype=object)
        words = np.concatenate(list(logits))
        unseen = np.isneginf(words).all(axis=1)
        _check_finite(words[~unseen], "words")
        predictions = words.argmax(axis=1)
        predictions[unseen] = self.label_names.index("O")
        ends = np.cumsum([len(row) for row in labels]).tolist()

        def by_row(indices: np.ndarray) -> list[list[str]]:
            tags = names[indices].tolist()
            return [tags[start:end] for start, end in zip([0, *ends], ends, strict=False)]

        return by_row(predictions), by_row(np.concatenate(list(labels)))


def _check_finite(logits: np.ndarray, unit: str) -> None:
    finite = np.isfinite(logits).all(axis=1)
    if not finite.all():
        raise FloatingPointError(
            f"the model's outputs are NaN or infinite in {len(finite) - int(finite.sum())} of {len(finite)} {unit}; "
            "it has diverged, or its numbers overflow in this precision."
        )
