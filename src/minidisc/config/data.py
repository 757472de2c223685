"""Settings of the rows."""

from __future__ import annotations

from dataclasses import dataclass

from minidisc.config.options import Settings, option, require

MAX_LENGTH = 128
"""Tokens that rows are cut to where nothing else is known."""
_CUT_TO = (
    "tokens a row is cut to (a word that is cut off counts as predicted O), or that documents are packed to "
    "(causal-lm)"
)


@dataclass(frozen=True, kw_only=True)
class DataSettings(Settings):
    """Where the rows come from."""

    task: str | None = option(
        None,
        "glue/NAME (cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, wnli), conll2003, a Hub dataset id, or, for own "
        "files, 'classification', 'regression', 'token-classification' or 'causal-lm' (found out from model and rows "
        "when not given)",
    )
    train_file: str | None = option(
        None, "training rows: CSV, TSV, JSONL, Parquet, CoNLL columns or plain text, also .gz or .bz2"
    )
    validation_file: str | None = option(None, "validation rows, same formats")
    data_dir: str | None = option(None, "local copy of the benchmark: DIR/TASK/{train,validation}.jsonl.gz")
    text_columns: tuple[str, ...] | None = option(
        None, "one text column (for token classification, of lists of words), or two separated by a comma"
    )
    label_column: str | None = option(None, "column of labels, or of tag lists (default: 'label', 'ner_tags')")
    max_train_rows: int | None = option(None, "use only this many training rows, drawn with --seed")
    stream: bool = option(
        False,
        "read training rows one after another until there are --max-train-rows, of a corpus that need not fit on the "
        "disk: --train-file may be a pattern or URL of JSONL, Parquet or text (a row a line), or --task a Hub id",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.text_columns is not None:
            require(
                1 <= len(self.text_columns) <= 2,
                f"--text-columns names {len(self.text_columns)} columns; give one, or two separated by a comma.",
            )
        rows = self.max_train_rows
        require(rows is None or rows >= 1, f"--max-train-rows is {rows}; it must be at least 1.")
        require(
            not self.stream or rows is not None,
            "--stream needs --max-train-rows; give steps times rows in a batch for one pass without repetition.",
        )


@dataclass(frozen=True, kw_only=True)
class RowSettings(DataSettings):
    """Where the rows come from and how they become tokens."""

    max_length: int = option(MAX_LENGTH, _CUT_TO)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_length(self.max_length)


@dataclass(frozen=True, kw_only=True)
class ModelsRowSettings(DataSettings):
    """Where the rows come from, for a saved model that may know how they become tokens."""

    max_length: int | None = option(None, f"{_CUT_TO} [as in the model's training, else {MAX_LENGTH}]")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_length is not None:
            _check_length(self.max_length)


def _check_length(length: int) -> None:
    require(length >= 4, f"--max-length is {length}; it must be at least 4.")
