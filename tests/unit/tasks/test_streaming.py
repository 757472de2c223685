import dataclasses
import gzip
import json
import re

import datasets
import pandas as pd
import pytest

from minidisc.config import CompressSettings, DataSettings, EvaluateSettings
from minidisc.errors import UserError
from minidisc.tasks import load_data, sources, streaming
from minidisc.tasks.reading import read_table


@pytest.fixture(autouse=True)
def small_window(monkeypatch):
    monkeypatch.setattr(streaming, "_BUFFER", 20)


def texts(pattern, count=16, seed=0):
    rows = {"train_file": str(pattern), "task": "causal-lm", "stream": True, "max_train_rows": count}
    settings = EvaluateSettings(model="m", seed=seed, **rows)
    return load_data(settings, need_validation=False).train["text_a"]


@pytest.fixture
def corpus(tmp_path):
    """Three packed files of 40 rows each."""
    for part in range(3):
        rows = pd.DataFrame({"text": [f"part {part} row {row}" for row in range(40)]})
        rows.to_json(tmp_path / f"part{part}.jsonl.gz", orient="records", lines=True)
    return tmp_path / "part*.jsonl.gz"


def test_rows_are_drawn_by_the_seed(corpus):
    drawn = texts(corpus)
    assert len(set(drawn)) == 16
    assert drawn == texts(corpus) != texts(corpus, seed=1)


def test_all_rows_if_there_are_no_more(corpus):
    every = {f"part {part} row {row}" for part in range(3) for row in range(40)}
    assert set(texts(corpus, count=1000)) == every


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "packed"])
def test_a_byte_order_mark_is_no_text(tmp_path, pack):
    path = tmp_path / ("rows.txt" if pack is bytes else "rows.txt.gz")
    path.write_bytes(pack("\ufeff".encode() + b"".join(b"row %d\n" % row for row in range(20))))
    (tmp_path / path.name.replace("rows", "rows2")).write_bytes(pack("\ufeff\nrow 20\n".encode()))
    assert set(texts(tmp_path / f"*{path.name[4:]}", count=30)) == {f"row {row}" for row in range(21)}


def test_documents_without_text_are_left_out(tmp_path, caplog):
    texts = [("", " ", None, f"row {row}")[row % 4] for row in range(200)]
    pd.DataFrame({"body": texts, "n": range(200)}).to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    rows = {"train_file": str(tmp_path / "a.jsonl"), "text_columns": ("body",), "stream": True, "max_train_rows": 20}
    settings = EvaluateSettings(model="m", task="causal-lm", **rows)
    drawn = load_data(settings, need_validation=False).train["text_a"][:]
    assert len(set(drawn)) == 20
    assert all(text.startswith("row ") for text in drawn)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "minidisc"]
    found = re.search(r"a\.jsonl: (\d+) documents without text are left out", line)
    # No more than were drawn: twenty of four rows each, and a window of twenty that is read ahead.
    assert 20 <= int(found[1]) <= 80
    # The model says what the task is, where the settings do not.
    data = load_data(dataclasses.replace(settings, task=None), kind="causal-lm", need_validation=False)
    assert data.train["text_a"][:] == drawn


def test_a_stream_of_blanks_alone_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": " "}\n{"text": ""}\n')
    with pytest.raises(UserError, match=r"a\.jsonl has no document with text in it; give at least one"):
        texts(tmp_path / "a.jsonl")


def test_texts_that_have_labels_are_not_left_out(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": 1}\n{"text": "", "label": 0}\n' * 20)
    rows = {"train_file": str(tmp_path / "a.jsonl"), "stream": True, "max_train_rows": 40}
    with pytest.raises(UserError, match=r"20 rows .* have no text in column 'text'"):
        load_data(EvaluateSettings(model="m", task="classification", **rows), need_validation=False)


@pytest.mark.parametrize(
    ("files", "split"),
    [("home/alice/corpus.jsonl", "corpus.jsonl"), ("https://me:key@host/data/a.csv?signature=x#y", "a.csv")],
)
def test_the_split_is_named_without_the_place_where_it_lies(monkeypatch, files, split):
    monkeypatch.setattr(sources, "stream_files", lambda *_: pd.DataFrame({"text": ["a"]}))
    assert sources.find_source(DataSettings(train_file=files, stream=True, max_train_rows=1), "train").split == split


def test_what_is_not_needed_is_not_read(tmp_path):
    path = tmp_path / "long.txt"
    line = "word " * 1000
    with path.open("wb") as file:
        for row in range(6000):
            file.write(f"{row} {line}\n\n".encode())
        file.write(b"\xff\xfe no UTF-8\n")
    with pytest.raises(UserError, match="is not UTF-8"):
        read_table(path)
    rows = [int(text.split()[0]) for text in texts(path)]
    assert len(set(rows)) == 16
    assert max(rows) < 36


def test_labels_in_parquet(tmp_path):
    rows = pd.DataFrame(
        {"text": [f"text {i}" for i in range(60)], "label": [["bad", "good"][i % 2] for i in range(60)]}
    )
    rows.to_parquet(tmp_path / "rows.parquet")
    rows.to_csv(tmp_path / "validation.csv")
    settings = DataSettings(
        train_file=str(tmp_path / "rows.parquet"),
        validation_file=str(tmp_path / "validation.csv"),
        stream=True,
        max_train_rows=30,
    )
    data = load_data(settings)
    assert (len(data.train), len(data.validation)) == (30, 60)
    assert data.task.label_names == ("bad", "good")
    for row in data.train:
        assert row["label"] == int(row["text_a"].split()[1]) % 2


def test_a_data_set_of_the_hub(tmp_path, monkeypatch):
    calls = []

    def load_dataset(*arguments, **options):
        calls.append((arguments, options))
        features = datasets.Features(
            {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["n", "p"])}
        )
        rows = {"text": [f"text {i}" for i in range(50)], "label": [i % 2 for i in range(50)]}
        return datasets.Dataset.from_dict(rows, features=features).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    settings = DataSettings(task="someone/reviews", stream=True, max_train_rows=20)
    data = load_data(settings, need_validation=False)
    assert calls == [(("someone/reviews",), {"split": "train", "streaming": True})]
    assert (data.task.label_names, len(data.train)) == (("n", "p"), 20)
    with pytest.raises(UserError, match="--validation-file is missing; with --stream"):
        load_data(settings)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", "text\na\n", "--stream reads .jsonl"),
        ("missing.jsonl", None, "missing.jsonl cannot be streamed"),
        ("rows.jsonl", '{"text": "a"}\n{"text": \n', "rows.jsonl cannot be streamed"),
        ("rows.txt", "\n \n", "has no rows"),
        ("rows.jsonl", json.dumps({"text": "a"}), "too few training rows: 1 of"),
    ],
)
def test_refused(tmp_path, capfd, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        texts(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_refused_settings(tmp_path):
    with pytest.raises(UserError, match="--stream needs --max-train-rows"):
        CompressSettings(teacher="t", train_file="a.jsonl", output_dir="o", stream=True)
    for changes in ({}, {"task": "glue/sst2", "data_dir": str(tmp_path)}):
        with pytest.raises(UserError, match="--stream needs --train-file"):
            load_data(DataSettings(stream=True, max_train_rows=20, **changes), need_validation=False)
