import pytest

from minidisc.foreign_text import without_secrets
from minidisc.report.formats import setting


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://bob:hunter2@corp.example/t.jsonl?X-Amz-Signature=abc", "https://corp.example/t.jsonl"),
        ("https://bob:p@ss@corp.example/t.jsonl#abc", "https://corp.example/t.jsonl"),
        ("zip://a.csv::https://bob:hunter2@corp.example/t.zip?sig=abc", "zip://a.csv::https://corp.example/t.zip"),
        ("rows of s3://key:secret@bucket/a.csv?x=1: 5 are empty.", "rows of s3://bucket/a.csv: 5 are empty."),
        (
            "https://corp.example/a.csv?b, https://corp.example/c.csv.",
            "https://corp.example/a.csv, https://corp.example/c.csv.",
        ),
        ("https://corp.example/plain.csv", "https://corp.example/plain.csv"),
        ("data/what? me@home/train-?.csv", "data/what? me@home/train-?.csv"),
        ("see https://corp.example/a and mail@corp.example", "see https://corp.example/a and mail@corp.example"),
    ],
)
def test_addresses_are_handed_on_without_secrets(text, shown):
    assert without_secrets(text) == shown
    assert setting([text]) == shown
