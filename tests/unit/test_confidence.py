import math

import numpy as np
import pytest
from scipy import stats

from minidisc.confidence import RESAMPLES, bootstrap, coin_toss, drops
from minidisc.results import Sizes
from minidisc.selection import Candidate, Confidence
from minidisc.subnetworks import SubnetworkSpec
from minidisc.tasks import Task


def task(*metrics, kind="classification"):
    names = ("no", "yes") if kind == "classification" else None
    return Task("t", kind, ("text",), "label", names, True, metrics)


ACCURACY = task("accuracy")


class Recorder(Task):
    """A task that remembers what it is asked; of each row it needs to know a number."""

    def digest(self, logits, labels):
        assert [len(row) for row in logits] == [len(row) for row in labels]
        return np.array([row[0, 0] for row in logits])

    def score(self, digest, labels):
        ASKED.append((digest, labels))
        return {"metric": 0.5}


ASKED = []


def right_on(*parts):
    """Labels are all 1; logits of a candidate that is right on the rows where ``parts``, (right, count), say so."""
    right = np.concatenate([np.full(count, bool(value)) for value, count in parts])
    return np.stack([~right, right], axis=1).astype(np.float32)


def ones(logits):
    return np.ones(len(logits), dtype=np.int64)


# Intervals.


@pytest.mark.parametrize(("rows", "right"), [(200, 160), (2000, 1234), (50, 49), (40, 0)])
def test_the_interval_of_an_accuracy_is_the_binomials(rows, right):
    logits = right_on((1, right), (0, rows - right))
    (found,) = bootstrap(ACCURACY, [logits], ones(logits), [0.5], 0.2, seed=0)
    share = right / rows
    # A percentile of 1,000 draws lies, but for one time in 10,000, within four standard errors of its rank.
    width = 4 * math.sqrt(0.025 * 0.975 / RESAMPLES)
    for value, at in zip(found.interval, (0.025, 0.975), strict=True):
        low, high = (stats.binom.ppf(min(max(at + sign * width, 0), 1), rows, share) / rows for sign in (-1, 1))
        assert low - 1e-9 <= value <= high + 1e-9
    assert found.probability == 1


@pytest.mark.parametrize("metrics", [("spearman",), ("pearson", "spearman")])
def test_the_interval_of_a_correlation_is_scipys(metrics):
    random = np.random.default_rng(5)
    labels = random.normal(size=120)
    logits = (labels + random.normal(size=120))[:, None]

    def metric(values, truth):
        each = {"pearson": stats.pearsonr, "spearman": stats.spearmanr}
        return np.mean([each[name](values, truth).statistic for name in metrics])

    (found,) = bootstrap(task(*metrics, kind="regression"), [logits], labels, [0.5], 0.2, seed=1)
    expected = stats.bootstrap(
        (logits[:, 0], labels), metric, paired=True, vectorized=False, n_resamples=1000, method="percentile", rng=2
    )
    assert found.interval == pytest.approx(tuple(expected.confidence_interval), abs=0.025)


def test_the_mean_of_f1_and_accuracy():
    random = np.random.default_rng(7)
    labels = random.integers(0, 2, 150)
    predicted = np.where(random.random(150) < 0.8, labels, 1 - labels)

    def metric(values, truth):
        hits = np.sum(values * truth)
        return (2 * hits / (np.sum(values) + np.sum(truth)) + np.mean(values == truth)) / 2

    logits = np.eye(2)[predicted]
    (found,) = bootstrap(task("accuracy", "f1"), [logits], labels, [0.5], 0.2, seed=1)
    expected = stats.bootstrap(
        (predicted, labels), metric, paired=True, vectorized=False, n_resamples=2000, method="percentile", rng=2
    )
    assert found.interval == pytest.approx(tuple(expected.confidence_interval), abs=0.012)


# Probabilities.


def probability_of_first(only_first, only_second, rows, lead):
    """Of more than ``lead`` rows' advantage, counted over all ways in which the rows that differ can be drawn."""
    total = 0.0
    for differing in range(rows + 1):
        drawn = stats.binom.pmf(differing, rows, (only_first + only_second) / rows)
        if drawn < 1e-12:
            continue
        share = only_first / (only_first + only_second)
        # first - second = 2 first - differing > lead
        needed = math.floor((lead + differing) / 2) + 1
        total += drawn * stats.binom.sf(needed - 1, differing, share)
    return total


