"""Texts to learn to write: the rows of causal language modelling."""

from __future__ import annotations

import datasets

from minidisc.config import DataSettings
from minidisc.errors import UserError
from minidisc.tasks.columns import choose_text_columns, read_texts
from minidisc.tasks.sources import Source
from minidisc.tasks.task import Kind, Task

CAUSAL_LM: Kind = "causal-lm"


def read_documents(
    settings: DataSettings, sources: dict[str, Source]
) -> tuple[Task, dict[str, dict[str, list]], datasets.Features]:
    """Read texts that have no label but their own next words.

    Args:
        settings: name of the task and of the column.
        sources: the table of each split, a document a row.

    Returns:
        The task; for each split the column ``text_a``; and its type.

    Raises:
        UserError: if a column is missing or holds what it must not.
    """
    columns = settings.text_columns or choose_text_columns(next(iter(sources.values())))
    if len(columns) != 1:
        raise UserError(
            f"causal language modelling reads one column of text, not {', '.join(columns)}; name it with "
            "--text-columns."
        )
    texts = {split: {"text_a": read_texts(source, columns[0])} for split, source in sources.items()}
    task = Task(CAUSAL_LM, CAUSAL_LM, columns, "", None, False, ("next_token_accuracy", "perplexity"))
    return task, texts, datasets.Features({"text_a": datasets.Value("string")})
