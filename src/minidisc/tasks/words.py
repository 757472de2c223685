"""Sentences as lists of words with an entity tag each, from the tables of a task."""

from __future__ import annotations

from collections.abc import Iterable

import datasets

from minidisc.config import DataSettings
from minidisc.errors import UserError
from minidisc.tasks.benchmarks import BENCHMARKS
from minidisc.tasks.classes import shorten
from minidisc.tasks.columns import missing_label_column, named_label_column
from minidisc.tasks.sources import Source
from minidisc.tasks.tags import (
    Tags,
    choose_tag_column,
    choose_word_column,
    in_iob1,
    infer_tag_names,
    is_tag,
    read_tags,
    read_words,
    tag_indices,
)
from minidisc.tasks.task import Task

_FEATURES = datasets.Features(
    {"words": datasets.Sequence(datasets.Value("string")), "label": datasets.Sequence(datasets.Value("int64"))}
)


def read_tagged(
    settings: DataSettings, model_names: Iterable[str], sources: dict[str, Source], need_labels: bool
) -> tuple[Task, dict[str, dict[str, list]], datasets.Features]:
    """Read words and tags.

    Args:
        settings: names of the task and the columns.
        model_names: see `minidisc.tasks.tags.infer_tag_names`.
        sources: the table of each split.
        need_labels: whether the training rows must have a column of tags.

    Returns:
        The task; for each split the columns ``words`` and ``label`` (the index of each word's tag, or None where a row
        has no tags); and the columns' types.

    Raises:
        UserError: if a column is missing or holds what it must not.
    """
    first = next(iter(sources.values()))
    known = BENCHMARKS.get(settings.task or "")
    if settings.text_columns and len(settings.text_columns) > 1:
        raise UserError(
            f"--text-columns names {len(settings.text_columns)} columns; token classification takes one, of lists of "
            "words."
        )
    word_column = (settings.text_columns or (known.text_columns if known else (choose_word_column(first),)))[0]
    words = {split: read_words(source, word_column) for split, source in sources.items()}
    optional = {split: split == "train" and not need_labels for split in sources}
    tag_columns = {
        split: named_label_column(source, settings.label_column, optional[split])
        if settings.label_column
        else choose_tag_column(source)
        for split, source in sources.items()
    }
    tags = {
        split: _tags(source, tag_columns[split], words[split], optional[split]) for split, source in sources.items()
    }
    # The names are those of train, so that a type of validation which is never trained is found out.
    split = next((split for split, rows in tags.items() if any(rows)), None)
    if split is None:
        raise UserError(
            f"{', '.join(source.name for source in sources.values())}: no row has tags; add tags, or give labelled "
            "rows with --validation-file."
        )
    tag_column = next((column for column in tag_columns.values() if column is not None), "ner_tags")
    declared = known.label_names if known else _declared_names(sources, tag_column)
    model_names = tuple(model_names)
    if converted := in_iob1(tags, declared, model_names):
        tags, declared = converted, None
    names = declared or infer_tag_names(tags, split, model_names)
    task = Task(
        name=settings.task or "token-classification",
        kind="token-classification",
        text_columns=(word_column,),
        label_column=tag_column,
        label_names=names,
        named=True,
        metrics=("entity_f1",),
    )
    origin = f"task {task.name}" if declared else sources[split].name
    indices = {
        split: tag_indices(tags[split], names, numbers_are_indices=declared is not None, source=source, origin=origin)
        for split, source in sources.items()
    }
    columns: dict[str, dict[str, list]] = {
        split: {"words": words[split], "label": indices[split]} for split in sources
    }
    return task, columns, _FEATURES


def _tags(source: Source, column: str | None, words: list[list[str]], optional: bool) -> list[Tags]:
    if column is not None:
        return read_tags(source, column, words)
    if not optional:
        raise missing_label_column(source)
    return [None] * len(words)


def _declared_names(sources: dict[str, Source], column: str) -> tuple[str, ...] | None:
    """The tags that a Hub data set declares."""
    for source in sources.values():
        if names := source.label_names.get(column):
            if not all(is_tag(name) for name in names) or "O" not in names:
                raise UserError(
                    f"{source.name}: the classes of column {column!r} ({shorten(names)}) are no entity tags; needed "
                    "are 'O', 'B-TYPE' and 'I-TYPE', so name another column with --label-column."
                )
            return names
    return None
