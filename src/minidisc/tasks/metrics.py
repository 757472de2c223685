"""Metrics: each takes predictions and labels, one a row, and returns a float.

Written out, since whoever resamples rows calls them thousands of times: what scikit-learn and SciPy look at before
they compute the same took 20 seconds of a run's processor time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import rankdata


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Fraction of rows predicted right."""
    return float(np.mean(predictions == labels))


def f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    """F1 of class 1 in binary classification; 0 if class 1 is neither predicted nor there."""
    predicted, true = predictions == 1, labels == 1
    both = np.count_nonzero(predicted) + np.count_nonzero(true)
    return 2 * np.count_nonzero(predicted & true) / both if both else 0.0


def matthews(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Matthews correlation coefficient, of any number of classes; 0 if the predictions or the labels are constant."""
    classes = 1 + int(max(predictions.max(), labels.max()))
    predicted, true = (np.bincount(values, minlength=classes).astype(float) for values in (predictions, labels))
    rows, right = len(labels), np.count_nonzero(predictions == labels)
    spread = (rows**2 - predicted @ predicted) * (rows**2 - true @ true)
    return float((rows * right - predicted @ true) / np.sqrt(spread)) if spread else 0.0


def pearson(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Pearson's correlation; 0 where it is undefined (constant predictions or labels)."""
    return 0.0 if _all_one(predictions) else _correlation(predictions.astype(float), labels.astype(float))


def spearman(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Spearman's rank correlation; 0 where it is undefined (constant predictions or labels)."""
    return 0.0 if _all_one(predictions) else _correlation(rankdata(predictions), rankdata(labels))


METRICS: dict[str, Callable[[Any, Any], float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}


def _all_one(predictions: np.ndarray) -> bool:
    """Whether predictions differ by no more than fp32 may round, which other batches would do otherwise."""
    return bool(np.ptp(predictions) <= 16 * np.finfo(np.float32).eps * np.abs(predictions).max())


def _correlation(predictions: np.ndarray, labels: np.ndarray) -> float:
    if np.ptp(predictions) == 0 or np.ptp(labels) == 0:
        return 0.0
    a, b = (values - values.mean() for values in (predictions, labels))
    return float(np.clip((a / np.linalg.norm(a)) @ (b / np.linalg.norm(b)), -1, 1))
