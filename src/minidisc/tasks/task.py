"""What a task is: its columns, its labels, and how its predictions are scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from minidisc.tasks.metrics import METRICS

Kind = Literal["classification", "regression"]


@dataclass(frozen=True)
class Task:
    """A sentence (pair) classification or regression task.

    Attributes:
        name: ``glue/NAME``, a Hub dataset id, or for own files ``classification`` or ``regression``.
        kind: ``classification`` or ``regression``.
        text_columns: one or two columns of text in the source.
        label_column: column of labels in the source.
        label_names: names of the classes, in the order of the integer labels; None for regression.
        named: True if the data gave the names, False if they were made up from integers.
        metrics: keys of `minidisc.tasks.metrics.METRICS`.
    """

    name: str
    kind: Kind
    text_columns: tuple[str, ...]
    label_column: str
    label_names: tuple[str, ...] | None
    named: bool
    metrics: tuple[str, ...]

    def evaluate(self, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Score a model's outputs.

        Args:
            logits: shape (N, C), in the order of `label_names`; regression (N, 1) or (N,).
            labels: shape (N,).

        Returns:
            The value of each metric (fractions, or correlations in [-1, 1]) and under ``metric`` their mean,
            the score that selection goes by.

        Raises:
            FloatingPointError: if a logit is NaN or infinite.
        """
        rows = len(logits)
        finite = np.isfinite(logits.reshape(rows, -1)).all(axis=1)
        if not finite.all():
            raise FloatingPointError(
                f"the model's outputs are NaN or infinite in {rows - int(finite.sum())} of {rows} rows; "
                "it has diverged, or its numbers overflow in this precision."
            )
        predictions = logits.argmax(axis=1) if self.kind == "classification" else logits.reshape(rows)
        values = {name: METRICS[name](predictions, labels) for name in self.metrics}
        return {**values, "metric": sum(values.values()) / len(values)}

    def chance(self, labels: np.ndarray) -> float:
        """The ``metric`` of a model that always predicts the majority class; 0 for regression.

        Args:
            labels: shape (N,).
        """
        if self.label_names is None:
            return 0.0
        majority = np.bincount(labels.astype(np.int64)).argmax()
        logits = np.zeros((len(labels), len(self.label_names)))
        logits[:, majority] = 1
        return self.evaluate(logits, labels)["metric"]
