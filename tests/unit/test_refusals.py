import numpy as np
import pandas as pd
import pytest

from minidisc.config import DataSettings
from minidisc.refusals import chance_warning, teacher_warnings
from minidisc.tasks import Task
from minidisc.tasks.documents import read_documents
from minidisc.tasks.sources import Source
from minidisc.teachers import Halved

NAMES = {0: "no", 1: "yes"}


def test_few_long_texts_have_many_answers():
    source = Source(pd.DataFrame({"text": ["a b"]}), "x", "x", {})
    task = read_documents(DataSettings(), {"train": source})[0]
    labels = np.full((4, 100), 7)
    labels[:, 80:] = -100  # 4 × 79 answers, whose error is 0.056
    assert not teacher_warnings(task, 0.04, labels, (), {})
    (warning,) = teacher_warnings(task, 0.02, labels, (), {})
    assert "on 4 rows where chance is 0.000: it is not fine-tuned for this text." in warning


def classes(*metrics):
    return Task("t", "classification", ("text",), "label", tuple(NAMES.values()), True, metrics)


@pytest.mark.parametrize("metrics", [("accuracy",), ("accuracy", "f1"), ("matthews",)])
@pytest.mark.parametrize("rows", [4, 100, 200])
@pytest.mark.parametrize("common", [0, 1])
def test_a_perfect_model_is_never_taken_for_chance(metrics, rows, common):
    labels = np.full(rows, common)
    labels[0] = 1 - common
    task = classes(*metrics)
    assert not teacher_warnings(task, 1.0, labels, (), NAMES)
    assert chance_warning(task, 1.0, labels) is None


def test_rows_of_one_class_speak_only_against_a_model_that_gets_some_wrong():
    labels = np.zeros(20, int)
    assert not teacher_warnings(classes("accuracy"), 1.0, labels, (), NAMES)
    (warning,) = teacher_warnings(classes("accuracy"), 0.3, labels, (), NAMES)
    assert "scores 0.300 on 20 rows where chance is 1.000" in warning


@pytest.mark.parametrize(
    ("common", "right", "doubtful"),
    # One standard error of 200 answers of which 96 % or 50 % are right by chance: 0.0139, 0.0354.
    [(192, 0.960, True), (192, 0.970, True), (192, 0.975, False), (100, 0.535, True), (100, 0.540, False)],
)
def test_above_chance_is_by_more_than_the_error_that_chance_has(common, right, doubtful):
    labels = np.repeat([0, 1], [common, 200 - common])
    teacher = teacher_warnings(classes("accuracy"), right, labels, (), NAMES)
    student = chance_warning(classes("accuracy"), right, labels)
    assert bool(teacher) == bool(student) == doubtful
    if right == 0.960:
        told = "the student scores 0.960 on 200 rows where chance is 0.960: it may give one answer to everything."
        assert student == told


def test_a_student_whose_correlation_is_none_is_named():
    task = Task("t", "regression", ("text",), "label", None, False, ("pearson", "spearman"))
    labels = np.linspace(0, 5, 100)
    warning = chance_warning(task, 0.04, labels)
    assert "where chance is 0.000" in warning
    assert chance_warning(task, 0.06, labels) is None


def test_a_teacher_in_half_precision():
    source = Source(pd.DataFrame({"text": ["a b"]}), "x", "x", {})
    task = read_documents(DataSettings(), {"train": source})[0]
    labels = np.full((4, 100), 7)
    (warning,) = teacher_warnings(task, 0.9, labels, (), {}, Halved("bfloat16", 30_389_512))
    assert "(bfloat16, 30.4 MB)" in warning
    assert "--save-dtype bf16 halves them" in warning
