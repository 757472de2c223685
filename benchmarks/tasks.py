"""The tasks of the evidence runs: rows, a MiniLM teacher fine-tuned on them, and how long its students are trained.

DIR (``--data-dir``) holds glue/NAME/{train,validation}.jsonl.gz and conll2003/{train,validation}.jsonl.gz;
``train_subset.jsonl.gz`` serves where the whole training set is not at hand. Rotten Tomatoes comes from the demo's
data package.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minidisc.config import DataSettings, FinetuneSettings
from minidisc.demo.assets import backbone_dir, write_splits
from minidisc.finetuning import finetune
from minidisc.tasks import hold_out, load_data


@dataclass(frozen=True)
class Cell:
    """How a task is run: rows, the teacher's training, and steps and learning rate of a student's stage."""

    title: str
    teacher_epochs: float
    teacher_learning_rate: float
    teacher_batch_size: int
    steps: int
    learning_rate: float
    rows: int | None = None
    task: str | None = None
    precision: str = "auto"


def prepare(name: str, cell: Cell, work: Path, data_dir: str | None, backbone: Path | None = None) -> dict[str, Any]:
    """Rows and teacher of a task; returns the settings that all its runs share.

    ``backbone`` is what the teacher is fine-tuned from, the demo's MiniLM if not given.
    """
    folder = work / name
    rows: dict[str, Any]
    if cell.task is None:
        files = write_splits(folder / "data", train_rows=cell.rows)
        rows = {"train_file": str(files["train"]), "validation_file": str(files["test"]), "max_length": 64}
        checked = {**rows, "validation_file": str(files["validation"])}
    else:
        rows = {"task": cell.task, "data_dir": data_dir, "max_length": 128, "max_train_rows": cell.rows}
        checked = {**rows, **_split_for_teacher(rows, folder)}
    teacher = folder / "teacher"
    if not (teacher / "config.json").is_file():
        result = finetune(
            FinetuneSettings(
                model=str(backbone or backbone_dir()),
                output_dir=str(teacher),
                epochs=cell.teacher_epochs,
                learning_rate=cell.teacher_learning_rate,
                batch_size=cell.teacher_batch_size,
                precision=cell.precision,
                **checked,
            ),
            printer(f"{name} teacher"),
        )
        print(name, "teacher", result.metrics, result.cost, flush=True)
    return {"teacher": str(teacher), "precision": cell.precision, **rows}


def _split_for_teacher(rows: dict[str, Any], folder: Path) -> dict[str, str]:
    """A tenth of the training rows chooses the teacher's best epoch: the benchmark's validation set stays unseen."""
    data = load_data(DataSettings(**rows), need_validation=False)
    kept, held = hold_out(data.train, 0.1, 1000, 0)
    texts = ("words",) if data.task.kind == "token-classification" else ("text_a", "text_b")
    names = dict(zip(texts, data.task.text_columns, strict=False)) | {"label": data.task.label_column}
    files = {"train_file": folder / "teacher_train.parquet", "validation_file": folder / "teacher_held.parquet"}
    folder.mkdir(parents=True, exist_ok=True)
    for file, part in zip(files.values(), (kept, held), strict=True):
        part.to_pandas().rename(columns=names).to_parquet(file, index=False)
    return {key: str(file) for key, file in files.items()}


class Printer:
    """A listener that prints a line an evaluation."""

    def __init__(self, name: str) -> None:
        self._name = name

    def note(self, message: str) -> None:
        """Print a line."""
        print(self._name, message, flush=True)

    warn = note

    def estimated(self, value: Any) -> None:
        """Nothing: the log says what it took."""

    def cell(self, title: str, number: int, of: int, seconds_left: float | None) -> None:
        """Print which cell begins."""
        print(self._name, f"cell {number}/{of}", title, flush=True)

    def stage(self, name: str) -> Any:
        """Print every evaluation."""
        return printer(f"{self._name} {name}")


def printer(label: str) -> Any:
    """A trainer's progress callback that prints a line an evaluation."""

    def progress(step: int, total: int, loss: Any, metrics: dict[str, float] | None) -> None:
        if metrics:
            print(label, f"step {step}/{total}", metrics, flush=True)

    return progress
