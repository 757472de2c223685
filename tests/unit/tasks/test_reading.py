import bz2
import csv
import gzip
import io
import itertools
import json

import pandas as pd
import pyarrow
import pytest
from pyarrow import parquet as pyarrow_parquet

from minidisc.config import DataSettings
from minidisc.errors import UserError
from minidisc.tasks import load_data, read_table, reading

ROWS = [
    {"text": 'a "quoted", text', "label": 1},
    {"text": "NA", "label": 0},
    {"text": "naïve 漢字", "label": 1},
]


def parquet():
    buffer = io.BytesIO()
    pd.DataFrame(ROWS).to_parquet(buffer)
    return buffer.getvalue()


CONTENT = {
    ".csv": pd.DataFrame(ROWS).to_csv(index=False).encode(),
    ".tsv": pd.DataFrame(ROWS).to_csv(index=False, sep="\t").encode(),
    ".jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS).encode() + b"\n\n",
    ".json": json.dumps(ROWS, indent=1).encode(),
    ".parquet": parquet(),
}


@pytest.mark.parametrize("packed", ["", ".gz", ".bz2", ".GZ"])
@pytest.mark.parametrize("suffix", CONTENT)
def test_every_format(tmp_path, suffix, packed):
    pack = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress}[packed.lower()]
    path = tmp_path / f"rows{suffix}{packed}"
    path.write_bytes(pack(CONTENT[suffix]))
    table = read_table(path)
    assert table["text"].tolist() == [row["text"] for row in ROWS]
    assert [int(label) for label in table["label"]] == [1, 0, 1]


def test_json_lines_may_be_called_json_and_start_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "rows.json"
    path.write_bytes(b"\xef\xbb\xbf" + CONTENT[".jsonl"])
    assert read_table(path)["text"].tolist() == [row["text"] for row in ROWS]


def test_json_keeps_text_that_looks_like_a_date_or_a_number(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "2020-01-01", "label": "01"}\n{"text": "12", "label": null}\n')
    table = read_table(path)
    assert table["text"].tolist() == ["2020-01-01", "12"]
    assert table["label"][0] == "01"


