import datasets
import numpy as np
import pytest
from tokenizers import normalizers

from minidisc.config import CompressSettings
from minidisc.errors import UserError
from minidisc.rows import Rows, _fingerprint, _selection_fraction
from minidisc.tasks import Task, TaskData
from tests.unit.families import tiny_tokenizer

TASK = Task("own", "classification", ("text",), "label", ("bad", "good"), True, ("accuracy",))


def table(first, labels, **more):
    """Rows of two words each, no two alike."""
    texts = [f"w{5 + (first + i) % 50} w{5 + (first + i) // 50}" for i in range(len(labels))]
    return datasets.Dataset.from_dict({"text_a": texts, "label": labels, **more})


def rows_of(train_labels, tokenizer=None, **settings):
    """Encoded rows of a run, and what it was told about them."""
    notes = []
    data = TaskData(TASK, table(0, train_labels), table(1000, [0, 1] * 20), {"train": "t", "validation": "v"}, "")
    given = CompressSettings(teacher="t", train_file="f", output_dir="o", max_length=16, **settings)
    rows = Rows(given, data, notes.append)
    rows.encode(TASK, tokenizer or tiny_tokenizer())
    return rows, notes


def test_final_rows_are_drawn_by_a_comparisons_own_seed():
    data = TaskData(TASK, table(0, [None] * 40), table(1000, [0, 1] * 20), {"train": "t", "validation": "v"}, "")

    def found(seed, draw=None):
        given = CompressSettings(teacher="t", train_file="f", output_dir="o", seed=seed)
        return Rows(given, data, lambda _: None, draw).readable("validation")

    assert found(1) != found(2)
    assert found(1, draw=0) == found(2, draw=0) == found(0)


def texts(rows, use):
    return {tuple(row) for row in rows[use]["input_ids"]}


def test_selection_and_calibration_are_of_the_training_rows():
    rows, notes = rows_of([0, 1] * 40, calibration_rows=10)
    assert {use: len(found) for use, found in rows.items()} == {
        "train": 60,
        "selection": 20,
        "validation": 40,
        "calibration": 10,
    }
    assert not texts(rows, "selection") & texts(rows, "train")
    assert texts(rows, "calibration") <= texts(rows, "train")
    assert rows.counts()["selection"] == {"source": "held out of t", "count": 20}
    assert rows.counts()["calibration"] == {"source": "t", "count": 10}
    assert not notes


def test_a_file_sorted_by_class_calibrates_on_all_classes():
    rows, _ = rows_of([0] * 40 + [1] * 40, select_on="validation", calibration_rows=16)
    assert rows["train"]["label"][:] == [0] * 40 + [1] * 40
    assert 4 <= sum(rows["calibration"]["label"]) <= 12
    # Which rows these are, the seed says.
    other, _ = rows_of([0] * 40 + [1] * 40, select_on="validation", calibration_rows=16, seed=1)
    assert texts(other, "calibration") != texts(rows, "calibration")


@pytest.mark.parametrize(("rows", "kept"), [(800, 200), (4000, 500), (5000, 500), (8000, 800)])
def test_a_tenth_is_kept_for_selection_or_500_rows_but_no_more_than_a_quarter(rows, kept):
    assert rows * _selection_fraction(rows) == kept


def test_a_fraction_that_leaves_next_to_nothing_to_train_on():
    with pytest.raises(UserError, match=r"too few training rows: 4 are left once 76 are kept .* lower --selection-fr"):
        rows_of([0, 1] * 40, selection_fraction=0.95)


def test_how_much_is_kept_for_selection_can_be_said():
    rows, _ = rows_of([0, 1] * 40, selection_fraction=0.6)
    assert (len(rows["train"]), len(rows["selection"])) == (32, 48)


def test_selection_on_the_validation_rows():
    rows, _ = rows_of([0, 1] * 40, select_on="validation")
    assert texts(rows, "selection") == texts(rows, "validation")
    assert len(rows["train"]) == 80
    assert rows.counts()["selection"]["source"] == "v"


def test_without_labels_half_of_the_validation_rows_serve():
    rows, notes = rows_of([None] * 80, calibration_rows=7)
    assert (len(rows["train"]), len(rows["selection"]), len(rows["validation"])) == (80, 20, 20)
    assert not texts(rows, "selection") & texts(rows, "validation")
    assert texts(rows, "calibration") <= texts(rows, "selection")
    assert len(rows["calibration"]) == 7
    assert rows.counts()["validation"] == {"source": "the rest of v", "count": 20}
    assert "20 validation rows serve for calibration and selection" in notes[0]


@pytest.mark.parametrize(("importance_on", "calibrated"), [("labels", 30), ("teacher", 70)])
def test_rows_without_labels_calibrate_on_predictions_alone(importance_on, calibrated):
    rows, _ = rows_of([0, 1] * 20 + [None] * 40, importance_on=importance_on, calibration_rows=1000)
    assert len(rows["calibration"]) == calibrated


def test_validation_rows_are_no_training_pieces():
    rows, _ = rows_of([0, 1] * 40)
    expected = [piece for use in ("train", "selection") for row in rows[use]["input_ids"] for piece in row]
    np.testing.assert_array_equal(rows.training_pieces(), expected)
    rows, _ = rows_of([0, 1] * 40, select_on="validation")
    assert sorted(rows.training_pieces()) == sorted(expected)


def test_readable_rows():
    rows, _ = rows_of([0, 1] * 40)
    assert rows.readable("validation")[0] == "w5 w25"
    pairs = table(0, [0, 1] * 20, text_b=["w9"] * 40)
    words = datasets.Dataset.from_dict({"words": [["w5", "w6"]] * 40, "label": [[0, 1]] * 40})
    given = CompressSettings(teacher="t", train_file="f", output_dir="o", select_on="validation")
    for table_, first in ((pairs, "w5 w5 | w9"), (words, ["w5", "w6"])):
        data = TaskData(TASK, table_, table_, {"train": "t", "validation": "v"}, "")
        assert Rows(given, data, print).readable("validation")[0] == first


@pytest.mark.parametrize(
    ("labels", "settings", "expected"),
    [
        ([0, 1] * 40, {}, {"t": (80, 80), "v": (40, 40)}),
        ([0, 1] * 40, {"select_on": "validation"}, {"t": (80, 80), "v": (40, 40)}),
        ([None] * 80, {}, {"t": (80, 80), "v": (40, 40)}),
    ],
    ids=["held out", "the validation rows", "half of the validation rows"],
)
def test_what_is_cut_off_is_counted_once_for_each_file(labels, settings, expected):
    short = tiny_tokenizer()
    short.model_max_length = 3  # one word
    rows = rows_of(labels, short, **settings)[0]
    assert {source: (cut.cut, cut.rows) for source, cut in rows.cuts.items()} == expected


def test_the_fingerprint_of_tokens_is_of_every_token_and_of_where_rows_end():
    cut = tiny_tokenizer()
    cut.model_max_length = 3
    other = tiny_tokenizer()
    other.backend_tokenizer.normalizer = normalizers.Replace("w5", "w6")
    found = [rows_of([0, 1] * 40, tokenizer)[0] for tokenizer in (tiny_tokenizer(), tiny_tokenizer(), cut, other)]
    prints = [rows.tokens_fingerprint for rows in found]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3
    # The same tokens in the same order, but of other rows.
    one, two = (
        [datasets.Dataset.from_dict({"input_ids": ids, "length": [len(row) for row in ids]})]
        for ids in ([[1, 2], [3]], [[1], [2, 3]])
    )
    assert _fingerprint(one) != _fingerprint(two)
