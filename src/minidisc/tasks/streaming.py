"""Rows of a corpus that is neither copied nor read to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import datasets
import pandas as pd

from minidisc.errors import UserError
from minidisc.tasks.blanks import tell_left_out

BUILDERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".txt": "text"}
# A row is drawn at random from so many that were read ahead: corpora are often sorted.
_BUFFER = 10_000
Unwanted = Callable[[dict[str, Any]], bool]


def stream_files(pattern: str, count: int, seed: int, blank: Unwanted | None = None) -> pd.DataFrame:
    """The first rows of files, which are shuffled, with rows shuffled within a window of them.

    Args:
        pattern: path, pattern of paths, or URL, of JSONL, Parquet or plain text (a row a line), packed or not.
        count: how many rows.
        seed: of the shuffling.
        blank: says of a row whether it is to be left out, since it has no text.

    Raises:
        UserError: there is no such file, or it cannot be read.
    """
    name = pattern.lower()
    for packer in (".gz", ".bz2", ".zst"):
        name = name.removesuffix(packer)
    builder = next((builder for suffix, builder in BUILDERS.items() if name.endswith(suffix)), None)
    if builder is None:
        raise UserError(
            f"--stream reads {', '.join(BUILDERS)}, and these with .gz, .bz2 or .zst, not {pattern}; convert it, or "
            "leave out --stream."
        )
    return _drawn((builder,), {"data_files": pattern}, pattern, count, seed, blank)[0]


def stream_hub(
    arguments: tuple[str, ...], count: int, seed: int, blank: Unwanted | None = None
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """As `stream_files`, of the ``train`` split of a data set of the Hub, which is not downloaded.

    Args:
        arguments: of ``datasets.load_dataset``.
        count: how many rows.
        seed: of the shuffling.
        blank: see `stream_files`.

    Returns:
        The rows; and the columns' types, if the data set declares them.
    """
    return _drawn(arguments, {}, f"data set {arguments[0]!r}", count, seed, blank)


def _drawn(
    arguments: tuple[str, ...], options: dict[str, Any], name: str, count: int, seed: int, blank: Unwanted | None
) -> tuple[pd.DataFrame, dict[str, Any]]:
    left_out = 0

    def wanted(rows: Any) -> Iterator[dict[str, Any]]:
        nonlocal left_out
        for row in rows:
            if blank is not None and blank(row):
                left_out += 1
            else:
                yield row

    level = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what it logs is raised, too
    try:
        stream = datasets.load_dataset(*arguments, **options, split="train", streaming=True)
        features = dict(stream.features or {})
        if arguments == ("text",):
            # A file may begin with a byte order mark. An encoding without it is not heeded where files are packed.
            stream = stream.map(lambda row: {"text": row["text"].removeprefix("\ufeff")})
            stream = stream.filter(lambda row: bool(row["text"].strip()))
        # Counted as they are drawn; what was read ahead of them does not count.
        rows = list(islice(wanted(stream.shuffle(seed=seed, buffer_size=_BUFFER)), count))
    except Exception as error:  # whatever the network, the Hub or a file's contents raise
        reason = (" ".join(str(error).split()) or type(error).__name__)[:200].rstrip(".")
        raise UserError(f"{name} cannot be streamed ({reason}); check path or id, files and network.") from None
    finally:
        datasets.logging.set_verbosity(level)
    tell_left_out(name, left_out, len(rows))
    if not rows:
        raise UserError(f"{name} has no rows; give at least one.")
    return pd.DataFrame(rows), features