@pytest.mark.parametrize(
    ("only_first", "only_second", "lam"), [(14, 6, 0.2), (9, 5, 0.2), (30, 20, 0.25), (4, 5, 0.0)]
)
def test_the_probability_is_that_of_the_paired_difference(only_first, only_second, lam):
    both, neither = 120, 20
    first = right_on((1, both), (1, only_first), (0, only_second), (0, neither))
    second = right_on((1, both), (0, only_first), (1, only_second), (0, neither))
    rows = len(first)
    found = bootstrap(ACCURACY, [first, second], ones(first), [0.5, 0.6], lam, seed=3)
    # The sparser second one also has what is equal.
    expected = probability_of_first(only_first, only_second, rows, lead=round(lam * 0.1 * rows, 6))
    error = math.sqrt(expected * (1 - expected) / RESAMPLES)
    assert 0.02 < expected < 0.98
    assert found[0].probability == pytest.approx(expected, abs=4 * error)
    assert found[0].probability + found[1].probability == pytest.approx(1)


def test_a_clear_winner_is_certain():
    good, bad = right_on((1, 190), (0, 10)), right_on((1, 100), (0, 100))
    found = bootstrap(ACCURACY, [bad, good, bad], ones(good), [0.5, 0.6, 0.7], 0.2, seed=0)
    assert [c.probability for c in found] == [0, 1, 0]
    assert coin_toss(table([0.5, 0.95, 0.5], [c.probability for c in found])) is None


def test_what_is_never_worse_wins_each_resample():
    # Right on two rows more, and on no row less: only the same drawn rows for both show that it is never worse.
    less, more = right_on((1, 100), (0, 100)), right_on((1, 102), (0, 98))
    found = bootstrap(ACCURACY, [less, more], ones(less), [0.5, 0.6], 0.0, seed=0)
    assert [c.probability for c in found] == [0, 1]
    assert found[1].interval[0] < 0.5 < 0.51 < found[0].interval[1]


def test_of_equal_ones_the_sparser_is_chosen_each_time():
    logits = right_on((1, 60), (0, 40))
    found = bootstrap(ACCURACY, [logits] * 3, ones(logits), [0.7, 0.9, 0.5], 0.0, seed=0)
    assert [c.probability for c in found] == [0, 1, 0]
    assert found[0].interval == found[1].interval == found[2].interval


def test_two_as_good_ones_have_even_chances():
    # Each is right on 50 rows of 200 where the other is wrong; what is equal in a resample goes to the sparser.
    first, second = right_on((1, 50), (0, 50), (1, 100)), right_on((0, 50), (1, 50), (1, 100))
    found = bootstrap(ACCURACY, [first, second], ones(first), [0.5, 0.6], 0.0, seed=0)
    expected = probability_of_first(50, 50, 200, lead=0)
    assert 0.45 < expected < 0.5
    assert found[0].probability == pytest.approx(expected, abs=4 * math.sqrt(0.25 / RESAMPLES))


# How rows are drawn.


def test_all_candidates_are_scored_on_the_same_rows_and_rows_may_be_ragged():
    # Rows of token classification: one array of (tokens, classes) and one of (tokens,) labels for each row.
    lengths = [3, 1, 4, 2, 5]
    logits = [np.empty(5, dtype=object) for _ in range(2)]
    labels = np.empty(5, dtype=object)
    for row, length in enumerate(lengths):
        labels[row] = np.full(length, row)
        for candidate in range(2):
            logits[candidate][row] = np.full((length, 3), 10.0 * candidate + row)
    ASKED.clear()
    bootstrap(Recorder("t", "token-classification", (), "", (), True, ()), logits, labels, [0.5, 0.6], 0.2, 0, 20)
    assert len(ASKED) == 40
    draws = []
    for number, (digest, truth) in enumerate(ASKED):
        rows = [int(row[0]) for row in truth]
        assert digest.tolist() == [10 * (number % 2) + row for row in rows]
        assert [len(row) for row in truth] == [lengths[row] for row in rows]
        draws.append(rows)
    assert draws[::2] == draws[1::2]
    assert len({tuple(rows) for rows in draws}) == 20
    assert any(len(set(rows)) < 5 for rows in draws)


@pytest.mark.parametrize("kind", ["classification", "regression", "token-classification", "causal-lm"])
def test_drawn_rows_are_scored_as_they_would_be_alone(kind):
    """What is drawn is the same as scoring the drawn rows' own outputs, for each kind of task."""
    random = np.random.default_rng(5)
    names = {"classification": ("a", "b", "c"), "token-classification": ("O", "B-x", "I-x")}.get(kind)
    metrics = {"classification": ("accuracy", "matthews"), "regression": ("pearson", "spearman")}.get(kind, ())
    own = Task("t", kind, ("text",), "label", names, True, metrics)
    labels = random.integers(0, 3, 30)
    logits = [random.normal(size=(30, 1 if kind == "regression" else 3)) for _ in range(2)]
    if kind == "causal-lm":
        logits = [np.abs(values) + 1 for values in logits]
    elif kind == "token-classification":
        labels, *logits = (ragged(random, width) for width in (0, 3, 3))
    draws = np.random.default_rng(7)
    expected = []
    for _ in range(50):
        rows = draws.integers(0, 30, 30)
        expected.append([own.evaluate(values[rows], labels[rows])["metric"] for values in logits])
    found = bootstrap(own, logits, labels, [0.5, 0.6], 0.2, seed=7, resamples=50)
    assert [c.interval for c in found] == [tuple(np.percentile(m, [2.5, 97.5])) for m in zip(*expected, strict=True)]


