"""Find the rows of a split: a file of the user's, a local copy of a benchmark, or the Hugging Face Hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

import datasets
import pandas as pd

from minidisc.config import DataSettings
from minidisc.errors import UserError
from minidisc.tasks.benchmarks import BENCHMARKS, hub_arguments
from minidisc.tasks.reading import read_table
from minidisc.tasks.streaming import Unwanted, stream_files, stream_hub
from minidisc.tasks.task import Kind

OWN_TASKS = get_args(Kind)
_HUB_SPLITS = {"train": ("train",), "validation": ("validation", "validation_matched", "dev", "test")}


@dataclass(frozen=True)
class Source:
    """The rows of one split.

    Attributes:
        table: one row of the data a row.
        name: what the user knows the rows by, for error messages.
        split: the file's name or the Hub's split.
        label_names: per column of labels, or of lists of them, the class names that the Hub's data set declares.
    """

    table: pd.DataFrame
    name: str
    split: str
    label_names: dict[str, tuple[str, ...]]


def find_source(settings: DataSettings, split: str, blank: Unwanted | None = None) -> Source:
    """Read a split (``train`` or ``validation``): from its own file if given, else as the task says.

    Args:
        settings: say where it is.
        split: its name.
        blank: see `minidisc.tasks.streaming.stream_files`; all other sources are read whole.

    Raises:
        UserError: if nothing says where the split is, or it cannot be read.
    """
    file = settings.train_file if split == "train" else settings.validation_file
    task = settings.task
    if settings.stream and split == "train":
        return _from_stream(settings, blank)
    if file:
        return _from_file(Path(file))
    if task is None or task in OWN_TASKS:
        raise UserError(f"--{split}-file is missing; give the {split} rows, or name a data set with --task.")
    if settings.data_dir:
        return _from_folder(settings.data_dir, task, split)
    if settings.stream:
        raise UserError("--validation-file is missing; with --stream the Hub's data set is not downloaded.")
    return _from_hub(task, split)


def _from_file(path: Path) -> Source:
    return Source(read_table(path), str(path), path.name, {})


def _from_stream(settings: DataSettings, blank: Unwanted | None) -> Source:
    draw = settings.max_train_rows or 0, getattr(settings, "seed", 0), blank
    if settings.train_file:
        files = settings.train_file
        return Source(stream_files(files, *draw), files, _last_part(files), {})
    if settings.task is None or settings.task in OWN_TASKS or settings.data_dir:
        raise UserError("--stream needs --train-file, or a data set of the Hub as --task (without --data-dir).")
    table, features = stream_hub(hub_arguments(settings.task), *draw)
    return Source(table, f"split 'train' of {settings.task}", "train", _label_names(features))


def _last_part(files: str) -> str:
    """Of a path or an address: what cards may show, without home folders, passwords and signatures."""
    return Path(urlsplit(files).path if "://" in files else files).name


def _from_folder(data_dir: str, task: str, split: str) -> Source:
    if task not in BENCHMARKS:
        raise UserError(
            f"--data-dir serves the tasks {', '.join(BENCHMARKS)}, not {task!r}; give --{split}-file instead."
        )
    folder = Path(data_dir, task)
    names = [split, f"{split}_matched", f"{split}_subset"]
    for name in names:
        path = folder / f"{name}.jsonl.gz"
        if path.exists():
            return _from_file(path)
    raise UserError(
        f"{folder} holds no {split}.jsonl.gz; point --data-dir at the folder above {task.partition('/')[0]}/, or "
        "correct it."
    )


def _from_hub(task: str, split: str) -> Source:
    bars = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        splits = datasets.load_dataset(*hub_arguments(task))
    except Exception as error:  # whatever the network, the Hub or a dataset's files raise
        reason = (" ".join(str(error).split()) or type(error).__name__)[:200].rstrip(".")
        raise UserError(
            f"data set {task!r} cannot be had from the Hugging Face Hub ({reason}); "
            + (
                "check the network, or give a local copy with --data-dir."
                if task in BENCHMARKS
                else "check its id and the network, or give --train-file and --validation-file."
            )
        ) from None
    finally:
        if bars:
            datasets.enable_progress_bars()
    for name in _HUB_SPLITS[split]:
        if name in splits:
            names = _label_names(splits[name].features)
            return Source(splits[name].to_pandas(), f"split {name!r} of {task}", name, names)
    raise UserError(f"data set {task!r} has no {split} split, only {', '.join(splits)}; give --{split}-file.")


def _label_names(features: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    return {column: names for column, feature in features.items() if (names := _declared_names(feature))}


def _declared_names(feature: Any) -> tuple[str, ...]:
    label = getattr(feature, "feature", feature)  # that of a list's items
    return tuple(label.names) if isinstance(label, datasets.ClassLabel) else ()
