"""Load the rows of a task: texts and labels, checked, as in-memory data sets."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace

import datasets
import numpy as np

from minidisc.config import DataSettings
from minidisc.errors import UserError
from minidisc.tasks.classes import class_indices, infer_kind, infer_names, regression_labels, unify
from minidisc.tasks.columns import (
    RawLabel,
    choose_label_column,
    choose_text_columns,
    count_rows,
    missing_label_column,
    read_labels,
    read_texts,
)
from minidisc.tasks.glue import GLUE
from minidisc.tasks.sources import OWN_TASKS, Source, find_source
from minidisc.tasks.task import Kind, Task

MINIMUM_TRAIN_ROWS = 16


@dataclass
class TaskData:
    """The rows of a task.

    Attributes:
        task: what the rows are for.
        train: columns ``text_a``, ``text_b`` if rows are pairs, and ``label`` (int, or float for regression, or None
            where a row has none); None if it was not asked for.
        validation: as ``train``, every row labelled.
        splits: ``train`` and ``validation`` to the name of the file or the Hub's split that was read.
        fingerprint: hash of the rows, the same in every process.
    """

    task: Task
    train: datasets.Dataset | None
    validation: datasets.Dataset | None
    splits: dict[str, str]
    fingerprint: str


def load_data(
    settings: DataSettings,
    *,
    kind: Kind | None = None,
    need_train: bool = True,
    need_validation: bool = True,
    need_labels: bool = True,
) -> TaskData:
    """Load the rows that the settings name.

    Args:
        settings: where the rows are; a ``seed`` attribute, if any, draws the ``max_train_rows``.
        kind: kind of task if the settings do not say and the labels would have to be guessed from.
        need_train: whether to load training rows.
        need_validation: whether to load validation rows.
        need_labels: whether every training row must have a label.

    Raises:
        UserError: if rows cannot be read or cannot be used.
    """
    wanted = [split for split, need in (("train", need_train), ("validation", need_validation)) if need]
    if settings.task is not None and f"glue/{settings.task}" in GLUE:
        raise UserError(f"--task is {settings.task!r}; write 'glue/{settings.task}'.")
    if settings.task is not None and settings.task.startswith("glue/") and settings.task not in GLUE:
        raise UserError(f"--task is {settings.task!r}; the tasks of GLUE are {', '.join(GLUE)}.")
    sources = {split: find_source(settings, split) for split in wanted}
    first = next(iter(sources.values()))

    known = GLUE.get(settings.task or "")
    text_columns = settings.text_columns or (known.text_columns if known else choose_text_columns(first))
    texts = {split: [read_texts(source, column) for column in text_columns] for split, source in sources.items()}
    label_columns = {split: _label_column(settings, known, source) for split, source in sources.items()}
    raw = {
        split: _raw_labels(sources[split], column, optional=split == "train" and not need_labels)
        for split, column in label_columns.items()
    }
    label_column = next((column for column in label_columns.values() if column is not None), "label")

    task, labels = _labels(settings, kind, sources, raw, label_column)
    task = replace(task, text_columns=tuple(text_columns), label_column=label_column)
    for split, source in sources.items():
        bad = [row for row, label in enumerate(labels[split], start=1) if label is None]
        if bad and (split == "validation" or need_labels):
            raise UserError(
                f"{source.name}: {count_rows(bad)} no label in column {label_column!r}; add or remove them."
            )

    data = {split: _dataset(texts[split], labels[split], task) for split in wanted}
    if "train" in data:
        data["train"] = _subsample(data["train"], settings)
        if len(data["train"]) < MINIMUM_TRAIN_ROWS:
            raise UserError(
                f"too few training rows: {len(data['train'])} of {sources['train'].name}; "
                f"at least {MINIMUM_TRAIN_ROWS} are needed."
            )
    for split, rows in data.items():
        present = set(rows["label"]) - {None}
        if len(present) == 1:
            raise UserError(
                f"{sources[split].name}: all labels are the same ({_label_text(task, present.pop())}); "
                "at least two different ones are needed."
            )
    return TaskData(
        task=task,
        train=data.get("train"),
        validation=data.get("validation"),
        splits={split: source.split for split, source in sources.items()},
        fingerprint=_fingerprint(task, data),
    )


def _label_column(settings: DataSettings, known: Task | None, source: Source) -> str | None:
    if settings.label_column:
        return settings.label_column
    if known and known.label_column in source.table:
        return known.label_column
    return choose_label_column(source)


def _raw_labels(source: Source, column: str | None, optional: bool) -> list[RawLabel]:
    if column is not None:
        return read_labels(source, column)
    if not optional:
        raise missing_label_column(source)
    return [None] * len(source.table)


def _labels(
    settings: DataSettings,
    kind: Kind | None,
    sources: dict[str, Source],
    raw: dict[str, list[RawLabel]],
    label_column: str,
) -> tuple[Task, dict[str, list]]:
    """The task, its columns not yet filled in, and the labels as integers or floats."""
    known = GLUE.get(settings.task or "") or _declared_task(settings, sources, label_column)
    if known:
        unified = {split: unify({split: labels})[split] for split, labels in raw.items()}
    else:
        unified = unify(raw)
        if settings.task in OWN_TASKS:
            kind = settings.task  # type: ignore[assignment]
        kind = kind or infer_kind(unified)
    if (known.kind if known else kind) == "regression":
        floats = {split: regression_labels(labels, sources[split]) for split, labels in unified.items()}
        return known or _task(settings.task, None, False), floats

    if known:
        task, numbers_are_indices, origin = known, True, f"task {known.name}"
    else:
        # The names are those of train, so that a class of validation which is never trained is found out.
        split = next((split for split in unified if any(label is not None for label in unified[split])), None)
        if split is None:
            raise UserError(
                f"{', '.join(source.name for source in sources.values())}: no row has a label; add labels, "
                "or give labelled rows with --validation-file."
            )
        names, named = infer_names(unified[split], sources[split])
        task, numbers_are_indices, origin = _task(settings.task, names, named), not named, sources[split].name
    indices = {
        split: class_indices(
            labels,
            task.label_names or (),
            numbers_are_indices=numbers_are_indices,
            source=sources[split],
            origin=origin,
        )
        for split, labels in unified.items()
    }
    return task, indices


def _declared_task(settings: DataSettings, sources: dict[str, Source], label_column: str) -> Task | None:
    """The task of a Hub data set that declares its class names."""
    for source in sources.values():
        names = source.label_names.get(label_column)
        if names:
            return _task(settings.task, names, named=names != tuple(str(index) for index in range(len(names))))
    return None


def _task(name: str | None, label_names: tuple[str, ...] | None, named: bool) -> Task:
    kind: Kind = "regression" if label_names is None else "classification"
    metrics = ("pearson", "spearman") if label_names is None else ("accuracy",)
    return Task(name or kind, kind, (), "", label_names, named, metrics)


def _dataset(texts: list[list[str]], labels: list, task: Task) -> datasets.Dataset:
    columns = dict(zip(("text_a", "text_b"), texts, strict=False))
    features = {name: datasets.Value("string") for name in columns}
    features["label"] = datasets.Value("int64" if task.kind == "classification" else "float64")
    return datasets.Dataset.from_dict({**columns, "label": labels}, features=datasets.Features(features))


def _subsample(rows: datasets.Dataset, settings: DataSettings) -> datasets.Dataset:
    count = settings.max_train_rows
    if count is None or count >= len(rows):
        return rows
    generator = np.random.default_rng(getattr(settings, "seed", 0))
    drawn = np.sort(generator.choice(len(rows), size=count, replace=False))
    return datasets.Dataset.from_dict(rows[drawn], features=rows.features)


def _label_text(task: Task, label: float) -> str:
    return repr(task.label_names[int(label)]) if task.label_names else f"{label:g}"


def _fingerprint(task: Task, data: dict[str, datasets.Dataset]) -> str:
    digest = hashlib.sha256(json.dumps([task.kind, task.label_names]).encode())
    for split, rows in data.items():
        digest.update(json.dumps([split, rows.to_dict()]).encode())
    return digest.hexdigest()[:16]
