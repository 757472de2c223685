"""Choose the columns of a table, and read its texts and raw labels."""

from __future__ import annotations

from collections.abc import Container
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd

from minidisc.errors import UserError
from minidisc.tasks.blanks import is_blank
from minidisc.tasks.sources import Source

RawLabel = bool | float | str | None

_TEXT_COLUMNS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("text",),
    ("sentence",),
)
_LABEL_COLUMNS = ("label", "labels")


def choose_text_columns(source: Source) -> tuple[str, ...]:
    """The columns of text that go by a usual name.

    Raises:
        UserError: if there are none.
    """
    if columns := usual_text_columns(source.table):
        return columns
    raise UserError(
        f"{source.name}: no column is known to hold text; there are {list_columns(source)}; name one or two with "
        "--text-columns."
    )


def usual_text_columns(row: Container) -> tuple[str, ...]:
    """Those of a row or a table that go by a usual name for text; none if there are none."""
    return next((columns for columns in _TEXT_COLUMNS if all(column in row for column in columns)), ())


def choose_label_column(source: Source) -> str | None:
    """The column of labels that goes by a usual name, or None."""
    return next((column for column in _LABEL_COLUMNS if column in source.table), None)


def named_label_column(source: Source, column: str, optional: bool) -> str | None:
    """The column of labels that was named; None where it is not there and may be missing.

    Raises:
        UserError: it is not there, and has to be.
    """
    if column in source.table:
        return column
    if optional:
        return None
    raise UserError(
        f"{source.name} has no column {column!r}; there are {list_columns(source)}; correct --label-column."
    )


def read_texts(source: Source, column: str, blanks: bool = False) -> list[Any]:
    """The texts of a column; where ``blanks`` are allowed, rows without text have what the column has there.

    Raises:
        UserError: if there is no such column, or a row has no text in it.
    """
    if column not in source.table:
        raise missing_column(source, column)
    texts = source.table[column].astype(object).tolist()
    bad = [
        row for row, text in enumerate(texts, start=1) if (not blanks if is_blank(text) else not isinstance(text, str))
    ]
    if bad:
        raise UserError(
            f"{source.name}: {count_rows(bad)} no text in column {column!r}; remove or mend them, "
            "or name other columns with --text-columns."
        )
    return texts


def read_labels(source: Source, column: str) -> list[RawLabel]:
    """The labels of a column as bool, float or text without blanks around it; None where there is none.

    Raises:
        UserError: if it holds lists or other structures.
    """
    return [_raw_label(value, row, source, column) for row, value in enumerate(source.table[column].astype(object), 1)]


def missing_column(source: Source, column: str) -> UserError:
    """The error that says a table has no such column of text."""
    return UserError(
        f"{source.name} has no column {column!r}; there are {list_columns(source)}; correct --text-columns."
    )


def missing_label_column(source: Source) -> UserError:
    """The error that says a table has no label column."""
    return UserError(
        f"{source.name} has no column of labels; there are {list_columns(source)}; name it with --label-column."
    )


def count_rows(rows: list[int]) -> str:
    """``1 row (row 7) has`` or ``12 rows (the first is row 7) have``; rows count from 1, without the header."""
    return f"1 row (row {rows[0]}) has" if len(rows) == 1 else f"{len(rows)} rows (the first is row {rows[0]}) have"


def _raw_label(value: Any, row: int, source: Source, column: str) -> RawLabel:
    if isinstance(value, str):
        return value.strip() or None
    if not isinstance(value, (list, dict, np.ndarray)):
        if pd.isna(value):
            return None
        with suppress(TypeError, ValueError):  # bytes, dates
            if isinstance(value, (bool, np.bool_)):
                return bool(value)
            # Beyond that whole numbers are not all told apart as floats; they are names then.
            return str(value) if isinstance(value, (int, np.integer)) and abs(int(value)) > 2**53 else float(value)
    raise UserError(
        f"{source.name}: column {column!r} holds something else than text or a number in row {row}; allowed is one "
        "label a row, text or a number."
    )


def list_columns(source: Source) -> str:
    """The names of a table's columns, separated by commas."""
    return ", ".join(repr(str(column)) for column in source.table.columns)
