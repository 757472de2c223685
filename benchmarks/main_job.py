"""The main job on real data: teacher, assistant, student, and direct distillation at equal steps.

    python benchmarks/main_job.py --data-dir DIR --work runs/main_job --tasks rt1600 stsb --seeds 0 1 2
    python benchmarks/main_job.py --work runs/main_job --table results/main_job

The first form trains what is missing (every cell is a run folder, a killed one resumes), one cell after another; start
it twice with different tasks or seeds to use two cores, and set OMP_NUM_THREADS=1 then. The second form writes the
table. DIR holds glue/{mrpc,stsb}/{train,validation}.jsonl.gz; Rotten Tomatoes comes from the demo's data package.

The same teacher, rows, batches, learning rate and optimiser steps for all methods of a task: `minidisc` trains N steps
in each of two stages, `direct` 2 N steps in one. Figures are on rows that neither training nor selection has seen:
Rotten Tomatoes' test movies, GLUE's validation sets.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from minidisc.config import CompressSettings, DataSettings, FinetuneSettings
from minidisc.demo.assets import backbone_dir, write_splits
from minidisc.files import new_folder, write_json
from minidisc.finetuning import finetune
from minidisc.measure import processor
from minidisc.pipeline import compress
from minidisc.tasks import hold_out, load_data


@dataclass(frozen=True)
class Cell:
    """How a task is run: rows, the teacher's epochs, and steps of a stage."""

    title: str
    teacher_epochs: float
    teacher_learning_rate: float
    batch_size: int
    steps: int
    learning_rate: float
    train_rows: int | None = None
    glue: str | None = None


TASKS = {
    "rt1600": Cell("Rotten Tomatoes, 1,600 rows", 3, 1e-4, 16, 200, 1e-4, train_rows=1600),
    "rt": Cell("Rotten Tomatoes, all rows", 2, 5e-5, 32, 300, 3e-4),
    "mrpc": Cell("MRPC", 3, 5e-5, 16, 300, 3e-4, glue="mrpc"),
    "stsb": Cell("STS-B", 3, 5e-5, 16, 300, 3e-4, glue="stsb"),
    "stsb-long": Cell("STS-B, three times as long", 3, 5e-5, 16, 900, 3e-4, glue="stsb"),
}
EVALUATIONS = 2  # in an epoch
METHODS: dict[str, dict[str, Any]] = {
    "minidisc": {},
    "direct": {"schedule": "direct"},
    "minidisc, sandwich as second stage": {"second_stage": "sandwich"},
}


def prepare(name: str, cell: Cell, work: Path, data_dir: str | None) -> dict[str, Any]:
    """Rows and teacher of a task; returns the settings that all its runs share."""
    folder = work / name
    rows: dict[str, Any]
    if cell.glue is None:
        files = write_splits(folder / "data", train_rows=cell.train_rows)
        rows = {"train_file": str(files["train"]), "validation_file": str(files["test"]), "max_length": 64}
        checked = {**rows, "validation_file": str(files["validation"])}
    else:
        rows = {"task": f"glue/{cell.glue}", "data_dir": data_dir, "max_length": 128}
        checked = {**rows, **_split_for_teacher(rows, folder)}
    teacher = folder / "teacher"
    if not (teacher / "config.json").is_file():
        result = finetune(
            FinetuneSettings(
                model=str(backbone_dir()),
                output_dir=str(teacher),
                epochs=cell.teacher_epochs,
                learning_rate=cell.teacher_learning_rate,
                batch_size=cell.batch_size,
                **checked,
            ),
            _printer(f"{name} teacher"),
        )
        print(name, "teacher", result.metrics, result.cost, flush=True)
    return {"teacher": str(teacher), **rows}


def _split_for_teacher(rows: dict[str, Any], folder: Path) -> dict[str, str]:
    """A tenth of the training rows chooses the teacher's best epoch: GLUE's validation set stays unseen."""
    data = load_data(DataSettings(**rows), need_validation=False)
    kept, held = hold_out(data.train, 0.1, 1000, 0)
    names = dict(zip(("text_a", "text_b"), data.task.text_columns, strict=False)) | {"label": data.task.label_column}
    files = {"train_file": folder / "teacher_train.csv", "validation_file": folder / "teacher_held.csv"}
    folder.mkdir(parents=True, exist_ok=True)
    for file, part in zip(files.values(), (kept, held), strict=True):
        part.to_pandas().rename(columns=names).to_csv(file, index=False)
    return {key: str(file) for key, file in files.items()}


def run(name: str, seed: int, method: str, shared: dict[str, Any], cell: Cell, work: Path) -> None:
    """Train one cell, unless it is finished."""
    folder = work / name / f"{method.replace(', ', '-').replace(' ', '-')}-{seed}"
    if (folder / "results.json").is_file():
        return
    options = METHODS[method]
    settings = CompressSettings(
        **shared,
        **options,
        output_dir=str(folder),
        batch_size=cell.batch_size,
        learning_rate=cell.learning_rate,
        max_steps=cell.steps * (2 if options.get("schedule") == "direct" else 1),
        evaluations_per_epoch=EVALUATIONS,
        seed=seed,
        keep_checkpoints=method == "minidisc",
    )
    first = work / name / f"minidisc-{seed}"
    if "second_stage" in options and (first / "results.json").is_file() and not folder.exists():
        _share_first_stage(first, folder, options)
    result = compress(settings=settings, resume=True)
    print(name, seed, method, result.student.metrics, [a.sparsity for a in result.assistants], flush=True)


