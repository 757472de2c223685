"""Texts to learn to write: the rows of causal language modelling."""

from __future__ import annotations

from typing import Any

import datasets

from minidisc.config import DataSettings
from minidisc.errors import UserError
from minidisc.tasks.blanks import is_blank, tell_left_out
from minidisc.tasks.columns import choose_text_columns, read_texts, usual_text_columns
from minidisc.tasks.sources import Source
from minidisc.tasks.task import Kind, Task

CAUSAL_LM: Kind = "causal-lm"
CUT = "cut_at_length"
"""Column of text that a model has written: true where it had not come to its end at the length that was allowed."""


def has_no_text(row: dict[str, Any], settings: DataSettings) -> bool:
    """Whether a row of a corpus is no document, but blank."""
    columns = settings.text_columns or usual_text_columns(row)
    return len(columns) == 1 and columns[0] in row and is_blank(row[columns[0]])


def read_documents(
    settings: DataSettings, sources: dict[str, Source]
) -> tuple[Task, dict[str, dict[str, list]], datasets.Features]:
    """Read texts that have no label but their own next words.

    Args:
        settings: name of the task and of the column.
        sources: the table of each split, a document a row.

    Returns:
        The task; for each split the columns ``text_a`` and ``cut``, whether a document was cut, of all documents that
        are not blank; and their types.

    Raises:
        UserError: if a column is missing or holds what it must not.
    """
    columns = settings.text_columns or choose_text_columns(next(iter(sources.values())))
    if len(columns) != 1:
        raise UserError(
            f"causal language modelling reads one column of text, not {', '.join(columns)}; name it with "
            "--text-columns."
        )
    texts = {split: _documents(source, columns[0]) for split, source in sources.items()}
    task = Task(CAUSAL_LM, CAUSAL_LM, columns, "", None, False, ("next_token_accuracy", "perplexity"))
    return task, texts, datasets.Features({"text_a": datasets.Value("string"), "cut": datasets.Value("bool")})


def _documents(source: Source, column: str) -> dict[str, list]:
    texts = read_texts(source, column, blanks=True)
    cut = source.table[CUT].tolist() if CUT in source.table else [False] * len(texts)
    kept = [row for row, text in enumerate(texts) if not is_blank(text)]
    tell_left_out(source.name, len(texts) - len(kept), len(kept))
    return {"text_a": [texts[row] for row in kept], "cut": [cut[row] is True for row in kept]}
