"""What teacher and student get wrong, and the rows on which they differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from minidisc.tasks import Task

EXAMPLES = 20
MOST_LABELS = 12  # of which there is a matrix; that of thousands would be as good as empty, and larger than all else
CHARACTERS = 400  # that are kept of an example's text
_SHARES = (0.05, 0.1, 0.2, 0.4)  # of the labels' range, between which a regression's errors are counted


def contrast(
    task: Task,
    teacher: np.ndarray,
    student: np.ndarray,
    labels: np.ndarray,
    texts: Sequence[Any],
) -> dict[str, Any]:
    """Compare two models' outputs on the same rows.

    Args:
        task: what the rows are for.
        teacher: logits of one model, as ``task.evaluate`` takes them.
        student: logits of the other.
        labels: of the rows, as ``task.evaluate`` takes them.
        texts: of the rows, for token classification their words.

    Returns:
        For classes ``labels`` (their names) and under ``teacher`` and ``student`` the confusion matrix, a row for each
        label and a column for each prediction, or, of more than twelve labels, for each of its counts that is not 0
        label, prediction (both as positions in ``labels``) and count; for token classification those of words. For
        regression ``edges`` and under ``teacher`` and ``student`` how many absolute errors lie below the first edge,
        between two, and from the last on. ``differ`` is on how many of ``rows`` the two predict something else (not
        for regression), for classes of rows ``only_right`` on how many one of them alone is right, and ``examples``
        are those that differ, with text, label and both predictions, of whose prediction the student is surest (for
        regression: where the predictions are furthest apart; for words: where most tags differ).
    """
    if task.kind == "regression":
        return _numbers(teacher.reshape(-1), student.reshape(-1), labels, texts)
    if task.kind == "token-classification":
        return _tags(task, teacher, student, labels, texts)
    assert task.label_names is not None
    names, truth = task.label_names, labels.astype(int)
    first, second = teacher.argmax(1), student.argmax(1)
    right = first == truth, second == truth
    odds = np.exp(student - student.max(1, keepdims=True))
    sureness = np.where(first != second, 1 / odds.sum(1), 0.0)
    return {
        "labels": list(names),
        **_matrices(len(names), truth, first, second),
        "rows": len(truth),
        "differ": int((first != second).sum()),
        "only_right": {"teacher": int((right[0] & ~right[1]).sum()), "student": int((right[1] & ~right[0]).sum())},
        "examples": [
            {"text": _cut(texts[i]), **_three(names[truth[i]], names[first[i]], names[second[i]])}
            for i in _largest(sureness)
        ],
    }


def _numbers(teacher: np.ndarray, student: np.ndarray, labels: np.ndarray, texts: Sequence[Any]) -> dict[str, Any]:
    edges = [share * float(labels.max() - labels.min()) for share in _SHARES]
    distance = np.abs(teacher - student)
    found = {
        name: np.bincount(np.digitize(np.abs(values - labels), edges), minlength=len(edges) + 1).tolist()
        for name, values in (("teacher", teacher), ("student", student))
    }
    return {
        "edges": edges,
        **found,
        "rows": len(labels),
        "examples": [
            {"text": _cut(texts[i]), **_three(*(f"{float(values[i]):.4g}" for values in (labels, teacher, student)))}
            for i in _largest(distance)
        ],
    }


def _tags(
    task: Task, teacher: np.ndarray, student: np.ndarray, labels: np.ndarray, words: Sequence[Any]
) -> dict[str, Any]:
    assert task.label_names is not None
    index = {name: i for i, name in enumerate(task.label_names)}
    first, truth = task.tag_sequences(teacher, labels)
    second, _ = task.tag_sequences(student, labels)
    flat = [np.array([index[tag] for row in rows for tag in row]) for rows in (truth, first, second)]
    distance = np.array([sum(a != b for a, b in zip(x, y, strict=True)) for x, y in zip(first, second, strict=True)])

    def differing(i: int, tags: list[str]) -> str:
        rows = zip(words[i], tags, first[i], second[i], strict=True)
        return ", ".join(f"{word} {tag}" for word, tag, a, b in rows if a != b)

    return {
        "labels": list(task.label_names),
        **_matrices(len(index), *flat),
        "rows": len(truth),
        "differ": int((distance > 0).sum()),
        "examples": [
            {
                "text": _cut(" ".join(words[i])),
                **_three(*(differing(i, rows[i]) for rows in (truth, first, second))),
            }
            for i in _largest(distance)
        ],
    }


def _matrices(classes: int, truth: np.ndarray, first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    def matrix(predicted: np.ndarray) -> list[list[int]]:
        pairs = classes * truth + predicted
        if classes <= MOST_LABELS:
            return np.bincount(pairs, minlength=classes**2).reshape(classes, classes).tolist()
        found, counts = np.unique(pairs, return_counts=True)
        return np.stack([*np.divmod(found, classes), counts], axis=1).tolist()

    return {"teacher": matrix(first), "student": matrix(second)}


def _largest(values: np.ndarray) -> list[int]:
    """Positions of the largest values, none where it is 0."""
    return [i for i in np.argsort(-values, kind="stable")[:EXAMPLES].tolist() if values[i] > 0]


def _three(label: str, teacher: str, student: str) -> dict[str, str]:
    return {"label": label, "teacher": teacher, "student": student}


def _cut(text: str) -> str:
    return text if len(text) <= CHARACTERS else text[: CHARACTERS - 1] + "…"