def test_csv_keeps_words_that_pandas_takes_for_missing(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text,label\nNA,1\nnull,\nnan,2\n")
    table = read_table(path)
    assert table["text"].tolist() == ["NA", "null", "nan"]
    assert table["label"].tolist() == ["1", "", "2"]


def test_csv_keeps_text_that_looks_like_a_number(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n007,1.50\n1e3,true\n")
    assert read_table(path).to_dict("list") == {"text": ["007", "1e3"], "label": ["1.50", "true"]}


def test_tsv_whose_quotes_are_text_loses_no_rows(tmp_path):
    path = tmp_path / "rows.tsv"
    path.write_text('text\tlabel\n"open\t1\nplain\t0\n"a" b\t1\nclosed"\t0\n')
    assert read_table(path)["text"].tolist() == ['"open', "plain", '"a" b', 'closed"']


def test_tsv_whose_quotes_may_be_text_or_not(tmp_path):
    path = tmp_path / "rows.tsv"
    path.write_text('text\tlabel\n"open\t1\nplain\t0\nclosed"\t1\nunlabelled\n')
    with pytest.raises(UserError, match=r"row 1 has a field with both a tab and a line break.*\.jsonl"):
        read_table(path)


@pytest.mark.parametrize(("suffix", "separator"), [("csv", ","), ("tsv", "\t")])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_carriage_return_within_a_field_ends_no_row(tmp_path, suffix, separator, end):
    path = tmp_path / f"rows.{suffix}"
    path.write_bytes(end.join([f"text{separator}label", f"one\rtext{separator}1", f"other{separator}0", ""]).encode())
    assert read_table(path).to_numpy().tolist() == [["one\rtext", "1"], ["other", "0"]]


def test_lines_that_end_in_carriage_returns_alone(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"text,label\rone,1\rother,0\r")
    assert read_table(path).to_numpy().tolist() == [["one", "1"], ["other", "0"]]


@pytest.mark.parametrize(("suffix", "separator"), [("csv", ","), ("tsv", "\t")])
def test_quoted_fields_of_any_length_may_hold_quote_marks_and_line_breaks(tmp_path, suffix, separator):
    rows = [['a "b",\n\rc' * 50_000, "1"], ['"', '""'], ["\n\n", "NA"], ['open "quote', f'a"b"{separator}']]
    path = tmp_path / f"rows.{suffix}"
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=separator, quoting=csv.QUOTE_ALL).writerows([["text", "label"], *rows])
    limit = csv.field_size_limit()
    assert read_table(path).to_numpy().tolist() == rows
    assert csv.field_size_limit() == limit


def test_tsv_with_quoted_tabs_and_line_breaks(tmp_path):
    path = tmp_path / "rows.tsv"
    path.write_text('text\tlabel\n"a\tb"\t1\n"c\nd ""e"""\t0\n')
    assert read_table(path)["text"].tolist() == ["a\tb", 'c\nd "e"']


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.csv", None, "no such file"),
        ("rows.xml", b"x", "unknown kind of file; allowed are .csv"),
        ("rows.pkl", b"x", "unknown kind of file"),
        ("rows.gz", b"x", "unknown kind of file"),
        ("rows", b"x", "unknown kind of file"),
        ("rows.csv", b"", "is empty"),
        ("rows.jsonl", b" \n", "is empty"),
        ("rows.csv.gz", gzip.compress(b""), "is empty"),
        ("rows.csv.gz", b"", "is empty"),
        ("rows.csv", b"text,label\n", "has no rows"),
        ("rows.json", b"[]", "has no rows"),
        ("rows.csv", b"text,label\na,1\nb,2,3\n", "Expected 2 fields in line 3, saw 3"),
        ("rows.csv", b"text,label\na,b,1\nc,d,2\n", "more fields than its header"),
        ("rows.csv", b'text,label\n"a,1\n', "row at line 2 does not end as it should (line 2); write a quote mark"),
        ("rows.csv", b'text,label\nb,0\n"a,1\nb,0\n"c" d,1\n', "row at line 3 does not end as it should (line 5)"),
        ("rows.csv", b'text,label\n"a\n",1\n"says \\"a\\", b",0\n', "row at line 4 does not end"),
        ("rows.tsv", b'text\tlabel\n"a"\t1\n"b\t0\n"c" d\n', "row at line 3 does not end as it should (line 4)"),
        ("rows.csv", b"\ntext,label,label\na,1,0\n", "two columns of its header are called 'label'; give each"),
        ("rows.tsv", b'text\ttext\n"a\t1\n', "two columns of its header are called 'text'; give each"),
        ("rows.csv", b"text, text,label\na,b,1\n", "two columns of its header are called 'text'; give each"),
        ("rows.jsonl", b'{"text": "a"}\n{"text": \n', "line 2"),
        ("rows.jsonl", b'{"text": "a"}\n3\n', "row 2 is not a JSON object"),
        ("rows.json", b'[{"text": "a"}', "cannot be parsed"),
        ("rows.jsonl", b'{"text": "a"}\n{"text": ' + b"[" * 200_000, "(line 2: maximum recursion depth"),
        ("rows.jsonl", b'{"text": "a"}\n{"label": ' + b"9" * 5000 + b"}", "(line 2: Exceeds the limit (4300 digits)"),
        ("rows.json", b'["a"]', "row 1 is not a JSON object"),
        ("rows.parquet", b"no parquet at all", "cannot be parsed as Parquet"),
        ("rows.parquet", CONTENT[".parquet"][:-30], "cannot be parsed as Parquet"),
        ("rows.csv", "text,label\nnaïve,1\n".encode("latin1"), "is not UTF-8 text (byte 13); convert it"),
        ("rows.txt", "漢字".encode("gbk"), "'iconv -f ENCODING -t UTF-8', whichever it was written in, such as gbk"),
        (
            "rows.csv",
            "text,label\na,1\n".encode("utf-16"),
            "is UTF-16 text, not UTF-8; convert it, for example with 'iconv -f UTF-16 -t UTF-8'.",
        ),
        ("rows.csv", b"\xfe\xff" + "text,label\n漢字,1\n".encode("utf-16-be"), "is UTF-16 text"),
        ("rows.txt", "plain".encode("utf-32"), "is UTF-32 text"),
        ("rows.txt", "hello\n".encode("utf-16-le"), "is UTF-16LE text, not UTF-8"),
        ("rows.csv", "text,label\na,1\n".encode("utf-16-be"), "'iconv -f UTF-16BE -t UTF-8'"),
        ("rows.jsonl", '{"text": "a"}'.encode("utf-32-le"), "is UTF-32LE text"),
        ("rows.txt", "漢字, plain\n".encode("utf-32-be"), "is UTF-32BE text"),
        ("rows.csv.gz", b"text,label\na,1\n", "cannot be unpacked"),
        ("rows.csv.gz", gzip.compress(b"text,label\na,1\n")[:-10], "cannot be unpacked"),
        ("rows.csv.bz2", b"text,label\na,1\n", "cannot be unpacked"),
        ("rows.csv.bz2", bz2.compress(b"text,label\na,1\n")[:-10], "cannot be unpacked"),
    ],
    # Numbers, not contents: gzip writes the time into its header, and workers must agree on the names.
    ids=itertools.count(),
)
def test_errors(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_table(path)
    text = str(caught.value)
    assert message in text
    assert str(path) in text
    assert "\n" not in text


def test_a_zero_here_and_there_is_no_other_encoding(tmp_path):
    (tmp_path / "rows.txt").write_bytes(b"a zero \0 in a line\nanother\n")
    assert read_table(tmp_path / "rows.txt")["text"].tolist() == ["a zero \0 in a line", "another"]


@pytest.mark.parametrize(
    "noted", [b"not json", b"{}", b'{"index_columns": ["gone"], "columns": [], "column_indexes": []}']
)
def test_parquet_whose_notes_of_pandas_are_damaged_is_read_without_them(tmp_path, noted):
    columns = pyarrow.Table.from_pylist(ROWS)
    pyarrow_parquet.write_table(columns.replace_schema_metadata({b"pandas": noted}), tmp_path / "rows.parquet")
    assert read_table(tmp_path / "rows.parquet").to_dict("records") == ROWS


@pytest.mark.parametrize("index", [["a", "b", "c"], [5, 6, 7], pd.Index([0, 1, 0], name="old")])
def test_parquet_keeps_types_and_index_that_pandas_has_noted(tmp_path, index):
    table = pd.DataFrame(ROWS).astype({"label": "Int64"}).set_axis(index)
    table.to_parquet(tmp_path / "rows.parquet")
    pd.testing.assert_frame_equal(read_table(tmp_path / "rows.parquet"), table, check_index_type=False)


@pytest.mark.parametrize("packer", [gzip, bz2])
def test_what_unpacks_to_more_than_the_memory_holds_is_refused(tmp_path, monkeypatch, packer):
    path = tmp_path / f"rows.csv.{'gz' if packer is gzip else 'bz2'}"
    path.write_bytes(packer.compress(b"text,label\n" + b"a,1\n" * 1_000_000))
    monkeypatch.setattr(reading, "available_memory", lambda: 15_000_000)
    with pytest.raises(UserError, match=r"^\S+ unpacks to more than can be read into the memory .* with --stream\.$"):
        read_table(path)
    monkeypatch.setattr(reading, "available_memory", lambda: 17_000_000)
    assert len(read_table(path)) == 1_000_000


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "rows.csv").mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        read_table(tmp_path / "rows.csv")


def test_half_a_character_is_named(tmp_path):
    rows = ['{"text": "whole", "label": "a"}', '{"text": "half \\ud83d", "label": "b"}']
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    with pytest.raises(UserError, match="row 2 holds half a character"):
        load_data(DataSettings(validation_file=str(tmp_path / "rows.jsonl")), need_train=False)


def test_labels_of_bytes_are_no_labels(tmp_path):
    table = pd.DataFrame({"text": ["one", "two"], "label": [b"a", b"b"]})
    table.to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(UserError, match="something else than text or a number in row 1"):
        load_data(DataSettings(validation_file=str(tmp_path / "rows.parquet")), need_train=False)
