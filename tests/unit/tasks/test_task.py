import warnings

import numpy as np
import pytest
from scipy.stats import pearsonr, rankdata, spearmanr
from sklearn.metrics import f1_score, matthews_corrcoef

from minidisc.tasks import BENCHMARKS, GLUE, METRICS, Task

# True positives 3, false negatives 1, false positives 2, true negatives 4.
LABELS = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
PREDICTIONS = np.array([1, 1, 1, 0, 1, 1, 0, 0, 0, 0])
CONFUSION = {
    "accuracy": 7 / 10,
    "f1": 2 * 3 / (2 * 3 + 1 + 2),
    "matthews": (3 * 4 - 2 * 1) / np.sqrt((3 + 2) * (3 + 1) * (4 + 2) * (4 + 1)),
}


def one_hot(predictions, classes=2):
    return np.eye(classes)[predictions]


def binary(*metrics):
    return Task("t", "classification", ("text",), "label", ("no", "yes"), True, metrics)


def regression():
    return Task("t", "regression", ("text",), "label", None, False, ("pearson", "spearman"))


def correlation(a, b):
    a, b = a - a.mean(), b - b.mean()
    return (a @ b) / np.sqrt((a @ a) * (b @ b))


@pytest.mark.parametrize(("name", "value"), CONFUSION.items())
def test_classification_metrics_on_a_table_counted_by_hand(name, value):
    assert METRICS[name](PREDICTIONS, LABELS) == pytest.approx(value)
    assert binary(name).evaluate(one_hot(PREDICTIONS), LABELS)["metric"] == pytest.approx(value)


def test_predictions_and_labels_are_not_swapped():
    predictions, labels = np.array([1, 1, 1, 0, 2]), np.array([1, 0, 0, 0, 0])
    assert METRICS["f1"](np.minimum(predictions, 1), labels) == f1_score(labels, np.minimum(predictions, 1))
    assert METRICS["matthews"](predictions, labels) == pytest.approx(matthews_corrcoef(labels, predictions))


@pytest.mark.parametrize("classes", [2, 5])
def test_metrics_are_those_of_scikit_learn_and_scipy(classes):
    random = np.random.default_rng(classes)
    for rows in (3, 40, 3000):
        predictions, labels = random.integers(0, classes, (2, rows))
        expected = {"matthews": matthews_corrcoef(labels, predictions)}
        if classes == 2:
            expected["f1"] = f1_score(labels, predictions, zero_division=0)
        # Some are equal, and so share a rank.
        scores, truth = random.normal(size=rows).astype(np.float32), random.integers(0, 6, rows) / 2
        expected |= {"pearson": pearsonr(scores, truth).statistic, "spearman": spearmanr(scores, truth).statistic}
        for name, value in expected.items():
            given = (scores, truth) if name in ("pearson", "spearman") else (predictions, labels)
            assert METRICS[name](*given) == pytest.approx(value, rel=1e-6, abs=1e-12), (name, rows)


def test_metric_is_the_mean():
    values = binary("accuracy", "f1").evaluate(one_hot(PREDICTIONS), LABELS)
    assert set(values) == {"accuracy", "f1", "metric"}
    assert values["metric"] == pytest.approx((CONFUSION["accuracy"] + CONFUSION["f1"]) / 2)


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_correlations(shape):
    predictions = np.array([0.1, 0.4, 0.35, 2.0, 1.5, 9.0], dtype=np.float32)
    labels = np.array([0.0, 1.0, 1.0, 2.5, 3.0, 3.5])
    values = regression().evaluate(predictions.reshape(shape), labels)
    assert values["pearson"] == pytest.approx(correlation(predictions.astype(float), labels))
    assert values["spearman"] == pytest.approx(correlation(rankdata(predictions), rankdata(labels)))
    assert values["metric"] == pytest.approx((values["pearson"] + values["spearman"]) / 2)
    assert values["pearson"] < 0.9 < values["spearman"]


