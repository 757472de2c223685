from collections import Counter

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidisc.errors import UserError
from minidisc.tasks import hold_out
from minidisc.tasks.split import _draw_stratified

TEXTS = [f"text {index}" for index in range(200)]


def rows_of(texts, labels, pairs=None, dtype="int64"):
    columns = {"text_a": texts, **({"text_b": pairs} if pairs else {}), "label": labels}
    features = {name: datasets.Value("string") for name in columns} | {"label": datasets.Value(dtype)}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def tuples(rows):
    return list(zip(*(rows[name] for name in rows.column_names), strict=True))


@st.composite
def tables(draw):
    count = draw(st.integers(20, 120))
    distinct = draw(st.integers(10, 400))
    classes = draw(st.integers(2, 5))
    texts = [f"text {draw(st.integers(0, distinct))}" for _ in range(count)]
    labels = draw(st.lists(st.none() | st.integers(0, classes - 1), min_size=count, max_size=count))
    return texts, labels


@settings(max_examples=60, deadline=None)
@given(
    table=tables(),
    fraction=st.floats(0.05, 0.95),
    maximum=st.integers(8, 60),
    seed=st.integers(0, 5),
    kind=st.sampled_from(["int64", "float64"]),
)
def test_properties(table, fraction, maximum, seed, kind):
    rows = rows_of(*table, dtype=kind)
    try:
        rest, held = hold_out(rows, fraction, maximum, seed)
    except UserError as error:
        assert "--select-on validation" in str(error)
        copies = Counter(rows["text_a"])
        singles = sum(
            label is not None and copies[text] == 1 for text, label in zip(rows["text_a"], rows["label"], strict=True)
        )
        labelled = sum(label is not None for label in rows["label"])
        assert min(singles, round(fraction * labelled)) < 8
        return
    everything, left, kept = tuples(rows), tuples(rest), tuples(held)
    assert Counter(left) + Counter(kept) == Counter(everything)
    assert not {row[0] for row in left} & {row[0] for row in kept}
    assert all(label is not None for label in held["label"])
    assert len(held) <= min(maximum, round(fraction * sum(label is not None for label in rows["label"])))
    again = hold_out(rows, fraction, maximum, seed)
    assert (left, kept) == (tuples(again[0]), tuples(again[1]))
    position = {row: index for index, row in reversed(list(enumerate(everything)))}
    assert [position[row] for row in kept] == sorted(position[row] for row in kept)
    if kind == "int64":
        assert {label for label in rows["label"] if label is not None} == set(rest["label"]) - {None}
    assert rest.features == held.features == rows.features


def test_classes_keep_their_shares():
    labels = [0] * 700 + [1] * 200 + [2] * 96 + [3] * 4
    rows = rows_of([f"text {index}" for index in range(1000)], labels)
    rest, held = hold_out(rows, 0.1, 2000, 0)
    assert Counter(held["label"]) in ({0: 70, 1: 20, 2: 9, 3: 1}, {0: 69, 1: 20, 2: 10, 3: 1})
    assert len(rest) == 900


def test_a_class_of_one_row_stays_with_the_rest():
    rows = rows_of([f"text {index}" for index in range(100)], [0] * 50 + [1] * 49 + [2])
    rest, held = hold_out(rows, 0.5, 2000, 0)
    assert 2 in rest["label"]
    assert set(held["label"]) == {0, 1}
    assert len(held) == 50


def test_the_rarest_class_has_a_row_on_either_side():
    rows = rows_of([f"text {index}" for index in range(100)], [0] * 98 + [1] * 2)
    rest, held = hold_out(rows, 0.1, 2000, 0)
    assert rest["label"][:].count(1) == held["label"][:].count(1) == 1


def test_seeds_differ_and_the_maximum_holds():
    rows = rows_of([f"text {index}" for index in range(200)], [index % 2 for index in range(200)])
    draws = [tuple(hold_out(rows, 0.5, 40, seed)[1]["text_a"]) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert len(draws[0]) == 40


def test_pairs_are_the_same_only_as_a_whole():
    count = 40
    pairs = [f"second {index}" for index in range(count)]
    rest, held = hold_out(rows_of(["first"] * count, [0, 1] * 20, pairs), 0.5, 2000, 0)
    assert len(held) == 20
    assert not set(rest["text_b"]) & set(held["text_b"])


def test_sentences_of_words():
    sentences = [["the", f"word{index % 30}"] for index in range(40)]
    labels = [None if index < 4 else [0, 1] for index in range(40)]
    features = {
        "words": datasets.Sequence(datasets.Value("string")),
        "label": datasets.Sequence(datasets.Value("int64")),
    }
    rows = datasets.Dataset.from_dict({"words": sentences, "label": labels}, features=datasets.Features(features))
    rest, held = hold_out(rows, 0.5, 2000, 0)
    # word0 to word9 occur twice.
    assert len(held) == 18
    assert all(label == [0, 1] for label in held["label"])
    assert all(int(words[1].removeprefix("word")) >= 10 for words in held["words"])
    assert sorted([*rest["words"], *held["words"]]) == sorted(sentences)
    assert rest.features == held.features == rows.features


@pytest.mark.parametrize(
    ("texts", "labels", "fraction", "of_training", "why"),
    [
        (TEXTS[:60], [0, 1] * 30, 0.1, True, "only 6 of 60 labelled training rows .* raise --selection-fraction"),
        (["same"] * 200, [0, 1] * 100, 0.1, True, "since 200 stand there more than once, .* give more of them"),
        (TEXTS, [None] * 193 + [0, 1] * 3 + [0], 0.9, True, "only 6 of 7 labelled .* raise --selection-fraction"),
        (TEXTS[:10], [0, 1] * 5, 0.5, False, "only 5 of 10 validation rows .* give more of them"),
    ],
)
def test_too_few_rows(texts, labels, fraction, of_training, why):
    with pytest.raises(UserError, match=f"{why}, or use --select-on validation"):
        hold_out(rows_of(texts, labels), fraction, 2000, 0, of_training)


class Compared(np.ndarray):
    """Labels that count how often all of them are looked through for one class."""

    times = 0

    def __eq__(self, other):
        Compared.times += 1
        return np.asarray(self) == other

    __hash__ = None


def test_labels_are_not_looked_through_for_every_class():
    random = np.random.default_rng(0)
    labels, labelled = random.integers(-3, 40, 300), sorted(random.permutation(400)[:300].tolist())
    # All of every class but one row: what is drawn says which rows a class has, in which order they were given.
    held = _draw_stratified(np.random.default_rng(1), labels.view(Compared), labelled, set(labelled), 300)
    assert Compared.times == 0
    other = np.random.default_rng(1)
    assert held == [
        row
        for label in sorted(set(labels.tolist()))
        for own in [[row for row, its in zip(labelled, labels, strict=True) if its == label]]
        for row in other.choice(own, size=len(own) - 1, replace=False).tolist()
    ]
