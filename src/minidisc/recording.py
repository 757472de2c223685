"""Steps that are recorded once for each shape of a batch and replayed from then on: CUDA graphs.

A step of narrow sub-networks is thousands of kernels of a few microseconds each, and to launch one from Python takes
longer than it runs. A recorded step is launched as a whole (see `docs/scaling.md` for what that saves).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

MULTIPLE = 16
"""Where steps are recorded, rows are padded to multiples of so many tokens: fewer shapes, for work that is cheap."""
MOST = 256
"""Steps that are recorded at the most; others run as they are."""

Replay = Callable[[], Tensor]


def record_cuda(passes: Callable[[], Tensor], pool: Any) -> Replay:
    """Record what ``passes`` does on the GPU, without doing it; returns what does it.

    Args:
        passes: reads and writes tensors that stay where they are, and asks for none of their values.
        pool: memory that all records share, since only one of them runs at a time.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        result = passes()

    def replay() -> Tensor:
        graph.replay()
        return result.clone()  # the next one may use its memory

    return replay


@dataclass
class _Step:
    """A kind of step: which parameters its backward passes reach, and how it is replayed once it is recorded."""

    reached: list[nn.Parameter]
    replay: Replay | None = None


class StepRecorder:
    """Runs forward and backward passes, from the third time of a kind on by replaying what was recorded at the second.

    The first time everything that libraries set up happens, and it turns out which parameters get a gradient: only
    those do later on. Gradients are added up in tensors that stay where they are.

    Args:
        parameters: whose gradients the passes add to.
        record: makes a replay of passes, with memory to share (see `record_cuda`).
        pool: makes that memory.
        failed: called with a line when something cannot be recorded; from then on nothing is.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        record: Callable[[Callable[[], Tensor], Any], Replay] = record_cuda,
        pool: Callable[[], Any] = torch.cuda.graph_pool_handle,
        failed: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._parameters = [p for p in parameters if p.requires_grad]
        self._record, self._new_pool, self._failed = record, pool, failed
        self._pool: Any = None
        self._on = True
        self._gradients: dict[nn.Parameter, Tensor] = {}
        self._batches: dict[Hashable, Any] = {}
        self._steps: dict[Hashable, _Step] = {}

    @property
    def recorded(self) -> int:
        """How many kinds of step are recorded."""
        return sum(step.replay is not None for step in self._steps.values())

    def run(self, what: Hashable, batch: Any, passes: Callable[[Any], Tensor]) -> Tensor:
        """The result of ``passes(batch)``, whose gradients are added to the parameters' own.

        Args:
            what: all but the batch that the passes depend on.
            batch: tensors, in dictionaries, sequences and dataclasses.
            passes: forward and backward passes; what it returns has to need no gradient.
        """
        shape = tuple((tuple(t.shape), t.dtype) for t in _tensors(batch))
        key = what, shape
        step = self._steps.get(key)
        if not self._on or (step is None and len(self._steps) >= MOST):
            return passes(batch)
        if step is None:
            result = passes(batch)
            self._steps[key] = _Step([p for p in self._parameters if p.grad is not None])
            for parameter in self._steps[key].reached:
                self._gradients.setdefault(parameter, parameter.grad)  # type: ignore[arg-type]
            return result
        if shape not in self._batches:
            self._batches[shape] = copy.deepcopy(batch)
        static = self._batches[shape]
        for place, value in zip(_tensors(static), _tensors(batch), strict=True):
            place.copy_(value, non_blocking=True)
        self._keep_gradients(step.reached)
        if step.replay is None:
            self._pool = self._pool or self._new_pool()
            try:
                step.replay = self._record(lambda: passes(static), self._pool)
            except RuntimeError as error:
                self._on = False
                self._failed(str(error).strip().partition("\n")[0])
                return passes(batch)
        return step.replay()

    def _keep_gradients(self, reached: list[nn.Parameter]) -> None:
        """Have these parameters' gradients where the records add to them."""
        empty = []
        for parameter in reached:
            kept, now = self._gradients[parameter], parameter.grad
            if now is None:
                empty.append(kept)
            elif now is not kept:
                kept.copy_(now)
            parameter.grad = kept
        if empty:
            torch._foreach_zero_(empty)


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in a value, in an order of its own."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name))
