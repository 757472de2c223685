"""Load the rows of a task: texts and labels, checked, as in-memory data sets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import datasets
import numpy as np

from minidisc.config import DataSettings
from minidisc.errors import UserError
from minidisc.tasks.benchmarks import BENCHMARKS
from minidisc.tasks.columns import count_rows
from minidisc.tasks.documents import CAUSAL_LM, has_no_text, read_documents
from minidisc.tasks.glue import GLUE
from minidisc.tasks.sentences import read_sentences
from minidisc.tasks.sources import OWN_TASKS, Source, find_source
from minidisc.tasks.tags import holds_words
from minidisc.tasks.task import Kind, Task
from minidisc.tasks.words import read_tagged

MINIMUM_TRAIN_ROWS = 16
KNOWN_SHARE = 0.1
"""The share of validation rows with a training row's text beyond which there is a warning.

A tenth of rows that are known by heart lifts an accuracy of 0.9 by a point at most; benchmarks have some by chance.
"""
# What makes other tokens of the same rows than another version of minidisc: a run does not go on with them.
_ENCODING: dict[Kind, str] = {CAUSAL_LM: "every document ends"}


@dataclass
class TaskData:
    """The rows of a task.

    Attributes:
        task: what the rows are for.
        train: columns ``text_a``, ``text_b`` if rows are pairs, and ``label`` (int, or float for regression, or None
            where a row has none); for token classification ``words`` and ``label``, both lists. None if it was not
            asked for. Of language modelling ``text_a``, a document a row, and ``cut``, whether it was cut.
        validation: as ``train``, every row labelled.
        splits: ``train`` and ``validation`` to the name of the file or the Hub's split that was read.
        fingerprint: hash of the rows, and of how tokens are made of them, the same in every process.
        known: how many validation rows have the text, or the texts, of a training row; 0 if it was not counted.
    """

    task: Task
    train: datasets.Dataset | None
    validation: datasets.Dataset | None
    splits: dict[str, str]
    fingerprint: str
    known: int = 0

    def warning(self) -> str | None:
        """What is to be said of validation rows whose texts are trained on; None if they are few."""
        count = len(self.validation or ())
        if self.known <= KNOWN_SHARE * count:
            return None
        return (
            f"{self.known} of {count} validation rows ({self.splits['validation']}) have texts that the training rows "
            f"({self.splits['train']}) have too; their figures say little about new text."
        )


def load_data(
    settings: DataSettings,
    *,
    kind: Kind | None = None,
    model_names: Iterable[str] = (),
    need_train: bool = True,
    need_validation: bool = True,
    need_labels: bool = True,
) -> TaskData:
    """Load the rows that the settings name.

    Args:
        settings: where the rows are; a ``seed`` attribute, if any, draws the ``max_train_rows``.
        kind: kind of task if the settings do not say and the labels would have to be guessed from.
        model_names: class names of the model that is to predict the labels; they are those of own data where it has
            some of them alone.
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
    writes = settings.task == CAUSAL_LM or (kind == CAUSAL_LM and settings.task not in (*BENCHMARKS, *OWN_TASKS))
    blank = partial(has_no_text, settings=settings) if writes else None
    sources = {split: find_source(settings, split, blank) for split in wanted}
    first = next(iter(sources.values()))

    if writes:
        task, columns, features = read_documents(settings, sources)
    elif _is_tagged(settings, kind, first):
        task, columns, features = read_tagged(settings, model_names, sources, need_labels)
    else:
        task, columns, features = read_sentences(settings, kind, model_names, sources, need_labels)
    for split, source in sources.items():
        bad = [row for row, label in enumerate(columns[split].get("label", ()), start=1) if label is None]
        if bad and (split == "validation" or need_labels):
            raise UserError(
                f"{source.name}: {count_rows(bad)} no label in column {task.label_column!r}; add or remove them."
            )

    data = {split: datasets.Dataset.from_dict(columns[split], features=features) for split in wanted}
    if "train" in data:
        data["train"] = _subsample(data["train"], settings)
        if len(data["train"]) < MINIMUM_TRAIN_ROWS:
            raise UserError(
                f"too few training rows: {len(data['train'])} of {sources['train'].name}; "
                f"at least {MINIMUM_TRAIN_ROWS} are needed."
            )
    for split, rows in data.items():
        if task.kind != CAUSAL_LM:
            _check_labels(task, rows["label"][:], sources[split])
    return TaskData(
        task=task,
        train=data.get("train"),
        validation=data.get("validation"),
        splits={split: source.split for split, source in sources.items()},
        fingerprint=_fingerprint(task, data),
        known=_known(**data) if len(data) == 2 and not settings.stream else 0,
    )


def _is_tagged(settings: DataSettings, kind: Kind | None, first: Source) -> bool:
    """Whether rows are lists of words with a tag each: as the task says, else the model, else the rows."""
    if settings.task in BENCHMARKS:
        return BENCHMARKS[settings.task].kind == "token-classification"
    if settings.task in OWN_TASKS:
        return settings.task == "token-classification"
    return kind == "token-classification" or holds_words(first, settings.text_columns, settings.label_column)


def _subsample(rows: datasets.Dataset, settings: DataSettings) -> datasets.Dataset:
    count = settings.max_train_rows
    if count is None or count >= len(rows):
        return rows
    generator = np.random.default_rng(getattr(settings, "seed", 0))
    drawn = np.sort(generator.choice(len(rows), size=count, replace=False))
    return datasets.Dataset.from_dict(rows[drawn], features=rows.features)


def _check_labels(task: Task, labels: Iterable, source: Source) -> None:
    if task.kind == "token-classification":
        outside = (task.label_names or ()).index("O")
        present = {tag for tags in labels if tags is not None for tag in tags}
        if present == {outside}:
            raise UserError(f"{source.name}: every word is tagged 'O'; at least one entity is needed.")
        return
    present = set(labels) - {None}
    if len(present) == 1:
        label = present.pop()
        text = repr(task.label_names[int(label)]) if task.label_names else f"{label:g}"
        raise UserError(f"{source.name}: all labels are the same ({text}); at least two different ones are needed.")


def _known(train: datasets.Dataset, validation: datasets.Dataset) -> int:
    """How many validation rows have all of the text of a training row; labels may differ."""

    def hashes(rows: datasets.Dataset) -> list[int]:
        columns = [rows[name][:] for name in ("text_a", "text_b", "words") if name in rows.column_names]
        # Hashes alone: of a large corpus the texts would be in memory once more.
        return [hash(tuple(map(str, row))) for row in zip(*columns, strict=True)]

    seen = {*hashes(train)}
    return sum(text in seen for text in hashes(validation))


def _fingerprint(task: Task, data: dict[str, datasets.Dataset]) -> str:
    made_by = [_ENCODING[task.kind]] if task.kind in _ENCODING else []
    digest = hashlib.sha256(json.dumps([task.kind, task.label_names, *made_by]).encode())
    for split, rows in data.items():
        digest.update(json.dumps([split, rows.to_dict()]).encode())
    return digest.hexdigest()[:16]
