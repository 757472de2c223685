"""The main job on real data: teacher, assistant, student, and direct distillation at equal steps.

    python benchmarks/main_job.py --data-dir DIR --work runs/main_job --tasks rt stsb mrpc --seeds 0 1 2
    python benchmarks/main_job.py --work runs/main_job --table results/main_job

The first form trains what is missing (a killed one goes on), one task after another; start it twice with different
tasks to use two cores, and set OMP_NUM_THREADS=1 then. The second form gathers the tables.

The same teacher, rows, batches, learning rate and optimiser steps for all methods of a task: N steps in each of two
stages, `direct` 2 N steps in one; nothing stops early. Figures are on rows that neither training nor selection has
seen: Rotten Tomatoes' test movies, GLUE's validation sets.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tasks import Cell, Printer, prepare

from minidisc.comparison import compare, markdown, read_comparison
from minidisc.comparison.table import summarise
from minidisc.config import CompareSettings
from minidisc.files import write_json

TASKS = {
    "rt1600": Cell("Rotten Tomatoes, 1,600 rows", 3, 1e-4, 16, 200, 1e-4, rows=1600),
    "rt": Cell("Rotten Tomatoes, all rows", 2, 5e-5, 32, 450, 3e-4),
    "mrpc": Cell("MRPC", 3, 5e-5, 16, 330, 3e-4, task="glue/mrpc"),
    "stsb": Cell("STS-B", 3, 5e-5, 16, 450, 3e-4, task="glue/stsb"),
}
BATCH_SIZE = 16
_SHOWN = ("batch_size", "learning_rate", "max_steps", "epochs")
METHODS = (
    "minidisc",
    "direct:max_steps={twice}",
    "minidisc:no_gap=stop",
    "minidisc:second_stage=sandwich",
    "minidisc:second_teacher=teacher",
)


def run(name: str, cell: Cell, options: argparse.Namespace) -> None:
    """Train the cells of a task that are missing."""
    shared = prepare(name, cell, options.work, options.data_dir)
    compare(
        settings=CompareSettings(
            **shared,
            output_dir=str(options.work / name / "comparison"),
            methods=tuple(method.format(twice=2 * cell.steps) for method in options.methods),
            seeds=tuple(options.seeds),
            batch_size=BATCH_SIZE,
            learning_rate=cell.learning_rate,
            max_steps=cell.steps,
            evaluations_per_epoch=2,
            patience=1000,
            keep_checkpoints=True,
        ),
        resume=True,
        listener=Printer(name),
    )


def table(work: Path) -> dict[str, Any]:
    """All finished cells, whichever process trained them."""
    found = {}
    for name, cell in TASKS.items():
        folder = work / name / "comparison"
        if (folder / "compare.json").is_file():
            content = read_comparison(folder).content
            files = sorted((folder / "cells").glob("*.json"))
            cells = [json.loads(file.read_text(encoding="utf-8")) for file in files]
            methods = [method.format(twice=2 * cell.steps) for method in METHODS]
            found[name] = {
                "task": {**content["task"], "name": cell.title},
                "rows": content["rows"],
                "teacher": {key: content["teacher"][key] for key in ("metrics", "sizes")},
                "settings": {key: content["settings"][key] for key in _SHOWN},
                "versions": content["versions"],
                "table": summarise(cells, methods),
                "cells": cells,
                "failures": {},
            }
    return found


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data-dir")
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--table", type=Path, help="write TABLE.json and TABLE.md instead of training")
    options = parser.parse_args()
    if options.table:
        tables = table(options.work)
        write_json(options.table.with_suffix(".json"), tables)
        command = "OMP_NUM_THREADS=1 python benchmarks/main_job.py --data-dir DIR --work runs/main_job"
        pages = [f"Made by `{command} --tasks {' '.join(tables)}` (see the script's first lines).\n"]
        pages += [markdown(content) for content in tables.values()]
        options.table.with_suffix(".md").write_text("\n".join(pages), encoding="utf-8")
        sys.exit()
    for name in options.tasks:
        run(name, TASKS[name], options)


if __name__ == "__main__":
    main()