def ragged(random, width):
    """Rows of 1 to 4 words: logits of so many classes, or labels."""
    rows = np.empty(30, dtype=object)
    for i in range(30):
        rows[i] = random.normal(size=(1 + i % 4, width)) if width else random.integers(0, 3, 1 + i % 4)
    return rows


def test_outputs_that_are_not_finite_are_refused():
    logits = right_on((1, 20), (0, 10))
    logits[4] = np.nan
    with pytest.raises(FloatingPointError, match="1 of 30 rows"):
        bootstrap(ACCURACY, [logits], ones(logits), [0.5], 0.2, seed=0)


def test_seeded_by_the_seed_alone():
    logits = [right_on((1, 20), (0, 10), (1, n), (0, 30 - n)) for n in (11, 12, 13)]
    arguments = (ACCURACY, logits, ones(logits[0]), [0.5, 0.6, 0.7], 0.2)
    np.random.seed(3)
    state = np.random.get_state()[1].tolist()
    first = bootstrap(*arguments, seed=1)
    assert np.random.get_state()[1].tolist() == state
    np.random.seed(4)
    assert bootstrap(*arguments, seed=1) == first
    assert bootstrap(*arguments, seed=2) != first
    assert sum(c.probability for c in first) == pytest.approx(1)


# What is said of it.


def table(metrics, probabilities, lam=0.2):
    return [
        Candidate(
            SubnetworkSpec(0.5 + i / 10, (1,), (1,)),
            Sizes(1, 2, 3),
            {"metric": metric},
            0,
            metric + lam * (0.5 + i / 10),
            Confidence((metric - 0.1, metric + 0.1), probability),
        )
        for i, (metric, probability) in enumerate(zip(metrics, probabilities, strict=True))
    ]


@pytest.mark.parametrize(
    ("probabilities", "said"),
    [
        ([0.1, 0.25, 0.34, 0.31], "choice of 70 % is a coin toss: probability 0.34, 80 % has 0.31;"),
        ([0.1, 0.45, 0.45, 0.0], "choice of 70 % is a coin toss: probability 0.45, 60 % has 0.45;"),
        ([0.0, 0.6, 0.4, 0.0], "choice of 70 % is a coin toss: probability 0.40, 60 % has 0.60;"),
        ([0.5, 0.0, 0.5, 0.0], "choice of 70 % is a coin toss: probability 0.50, 50 % has 0.50;"),
        ([0.496, 0.0, 0.504, 0.0], "choice of 70 % is a coin toss: probability 0.50, 50 % has 0.50;"),
        ([0.0, 0.49, 0.51, 0.0], None),
        ([0.1, 0.2, 0.7, 0.0], None),
    ],
)
def test_a_coin_toss_is_said(probabilities, said):
    line = coin_toss(table([0.80, 0.80, 0.81, 0.78], probabilities))
    assert line is None if said is None else said in line


# Drops.


def test_the_drop_of_an_accuracy_is_paired():
    """Rows on which both are right or both wrong say nothing: the drop's spread is that of the rows that differ."""
    teacher = right_on((1, 180), (0, 20))
    close, far = right_on((1, 176), (0, 24)), right_on((1, 100), (0, 100))
    found = drops(ACCURACY, teacher, [close, far, teacher], ones(teacher), 0.02, seed=0)
    assert [drop for drop, _, _ in found] == pytest.approx([0.02, 0.4, 0.0])
    # Of 200 rows 4 count, each with a probability of 4 / 200 a draw.
    share = stats.binom.cdf(4, 200, 4 / 200)
    assert found[0][2] == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / RESAMPLES))
    assert found[1][2] == 0
    assert found[2] == (0.0, (0.0, 0.0), 1.0)
    low, high = found[0][1]
    assert low == pytest.approx(stats.binom.ppf(0.025, 200, 0.02) / 200, abs=0.006)
    assert high == pytest.approx(stats.binom.ppf(0.975, 200, 0.02) / 200, abs=0.006)
