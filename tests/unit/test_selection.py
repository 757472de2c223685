import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidisc.measure import Sizes
from minidisc.selection import Candidate, choose_assistant, tradeoff
from minidisc.subnetworks import SubnetworkSpec

METRICS = {0.5: 0.92, 0.6: 0.91, 0.7: 0.88, 0.8: 0.87, 0.9: 0.80}


def candidates(metrics, lam):
    return [
        Candidate(SubnetworkSpec(sparsity, (1,), (1,)), Sizes(1, 2, 3), {"metric": m}, 0, tradeoff(m, sparsity, lam))
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


def test_metrics_below_zero_take_part():
    assert choose_assistant(candidates({0.5: -0.3, 0.6: -0.1, 0.7: -0.2}, 0.2)).metric == -0.1


@given(st.dictionaries(st.integers(1, 99).map(lambda n: n / 100), st.floats(-1, 1), min_size=1), st.floats(0, 1))
def test_nothing_is_better_than_the_chosen(metrics, lam):
    rows = candidates(metrics, lam)
    chosen = choose_assistant(rows)
    for row in rows:
        assert (row.metric + lam * row.spec.sparsity) <= chosen.metric + lam * chosen.spec.sparsity + 1e-9