def _share_first_stage(done: Path, folder: Path, options: dict[str, Any]) -> None:
    """The first stage is the same work whatever the second is: start from a copy of the finished run's."""
    with new_folder(folder) as temporary:
        shutil.copytree(done / "checkpoints" / "sandwich-1", temporary / "checkpoints" / "sandwich-1")
        shutil.copyfile(done / "importance.safetensors", temporary / "importance.safetensors")
        record = yaml.safe_load((done / "run.yaml").read_text(encoding="utf-8"))
        record["settings"].update(options)
        (temporary / "run.yaml").write_text(yaml.safe_dump(record, sort_keys=False), encoding="utf-8")


def table(work: Path) -> dict[str, Any]:
    """Collect the finished cells."""
    found: dict[str, Any] = {}
    for name, cell in TASKS.items():
        methods: dict[str, Any] = {}
        for method in METHODS:
            slug = method.replace(", ", "-").replace(" ", "-")
            files = sorted((work / name).glob(f"{slug}-[0-9]*/results.json"))
            if files:
                methods[method] = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        if methods:
            found[name] = _summary(cell, methods)
    return found


def _summary(cell: Cell, methods: dict[str, Any]) -> dict[str, Any]:
    first = next(iter(methods.values()))[0]
    metrics = first["task"]["metrics"]
    summary: dict[str, Any] = {
        "title": cell.title,
        "rows": first["rows"],
        "steps_of_a_stage": cell.steps,
        "batch_size": cell.batch_size,
        "learning_rate": cell.learning_rate,
        "teacher": {m: first["teacher"]["metrics"][m] for m in metrics},
        "machine": first["machine"],
        "methods": {},
    }
    for method, runs in methods.items():
        summary["methods"][method] = {
            "seeds": [r["settings"]["seed"] for r in runs],
            "student": {m: _mean_error([r["student"]["metrics"][m] for r in runs]) for m in metrics},
            "assistant": {
                m: _mean_error([r["assistants"][0]["metrics"][m] for r in runs if r["assistants"]]) for m in metrics
            },
            "assistants_chosen": [a["sparsity"] for r in runs for a in r["assistants"][:1]],
            "steps": [r["cost"]["total"]["steps"] for r in runs],
            "flops": _mean_error([r["cost"]["total"]["flops"] for r in runs]),
            "cpu_seconds": _mean_error([r["cost"]["total"]["cpu_seconds"] for r in runs]),
        }
    return summary


def _mean_error(values: list[float]) -> dict[str, Any] | None:
    """Mean, and standard error over seeds (None for a single one)."""
    if not values:
        return None
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "standard_error": error, "values": values}


def markdown(tables: dict[str, Any], command: str) -> str:
    """The table as a page."""
    lines = ["# The main job on real data", "", f"Command: `{command}` (see the script's first lines)", ""]
    for task in tables.values():
        rows = task["rows"]
        lines += [
            f"## {task['title']}, 90 % sparsity",
            "",
            f"{rows['train']['count']} training rows, {rows['selection']['count']} for selection, figures on "
            f"{rows['validation']['count']} rows of {rows['validation']['source']}; batch {task['batch_size']}, "
            f"learning rate {task['learning_rate']:g}, {task['steps_of_a_stage']} steps a stage (direct: twice as "
            "many in one). "
            f"Machine: {task['machine']}. Mean ± standard error over seeds.",
            "",
            "| method | seeds | "
            + " | ".join(task["teacher"])
            + " | assistant chosen | steps | FLOPs | CPU seconds |",
            "|---" * (6 + len(task["teacher"])) + "|",
            "| teacher | | " + " | ".join(f"{v:.3f}" for v in task["teacher"].values()) + " | | | | |",
        ]
        for name, method in task["methods"].items():
            if name == "minidisc" and any(method["assistant"].values()):
                figures = " | ".join(_cell(v) for v in method["assistant"].values())
                lines.append(f"| assistant of minidisc | | {figures} | | | | |")
            chosen = ", ".join(f"{100 * s:g} %" for s in method["assistants_chosen"])
            steps = ", ".join(map(str, method["steps"]))
            figures = " | ".join(_cell(v) for v in method["student"].values())
            lines.append(
                f"| {name} | {len(method['seeds'])} | {figures} | {chosen} | {steps} | "
                f"{method['flops']['mean']:.2e} | {_cell(method['cpu_seconds'], 0)} |"
            )
        lines.append("")
    return "\n".join(lines)


def _cell(value: dict[str, Any] | None, digits: int = 3) -> str:
    if value is None:
        return ""
    error = value["standard_error"]
    return f"{value['mean']:.{digits}f}" + (f" ± {error:.{digits}f}" if error is not None else "")


def _printer(label: str) -> Any:
    def progress(step: int, total: int, loss: Any, metrics: dict[str, float] | None) -> None:
        if metrics:
            print(label, f"step {step}/{total}", metrics, flush=True)

    return progress


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data-dir")
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--table", type=Path, help="write TABLE.json and TABLE.md instead of training")
    options = parser.parse_args()
    if options.table:
        tables = table(options.work)
        write_json(options.table.with_suffix(".json"), {"tasks": tables, "machine": processor()})
        command = f"python benchmarks/main_job.py --data-dir DIR --work runs/main_job --tasks {' '.join(tables)}"
        options.table.with_suffix(".md").write_text(markdown(tables, command), encoding="utf-8")
        sys.exit()
    for name in options.tasks:
        shared = prepare(name, TASKS[name], options.work, options.data_dir)
        for seed in options.seeds:
            for method in options.methods:
                run(name, seed, method, shared, TASKS[name], options.work)


if __name__ == "__main__":
    main()
