r"""Time and FLOPs until the student reaches the metric that the plain protocol ends with.

    OMP_NUM_THREADS=1 python benchmarks/time_to_quality.py --data-dir DIR --work runs/time_to_quality \
        --target results/time_to_quality
    python benchmarks/time_to_quality.py --teacher DIR --train-file F --validation-file F --steps 8 --work W   # to try

A cell is a task, a seed and a method, in a process and with a file of its own; started again, the command goes on with
the cells that are missing. Cells may be trained by several such processes with different ``--tasks`` or ``--seeds``.
Seeds that the target holds already, of another day or machine, are kept.

All methods have the same fine-tuned teacher, importance, candidates (50 % to 90 %), rows, batch size, peak learning
rate and optimiser steps (`STEPS` in each of two stages), with the student at 90 % scored on the validation rows after
as many steps, four times in a stage of `STEPS`. Assistant and best weights are chosen on these rows too, as the
paper's code does.

- plain: the plain protocol (`plain_protocol.py`): the sandwich of all candidates; the assistant of the best tradeoff;
  the sandwich again of all candidates smaller than it, from its weights and against it, or nothing if the student's
  own size has the best tradeoff. Its end is the best metric that the student has had, its cost all of its steps and
  evaluations.
- ours: `minidisc.schedules.minidisc`, with default settings but for those above. Its cost is that until the first
  evaluation at which the student (first as a part of the sandwich, then alone) is as good as that.
- cheapest: likewise, with the settings of `evidence.py`'s cheapest trial, whose sandwich has a quarter of all steps.

Seconds are wall and processor seconds from when importance is known, which all need; FLOPs those of training and of
the teacher, not of evaluations. Within a stage of ours FLOPs are taken to grow evenly with the steps.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evidence import CHEAPEST
from main_job import BATCH_SIZE, TASKS
from plain_protocol import PlainBert, PlainTraining, logits_of, pad
from rounds import record, write
from tasks import Cell, Printer, prepare

from minidisc.comparison.methods import parse_method
from minidisc.config import CompressSettings, DataSettings
from minidisc.files import write_json
from minidisc.preparation import Preparation
from minidisc.schedules import SCHEDULES
from minidisc.subnetworks import candidate_sparsities
from minidisc.tasks import label_array, load_data
from minidisc.values import settings_from

TARGET = 0.9
PLAIN = "plain"
OURS: dict[str, dict[str, Any]] = {"ours": {}, "cheapest": parse_method(CHEAPEST).changes}
"""Our methods, and the settings that each has beside the common ones."""
EVALUATIONS = 4  # of a stage
STEPS = {"rt": 150, "mrpc": 330}
"""Of a stage. A plain step takes about 5 CPU seconds: with `main_job.py`'s 450, three seeds would take hours."""
OWN = "own"


class Curve:
    """What the student's metric was when, from the start of the clock."""

    def __init__(self) -> None:
        self.points: list[dict[str, Any]] = []
        self.begin()

    def begin(self) -> None:
        """Set the clock to 0."""
        self._begun = time.perf_counter(), time.process_time()

    def add(self, stage: str, step: int, metric: float, **more: float) -> None:
        """Note an evaluation."""
        seconds, processor = time.perf_counter() - self._begun[0], time.process_time() - self._begun[1]
        point = {"stage": stage, "step": step, "seconds": seconds, "cpu_seconds": processor, "metric": metric}
        self.points.append({**point, **more})
        print(point, flush=True)


class Timed(Printer):
    """A listener that notes every evaluation of the student."""

    def __init__(self, curve: Curve, student: str) -> None:
        super().__init__("ours")
        self._curve, self._student = curve, student

    def stage(self, name: str) -> Callable[..., None]:
        """Note every evaluation of a stage."""

        def progress(step: int, total: int, loss: Any, metrics: dict[str, float] | None) -> None:
            if metrics:
                self._curve.add(name, step, metrics[self._student])

        return progress


def ours(prepared: Preparation, folder: Path, curve: Curve) -> None:
    """Run minidisc's schedule; FLOPs are filled in at the end, when each stage's are known."""
    costs = SCHEDULES["minidisc"](prepared.job(prepared.settings, folder)).costs
    before, starts = 0.0, {}
    for name, cost in costs.items():
        starts[name] = before
        before += cost.flops
    for point in curve.points:
        cost = costs[point["stage"]]
        point["flops"] = starts[point["stage"]] + cost.flops * point["step"] / cost.steps


