from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidisc.errors import UserError
from minidisc.subnetworks import (
    SubnetworkSpec,
    candidate_sparsities,
    check_grid,
    full_width,
    make_spec,
)

HEADS = np.array([[0.9, 0.1, 0.5], [0.6, 0.2, 0.8]])
NEURONS = np.array([[8, 7, 6, 5, 4, 3], [14, 13, 12, 11, 2, 1]]) / 20


@pytest.mark.parametrize(
    ("sparsity", "heads", "neurons"),
    [
        # Heads by score: 0.9 (layer 0), 0.8 (1), 0.6 (1), 0.5 (0), 0.2 (1), 0.1 (0).
        # Neurons by score: 14, 13, 12, 11 (layer 1), 8, 7, 6, 5, 4, 3 (0), 2, 1 (1).
        (0.0, (3, 3), (6, 6)),
        (1 / 6, (2, 3), (6, 4)),
        (1 / 3, (2, 2), (4, 4)),
        (1 / 2, (1, 2), (2, 4)),
        (2 / 3, (1, 1), (0, 4)),
        (5 / 6, (1, 0), (0, 2)),
        (0.9, (1, 0), (0, 1)),
        (0.95, (0, 0), (0, 1)),
    ],
)
def test_counted_by_hand(sparsity, heads, neurons):
    spec = make_spec(HEADS, NEURONS, sparsity)
    assert (spec.heads, spec.neurons) == (heads, neurons)
    assert spec.sparsity == sparsity


@pytest.mark.parametrize(("multiple", "neurons"), [(1, (2, 4)), (2, (2, 4)), (3, (3, 3)), (4, (4, 4)), (8, (0, 6))])
def test_rounding_by_hand(multiple, neurons):
    # 2 and 4 neurons; halves go up; never more than the 6 there are.
    assert make_spec(HEADS, NEURONS, 0.5, multiple).neurons == neurons


@pytest.mark.parametrize(
    ("sparsity", "multiple", "heads", "neurons"),
    # Of 3 heads and 6 neurons a layer; one of each is left at least, and neurons in whole multiples.
    [(0.0, 1, 3, 6), (1 / 3, 1, 2, 4), (0.6, 1, 1, 2), (1 / 2, 4, 2, 4), (0.9, 1, 1, 1), (0.99, 2, 1, 2)],
)
def test_uniform_widths_by_hand(sparsity, multiple, heads, neurons):
    spec = make_spec(HEADS, NEURONS, sparsity, multiple, uniform=True)
    assert (spec.heads, spec.neurons) == ((heads,) * 2, (neurons,) * 2)


def table(seed, layers, heads, neurons):
    """Scores of heads and of neurons, with many ties."""
    random = np.random.default_rng(seed)
    return [random.integers(0, 5, (layers, units)).astype(float) for units in (heads, neurons)]


scores = st.builds(table, st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 6), st.integers(1, 20))
sparsity = st.integers(0, 99).map(lambda percent: percent / 100)


@given(scores, sparsity)
def test_the_globally_best_are_kept_and_their_number_is_right(both, sparsity):
    spec = make_spec(*both, sparsity)
    for table, kept in zip(both, (spec.heads, spec.neurons), strict=True):
        assert abs(sum(kept) - table.size * (1 - Fraction(sparsity))) <= Fraction(1, 2) + Fraction(1, 10**9)
        ordered = -np.sort(-table, axis=1)
        inside = [row[:k] for row, k in zip(ordered, kept, strict=True)]
        outside = [row[k:] for row, k in zip(ordered, kept, strict=True)]
        assert min(np.concatenate(inside), default=np.inf) >= max(np.concatenate(outside), default=-np.inf)


@given(scores, sparsity, sparsity, st.integers(1, 9), st.booleans(), st.booleans())
def test_sparser_is_contained_in_denser(both, one, other, multiple, uniform, needed):
    how = {"uniform": uniform, "needed": (len(both[0]) - 1,) if needed else ()}
    denser = make_spec(*both, min(one, other), multiple, **how)
    sparser = make_spec(*both, max(one, other), multiple, **how)
    assert denser.contains(sparser)
    assert all(a >= b for a, b in zip(denser.heads, sparser.heads, strict=True))
    assert all(a >= b for a, b in zip(denser.neurons, sparser.neurons, strict=True))


@given(scores, sparsity, st.integers(1, 9))
def test_neurons_are_rounded_to_the_nearest_multiple(both, sparsity, multiple):
    exact, rounded = make_spec(*both, sparsity), make_spec(*both, sparsity, multiple)
    width = both[1].shape[1]
    for n, r in zip(exact.neurons, rounded.neurons, strict=True):
        nearest = max(range(0, 10 * width + 10, multiple), key=lambda m, n=n: (-abs(m - n), m))
        assert r == min(width, nearest)
    assert rounded.heads == exact.heads


