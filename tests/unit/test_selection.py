from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidisc.results import Sizes
from minidisc.selection import Candidate, Confidence, choose_assistant, lambda_sweep, lambda_sweeps, range_of, tradeoff
from minidisc.subnetworks import SubnetworkSpec

METRICS = {0.5: 0.92, 0.6: 0.91, 0.7: 0.88, 0.8: 0.87, 0.9: 0.80}


def candidates(metrics, lam):
    return [
        Candidate(
            SubnetworkSpec(sparsity, (1,), (1,)),
            Sizes(1, 2, 3),
            {"metric": m},
            0,
            tradeoff(m, sparsity, lam),
            Confidence((m, m), 0.0),
        )
        for sparsity, m in metrics.items()
    ]


@pytest.mark.parametrize(
    ("lam", "table", "chosen"),
    [
        (0.0, [0.92, 0.91, 0.88, 0.87, 0.80], 0.5),
        (0.1, [0.97, 0.97, 0.95, 0.95, 0.89], 0.6),
        (0.2, [1.02, 1.03, 1.02, 1.03, 0.98], 0.8),
        (0.5, [1.17, 1.21, 1.23, 1.27, 1.25], 0.8),
        (1.0, [1.42, 1.51, 1.58, 1.67, 1.70], 0.9),
    ],
)
def test_by_hand(lam, table, chosen):
    rows = candidates(METRICS, lam)
    assert [row.tradeoff for row in rows] == pytest.approx(table)
    assert choose_assistant(rows).spec.sparsity == chosen
    assert choose_assistant(rows[::-1]).spec.sparsity == chosen


def test_of_equal_ones_the_sparser():
    rows = candidates({0.5: 0.5, 0.75: 0.375, 0.25: 0.625}, 0.5)
    assert {row.tradeoff for row in rows} == {0.75}
    assert choose_assistant(rows).spec.sparsity == 0.75


def test_a_millionth_more_is_more():
    assert choose_assistant(candidates({0.5: 0.800001, 0.75: 0.8}, 0.0)).spec.sparsity == 0.5
    assert lambda_sweep([(0.5, 0.800001), (0.75, 0.8)])[0] == (0, 4e-6, 0.5)


def test_metrics_below_zero_take_part():
    assert choose_assistant(candidates({0.5: -0.3, 0.6: -0.1, 0.7: -0.2}, 0.2)).metric == -0.1


SPARSITIES = st.integers(1, 99).map(lambda n: n / 100)


@given(st.dictionaries(SPARSITIES, st.floats(-1, 1), min_size=1), st.floats(0, 1))
def test_nothing_is_better_than_the_chosen(metrics, lam):
    rows = candidates(metrics, lam)
    chosen = choose_assistant(rows)
    for row in rows:
        assert (row.metric + lam * row.spec.sparsity) <= chosen.metric + lam * chosen.spec.sparsity + 1e-9


# The λ-sweep.


@pytest.mark.parametrize(
    ("metrics", "sweep"),
    [
        # 0.92 + 0.5 λ meets 0.91 + 0.6 λ at 0.1, that meets 0.87 + 0.8 λ at 0.2, and that 0.80 + 0.9 λ at 0.7; 70 %
        # with 0.88 would be next only from 0.3 on.
        (METRICS, [(0, 0.1, 0.5), (0.1, 0.2, 0.6), (0.2, 0.7, 0.8), (0.7, 1, 0.9)]),
        ({0.9: 0.5}, [(0, 1, 0.9)]),
        # The sparser one is also the better one.
        ({0.5: 0.7, 0.9: 0.8, 0.6: 0.75}, [(0, 1, 0.9)]),
        # Equal at λ = 0: the sparser one is chosen there, too.
        ({0.5: 0.8, 0.6: 0.8, 0.7: 0.7}, [(0, 1, 0.6), (1, 1, 0.7)]),
        # They would meet at 2.
        ({0.5: 0.8, 0.6: 0.6}, [(0, 1, 0.5)]),
        # Three meet at 0.2.
        ({0.5: 0.80, 0.55: 0.79, 0.6: 0.78}, [(0, 0.2, 0.5), (0.2, 1, 0.6)]),
        ({0.5: -0.3, 0.75: -0.4}, [(0, 0.4, 0.5), (0.4, 1, 0.75)]),
    ],
)
def test_sweep_by_hand(metrics, sweep):
    for pairs in (list(metrics.items()), list(metrics.items())[::-1]):
        assert lambda_sweep(pairs) == sweep


# Metrics as they are: a share of the rows, or any number.
SCORES = st.integers(-40, 40).map(lambda n: n / 40) | st.floats(-1, 1)


@given(st.dictionaries(SPARSITIES, SCORES, min_size=1, max_size=8), st.lists(st.floats(0, 1), max_size=5))
def test_sweep_chooses_what_the_rule_chooses(metrics, further):
    sweep = lambda_sweep(list(metrics.items()))
    assert (sweep[0].lambda_from, sweep[-1].lambda_to) == (0, 1)
    for before, after in pairwise(sweep):
        assert before.lambda_to == after.lambda_from > before.lambda_from
        assert before.sparsity < after.sparsity
    # At the flip points themselves, between them, on a grid, and anywhere.
    middles = [(r.lambda_from + r.lambda_to) / 2 for r in sweep]
    for lam in [*(r.lambda_from for r in sweep), *middles, *(i / 200 for i in range(201)), *further]:
        chosen = choose_assistant(candidates(metrics, lam)).spec.sparsity
        swept = range_of(sweep, lam).sparsity
        # What differs by a rounding error only may go either way.
        assert chosen == swept or abs(metrics[chosen] - metrics[swept] + lam * (chosen - swept)) < 2e-9


@given(st.dictionaries(st.integers(1, 19), st.integers(0, 16), min_size=1, max_size=8))
def test_flips_where_two_are_exactly_equal_go_to_the_sparser(values):
    # Every t_λ is then a multiple of 1/400, so that equal ones are told from others without any doubt.
    metrics = {s / 20: m / 400 for s, m in values.items()}
    sweep = lambda_sweep(list(metrics.items()))
    for lam in (i / 20 for i in range(21)):
        assert choose_assistant(candidates(metrics, lam)).spec.sparsity == range_of(sweep, lam).sparsity


def test_sweeps_from_the_rows_of_a_run():
    rows = [{"stage": 1, "sparsity": s, "metric": m, "chosen": False} for s, m in METRICS.items()]
    rows += [{"stage": 2, "sparsity": s, "metric": m, "chosen": False} for s, m in {0.8: 0.9, 0.9: 0.8}.items()]
    first, second = lambda_sweeps(rows)
    assert first == lambda_sweep(list(METRICS.items()))
    assert second == [(0, 1, 0.8), (1, 1, 0.9)]


@pytest.mark.parametrize(("lam", "sparsity"), [(0, 0.5), (0.0999, 0.5), (0.1, 0.6), (0.2, 0.8), (1, 0.9)])
def test_range_of(lam, sparsity):
    assert range_of(lambda_sweep(list(METRICS.items())), lam).sparsity == sparsity