def plain(prepared: Preparation, curve: Curve) -> None:
    """Run the plain protocol, both stages."""
    settings, rows, labels = prepared.settings, prepared.rows, label_array(prepared.rows["selection"])
    length, size, steps = settings.max_length, settings.batch_size, settings.steps(len(rows["train"]))
    names = [n for n in ("input_ids", "attention_mask", "token_type_ids") if n in rows["train"].column_names]
    candidates = [prepared.spec(s) for s in candidate_sparsities(TARGET)]
    train, selection = rows["train"].to_list(), rows["selection"].to_list()
    torch.manual_seed(settings.seed)
    teacher, widths = PlainBert(prepared.loaded.model), None
    student = PlainBert(prepared.loaded.model)
    flops, every = 0.0, max(1, math.ceil(steps / EVALUATIONS))
    for number in (1, 2):
        training = PlainTraining(
            student,
            teacher,
            candidates,
            widths,
            learning_rate=settings.learning_rate,
            warmup=settings.warmup,
            steps=steps,
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
        )
        taught = prepared.shape.forward_flops(widths or prepared.shape.full(), size, length)
        step_flops = taught + 3 * sum(prepared.shape.forward_flops(spec, size, length) for spec in candidates)
        best = {spec: (-math.inf, {}) for spec in candidates}
        for step, batch in enumerate(_batches(len(train), size, steps, (settings.seed, number)), start=1):
            training.step(pad([train[row] for row in batch], length, names))
            flops += step_flops
            if step % every == 0 or step == steps:
                for spec in candidates:
                    logits = logits_of(student, spec, selection, length, names, 2 * size).numpy()
                    metric = prepared.task.evaluate(logits[:, prepared.outputs or slice(None)], labels)["metric"]
                    if metric > best[spec][0]:
                        best[spec] = metric, {name: value.clone() for name, value in student.state_dict().items()}
                curve.add(f"sandwich-{number}", step, metric, flops=flops)  # the last candidate is the student
        chosen = max(candidates, key=lambda spec: best[spec][0] + settings.tradeoff_lambda * spec.sparsity)
        if chosen.sparsity == TARGET:
            break
        teacher, widths = PlainBert(prepared.loaded.model), chosen
        teacher.load_state_dict(best[chosen][1])
        student.load_state_dict(best[chosen][1])
        candidates = [spec for spec in candidates if spec.sparsity > chosen.sparsity]


