"""Score the students of a Rotten Tomatoes comparison on the validation movies too, which they have never seen.

    python benchmarks/other_rows.py --work runs/main_job --task rt1600 --output results/main_job_rt1600_validation.json

The teacher's best epoch was chosen on these rows, its students' nothing.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from main_job import BATCH_SIZE, METHODS, TASKS
from safetensors.torch import load_file
from tasks import prepare

from minidisc.comparison.table import mean_and_error
from minidisc.config import CompressSettings
from minidisc.extraction import extract
from minidisc.files import read_json, write_json
from minidisc.listening import LoggingListener
from minidisc.preparation import Preparation


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--task", choices=[name for name, cell in TASKS.items() if cell.task is None], required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    shared = prepare(options.task, TASKS[options.task], options.work, None)
    shared["validation_file"] = str(options.work / options.task / "data" / "validation.csv")
    folder = options.work / options.task / "comparison"
    stages = [(_cost(read_json(file)), file.parent.parent) for file in folder.glob("checkpoints/*/*/minidisc.json")]
    found: dict[str, list[float]] = {}
    teacher: float | None = None
    for file in sorted((folder / "cells").glob("*.json")):
        cell = json.loads(file.read_text(encoding="utf-8"))
        if cell["method"] not in [method.format(twice=2 * TASKS[options.task].steps) for method in METHODS[:2]]:
            continue
        settings = CompressSettings(**shared, output_dir="unused", batch_size=BATCH_SIZE, seed=cell["seed"])
        prepared = Preparation(settings, LoggingListener())
        prepared.rank(folder / f"importance-{cell['seed']}.safetensors")
        teacher = prepared.evaluate(prepared.loaded.model, "validation")["metric"]
        last = list(cell["stages"])[-1]
        stage = min(stages, key=lambda s: abs(s[0] - _cost(cell["stages"][last])))[1]
        best = _best(stage, f"{100 * cell['target_sparsity']:g} %")
        state = load_file(stage / f"snapshot-{best}.safetensors")
        student = extract(prepared.loaded.model, prepared.spec(cell["target_sparsity"]), state)
        metric = prepared.evaluate(student, "validation")["metric"]
        found.setdefault(cell["method"], []).append(metric)
        print(cell["method"], cell["seed"], metric, flush=True)
    write_json(
        options.output,
        {
            "rows": prepared.rows.counts()["validation"],
            "teacher": teacher,
            "students": {method: {"mean_and_error": mean_and_error(v), "values": v} for method, v in found.items()},
        },
    )


def _cost(stage: dict[str, Any]) -> float:
    """What a stage took tells it from all others."""
    return stage["seconds"]


def _best(stage: Path, name: str) -> int:
    """The step whose snapshot was best for a size."""
    (file,) = stage.glob("checkpoint-*/minidisc.json")
    record = read_json(file)
    names = list(record["history"][0]["metrics"])
    return record["best"][names.index(name)]["step"]


if __name__ == "__main__":
    main()
