"""Column files of the CoNLL shared tasks: one word a line, its tag last, a blank line between sentences."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minidisc.errors import UserError

WORDS, TAGS = "tokens", "ner_tags"
_DOCUMENT = "-DOCSTART-"


def parse_conll(text: str, path: Path) -> list[dict[str, Any]]:
    """The sentences of a file: each its ``tokens`` and its ``ner_tags``, in IOB2 whichever IOB the file has.

    Columns are separated by blanks or tabs, or by tabs alone if the first line of words has one; the first holds the
    word, the last the tag. A file of one column has no tags. Lines that start with ``-DOCSTART-`` are left out.

    Raises:
        UserError: if a line has another number of columns than the first.
    """
    sentences: list[list[list[str]]] = [[]]
    columns = 0
    tabs = False
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.strip(" \t\r")
        if not line or re.split("[ \t]", line)[0] == _DOCUMENT:
            sentences.append([])
            continue
        tabs = tabs or (not columns and "\t" in line)
        fields = _fields(line, tabs)
        columns = columns or len(fields)
        if len(fields) != columns:
            raise UserError(
                f"{path} cannot be parsed (line {number} has {len(fields)} columns, the first line of words "
                f"{columns}); every line needs a word first and its tag last."
            )
        sentences[-1].append(fields)
    rows = []
    for sentence in filter(None, sentences):
        row: dict[str, Any] = {WORDS: [fields[0] for fields in sentence]}
        if columns > 1:
            row[TAGS] = iob2([fields[-1] for fields in sentence])
        rows.append(row)
    return rows


def _fields(line: str, tabs: bool) -> list[str]:
    """A line's fields, between ``tabs`` with the blanks around them taken off, or between blanks and tabs."""
    if not tabs:
        # Not split(): a no-break space can be a word, or a part of one.
        return re.split("[ \t]+", line)
    # Not an expression of blanks around tabs: it would look anew for the tab from every blank of a run.
    fields = (field.strip(" ") for field in line.split("\t"))
    return [field for field in fields if field]


def iob2(tags: Sequence[str]) -> list[str]:
    """IOB1 tags, in which ``B-`` stands only between two entities of a type, as IOB2 tags; IOB2 stays as it is."""
    return _begun(tags, "I", "B")


def iob1(tags: Sequence[str]) -> list[str]:
    """IOB2 tags as IOB1 tags, of which most words have only ``I-`` and ``O``."""
    return _begun(tags, "B", "I")


def _begun(tags: Sequence[str], old: str, new: str) -> list[str]:
    """Tags, with another letter where one begins an entity that stands behind none of its type."""
    result = []
    for previous, tag in zip(["O", *tags], tags, strict=False):
        begins = tag.startswith(f"{old}-") and previous[1:] != tag[1:]
        result.append(f"{new}{tag[1:]}" if begins else tag)
    return result
