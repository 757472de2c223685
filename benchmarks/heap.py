"""What keeping the heap from growing costs (`minidisc.memory`): time of a step, and memory, with and without.

    OMP_NUM_THREADS=1 python benchmarks/heap.py [--steps 120] [--target results/heap]

The default sandwich of the demo's MiniLM on Rotten Tomatoes, in the trainer's own order of batches. Each variant is a
process of its own, since pages are chosen once, and all of them run the same step in turn, in another order each time.
Ratios are of the processor times of one step.

As it is, the heap is trimmed before a batch larger than any so far, and once it has grown by `HOLES` over what that
left. The others have another bound, or none, and the usual small pages for large tensors too.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from rounds import record, shown, spread, write
from sandwich_step import rows_of
from steps import SAMPLED, OurStep, loaded_bert, specs_of
from transformers import AutoTokenizer

from minidisc import memory
from minidisc.batching import LengthGroupedOrder
from minidisc.demo.assets import backbone_dir
from minidisc.subnetworks import candidate_sparsities

# By how much the heap may grow before it is trimmed, and whether large tensors are to have large pages.
VARIANTS = {
    "as it is": (memory.HOLES, True),
    "trimmed after a tenth": (0.1, True),
    "trimmed before a larger batch alone": (math.inf, True),
    "as it is, small pages": (memory.HOLES, False),
    "trimmed after a tenth, small pages": (0.1, False),
    "trimmed before a larger batch alone, small pages": (math.inf, False),
}
COLUMNS = ("cpu_seconds", "faults", "resident", "trims")
ROWS, BATCH_SIZE, LENGTH = 960, 32, 128


def worker(holes: float) -> None:
    """Train a step for every line of standard input, and write a line of `COLUMNS`."""
    trims = [0]
    trim = memory.trim_heap

    def counted() -> None:
        trims[0] += 1
        trim()

    memory.HOLES, memory.trim_heap = holes, counted
    datasets.disable_progress_bars()
    model, tokenizer = loaded_bert(None, None), AutoTokenizer.from_pretrained(backbone_dir())
    with tempfile.TemporaryDirectory() as folder:
        rows = rows_of("rt", tokenizer, None, LENGTH, Path(folder)).select(range(ROWS))
        order = [int(row) for row in LengthGroupedOrder(rows["length"][:], BATCH_SIZE, 0)]
        batches = [order[i : i + BATCH_SIZE] for i in range(0, ROWS, BATCH_SIZE)]
        specs = specs_of(model, candidate_sparsities(0.95))
        step = OurStep(model, specs, rows, tokenizer, SAMPLED, Path(folder), batch_size=BATCH_SIZE)
        memory.release_memory()
        trims[0] = 0
        print("ready", flush=True)
        for number, _ in enumerate(sys.stdin):
            step.trainer.state.global_step = number
            begin = _faults(), time.process_time()
            step(batches[number % len(batches)])
            took = time.process_time() - begin[1]
            print(took, _faults() - begin[0], memory.resident_memory(), trims[0], flush=True)


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def start(holes: float, large: bool) -> subprocess.Popen[str]:
    """A process that waits for lines."""
    command = [sys.executable, __file__, "--worker", str(holes)]
    environment = {**os.environ, "THP_MEM_ALLOC_ENABLE": str(int(large))}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def answer(process: subprocess.Popen[str]) -> str:
    """Its next line."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit("a variant's process ended early; see above.")
    return line


def measure(steps: int) -> dict[str, list[list[float]]]:
    """For each variant `COLUMNS` of every step."""
    processes = {name: start(*values) for name, values in VARIANTS.items()}
    for process in processes.values():
        while answer(process).strip() != "ready":
            pass
    found: dict[str, list[list[float]]] = {name: [] for name in processes}
    for number in range(steps):
        for name in random.Random(number).sample(list(processes), len(processes)):
            stdin = processes[name].stdin
            assert stdin is not None
            stdin.write("step\n")
            stdin.flush()
            found[name].append([float(value) for value in answer(processes[name]).split()])
    for process in processes.values():
        process.communicate()
    return found


def summary(found: dict[str, list[list[float]]], skipped: int = 3) -> dict[str, dict[str, Any]]:
    """Figures of each variant; the first steps, which see every page for the first time, are left out of the times."""
    columns = {name: dict(zip(COLUMNS, np.array(steps).T, strict=True)) for name, steps in found.items()}
    fastest = columns["trimmed before a larger batch alone"]["cpu_seconds"][skipped:]
    figures = {}
    for name, values in columns.items():
        ratios = values["cpu_seconds"][skipped:] / fastest
        figures[name] = {
            "cpu_seconds": spread(values["cpu_seconds"][skipped:].tolist()),
            "ratio": {
                "mean": math.exp(np.log(ratios).mean()),
                "error": float(np.log(ratios).std(ddof=1) / math.sqrt(len(ratios))),
            },
            "resident": float(values["resident"].max()),
            "faults": float(values["faults"][skipped:].mean()),
            "trims": float(values["trims"][-1] / len(values["trims"])),
        }
    return figures


def page(content: dict[str, Any]) -> str:
    """The figures as Markdown."""
    about = content["record"]
    lines = [
        "# What keeping the heap from growing costs",
        "",
        f"`{about['command']}`, {about['threads']} thread, {about['machine']}, load {about['load']:.1f}, "
        f"{content['steps']} steps, seed 0; what the variants are: the script's first lines. Processor seconds of a "
        "step: median and the middle 80 %; relative to trimming before a larger batch alone: geometric mean of each "
        "step's ratio, and its standard error.",
        "",
        "| | processor s a step | relative | most memory after a step, GiB | page faults a step | trims a step |",
        "|---|---|---|---|---|---|",
    ]
    for name, own in content["variants"].items():
        lines.append(
            f"| {name} | {shown(own['cpu_seconds'])} | {own['ratio']['mean']:.3f} ± {own['ratio']['error']:.3f} "
            f"| {own['resident'] / 2**30:.2f} | {own['faults']:,.0f} | {own['trims']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--target", type=Path, help="file for the figures, without .json and .md")
    parser.add_argument("--worker", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        return worker(options.worker)
    if options.steps < 5:
        parser.error("--steps must be at least 5: the first three are not timed, and two are needed for a spread")
    content: dict[str, Any] = {"record": record(), "steps": options.steps}
    content["variants"] = summary(measure(options.steps))
    write(options.target, content, page(content))
    print(page(content))


if __name__ == "__main__":
    main()
