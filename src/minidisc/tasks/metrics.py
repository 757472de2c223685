"""Metrics: each takes predictions and labels, one a row, and returns a float."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats
from sklearn import metrics as sklearn_metrics

from minidisc.tasks.entities import entity_f1


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Fraction of rows predicted right."""
    return float(np.mean(predictions == labels))


def f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    """F1 of class 1 in binary classification; 0 if class 1 is neither predicted nor there."""
    return float(sklearn_metrics.f1_score(labels, predictions, zero_division=0))


def matthews(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Matthews correlation coefficient; 0 if the predictions or the labels are constant."""
    if np.ptp(predictions) == 0 or np.ptp(labels) == 0:
        return 0.0
    return float(sklearn_metrics.matthews_corrcoef(labels, predictions))


def pearson(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Pearson's correlation; 0 where it is undefined (constant predictions or labels)."""
    return _correlation(stats.pearsonr, predictions, labels)


def spearman(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Spearman's rank correlation; 0 where it is undefined (constant predictions or labels)."""
    return _correlation(stats.spearmanr, predictions, labels)


METRICS: dict[str, Callable[[Any, Any], float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
    "entity_f1": entity_f1,
}


def _correlation(function: Callable[..., Any], predictions: np.ndarray, labels: np.ndarray) -> float:
    if np.ptp(predictions) == 0 or np.ptp(labels) == 0:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        return float(function(predictions.astype(np.float64), labels.astype(np.float64)).statistic)
