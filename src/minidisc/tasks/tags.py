"""Words and their entity tags: read from a table, checked, and turned into what a model is trained on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from minidisc.errors import UserError
from minidisc.tasks.classes import respelt, shorten
from minidisc.tasks.columns import count_rows, list_columns, missing_column
from minidisc.tasks.conll import iob1
from minidisc.tasks.sources import Source

RawTag = str | int
Tags = list[RawTag] | None
"""The tags of a row, a word each; None where the row has none."""

_WORD_COLUMNS = ("tokens", "words")
_TAG_COLUMNS = ("ner_tags", "tags", "labels", "label")
_TAG = re.compile(r"O|[BI]-.+")


def is_tag(text: str) -> bool:
    """Whether a text is ``O``, ``B-TYPE`` or ``I-TYPE``."""
    return _TAG.fullmatch(text) is not None


def holds_words(source: Source, text_columns: Sequence[str] | None, label_column: str | None) -> bool:
    """Whether rows look like lists of words, and not like a sentence's words with one label for all of them.

    Columns that are not named are those that go by a usual name.
    """
    words = [source.table[name].iloc[0] for name in text_columns or _WORD_COLUMNS if name in source.table]
    tags = label_column or choose_tag_column(source)
    one_label = (
        tags in source.table and pd.api.types.is_scalar(label := source.table[tags].iloc[0]) and not pd.isna(label)
    )
    return any(_as_list(cell) is not None for cell in words) and not one_label


def choose_word_column(source: Source) -> str:
    """The column of words that goes by a usual name.

    Raises:
        UserError: if there is none.
    """
    for column in _WORD_COLUMNS:
        if column in source.table:
            return column
    raise UserError(
        f"{source.name}: no column is known to hold lists of words; there are {list_columns(source)}; name it with "
        "--text-columns."
    )


def choose_tag_column(source: Source) -> str | None:
    """The column of tags that goes by a usual name, or None."""
    return next((column for column in _TAG_COLUMNS if column in source.table), None)


def read_words(source: Source, column: str) -> list[list[str]]:
    """The words of every row.

    Raises:
        UserError: if there is no such column, or a row is no list of text, or an empty one.
    """
    if column not in source.table:
        raise missing_column(source, column)
    rows = [_as_list(cell) for cell in source.table[column]]
    for complaint, wrong in (
        ("no list of words", lambda words: words is None),
        ("no words", lambda words: not words),
        ("a word that is not text", lambda words: not all(isinstance(word, str) for word in words)),
    ):
        bad = [row for row, words in enumerate(rows, start=1) if wrong(words)]
        if bad:
            raise UserError(
                f"{source.name}: {count_rows(bad)} {complaint} in column {column!r}; allowed are lists of text, such "
                'as ["Paris", "is", "large"].'
            )
    return rows  # type: ignore[return-value]


def read_tags(source: Source, column: str, words: Sequence[Sequence[str]]) -> list[Tags]:
    """The tags of every row as text, without blanks around it, or integers.

    Args:
        source: the table.
        column: of the tags.
        words: of every row.

    Raises:
        UserError: if a row has not one tag a word.
    """
    cells = source.table[column]
    rows = [_as_list(cell) for cell in cells]
    for row, (cell, tags, own) in enumerate(zip(cells, rows, words, strict=True), start=1):
        complaint = None
        if tags is None:
            if not pd.isna(cell):
                complaint = f"no list of tags in column {column!r}"
        elif len(tags) != len(own):
            complaint = f"{len(own)} words and {len(tags)} tags"
        elif any(isinstance(tag, bool) or not isinstance(tag, (str, int)) for tag in tags):
            complaint = f"a tag that is neither text nor an integer in column {column!r}"
        if complaint:
            raise UserError(
                f'{source.name}: row {row} has {complaint}; give one tag a word, such as ["B-LOC", "O", "O"].'
            )
    return [tags and [tag.strip() if isinstance(tag, str) else tag for tag in tags] for tags in rows]


def in_iob1(
    tags: Mapping[str, list[Tags]], declared: Sequence[str] | None, model_names: Iterable[str]
) -> dict[str, list[Tags]] | None:
    """The tags of all splits in IOB1, if the model that is to predict them knows nothing else; entities are the same.

    Of a type that never stood beside itself such a model has no ``B-``.

    Args:
        tags: as `read_tags` gives them.
        declared: the names of tags that are integers, if they are known.
        model_names: class names of the model.
    """
    known = {name for name in model_names if is_tag(name)}
    if all(f"B{name[1:]}" in known for name in known - {"O"}):
        return None
    names = dict(enumerate(declared or ()))

    def text(tag: RawTag) -> str:
        return names.get(tag, "") if isinstance(tag, int) else tag

    converted: dict[str, list[Tags]] = {
        split: [None if row is None else [*iob1([text(tag) for tag in row])] for row in rows]
        for split, rows in tags.items()
    }
    return converted if _present(converted) <= known else None


def infer_tag_names(tags: Mapping[str, list[Tags]], split: str, model_names: Iterable[str]) -> tuple[str, ...]:
    """The names of own data's tags: ``O``, then ``B-`` and ``I-`` of each type in a split.

    Args:
        tags: of each split.
        split: the one whose types count.
        model_names: class names of the model that is to predict the tags, if there is one. If every tag is among
            them, they are the names: a model must not be kept from a wrong guess only because no row has that tag.
            So it is with tags that are spelt otherwise.
    """
    known = tuple(name for name in model_names if is_tag(name))
    present = _present(tags)
    for names in (known, _respelt(present, known)):
        if "O" in known and names and present <= {*names}:
            return names
    found = _present({split: tags[split]})
    types = sorted({tag[2:] for tag in found if isinstance(tag, str) and is_tag(tag) and tag != "O"})
    return ("O", *(f"{prefix}-{type_}" for type_ in types for prefix in "BI"))


def _present(tags: Mapping[str, list[Tags]]) -> set[RawTag]:
    return {tag for rows in tags.values() for row in rows if row for tag in row}


def _respelt(present: Iterable[RawTag], known: Sequence[str]) -> tuple[str, ...] | None:
    """The model's names, their types spelt as in the tags that are present, if each type is one of the model's."""
    types = list(dict.fromkeys(name[2:] for name in known if name != "O"))
    found = sorted({tag[2:] for tag in present if isinstance(tag, str) and is_tag(tag) and tag != "O"})
    # A type at a time: B-per and I-PER would be of two entities.
    spelt = respelt(found, tuple(types))
    if spelt is None:
        return None
    as_found = dict(zip(types, spelt, strict=True))
    return tuple(name if name == "O" else f"{name[:2]}{as_found[name[2:]]}" for name in known)


def tag_indices(
    tags: list[Tags], names: tuple[str, ...], *, numbers_are_indices: bool, source: Source, origin: str
) -> list[list[int] | None]:
    """The index of every tag in ``names``.

    Args:
        tags: as `read_tags` gives them.
        names: the tags' names.
        numbers_are_indices: whether an integer is an index of ``names``; else it is an error.
        source: where the tags are from, for error messages.
        origin: where the names are from, for error messages.

    Raises:
        UserError: if a tag is no IOB tag, or none of the names.
    """
    index: dict[RawTag, int] = {name: position for position, name in enumerate(names)}
    if numbers_are_indices:
        index.update({position: position for position in range(len(names))})
    unknown = [(row, tag) for row, each in enumerate(tags, start=1) for tag in each or () if tag not in index]
    if unknown:
        rows = count_rows(list(dict.fromkeys(row for row, _ in unknown)))
        no_tags = {tag for _, tag in unknown if isinstance(tag, str) and not is_tag(tag)}
        numbers = {str(tag) for _, tag in unknown if isinstance(tag, int)}
        if no_tags:
            raise UserError(
                f"{source.name}: {rows} a tag that is not 'O', 'B-TYPE' or 'I-TYPE': {shorten(sorted(no_tags))}; "
                "write the tags in IOB2."
            )
        if numbers and not numbers_are_indices:
            raise UserError(f"{source.name}: {rows} numbers for tags; write text, such as 'O', 'B-PER' and 'I-PER'.")
        raise UserError(
            f"{source.name}: {rows} a tag that {origin} does not have: "
            f"{shorten(sorted({str(tag) for _, tag in unknown}))}; allowed are {shorten(names)}."
        )
    return [None if each is None else [index[tag] for tag in each] for each in tags]


def _as_list(cell: Any) -> list | None:
    if isinstance(cell, np.ndarray):
        return cell.tolist()
    return list(cell) if isinstance(cell, (list, tuple)) else None
