import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics import f1_score

from minidisc.tasks.entities import entity_counts, entity_f1


def f1(predictions, labels):
    return entity_f1(entity_counts(predictions, labels))


def entities(tags):
    """The rules of conlleval for IOB tags, sentence by sentence, written down anew."""
    found, start = set(), None
    for i, tag in enumerate([*tags, "O"]):
        continues = start is not None and tag.startswith("I-") and tag[2:] == tags[start][2:]
        if start is not None and not continues:
            found.add((tags[start][2:], start, i))
            start = None
        if tag != "O" and start is None:
            start = i
    return found


TAGS = st.sampled_from(["O", "O", "B-a", "I-a", "B-b", "I-b", "B-a-b", "I-a-b"])
ROW = st.lists(st.tuples(TAGS, TAGS), min_size=1, max_size=12)


@given(st.lists(ROW, min_size=1, max_size=6))
def test_the_same_as_seqeval_and_as_the_rules(rows):
    predictions = [[predicted for predicted, _ in row] for row in rows]
    labels = [[label for _, label in row] for row in rows]
    value = f1(predictions, labels)
    assert value == pytest.approx(f1_score(labels, predictions, zero_division=0))
    found, true = [entities(row) for row in predictions], [entities(row) for row in labels]
    right, all_of_them = sum(len(a & b) for a, b in zip(found, true, strict=True)), sum(map(len, found + true))
    assert value == pytest.approx(2 * right / all_of_them if all_of_them else 0)


@pytest.mark.parametrize(
    ("predicted", "label", "expected"),
    [
        # Both entities found; one of two; one found where there are two, and one is wrong.
        ("B-PER I-PER O B-LOC", "B-PER I-PER O B-LOC", 1.0),
        ("B-PER I-PER O O", "B-PER I-PER O B-LOC", 2 * 1 * 0.5 / 1.5),
        ("B-PER O O B-LOC", "B-PER I-PER O B-LOC", 0.5),
        ("B-ORG I-ORG O B-LOC", "B-PER I-PER O B-LOC", 0.5),
        # An I that nothing precedes begins an entity: the strict reading would count none of these.
        ("I-PER I-PER O I-LOC", "B-PER I-PER O B-LOC", 1.0),
        ("B-ORG I-PER", "B-ORG B-PER", 1.0),
        # Neighbours of one type are two entities only if the second begins with B.
        ("B-PER I-PER", "B-PER B-PER", 0.0),
        ("O O", "O O", 0.0),
        ("O O", "B-PER O", 0.0),
    ],
)
def test_counted_by_hand(predicted, label, expected):
    assert f1([predicted.split()], [label.split()]) == pytest.approx(expected)


def test_an_entity_ends_with_its_sentence():
    whole = f1([["B-PER"], ["I-PER"]], [["B-PER"], ["B-PER"]])
    assert whole == 1.0


def test_entities_are_counted_over_all_sentences_not_averaged():
    predictions = [["B-a", "B-a", "B-a"], ["O", "O"]]
    labels = [["B-a", "B-a", "B-a"], ["B-a", "B-b"]]
    # 3 right, 3 predicted, 5 there.
    assert f1(predictions, labels) == pytest.approx(2 * 3 / (3 + 5))
