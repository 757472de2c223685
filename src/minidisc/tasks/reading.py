"""Read a table of rows from a CSV, TSV, JSON, Parquet, CoNLL or plain text file."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import json
import re
import zlib
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow
from pyarrow import parquet

from minidisc.errors import UserError
from minidisc.memory import available_memory
from minidisc.tasks.conll import parse_conll

FORMATS = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".conll", ".txt")
# UTF-32's first: the little-endian one begins with UTF-16's.
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_BEGINNING = 10_000  # bytes
_PACKERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open}
_PIECE = 2**20
# How many times the bytes of a text file its table takes while it is read, at the least: a .txt file's, of all kinds.
_TAKEN = 4
_JSON_ALLOWED = "allowed are one object of columns and values a line, or one list of such objects."
_QUOTED_FIELD = re.compile(r'"(?:[^"]|"")*"')


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a table; every column of a CSV or TSV file is text, and no text such as ``NA`` is taken as missing.

    A ``.json`` or ``.jsonl`` file holds one object a line, or one list of objects; for ``.conll`` see
    `minidisc.tasks.conll.parse_conll`. A ``.txt`` file becomes a column ``text``: a blank line ends a row, or, where
    there is none, every line is one. Text is UTF-8.

    Args:
        path: a file that ends in .csv, .tsv, .jsonl, .json, .parquet, .conll or .txt, or one of these and .gz or .bz2.

    Raises:
        UserError: if the file is missing, empty, of another format, or cannot be parsed.
    """
    path = Path(path)
    packer = path.suffix.lower() if path.suffix.lower() in _PACKERS else ""
    suffix = Path(path.stem).suffix.lower() if packer else path.suffix.lower()
    if suffix not in FORMATS:
        raise UserError(f"{path}: unknown kind of file; allowed are {', '.join(FORMATS)}, and these with .gz or .bz2.")
    data = _read_bytes(path, packer)
    if not data.strip():
        raise UserError(f"{path} is empty; give a file with at least one row.")
    if suffix == ".parquet":
        table = _parse_parquet(data, path)
    elif suffix in (".csv", ".tsv"):
        table = _parse_csv(_decode(data, path), "\t" if suffix == ".tsv" else ",", path)
    elif suffix == ".conll":
        table = pd.DataFrame(parse_conll(_decode(data, path), path))
    elif suffix == ".txt":
        table = pd.DataFrame({"text": _parse_text(_decode(data, path))})
    else:
        table = pd.DataFrame(_parse_json(_decode(data, path), path))
    if table.empty:
        raise UserError(f"{path} has no rows; give a file with at least one row.")
    return table


def _read_bytes(path: Path, packer: str) -> bytes:
    if not path.exists():
        raise UserError(f"{path}: there is no such file; check the path.")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give a file that can be read.") from None
    if not packer or not data:
        return data
    try:
        return _unpacked(data, packer)
    except MemoryError:
        raise UserError(
            f"{path} unpacks to more than can be read into the memory that is free; give fewer rows, or draw them "
            "from a .jsonl, .parquet or .txt file with --stream."
        ) from None
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"{path} cannot be unpacked ({_one_line(error)}); pack it again or drop {packer}.") from None


def _unpacked(data: bytes, packer: str) -> bytes:
    """In pieces: a few bytes may unpack to more than the memory holds."""
    available = available_memory()
    unpacked = io.BytesIO()
    with _PACKERS[packer](io.BytesIO(data)) as file:
        while piece := file.read(_PIECE):
            unpacked.write(piece)
            if available is not None and _TAKEN * unpacked.tell() > available:
                raise MemoryError
    return unpacked.getvalue()


