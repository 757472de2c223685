"""A Llama shape of 1.1 billion parameters through importance, order and five sandwich steps, on a small machine.

    OMP_NUM_THREADS=1 python benchmarks/billion.py --work DIR [--shape 110M] [--target results/billion]

Weights are random, text is made up. First what ``compress --dry-run`` says of memory and time, then the run, each in
a fresh process; then both side by side.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from random_llama import SHAPES, write_rows
from watching import compared, off, plan_and_compress

from minidisc.measure import processor
from minidisc.runs import versions

ROWS, TOKENS, STEPS = 16, 32, 5


def settings(work: Path) -> dict[str, Any]:
    """Five steps on five candidates, with everything that saves memory."""
    return {
        "teacher": str(work / "teacher"),
        "train_file": str(work / "train.csv"),
        "validation_file": str(work / "validation.csv"),
        "output_dir": str(work / "run"),
        "grid": (0.5, 0.6, 0.7, 0.8),
        "target_sparsity": 0.9,
        "stages": 1,
        "max_steps": STEPS,
        "batch_size": ROWS,
        "calibration_rows": ROWS,
        "selection_fraction": 0.2,
        "max_length": TOKENS,
        "optimizer": "adafactor",
        "gradient_checkpointing": True,
        "device": "cpu",
    }


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for some 25 GB, removed at the end")
    parser.add_argument("--shape", default="1.1B", choices=SHAPES)
    parser.add_argument("--target", type=Path, help="file for the figures, without .md and .json")
    options = parser.parse_args()
    if options.work.exists():
        sys.exit(f"{options.work} is there already; give a folder that is not.")
    options.work.mkdir(parents=True)
    try:
        # 32 rows to train on, 8 to choose on: as many steps as two and a half epochs, so that outputs are stored.
        write_rows(options.work / "train.csv", 40, TOKENS, seed=0)
        write_rows(options.work / "validation.csv", 8, TOKENS, seed=1)
        # In a process of its own, whose memory is given back.
        script = "import sys; from random_llama import write_teacher; write_teacher(sys.argv[1], sys.argv[2])"
        command = [sys.executable, "-c", script, str(options.work / "teacher"), options.shape]
        subprocess.run(command, check=True, cwd=Path(__file__).parent)
        figures = plan_and_compress(settings(options.work), options.work)
        candidates = json.loads((options.work / "run" / "candidates.json").read_text())
    finally:
        shutil.rmtree(options.work, ignore_errors=True)
    text = report(options.shape, figures, candidates)
    print(text)
    if options.target:
        record = {"shape": SHAPES[options.shape], "versions": versions(), "machine": processor(), **figures}
        options.target.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
        options.target.with_suffix(".md").write_text(text)


def report(shape: str, figures: dict[str, Any], candidates: list[dict[str, Any]]) -> str:
    """Estimate and measurement as a Markdown page."""
    layers, hidden, heads, key_heads, neurons, vocabulary = SHAPES[shape]
    lines = [
        f"# {shape}: importance, order, five sandwich steps",
        "",
        f"`OMP_NUM_THREADS=1 python benchmarks/billion.py --work DIR --shape {shape}`,",
        f"seed 0, {processor()} shared with other work,",
        f"{', '.join(f'{name} {version}' for name, version in versions().items())}.",
        "",
        f"A Llama classifier with random weights, {layers} layers, hidden size {hidden}, {heads} query and",
        f"{key_heads} key heads, {neurons} FFN neurons, {vocabulary} words. Batches of {ROWS} rows of",
        f"{TOKENS} tokens, {STEPS} steps, fp32; `--optimizer adafactor --gradient-checkpointing`.",
        "Both figures are of fresh processes, without imports.",
        "",
        "| | estimate of `--dry-run` | measured | off by |",
        "|---|---|---|---|",
    ]
    for name, (estimated, measured) in compared(figures).items():
        lines.append(f"| {name} | {estimated:.2f} | {measured:.2f} | {off(estimated, measured)} |")
    phases = figures["plan"]["estimate"]["phases"]
    lines += [
        "",
        "Tensors of each phase as estimated, GiB: "
        + ", ".join(f"{k} {v / 2**30:.2f}" for k, v in phases.items())
        + ".",
        f"The dry run itself took {figures['plan']['cpu_seconds']:.0f} CPU seconds and "
        f"{figures['plan']['peak'] / 2**30:.2f} GiB.",
        "",
        "| stage | GiB | CPU seconds | seconds |",
        "|---|---|---|---|",
    ]
    for name, cost in figures["compress"]["stages"].items():
        lines.append(
            f"| {name} | {cost['peak_memory'] / 2**30:.2f} | {cost['cpu_seconds']:.0f} | {cost['seconds']:.0f} |"
        )
    sizes = ", ".join(f"{100 * c['sparsity']:g} %: {c['sizes']['all'] / 1e6:.0f} M" for c in candidates)
    lines += ["", f"Candidates, all parameters: {sizes}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
