"""Confusions and examples against cases counted by hand, and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from minidisc import contrast as module
from minidisc.contrast import contrast
from minidisc.tasks import Task


def task(kind, names=None):
    return Task("own", kind, ("text",), "label", names, True, ("accuracy",))


def test_classes():
    random = np.random.default_rng(0)
    teacher, student = random.normal(size=(2, 60, 3)) * 3
    labels = random.integers(0, 3, 60)
    found = contrast(
        task("classification", ("a", "b", "c")), teacher, student, labels, [f"row {i}" for i in range(60)]
    )
    for name, logits in (("teacher", teacher), ("student", student)):
        assert found[name] == confusion_matrix(labels, logits.argmax(1)).tolist()
    differ = [i for i in range(60) if teacher[i].argmax() != student[i].argmax()]
    assert (found["rows"], found["differ"]) == (60, len(differ))
    right = [{i for i in range(60) if logits[i].argmax() == labels[i]} for logits in (teacher, student)]
    assert found["only_right"] == {"teacher": len(right[0] - right[1]), "student": len(right[1] - right[0])}
    sureness = {i: (np.exp(student[i]) / np.exp(student[i]).sum()).max() for i in differ}
    expected = sorted(differ, key=lambda i: -sureness[i])[: module.EXAMPLES]
    assert [e["text"] for e in found["examples"]] == [f"row {i}" for i in expected]
    first = expected[0]
    names = ["abc"[i] for i in (labels[first], teacher[first].argmax(), student[first].argmax())]
    assert [found["examples"][0][key] for key in ("label", "teacher", "student")] == names


def test_of_many_classes_only_what_is_not_0_is_kept():
    random = np.random.default_rng(0)
    classes, logits = 3000, np.zeros((2, 40, 3000))
    labels, *predicted = random.integers(0, 6, (3, 40)) * 500
    for values, chosen in zip(logits, predicted, strict=True):
        values[range(40), chosen] = 1
    names = tuple(f"c{i}" for i in range(classes))
    found = contrast(task("classification", names), *logits, labels, [f"row {i}" for i in range(40)])
    for name, chosen in zip(("teacher", "student"), predicted, strict=True):
        assert len(found[name]) <= 40
        expected = confusion_matrix(labels, chosen, labels=range(0, classes, 500))
        assert found[name] == [[500 * i, 500 * j, expected[i, j]] for i, j in np.argwhere(expected)]


def test_equal_models_differ_nowhere():
    logits = np.eye(3)
    found = contrast(task("classification", ("a", "b", "c")), logits, logits, np.arange(3), ["x"] * 3)
    assert (found["differ"], found["examples"]) == (0, [])


def test_numbers():
    # A range of 10: the edges are 0.5, 1, 2, 4.
    labels = np.array([0.0, 10.0, 5.0, 5.0])
    teacher, student = np.array([[0.4], [10.5], [5.0], [9.5]]), np.array([[0.0], [8.5], [2.0], [9.5]])
    found = contrast(task("regression"), teacher, student, labels, ["a", "b", "c", "d"])
    assert found["edges"] == pytest.approx([0.5, 1, 2, 4])
    assert found["teacher"] == [2, 1, 0, 0, 1]
    assert found["student"] == [1, 0, 1, 1, 1]
    assert [e["text"] for e in found["examples"]] == ["c", "b", "a"]
    assert found["examples"][0] == {"text": "c", "label": "5", "teacher": "5", "student": "2"}


def test_words():
    names = ("O", "B-LOC", "I-LOC")
    words = [["in", "Paris", "now"], ["Rome"]]
    rows = {"label": [[0, 1, 0], [1]], "teacher": [[0, 1, 0], [1]], "student": [[0, 0, 2], [1]]}
    arrays = {}
    for key, values in rows.items():
        arrays[key] = np.empty(2, dtype=object)
        for i, tags in enumerate(values):
            arrays[key][i] = np.array(tags) if key == "label" else np.eye(3)[tags]
    # Cut off before the last word: predicted O.
    arrays["teacher"][0][2] = -np.inf
    found = contrast(task("token-classification", names), arrays["teacher"], arrays["student"], arrays["label"], words)
    assert found["teacher"] == [[2, 0, 0], [0, 2, 0], [0, 0, 0]]
    assert found["student"] == [[1, 0, 1], [1, 1, 0], [0, 0, 0]]
    assert (found["rows"], found["differ"]) == (2, 1)
    (example,) = found["examples"]
    assert example == {
        "text": "in Paris now",
        "label": "Paris B-LOC, now O",
        "teacher": "Paris B-LOC, now O",
        "student": "Paris O, now I-LOC",
    }


def test_long_texts_are_cut():
    found = contrast(task("regression"), np.zeros((2, 1)), np.ones((2, 1)), np.array([0.0, 1.0]), ["x" * 5000, "y"])
    assert [len(e["text"]) for e in found["examples"]] == [module.CHARACTERS, 1]