def _decode(data: bytes, path: Path) -> str:
    if encoding := _wide_encoding(data):
        raise UserError(
            f"{path} is {encoding} text, not UTF-8; convert it, for example with 'iconv -f {encoding} -t UTF-8'."
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # None is proposed: Latin-1 has a character for every byte, and would make garbage of any other without a word.
        raise UserError(
            f"{path} is not UTF-8 text (byte {error.start}); convert it, for example with 'iconv -f ENCODING -t UTF-8'"
            ", whichever it was written in, such as gbk, shift_jis or latin1."
        ) from None


def _wide_encoding(data: bytes) -> str | None:
    """UTF-16 or UTF-32, if text is written in it.

    Without a byte order mark it can be UTF-8 too, in which every second byte is a character that cannot be seen.
    """
    encoding = next((encoding for mark, encoding in _MARKS.items() if data.startswith(mark)), None)
    start = data[:_BEGINNING]
    zeros = start.count(0)
    if encoding or 10 * zeros <= len(start):
        return encoding
    # A zero is the upper half of an ASCII character's two bytes, or three of its four.
    order = "LE" if start[1::2].count(0) > start[::2].count(0) else "BE"
    return f"UTF-{32 if 2 * zeros > len(start) else 16}{order}"


def _parse_csv(text: str, separator: str, path: Path) -> pd.DataFrame:
    text = text.replace("\r\n", "\n")
    quoting = csv.QUOTE_NONE if separator == "\t" and _quotes_are_text(text) else csv.QUOTE_MINIMAL
    # Else a carriage return within a field would end its row too.
    end = "\n" if "\n" in text else None
    _check_records(text.replace("\r", " " if end else "\n"), separator, quoting, path)
    try:
        table = pd.read_csv(
            io.StringIO(text), sep=separator, dtype=str, keep_default_na=False, quoting=quoting, lineterminator=end
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UserError(
            f"{path} cannot be parsed ({_one_line(error)}); every line needs the fields of the header, "
            f"separated by {'tabs' if separator == chr(9) else 'commas'}."
        ) from None
    if not isinstance(table.index, pd.RangeIndex):
        raise UserError(f"{path}: its rows have more fields than its header; quote the fields that hold separators.")
    if separator == "\t":
        _check_quotes(table, path)
    return table.rename(columns=str.strip)


def _check_records(text: str, separator: str, quoting: int, path: Path) -> None:
    """Refuse what pandas would read without a word: a quote mark without its other, and two columns of one name.

    The one would make a field of all rows up to some later quote mark; of the other the second would be renamed.
    """
    reader = csv.reader(io.StringIO(text), delimiter=separator, quoting=quoting, strict=True)  # type: ignore[arg-type]
    line = 1
    limit = csv.field_size_limit(len(text))
    try:
        header = next((record for record in reader if any(map(str.strip, record))), [])
        names = [name.strip() for name in header]
        twice = next((name for name in names if name and names.count(name) > 1), None)
        if twice:
            raise UserError(f"{path}: two columns of its header are called {twice!r}; give each a name of its own.")
        line = reader.line_num + 1
        if quoting != csv.QUOTE_NONE:
            for _ in reader:
                line = reader.line_num + 1
    except csv.Error:
        raise UserError(
            f"{path} cannot be parsed: a quoted field of the row at line {line} does not end as it should (line "
            f"{reader.line_num}); write a quote mark that belongs to the text twice, or write the file as .jsonl."
        ) from None
    finally:
        csv.field_size_limit(limit)


def _check_quotes(table: pd.DataFrame, path: Path) -> None:
    """Refuse fields that may be several rows, from a quote mark that opens one to the next."""
    for row, values in enumerate(table.itertuples(index=False), start=1):
        if any("\t" in value and "\n" in value for value in values):
            raise UserError(
                f"{path}: row {row} has a field with both a tab and a line break, which a quote mark that belongs to "
                "the text may have made of several rows; give every line as many tabs, or write the file as .jsonl."
            )


def _quotes_are_text(text: str) -> bool:
    """Whether a TSV file does without quoting, as GLUE's own files do: a quote mark may then open a field alone."""
    lines = [line.split("\t") for line in text.split("\n") if line]
    fields = [field for line in lines for field in line if field.startswith('"')]
    return len({len(line) for line in lines}) == 1 and not all(_QUOTED_FIELD.fullmatch(field) for field in fields)


def _parse_json(text: str, path: Path) -> list[dict[str, Any]]:
    rows = []
    line = 0
    try:
        if text.lstrip().startswith("["):
            rows = json.loads(text)
        else:
            for line, record in enumerate(text.split("\n"), start=1):  # noqa: B007 (the handler reads it)
                if record.strip():
                    rows.append(json.loads(record))
    except (ValueError, RecursionError) as error:  # also of brackets in brackets, and of numbers without end
        reason = getattr(error, "msg", None) or _one_line(error)
        where = f"line {line}: {reason}" if line else _one_line(error)
        raise UserError(f"{path} cannot be parsed ({where}); {_JSON_ALLOWED}") from None
    # Half of a pair of code units can be written as an escape alone.
    escaped = "\\ud" in text.lower()
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise UserError(f"{path}: row {number} is not a JSON object; {_JSON_ALLOWED}")
        try:
            if escaped:
                json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise UserError(
                f"{path}: row {number} holds half a character (a lone surrogate), where text was cut within one; "
                "mend or remove it."
            ) from None
    return rows


def _parse_text(text: str) -> list[str]:
    blocks = [block.strip("\n") for block in re.split(r"\n(?:[ \t\r]*\n)+", text.replace("\r\n", "\n"))]
    rows = [block for block in blocks if block.strip()]
    return rows if len(rows) != 1 else [line for line in rows[0].split("\n") if line.strip()]


def _parse_parquet(data: bytes, path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(io.BytesIO(data))
    except (ValueError, LookupError, TypeError, AttributeError, OSError):
        pass  # perhaps of what pandas has noted beside the columns alone, such as which of them is an index
    try:
        return parquet.ParquetFile(io.BytesIO(data)).read().replace_schema_metadata().to_pandas()
    except (pyarrow.ArrowException, ValueError, LookupError, TypeError, OSError) as error:
        raise UserError(f"{path} cannot be parsed as Parquet ({_one_line(error)}); write it again.") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
