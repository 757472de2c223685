"""Sentences (or pairs of them) with one label each, from the tables of a task."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import datasets

from minidisc.config import DataSettings
from minidisc.errors import UserError
from minidisc.tasks.benchmarks import BENCHMARKS
from minidisc.tasks.classes import (
    check_clear,
    check_unmixed,
    class_indices,
    infer_kind,
    infer_names,
    regression_labels,
    unify,
)
from minidisc.tasks.columns import (
    RawLabel,
    choose_label_column,
    choose_text_columns,
    missing_label_column,
    named_label_column,
    read_labels,
    read_texts,
)
from minidisc.tasks.sources import OWN_TASKS, Source
from minidisc.tasks.task import Kind, Task


def read_sentences(
    settings: DataSettings,
    kind: Kind | None,
    model_names: Iterable[str],
    sources: dict[str, Source],
    need_labels: bool,
) -> tuple[Task, dict[str, dict[str, list]], datasets.Features]:
    """Read texts and labels.

    Args:
        settings: names of the task and the columns.
        kind: kind of task if the settings do not say and the labels would have to be guessed from.
        model_names: see `minidisc.tasks.classes.infer_names`.
        sources: the table of each split.
        need_labels: whether the training rows must have a column of labels.

    Returns:
        The task; for each split the columns ``text_a``, ``text_b`` if rows are pairs, and ``label`` (int, or float for
        regression, or None where a row has none); and the columns' types.

    Raises:
        UserError: if a column is missing or holds what it must not.
    """
    first = next(iter(sources.values()))
    known = BENCHMARKS.get(settings.task or "")
    text_columns = settings.text_columns or (known.text_columns if known else choose_text_columns(first))
    texts = {split: [read_texts(source, column) for column in text_columns] for split, source in sources.items()}
    optional = {split: split == "train" and not need_labels for split in sources}
    label_columns = {
        split: _label_column(settings, known, source, optional[split]) for split, source in sources.items()
    }
    raw = {split: _raw_labels(sources[split], column, optional[split]) for split, column in label_columns.items()}
    label_column = next((column for column in label_columns.values() if column is not None), "label")
    task, labels = _labels(settings, kind, tuple(model_names), sources, raw, label_column)
    task = replace(task, text_columns=tuple(text_columns), label_column=label_column)
    columns = {
        split: {**dict(zip(("text_a", "text_b"), texts[split], strict=False)), "label": labels[split]}
        for split in sources
    }
    features: dict[str, Any] = {name: datasets.Value("string") for name in columns[next(iter(columns))]}
    features["label"] = datasets.Value("int64" if task.kind == "classification" else "float64")
    return task, columns, datasets.Features(features)


def _label_column(settings: DataSettings, known: Task | None, source: Source, optional: bool) -> str | None:
    if settings.label_column:
        return named_label_column(source, settings.label_column, optional)
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
    model_names: tuple[str, ...],
    sources: dict[str, Source],
    raw: dict[str, list[RawLabel]],
    label_column: str,
) -> tuple[Task, dict[str, list]]:
    """The task, its columns not yet filled in, and the labels as integers or floats."""
    known = BENCHMARKS.get(settings.task or "") or _declared_task(settings, sources, label_column)
    if known:
        unified = {split: unify({split: labels}, known.kind == "regression")[split] for split, labels in raw.items()}
    else:
        if settings.task in OWN_TASKS:
            kind = settings.task  # type: ignore[assignment]
        unified = unify(raw, kind == "regression")
        if kind is None:
            check_unmixed(unified, sources)
            kind = infer_kind(unified)
            first = next(iter(sources))
            if kind == "classification":
                check_clear(unified[first], sources[first], model_names)
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
        names, named = infer_names(unified[split], sources[split], model_names)
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