@pytest.mark.parametrize("value", [0.0, 0.1, 1e8])
def test_constant_predictions_score_zero_without_a_warning(value):
    labels = np.array([0, 1, 1, 0, 2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        constant = np.full(5, value, dtype=np.float32)
        assert regression().evaluate(constant, labels) == {"pearson": 0, "spearman": 0, "metric": 0}
        assert binary("matthews").evaluate(one_hot(np.ones(5, int)), np.array([1, 1, 0, 0, 1]))["metric"] == 0
        assert binary("matthews").evaluate(one_hot(np.ones(5, int)), np.ones(5, int))["metric"] == 0
        assert binary("f1").evaluate(one_hot(np.zeros(5, int)), np.zeros(5, int))["metric"] == 0


@pytest.mark.parametrize("value", [0.1, -2.5, 1e8])
def test_what_fp32_rounds_is_no_correlation(value):
    steps = np.array([0, 1, 2, 3, 5])
    resolution = np.spacing(np.float32(abs(value)))
    rounded = np.float32(value) + (steps * resolution).astype(np.float32)
    assert len({*rounded.tolist()}) == 5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for noise in (rounded, value + steps * 1e-15 * abs(value)):
            assert regression().evaluate(noise, steps) == {"pearson": 0, "spearman": 0, "metric": 0}
        values = regression().evaluate((value + steps * 100.0 * resolution).astype(np.float32), steps)
    assert values == pytest.approx({"pearson": 1, "spearman": 1, "metric": 1}, abs=1e-3)


def test_labels_are_never_taken_for_rounded_ones():
    labels = 2020 + np.array([0, 1, 2, 3, 5]) * 1e-5
    assert regression().evaluate(np.array([0, 1, 2, 3, 5.0]), labels)["metric"] == pytest.approx(1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_outputs_that_are_not_finite(bad):
    logits = one_hot(PREDICTIONS)
    logits[[2, 5], 1] = bad
    with pytest.raises(FloatingPointError, match="2 of 10 rows"):
        binary("accuracy").evaluate(logits, LABELS)
    with pytest.raises(FloatingPointError, match="1 of 2 rows"):
        regression().evaluate(np.array([1.0, bad]), np.array([1.0, 2.0]))


def test_chance_is_what_the_majority_class_scores():
    assert binary("accuracy").chance(LABELS) == pytest.approx(0.6)
    assert binary("accuracy", "f1").chance(LABELS) == pytest.approx(0.3)
    # Class 1 in 6 of 10 rows, always predicted: precision 0.6, recall 1.
    assert binary("accuracy", "f1").chance(1 - LABELS) == pytest.approx((0.6 + 0.75) / 2)
    assert binary("matthews").chance(LABELS) == 0
    assert regression().chance(np.array([0.5, 1.5])) == 0


@pytest.mark.parametrize(
    ("name", "classes", "columns", "metrics"),
    [
        ("cola", 2, 1, ("matthews",)),
        ("sst2", 2, 1, ("accuracy",)),
        ("mrpc", 2, 2, ("accuracy", "f1")),
        ("stsb", None, 2, ("pearson", "spearman")),
        ("qqp", 2, 2, ("accuracy", "f1")),
        ("mnli", 3, 2, ("accuracy",)),
        ("qnli", 2, 2, ("accuracy",)),
        ("rte", 2, 2, ("accuracy",)),
        ("wnli", 2, 2, ("accuracy",)),
    ],
)
def test_glue(name, classes, columns, metrics):
    task = GLUE[f"glue/{name}"]
    assert task.name == f"glue/{name}"
    assert len(task.text_columns) == columns
    assert task.metrics == metrics
    assert (task.label_names and len(task.label_names)) == classes
    assert task.kind == ("classification" if classes else "regression")
    assert task.named is (classes is not None)


def test_glue_has_nine_tasks_and_rte_and_wnli_differ():
    assert len(GLUE) == 9
    assert GLUE["glue/rte"].label_names == tuple(reversed(GLUE["glue/wnli"].label_names))
    assert GLUE["glue/mnli"].label_names == ("entailment", "neutral", "contradiction")


TAG_NAMES = ("O", "B-a", "I-a", "B-b", "I-b")
SENTENCES = ["B-a I-a O B-b", "O", "B-b B-b", "O B-a"]
GUESSES = ["B-a I-a O O", "B-a", "B-b O", "O B-a"]


def tagging():
    return Task("t", "token-classification", ("tokens",), "ner_tags", TAG_NAMES, True, ("entity_f1",))


def objects(rows):
    array = np.empty(len(rows), dtype=object)
    array[:] = rows
    return array


def tag_labels(sentences=SENTENCES):
    return objects([np.array([TAG_NAMES.index(tag) for tag in sentence.split()]) for sentence in sentences])


def tag_logits(sentences=GUESSES):
    return objects([one_hot(row, len(TAG_NAMES)).astype(np.float32) for row in tag_labels(sentences)])


def test_entities_of_logits():
    # Right: the first a, one b, the last a. Guessed: these and one a too many. There: these and two b.
    expected = 2 * 3 / (4 + 5)
    values = tagging().evaluate(tag_logits(), tag_labels())
    assert values == {"entity_f1": pytest.approx(expected), "metric": pytest.approx(expected)}


@pytest.mark.parametrize("rows", [[0], [3, 3, 1], [2, 0, 2, 1]])
def test_any_rows_may_be_scored(rows):
    rows = np.array(rows)
    guesses, truth = ([sentences[row] for row in rows] for sentences in (GUESSES, SENTENCES))
    expected = tagging().evaluate(tag_logits(guesses), tag_labels(truth))
    assert tagging().evaluate(tag_logits()[rows], tag_labels()[rows]) == expected


def test_a_word_that_the_model_has_not_seen_is_outside():
    logits = tag_logits(SENTENCES)
    assert tagging().evaluate(logits, tag_labels())["metric"] == 1
    logits[0][3] = logits[2][1] = -np.inf
    # 3 of 5 entities are left, all of them right.
    assert tagging().evaluate(logits, tag_labels())["metric"] == pytest.approx(2 * 3 / (3 + 5))
    logits[0][0] = -np.inf
    # "O I-a" is an entity, too, but another one.
    assert tagging().evaluate(logits, tag_labels())["metric"] == pytest.approx(2 * 2 / (3 + 5))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_outputs_for_words_that_are_not_finite(bad):
    logits = tag_logits()
    logits[0][1, 2] = logits[3][0, 0] = bad
    with pytest.raises(FloatingPointError, match="2 of 9 words"):
        tagging().evaluate(logits, tag_labels())


def test_chance_of_entities_is_zero():
    assert tagging().chance(tag_labels()) == 0


def test_conll2003():
    task = BENCHMARKS["conll2003"]
    assert (task.kind, task.text_columns, task.label_column) == ("token-classification", ("tokens",), "ner_tags")
    assert task.label_names == ("O", *(f"{p}-{t}" for t in ("PER", "ORG", "LOC", "MISC") for p in "BI"))
    assert task.metrics == ("entity_f1",)
    assert set(BENCHMARKS) == {*GLUE, "conll2003"}