def _batches(rows: int, size: int, steps: int, seed: tuple[int, int]) -> list[np.ndarray]:
    """Rows in a new random order every epoch; an epoch's last rows are left out if they are no whole batch."""
    random = np.random.default_rng(seed)
    found: list[np.ndarray] = []
    while len(found) < steps:
        order = random.permutation(rows)
        found += [order[i : i + size] for i in range(0, max(1, rows // size) * size, size)]
    return found[:steps]


def train_cell(settings: dict[str, Any], method: str, file: Path) -> None:
    """Train one cell, and write its file."""
    given = settings_from(CompressSettings, settings)
    folder = Path(given.output_dir)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    curve = Curve()
    prepared = Preparation(given, Timed(curve, f"{100 * TARGET:g} %"))
    prepared.rank(folder / "importance.safetensors")
    curve.begin()
    if method == PLAIN:
        plain(prepared, curve)
    else:
        ours(prepared, folder, curve)
    write_json(file, {"method": method, "settings": settings, "curve": curve.points, "record": record()})
    shutil.rmtree(folder)


def settings_of(name: str, cell: Cell, seed: int, method: str, shared: dict[str, Any], work: Path) -> dict[str, Any]:
    """A cell's settings."""
    rows = prepared_rows(shared)
    return {
        **shared,
        "max_length": shared.get("max_length", 128) if name == OWN else 128,
        "output_dir": str(work / name / f"{method}-{seed}"),
        "target_sparsity": TARGET,
        "seed": seed,
        "batch_size": BATCH_SIZE,
        "learning_rate": cell.learning_rate,
        "max_steps": cell.steps,
        "evaluations_per_epoch": max(1, round(EVALUATIONS * rows / BATCH_SIZE / cell.steps)),
        "patience": 1000,
        "select_on": "validation",
        "keep_sizes": False,
        "device": "cpu",
        **OURS.get(method, {}),
    }


def prepared_rows(shared: dict[str, Any]) -> int:
    """How many training rows there are."""
    names = {field.name for field in dataclasses.fields(DataSettings)}
    train = load_data(DataSettings(**{k: v for k, v in shared.items() if k in names}), need_validation=False).train
    assert train is not None
    return len(train)


def compared(plain_cell: dict[str, Any], our_cell: dict[str, Any]) -> dict[str, Any]:
    """What the plain protocol ended with and cost, and when ours was as good; None where it never was."""
    plain_curve, our_curve = plain_cell["curve"], our_cell["curve"]
    end = max(point["metric"] for point in plain_curve)
    whole = plain_curve[-1]
    reached = next((point for point in our_curve if point["step"] and point["metric"] >= end), None)
    keys = ("seconds", "cpu_seconds", "flops")
    return {
        "plain_metric": end,
        "best_metric": max(point["metric"] for point in our_curve),
        "plain": {key: whole[key] for key in keys},
        "own": reached and {"stage": reached["stage"], "step": reached["step"], **{k: reached[k] for k in keys}},
        "ratio": reached and {key: whole[key] / reached[key] for key in keys},
        "steps": plain_cell["settings"]["max_steps"],
        "machine": our_cell["record"]["machine"],
        "curves": {PLAIN: plain_curve, "own": our_curve},
    }


Found = dict[str, dict[str, dict[int, dict[str, Any]]]]
"""What was compared, by task, our method and seed."""


def with_earlier(found: Found, target: Path | None) -> Found:
    """What was found, and tasks, methods and seeds that ``target`` holds beside it."""
    file = target.with_suffix(".json") if target else None
    both: Found = {}
    for tasks in (json.loads(file.read_text(encoding="utf-8"))["tasks"] if file and file.is_file() else {}, found):
        for name, methods in tasks.items():
            for method, seeds in methods.items():
                rows = both.setdefault(name, {}).setdefault(method, {})
                rows.update({int(seed): row for seed, row in seeds.items()})
                both[name][method] = dict(sorted(rows.items()))
    return both


def page(found: Found, titles: dict[str, str]) -> str:
    """The comparison as Markdown."""
    all_seeds = [(name, method, seeds) for name, methods in found.items() for method, seeds in methods.items()]
    every_seed = " ".join(map(str, sorted({seed for _, _, seeds in all_seeds for seed in seeds})))
    lines = [
        "# Time until the student is as good as the plain protocol's",
        "",
        "`OMP_NUM_THREADS=1 python benchmarks/time_to_quality.py --data-dir DIR --work W --target "
        f"results/time_to_quality --seeds {every_seed}` on two cores, with other work on them: processor seconds say "
        "more than wall seconds. What is measured: the script's first lines.",
        "",
        "| task | method | steps | seed | plain's best | its best | plain: CPU s | its CPU s | CPU time, ratio "
        "| wall time | FLOPs | reached in | machine |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, method, seeds in all_seeds:
        title = titles.get(name, name)
        for seed, row in seeds.items():
            reached, ratio = row["own"], row["ratio"]
            start = f"| {title} | {method} | {row['steps']} | {seed} | {row['plain_metric']:.4f} | "
            start += f"{row['best_metric']:.4f} | {row['plain']['cpu_seconds']:.0f} | "
            if reached is None:
                lines.append(start + f"not reached | | | | | {row['machine']} |")
                continue
            ratios = " | ".join(f"{ratio[key]:.1f}" for key in ("cpu_seconds", "seconds", "flops"))
            lines.append(
                start + f"{reached['cpu_seconds']:.0f} | {ratios} | {reached['stage']}, step {reached['step']} | "
                f"{row['machine']} |"
            )
        if len(seeds) > 1:
            # What was not reached took longer than anything that was.
            ratios = [row["ratio"]["cpu_seconds"] if row["ratio"] else 0.0 for row in seeds.values()]
            middle = statistics.median(ratios) if all(ratios) else statistics.median_low(ratios)
            median, low, high = (f"{r:.1f}" if r else "not reached" for r in (middle, min(ratios), max(ratios)))
            lines.append(f"| {title} | {method} | | median | | | | | **{median}** ({low} … {high}) | | | | |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data-dir")
    parser.add_argument("--tasks", nargs="*", default=list(STEPS), choices=list(STEPS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--teacher", help="a fine-tuned BERT, with --train-file and --validation-file, for no task")
    parser.add_argument("--train-file")
    parser.add_argument("--validation-file")
    parser.add_argument("--length", type=int, default=128, help="maximum length, with --teacher")
    parser.add_argument("--steps", type=int, help="optimiser steps of a stage, if not the task's")
    parser.add_argument("--target", type=Path, help="file for the figures, without .json and .md")
    parser.add_argument("--cell", nargs=3, help=argparse.SUPPRESS, metavar=("SETTINGS", "METHOD", "FILE"))
    options = parser.parse_args()
    if options.cell:
        train_cell(json.loads(options.cell[0]), options.cell[1], Path(options.cell[2]))
        return
    if options.teacher and not options.steps:
        parser.error("--teacher needs --steps, the optimiser steps of a stage")
    tasks = {OWN: Cell(OWN, 0, 0, 0, 0, 3e-4)} if options.teacher else {name: TASKS[name] for name in options.tasks}
    found: Found = {}
    for name, cell in tasks.items():
        cell = dataclasses.replace(cell, steps=options.steps or STEPS.get(name, cell.steps))
        if options.teacher:
            files = {"train_file": options.train_file, "validation_file": options.validation_file}
            shared = {"teacher": options.teacher, "max_length": options.length, **files}
        else:
            shared = prepare(name, cell, options.work, options.data_dir)
        cells = {}
        for seed, method in product(options.seeds, (PLAIN, *OURS)):
            file = options.work / name / f"{method}-{seed}.json"
            if not file.is_file():
                settings = settings_of(name, cell, seed, method, shared, options.work)
                arguments = ["--work", str(options.work), "--cell", json.dumps(settings), method, str(file)]
                subprocess.run([sys.executable, __file__, *arguments], check=True)
            cells[seed, method] = json.loads(file.read_text(encoding="utf-8"))
        found[name] = {
            method: {seed: compared(cells[seed, PLAIN], cells[seed, method]) for seed in options.seeds}
            for method in OURS
        }
    found = with_earlier(found, options.target)
    text = page(found, {name: cell.title for name, cell in {**TASKS, **tasks}.items()})
    print(text)
    write(options.target, {"record": record(), "tasks": found}, text)


if __name__ == "__main__":
    main()
