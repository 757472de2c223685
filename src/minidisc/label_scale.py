"""The scale that regression is trained in: whatever the labels' own is, the model sees numbers of order one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn


@dataclass(frozen=True)
class LabelScale:
    """Labels are ``mean + spread · number``, where the numbers are what a model is trained on.

    Attributes:
        mean: of the training labels; 0 where the head has no bias that could hold it.
        spread: their standard deviation; where the mean is 0, the root of the mean square, so that it is of order one.
        name: of the linear layer in the model whose one output is the model's.
        head: that layer.
    """

    mean: float
    spread: float
    name: str
    head: nn.Linear

    @classmethod
    def of(cls, model: Any, labels: Sequence[float] | np.ndarray) -> LabelScale:
        """The scale of these labels, as far as the model's head can take it over."""
        name, head = head_of(model)
        values = np.asarray(labels, float)
        mean = 0.0 if head.bias is None else float(values.mean())
        spread = float(np.sqrt(np.square(values - mean).mean()))
        # Labels that are all the same have none but what rounding makes.
        known = spread > np.finfo(np.float32).eps * np.abs(values).max()
        return cls(mean, spread if known else 1.0, name, head)

    def numbers(self, labels: Any) -> Any:
        """What labels are in this scale."""
        return (labels - self.mean) / self.spread

    def labels(self, numbers: Any) -> Any:
        """What numbers are as labels."""
        return numbers * self.spread + self.mean

    def take_out(self) -> None:
        """Change a head that gives labels to one that gives their numbers."""
        self._change(1 / self.spread, -self.mean / self.spread)

    def put_in(self) -> None:
        """Change a head that gives numbers to one that gives labels."""
        self._change(self.spread, self.mean)

    def _change(self, factor: float, shift: float) -> None:
        with torch.no_grad():
            self.head.weight.copy_(self.head.weight.double() * factor)
            if self.head.bias is not None:
                self.head.bias.copy_(self.head.bias.double() * factor + shift)


def head_of(model: Any) -> tuple[str, nn.Linear]:
    """The linear layer that a sentence's one number comes from, and its name: the last one past the body."""
    # A student's body may have an FFN of one neuron.
    body = set() if model.base_model is model else set(model.base_model.modules())
    outside = [(name, module) for name, module in model.named_modules() if module not in body]
    return [(name, m) for name, m in outside if isinstance(m, nn.Linear) and m.out_features == 1][-1]
