"""Timing of several variants in turns, so that what else the machine does falls on all alike."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from minidisc.files import write_json
from minidisc.measure import processor
from minidisc.runs import versions

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def in_rounds(
    variants: Mapping[str, Callable[[int], float]], rounds: int, warm_up: int = 1, quiet: bool = False
) -> dict[str, dict[str, list[float]]]:
    """Run every variant once a round.

    Args:
        variants: each is called with the round's number and returns how much it has done, such as rows.
        rounds: that count.
        warm_up: rounds before them that do not.
        quiet: do not print each round's times.

    Returns:
        For each variant and each of `CLOCKS` the seconds for each row (or whatever it counts) of every round.
        Processor seconds are those of all threads of this process.
    """
    found: dict[str, dict[str, list[float]]] = {name: {clock: [] for clock in CLOCKS} for name in variants}
    for number in range(-warm_up, rounds):
        # There and back, so that none always follows the same one.
        for name in list(variants) if number % 2 else reversed(list(variants)):
            before = {clock: read() for clock, read in CLOCKS.items()}
            done = variants[name](number)
            for clock, read in CLOCKS.items():
                if number >= 0:
                    found[name][clock].append((read() - before[clock]) / done)
        if not quiet:
            newest = ", ".join(f"{name} {1000 * own['wall'][-1]:.2f}" for name, own in found.items() if own["wall"])
            print(f"round {number + 1} of {rounds}, ms: {newest}", file=sys.stderr, flush=True)
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, and the ends of the middle 80 %."""
    low, median, high = np.percentile(values, [10, 50, 90]).tolist()
    return {"median": median, "low": low, "high": high}


def ratio(
    times: Mapping[str, Mapping[str, Sequence[float]]], numerator: str, denominator: str
) -> dict[str, dict[str, float]]:
    """By how much one variant takes longer than another, from both times of each round, for each clock."""
    return {clock: spread(np.divide(times[numerator][clock], times[denominator][clock]).tolist()) for clock in CLOCKS}


def record() -> dict[str, Any]:
    """What stands beside figures: command, machine, threads, versions, and what else the machine has to do."""
    return {
        # Where data and models lie says nothing to others.
        "command": " ".join(["python", *("DIR" if os.path.isabs(word) else word for word in sys.argv)]),
        "machine": processor(),
        "system": platform.platform(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "versions": versions(),
    }


def given(options: argparse.Namespace) -> dict[str, str]:
    """A script's options as they stand beside its figures; where data and models lie says nothing to others."""
    texts = {name: str(value) for name, value in vars(options).items()}
    return {name: "DIR" if os.path.isabs(text) else text for name, text in texts.items()}


def write(target: Path | None, content: dict[str, Any], text: str) -> None:
    """Write figures as TARGET.json and TARGET.md, if there is a target."""
    if target:
        write_json(target.with_suffix(".json"), content)
        target.with_suffix(".md").write_text(text, encoding="utf-8")


def shown(values: Mapping[str, float], scale: float = 1.0, digits: int = 2) -> str:
    """``median (low … high)``."""
    median, low, high = (f"{scale * values[name]:.{digits}f}" for name in ("median", "low", "high"))
    return f"{median} ({low} … {high})"
