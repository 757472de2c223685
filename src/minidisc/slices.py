"""A linear map by the first rows and columns of a larger one, whose gradients are added where they belong at once.

Autograd would make a gradient as large as the whole weight of every slice, nearly all of it zeros, and add that up.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def can_add(weight: Tensor, bias: Tensor | None) -> bool:
    """Whether `linear` can be used here: where autograd itself would only add to both parameters' ``grad``.

    Autocast has weights of its own between.
    """
    learns = weight.requires_grad and (bias is None or bias.requires_grad)
    return torch.is_grad_enabled() and learns and not torch.is_autocast_enabled(weight.device.type)


def linear(
    input: Tensor, weight: Tensor, bias: Tensor | None, rows: int | None, columns: int | None, transposed: bool = False
) -> Tensor:
    """Map (..., columns) to (..., rows) by ``weight[:rows, :columns]`` and ``bias[:rows]``.

    In the backward pass gradients are added to ``weight.grad`` and ``bias.grad`` past autograd: hooks on these
    gradients, and ``torch.autograd.grad``, get none.

    Args:
        input: (..., columns).
        weight: a leaf, (all rows, all columns), or the other way round if ``transposed``.
        bias: a leaf, (all rows,), or None.
        rows: how many are used; all if None.
        columns: likewise.
        transposed: see ``weight``.
    """
    return cast(Tensor, _Linear.apply(input, weight, bias, rows, columns, transposed))


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, bias: Any, rows: int | None, columns: int | None, transposed: bool
    ) -> Tensor:
        ctx.save_for_backward(input)
        ctx.weight, ctx.bias, ctx.transposed = weight, bias, transposed
        ctx.sides = (columns, rows) if transposed else (rows, columns)
        used = ctx.used = _part(weight, *ctx.sides)
        return F.linear(input, used.T if transposed else used, None if bias is None else _part(bias, rows))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (input,) = ctx.saved_tensors
        outputs, inputs = gradient.flatten(0, -2), input.flatten(0, -2)
        left, right = (inputs, outputs) if ctx.transposed else (outputs, inputs)
        _part(_gradient(ctx.weight), *ctx.sides).addmm_(left.T, right)
        if ctx.bias is not None:
            _part(_gradient(ctx.bias), outputs.shape[1]).add_(outputs.sum(0))
        if not ctx.needs_input_grad[0]:
            return (None,) * 6
        back = outputs.mm(ctx.used.T if ctx.transposed else ctx.used)
        return back.view(input.shape), *(None,) * 5


def _part(tensor: Tensor, *sides: int | None) -> Tensor:
    """The first so many along each side; all for None."""
    for side, count in enumerate(sides):
        if count is not None:
            tensor = tensor.narrow(side, 0, count)
    return tensor


def _gradient(parameter: Tensor) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad
