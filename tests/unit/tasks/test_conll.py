import bz2
import gzip
import random
import re
from pathlib import Path

import pytest

from minidisc.errors import UserError
from minidisc.tasks import read_table
from minidisc.tasks.conll import iob1, iob2, parse_conll

# The format of CoNLL-2003, IOB1: "Bo Ek Li" are two people beside each other, "ABC" needs no B.
TEXT = """\
-DOCSTART- -X- -X- O

Bo NNP I-NP I-PER
Ek NNP I-NP I-PER
Li NNP I-NP B-PER
left VBD I-VP O
ABC NNP I-NP I-ORG


-DOCSTART- -X- O O

In IN I-PP O
Rome NNP I-NP I-LOC
Paris NNP I-NP I-ORG
"""


@pytest.mark.parametrize("packed", ["", ".gz", ".bz2"])
@pytest.mark.parametrize("text", [TEXT, TEXT.replace("\n", "\r\n"), TEXT.replace(" ", "\t"), TEXT.rstrip("\n")])
def test_columns(tmp_path, packed, text):
    pack = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress}[packed]
    path = tmp_path / f"rows.conll{packed}"
    path.write_bytes(pack(text.encode()))
    table = read_table(path)
    assert table["tokens"].tolist() == [["Bo", "Ek", "Li", "left", "ABC"], ["In", "Rome", "Paris"]]
    assert table["ner_tags"].tolist() == [["B-PER", "I-PER", "B-PER", "O", "B-ORG"], ["O", "B-LOC", "B-ORG"]]


def test_between_tabs_a_word_may_have_blanks(tmp_path):
    path = tmp_path / "rows.conll"
    path.write_text("-DOCSTART- O\n\nNew York\tNNP\tB-LOC\nis \t\tVB\t O\n\n-DOCSTART-\tO\n\nso\tRB\tO\n")
    table = read_table(path)
    assert table["tokens"].tolist() == [["New York", "is"], ["so"]]
    assert table["ner_tags"].tolist() == [["B-LOC", "O"], ["O"]]


def test_fields_between_tabs_and_the_blanks_around_them():
    draw = random.Random(0)
    lines = ["".join(draw.choices("ab \t\r\u00a0", k=draw.randint(1, 12))).strip(" \t\r") for _ in range(2000)]
    for line in filter(None, lines):
        fields = re.split(" *\t[ \t]*", line)
        # Of the first line is known that there are tabs, and how many columns.
        head = "\t".join("w" * max(2, len(fields)))
        if len(fields) == 1:
            with pytest.raises(UserError, match="line 2 has 1 columns, the first line of words 2"):
                parse_conll(f"{head}\n{line}", Path("rows.conll"))
        else:
            rows = parse_conll(f"{head}\n{line}", Path("rows.conll"))
            assert rows == [{"tokens": ["w", fields[0]], "ner_tags": ["w", fields[-1]]}], repr(line)


def test_a_run_of_a_million_blanks_is_read_once(tmp_path):
    path = tmp_path / "rows.conll"
    path.write_text("Bo\tB-PER\nNew" + " " * 1_000_000 + "York\tO\n")
    assert len(read_table(path)["tokens"][0][1]) == 1_000_007


def test_a_no_break_space_is_a_word_and_no_separator(tmp_path):
    path = tmp_path / "rows.conll"
    path.write_text("10\u00a0km O\n\u00a0 O\n")
    assert read_table(path)["tokens"].tolist() == [["10\u00a0km", "\u00a0"]]


def test_one_column_has_no_tags(tmp_path):
    path = tmp_path / "rows.conll"
    path.write_text("Bo\nleft\n\nRome\n")
    table = read_table(path)
    assert list(table.columns) == ["tokens"]
    assert table["tokens"].tolist() == [["Bo", "left"], ["Rome"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Bo I-PER\nleft\n", "line 2 has 1 columns, the first line of words 2"),
        ("Bo I-PER\n\n\nleft VBD O\n", "line 4 has 3 columns"),
        ("-DOCSTART- -X- O O\n\n", "has no rows"),
        ("\n\n", "is empty"),
    ],
)
def test_errors(tmp_path, text, message):
    path = tmp_path / "rows.conll"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_table(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("iob1", "expected"),
    [
        ("I-A I-A O I-A", "B-A I-A O B-A"),
        ("I-A B-A I-A", "B-A B-A I-A"),
        ("I-A I-B I-B", "B-A B-B I-B"),
        ("B-A I-A O B-B B-B", "B-A I-A O B-B B-B"),
        ("O I-A-B I-A", "O B-A-B B-A"),
        ("O", "O"),
    ],
)
def test_iob1_to_iob2(iob1, expected):
    once = iob2(iob1.split())
    assert once == expected.split()
    assert iob2(once) == once


@pytest.mark.parametrize(
    ("iob2_tags", "expected"),
    [
        ("B-A I-A O B-A", "I-A I-A O I-A"),
        ("B-A B-A I-A", "I-A B-A I-A"),
        ("B-A B-B I-B", "I-A I-B I-B"),
        ("B-A I-A B-A", "I-A I-A B-A"),
    ],
)
def test_iob2_to_iob1(iob2_tags, expected):
    tags = iob2_tags.split()
    assert iob1(tags) == expected.split()
    assert iob2(iob1(tags)) == tags
    assert iob1(iob1(tags)) == iob1(tags)
