"""Where the time of a step goes, by kind of operation, from torch's profiler."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence

import torch

# The first kind of which a name holds one of the parts is an operation's.
_KINDS: dict[str, Sequence[str]] = {
    "matrix products": ("mm", "linear", "matmul", "scaled_dot_product", "flash_attention"),
    "dropout and random numbers": ("dropout", "bernoulli", "random"),
    "selection and scatter": ("masked", "index", "nonzero", "scatter", "gather", "embedding", "where"),
    "optimiser": ("adam", "_foreach", "addcmul", "addcdiv", "lerp", "sqrt", "linalg_vector_norm"),
    "norms and softmax": ("layer_norm", "softmax"),
    "copies and zeros": ("copy", "clone", "contiguous", "zero", "fill", "cat", "stack", "slice_backward", "empty"),
    "elementwise and sums": ("add", "mul", "div", "sub", "gelu", "tanh", "pow", "sum", "mean", "mse", "neg", "_to"),
}
OTHER, OUTSIDE = "other operations", "Python, autograd, profiler"


def kind_of(operation: str) -> str:
    """The kind of an operation, by its name as the profiler gives it."""
    name = operation.removeprefix("aten::").lower()
    return next((kind for kind, parts in _KINDS.items() if any(part in name for part in parts)), OTHER)


def shares(run: Callable[[], object], repeats: int = 1) -> dict[str, float]:
    """The share of each kind of operation in the time that ``run`` takes on this thread, largest first.

    What the operations' own times do not account for is `OUTSIDE` them. The profiler itself slows down short
    operations, so that shares of many small ones come out too large.
    """
    run()
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profiler:
        begin = time.perf_counter()
        for _ in range(repeats):
            run()
        whole = time.perf_counter() - begin
    seconds: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        if event.key.startswith("aten::"):
            seconds[kind_of(event.key)] += event.self_cpu_time_total / 1e6
    seconds[OUTSIDE] = max(0.0, whole - sum(seconds.values()))
    return {kind: value / whole for kind, value in sorted(seconds.items(), key=lambda item: -item[1])}