@pytest.mark.parametrize(
    ("sparsity", "needed", "expected"),
    [
        (0.5, (), (2, 1, 0)),
        (0.5, (2,), (1, 1, 1)),
        (0.5, (0, 2), (1, 1, 1)),
        (0.66, (1, 2), (0, 1, 1)),
        (0.95, (2,), (0, 0, 1)),
        (0.2, (2,), (2, 2, 1)),
    ],
)
def test_what_is_needed_keeps_a_head(sparsity, needed, expected):
    heads = np.array([[0.9, 0.7], [0.6, 0.8], [0.2, 0.1]])
    spec = make_spec(heads, heads, sparsity, needed=needed)
    assert spec.heads == expected
    assert spec.neurons == make_spec(heads, heads, sparsity).neurons


@given(scores, sparsity)
def test_the_same_scores_give_the_same_specification(both, sparsity):
    assert make_spec(*both, sparsity) == make_spec(both[0].copy(), np.asfortranarray(both[1]), sparsity)


def test_contains():
    spec = SubnetworkSpec(0.5, (1, 2), (3, 0))
    assert spec.contains(spec)
    assert full_width(2, 4, 5).contains(spec)
    for heads, neurons in [((2, 2), (3, 0)), ((1, 3), (0, 0)), ((0, 0), (3, 1))]:
        assert not spec.contains(SubnetworkSpec(0.1, heads, neurons))


@pytest.mark.parametrize(("sparsity", "name"), [(0.9, "90 %"), (0.95, "95 %"), (0.7, "70 %"), (0.925, "92.5 %")])
def test_name(sparsity, name):
    assert SubnetworkSpec(sparsity, (1,), (1,)).name == name


def test_full_width():
    assert full_width(2, 12, 3072) == SubnetworkSpec(0.0, (12, 12), (3072, 3072))


@pytest.mark.parametrize(
    ("target", "grid", "expected"),
    [
        (0.9, None, [0.5, 0.6, 0.7, 0.8, 0.9]),
        (0.95, None, [0.5, 0.6, 0.7, 0.8, 0.9, 0.95]),
        (0.97, None, [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97]),
        (0.85, None, [0.5, 0.6, 0.7, 0.8, 0.85]),
        (0.55, None, [0.5, 0.55]),
        (0.5, None, [0.1, 0.2, 0.3, 0.4, 0.5]),
        (0.25, None, [0.1, 0.2, 0.25]),
        (0.05, None, [0.05]),
        (0.9, (0.7, 0.3), [0.3, 0.7, 0.9]),
        (0.9, (0.3, 0.3, 0.9, 0.95), [0.3, 0.9]),
        (0.6, (0.2, 0.9), [0.2, 0.6]),
    ],
)
def test_candidate_sparsities(target, grid, expected):
    assert candidate_sparsities(target, grid) == expected


@pytest.mark.parametrize("grid", [(0.9,), (0.5, 0.95)])
def test_a_grid_without_anything_larger_than_the_student(grid):
    with pytest.raises(UserError, match=r"--grid .* no candidate larger than the student \(target sparsity 0\.5\)"):
        candidate_sparsities(0.5, grid)


@pytest.mark.parametrize(
    ("sparsities", "heads", "neurons"),
    [([0.5, 0.9], 6, 12), ([0.5, 0.6, 0.7, 0.8, 0.9, 0.95], 144, 36864), ([0.5, 0.52], 6, 100), ([0.5, 0.7], 6, 1)],
)
def test_grids_that_can_be_told_apart(sparsities, heads, neurons):
    check_grid(sparsities, heads, neurons)


@pytest.mark.parametrize(
    ("sparsities", "message"),
    [
        ([0.5, 0.52], "sparsity 52 % gives the same network as sparsity 50 %"),
        ([0.9, 0.5, 0.91], "sparsity 91 % gives the same network as sparsity 90 %"),
        ([0.02, 0.5], "sparsity 2 % gives the same network as the teacher"),
    ],
)
def test_grid_points_that_are_one_network(sparsities, message):
    with pytest.raises(UserError, match=f"{message}.* 6 heads and 12 neurons.*--grid, --target-sparsity") as caught:
        check_grid(sparsities, 6, 12)
    assert "\n" not in str(caught.value)


@given(scores, sparsity, sparsity)
def test_what_passes_the_check_gives_different_networks(both, one, other):
    try:
        check_grid([one, other], both[0].size, both[1].size)
    except UserError:
        return
    first, second = make_spec(*both, one), make_spec(*both, other)
    assert (first.heads, first.neurons) != (second.heads, second.neurons)
