import pytest

from minidisc.errors import UserError
from minidisc.tasks import BENCHMARKS, GLUE, Task, align_labels, unnamed_warning
from minidisc.tasks.classes import placeholder_names


def task(*names, named=True):
    return Task("t", "classification", ("text",), "label", names, named, ("accuracy",))


def names(*values):
    return dict(enumerate(values))


PLACEHOLDERS = names("LABEL_0", "LABEL_1", "LABEL_2")


@pytest.mark.parametrize(
    ("data", "id2label", "expected"),
    [
        (GLUE["glue/mnli"], names("contradiction", "entailment", "neutral"), [1, 2, 0]),
        (GLUE["glue/mnli"], names("CONTRADICTION", "NEUTRAL", "ENTAILMENT"), [2, 1, 0]),
        (GLUE["glue/mnli"], names("entailment", "neutral", "contradiction"), [0, 1, 2]),
        (GLUE["glue/mnli"], PLACEHOLDERS, [0, 1, 2]),
        (GLUE["glue/wnli"], names("entailment", "Not-Entailment"), [1, 0]),
        (GLUE["glue/sst2"], names("POSITIVE", "NEGATIVE"), [1, 0]),
        (GLUE["glue/sst2"], names("Positive", "other", "Negative"), [2, 0]),
        (task("not entailment", "entailment"), names("ENTAILMENT", "NOT_ENTAILMENT"), [1, 0]),
        (task("LABEL_0", "LABEL_1", named=False), names("POSITIVE", "NEGATIVE"), [0, 1]),
        (task("LABEL_0", "LABEL_1", named=False), PLACEHOLDERS, [0, 1]),
        # Text labels of the data that are the teacher's own placeholders, sorted as text.
        (
            task("LABEL_0", "LABEL_1", "LABEL_10", "LABEL_2"),
            names(*(f"LABEL_{index}" for index in range(11))),
            [0, 1, 10, 2],
        ),
        # Integers with a gap are outputs where the teacher has more of them, and mere names where it has as many.
        (task("0", "2"), PLACEHOLDERS, [0, 2]),
        (task("1", "2", "3"), PLACEHOLDERS, [0, 1, 2]),
        (task("-1", "1"), names("LABEL_0", "LABEL_1"), [0, 1]),
        (GLUE["glue/sst2"], PLACEHOLDERS, [0, 1]),
        # Tags in another order, some of them of other types.
        (
            BENCHMARKS["conll2003"],
            names("B-LOC", "B-MISC", "B-ORG", "B-PER", "I-LOC", "I-MISC", "I-ORG", "I-PER", "O", "B-DATE"),
            [8, 3, 7, 2, 6, 0, 4, 1, 5],
        ),
        (BENCHMARKS["conll2003"], names(*(f"LABEL_{index}" for index in range(9))), list(range(9))),
    ],
)
def test_alignment(data, id2label, expected):
    assert align_labels(data, id2label, len(id2label)) == expected


def test_regression():
    assert align_labels(GLUE["glue/stsb"], names("LABEL_0"), 1) == []


@pytest.mark.parametrize(
    ("data", "id2label", "messages"),
    [
        (GLUE["glue/stsb"], names("a", "b"), ["2 outputs", "--task classification"]),
        (GLUE["glue/sst2"], names("LABEL_0"), ["2 classes", "one output", "--task regression"]),
        (GLUE["glue/mnli"], names("no", "yes"), ["3 classes", "2 outputs", "'neutral'"]),
        (task("LABEL_0", "LABEL_1", "LABEL_2", named=False), names("LABEL_0", "LABEL_1"), ["3 classes", "2 outputs"]),
        (GLUE["glue/sst2"], names("bad", "good"), ["'negative', 'positive'", "'bad', 'good'", "id2label", "rename"]),
        (GLUE["glue/sst2"], names("neg", "pos"), ["'neg', 'pos'"]),
        (BENCHMARKS["conll2003"], names("O", "I-PER"), ["9 classes", "2 outputs"]),
        (BENCHMARKS["conll2003"], names(*"ABCDEFGHI"), ["'B-PER'", "'A', 'B'"]),
        (GLUE["glue/mnli"], names("entailment", "neutral", "contra"), ["'contra'"]),
        (task("bad", "good"), PLACEHOLDERS, ["2 classes", "3 outputs", "id2label"]),
        # One output cannot stand for two classes.
        (task("Positive", "positive"), names("positive", "negative"), ["'Positive', 'positive'"]),
    ],
)
def test_errors(data, id2label, messages):
    with pytest.raises(UserError) as caught:
        align_labels(data, id2label, len(id2label))
    for message in messages:
        assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("id2label", "expected"),
    [
        (PLACEHOLDERS, True),
        (names("label_0", "LABEL 1"), True),
        (names("LABEL_0", "good"), False),
        (names("0", "1"), False),
        (names("entailment", "neutral"), False),
    ],
)
def test_placeholder_names(id2label, expected):
    assert placeholder_names(id2label.values()) is expected


def test_names_that_differ_in_a_sign_alone():
    task = Task("t", "classification", ("text",), "label", ("-1", "0", "1"), True, ("accuracy",))
    assert align_labels(task, {0: "-1", 1: "0", 2: "1"}, 3) == [0, 1, 2]
    assert align_labels(task, {0: "1", 1: "-1", 2: "0"}, 3) == [1, 2, 0]


def test_what_is_said_of_outputs_without_names():
    warning = unnamed_warning(task("contra", "pro", "so"), PLACEHOLDERS)
    assert warning == "the model's labels have no names; its outputs are taken to be contra, pro, so, in this order."
    assert unnamed_warning(task("contra", "pro"), names("pro", "contra")) is None
    assert unnamed_warning(task("LABEL_0", "LABEL_1", named=False), PLACEHOLDERS) is None
