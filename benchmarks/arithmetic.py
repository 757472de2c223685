"""The arithmetic limit: the matrix products of a step alone, and how fast this machine does them."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence

import torch

from minidisc.measure import Shape
from minidisc.subnetworks import SubnetworkSpec

Product = tuple[int, int, int, int]
"""How many products at once (1 but in attention), and the rows, the summed dimension and the columns of each."""


def products_of(shape: Shape, spec: SubnetworkSpec, rows: int, length: int) -> Counter[Product]:
    """The products of a pass of a BERT of such widths over a batch, forward alone, and how often each is done."""
    found: Counter[Product] = Counter()
    tokens, hidden, size = rows * length, shape.hidden, shape.head_size
    for heads in filter(None, spec.heads):
        found[1, tokens, hidden, heads * size] += 3  # queries, keys, values
        found[1, tokens, heads * size, hidden] += 1
        found[rows * heads, length, size, length] += 1  # scores
        found[rows * heads, length, length, size] += 1
    for neurons in filter(None, spec.neurons):
        found[1, tokens, hidden, neurons] += 1
        found[1, tokens, neurons, hidden] += 1
    return found


def flops(products: Counter[Product]) -> int:
    """Of a forward pass and of its backward pass, which does two products of the same size for each."""
    return 3 * sum(2 * batch * m * k * n * times for (batch, m, k, n), times in products.items())


class Replay:
    """Does the matrix products of a step, forward and backward, and nothing else, into memory that is there.

    All products use the same operands, which may still be in the processor's cache: a limit from below.
    """

    def __init__(self) -> None:
        self._memory = [torch.empty(0) for _ in range(5)]

    def __call__(self, products: Counter[Product]) -> None:
        """Do them."""
        for (batch, m, k, n), times in products.items():
            # Weights are stored with their outputs first.
            shapes = (batch, m, k), (batch, n, k), (batch, m, n), (batch, m, k), (batch, k, n)
            tensors = [self._view(i, shape) for i, shape in enumerate(shapes)]
            if batch == 1:
                tensors = [tensor[0] for tensor in tensors]
            left, right, result, to_left, to_right = tensors
            multiply = torch.mm if batch == 1 else torch.bmm
            for _ in range(times):
                multiply(left, right.mT, out=result)
                multiply(result, right, out=to_left)
                multiply(left.mT, result, out=to_right)

    def _view(self, number: int, shape: tuple[int, ...]) -> torch.Tensor:
        needed = math.prod(shape)
        if len(self._memory[number]) < needed:
            self._memory[number] = torch.randn(needed)
        return self._memory[number][:needed].view(shape)


def peak_rate(size: int = 1024, repeats: int = 20) -> float:
    """FLOPs a second of the best of several large square matrix products."""
    left, right, result = (torch.randn(size, size) for _ in range(3))
    best = float("inf")
    for _ in range(repeats):
        begin = time.perf_counter()
        torch.mm(left, right, out=result)
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best


def products_of_step(shape: Shape, candidates: Sequence[SubnetworkSpec], rows: int, length: int) -> Counter[Product]:
    """Of all candidates of a step, forward alone."""
    return sum((products_of(shape, spec, rows, length) for spec in candidates), Counter())
