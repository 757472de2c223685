import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minidisc.batching import LengthGroupedOrder

lengths_of = st.builds(
    lambda seed, n: np.random.default_rng(seed).integers(1, 60, n).tolist(), st.integers(0, 999), st.integers(1, 700)
)


@settings(max_examples=50)
@given(lengths_of, st.integers(1, 9), st.integers(0, 99))
def test_order_is_a_permutation(lengths, batch_size, seed):
    order = LengthGroupedOrder(lengths, batch_size, seed)
    assert len(order) == len(lengths)
    for epoch in (0, 1):
        order.set_epoch(epoch)
        assert sorted(order) == list(range(len(lengths)))


def epochs_of(seed, count=3):
    order = LengthGroupedOrder(list(range(1, 101)), 8, seed)
    found = []
    for epoch in range(count):
        order.set_epoch(epoch)
        found.append(list(order))
    return found


def test_order_depends_on_seed_and_epoch_alone():
    expected = epochs_of(0)
    np.random.seed(7)
    torch.manual_seed(7)
    assert epochs_of(0) == expected
    assert len({tuple(epoch) for epoch in [*expected, *epochs_of(1)]}) == 6
    order = LengthGroupedOrder(list(range(1, 101)), 8, 0)
    order.set_epoch(2)  # without the epochs before it, as after a resumption
    assert list(order) == expected[2]
    assert list(order) == expected[2]


def padding(order, lengths, batch_size):
    batches = [lengths[order[i : i + batch_size]] for i in range(0, len(order), batch_size)]
    return sum(int(batch.max() * len(batch) - batch.sum()) for batch in batches)


@pytest.mark.parametrize("count", [1000, 1003, 8 * 50 * 2 + 3, 37])
def test_order_needs_little_padding(count):
    random = np.random.default_rng(0)
    lengths = np.minimum(128, 3 + random.lognormal(2.5, 0.8, count)).astype(int)
    order = LengthGroupedOrder(lengths.tolist(), 8, 0)
    at_random = padding(random.permutation(count), lengths, 8)
    assert padding(np.array(list(order)), lengths, 8) < (0.15 if count > 100 else 0.4) * at_random


def test_batches_do_not_come_by_length():
    lengths = np.arange(1, 401)
    order = np.array(list(LengthGroupedOrder(lengths.tolist(), 8, 0)))
    longest = lengths[order].reshape(-1, 8).max(axis=1)
    assert abs(np.corrcoef(np.arange(len(longest)), longest)[0, 1]) < 0.4
