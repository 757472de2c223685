"""Time of several models side by side, so that what else the machine does falls on all alike."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch

ROUNDS, FEWEST_ROUNDS, SECONDS = 51, 5, 10.0
BRIEF_ROUNDS, BRIEF_SECONDS = 21, 2.0
"""Of every network at the end of a run."""
MOVES, LONGEST = 10, 1.0
"""Of the processor's clock where it is coarse, and seconds after which it need not move so often."""
LARGEST_TIMED = 5e8
"""Parameters of a teacher; bringing a larger one back to memory then might take more than training did."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@torch.no_grad()
def side_by_side(
    models: Mapping[str, Any], inputs: dict[str, torch.Tensor], rounds: int = ROUNDS, seconds: float = SECONDS
) -> dict[str, dict[str, float]]:
    """Time each model on the same batch, in turns.

    Args:
        models: by name; the first is what the others are compared with.
        inputs: a batch, (rows, length) each.
        rounds: how often each is timed.
        seconds: after which no further round begins; five there are in any case.

    Returns:
        For each model the medians over the rounds of ``milliseconds`` and ``processor_milliseconds``, the ``low`` and
        ``high`` ends of the middle 80 % of the latter, and ``speedup``, the first model's processor time divided by
        its own: on one thread and an idle machine both times are the same,
        and where the machine is busy (`is_busy`) only the processor's says anything. One round before the others
        does not count. Where the processor's clock is too coarse for a pass, a round has several.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    moves = 1
    started = time.perf_counter()
    for number in range(rounds + 1):
        # There and back, so that none always follows the same one.
        for name in list(models) if number % 2 else reversed(list(models)):
            pair, passes = _timed(partial(models[name], **inputs), moves)
            times[name].append(pair)
            # From now on also where the clock moves within one pass by chance.
            moves = MOVES if passes > 1 else moves
        if number >= FEWEST_ROUNDS and time.perf_counter() - started > seconds:
            break
    wall, processor = (
        {name: [1000 * pair[clock] for pair in pairs[1:]] for name, pairs in times.items()} for clock in (0, 1)
    )
    first = statistics.median(next(iter(processor.values())))
    found = {}
    for name, values in processor.items():
        low, median, high = np.percentile(values, [10, 50, 90]).tolist()
        found[name] = {
            "milliseconds": statistics.median(wall[name]),
            "processor_milliseconds": median,
            "low": low,
            "high": high,
            "speedup": first / median,
        }
    return found


def _timed(run: Callable[[], Any], moves: int) -> tuple[tuple[float, float], int]:
    """Wall and processor seconds of a pass, the mean of several where the processor's clock stands still meanwhile.

    Under some profilers, in some sandboxes and on Windows it moves by hundredths of a second at once. Where it does
    not move at all, both are the wall's.

    Args:
        run: the pass.
        moves: how often the clock has to move; `MOVES` if it stands still in the first pass.

    Returns:
        Both, and how many passes there were.
    """
    wall, clock = time.perf_counter(), time.process_time()
    reads, passes, elapsed = {clock}, 0, 0.0
    while len(reads) <= moves and elapsed <= LONGEST:
        run()
        passes += 1
        elapsed, now = time.perf_counter() - wall, time.process_time()
        reads.add(now)
        moves = MOVES if now == clock else moves
    return (elapsed / passes, (now - clock or elapsed) / passes), passes


def batch_of(rows: Any, batch_size: int, length: int) -> dict[str, torch.Tensor]:
    """A batch of encoded rows without padding: each cut, or its inner tokens repeated, up to its last one.

    Args:
        rows: encoded rows, with ``input_ids``.
        batch_size: how many are taken, from the first on.
        length: tokens of each.
    """
    taken = [rows[i % len(rows)]["input_ids"] for i in range(batch_size)]
    # The last token stays last, and appears once: T5 reads a sentence's class there, and wants as many in every row.
    ids = [[*itertools.islice(itertools.cycle(row[:-1] or row), length - 1), row[-1]] for row in taken]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.ones(batch_size, length, dtype=torch.long)}


def is_busy(timings: Iterable[Mapping[str, float]]) -> bool:
    """Whether other processes have kept some model waiting for a fifth of its time or more."""
    return any(timing["milliseconds"] > 1.25 * timing["processor_milliseconds"] for timing in timings)
