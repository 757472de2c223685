"""Against autograd's own gradients of slices."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from minidisc import slices

ROWS, COLUMNS = 5, 7


def leaf(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


@given(
    rows=st.none() | st.integers(0, ROWS),
    columns=st.none() | st.integers(0, COLUMNS),
    transposed=st.booleans(),
    with_bias=st.booleans(),
    input_learns=st.booleans(),
)
def test_output_and_gradients_are_those_of_slices(rows, columns, transposed, with_bias, input_learns):
    given_input = leaf(2, 3, COLUMNS if columns is None else columns, seed=1).detach().requires_grad_(input_learns)
    found = []
    for ours in (True, False):
        stored = (COLUMNS, ROWS) if transposed else (ROWS, COLUMNS)
        weight, bias = leaf(*stored, seed=2), leaf(ROWS, seed=3) if with_bias else None
        # A gradient that was there before is added to.
        weight.grad = torch.ones_like(weight)
        inputs = given_input.detach().clone().requires_grad_(input_learns)
        outputs = []
        for _ in range(2):
            if ours:
                output = slices.linear(inputs, weight, bias, rows, columns, transposed)
            else:
                used = (weight.T if transposed else weight)[:rows, :columns]
                output = F.linear(inputs, used, None if bias is None else bias[:rows])
            output.square().sum().backward()
            outputs.append(output.detach())
        found.append([*outputs, weight.grad, bias.grad if with_bias else None, inputs.grad])
    for own, expected in zip(*found, strict=True):
        assert (own is None) == (expected is None)
        if own is not None:
            torch.testing.assert_close(own, expected)


def test_gradients_go_past_autograd():
    weight, heard = leaf(ROWS, COLUMNS, seed=1), []
    weight.register_hook(heard.append)
    slices.linear(leaf(2, COLUMNS, seed=2), weight, None, 3, None).sum().backward()
    assert all(gradient is None for gradient in heard)
    assert weight.grad[:3].all()
    assert not weight.grad[3:].any()


def test_where_it_may_be_used():
    weight, bias = leaf(ROWS, COLUMNS, seed=1), leaf(ROWS, seed=2)
    assert slices.can_add(weight, bias)
    assert slices.can_add(weight, None)
    assert not slices.can_add(weight.detach(), bias)
    assert not slices.can_add(weight, bias.detach())
    with torch.no_grad():
        assert not slices.can_add(weight, bias)
    with torch.autocast("cpu", torch.bfloat16):
        assert not slices.can_add(weight, bias)
