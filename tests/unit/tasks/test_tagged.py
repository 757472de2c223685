"""Rows of words and entity tags, from files and the Hub."""

import datasets
import numpy as np
import pandas as pd
import pytest

from minidisc.config import DataSettings
from minidisc.errors import UserError
from minidisc.tasks import BENCHMARKS, align_labels, load_data
from tests.unit.tasks.test_loading import hub, jsonl

WORDS = [["Bo", "saw", f"Town{i}", "."] for i in range(20)]
TAGS = [["B-PER", "O", "B-LOC", "O"]] * 20
INDICES = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]


def names_of(data, rows="train"):
    return [
        None if tags is None else [data.task.label_names[tag] for tag in tags] for tags in getattr(data, rows)["label"]
    ]


def load(tmp_path, train=None, validation=None, load=None, **settings):
    train, validation = train or {"tokens": WORDS, "ner_tags": TAGS}, validation or {"tokens": WORDS, "ner_tags": TAGS}
    files = {
        "train_file": jsonl(tmp_path / "train.jsonl", **train),
        "validation_file": jsonl(tmp_path / "dev.jsonl", **validation),
    }
    return load_data(DataSettings(**{**files, **settings}), **(load or {}))


@pytest.mark.parametrize(
    "columns", [("tokens", "ner_tags"), ("words", "tags"), ("tokens", "labels"), ("text", "entities")]
)
@pytest.mark.parametrize("task", ["token-classification", None])
def test_own_files(tmp_path, columns, task):
    rows = dict(zip(columns, (WORDS, TAGS), strict=True))
    named = {"text_columns": ("text",), "label_column": "entities"} if columns[0] == "text" else {}
    data = load(tmp_path, rows, rows, task=task, **named)
    assert (data.task.name, data.task.kind) == ("token-classification",) * 2
    assert (data.task.text_columns, data.task.label_column) == (columns[:1], columns[1])
    assert (data.task.label_names, data.task.named, data.task.metrics) == (tuple(INDICES), True, ("entity_f1",))
    assert data.train.column_names == data.validation.column_names == ["words", "label"]
    assert data.train["words"][:] == WORDS
    assert data.train["label"][0] == [3, 0, 1, 0]
    assert data.splits == {"train": "train.jsonl", "validation": "dev.jsonl"}


def test_parquet(tmp_path):
    path = tmp_path / "rows.parquet"
    pd.DataFrame({"tokens": [np.array(words, object) for words in WORDS], "ner_tags": TAGS}).to_parquet(path)
    data = load_data(DataSettings(train_file=str(path), task="token-classification"), need_validation=False)
    assert data.train["words"][:] == WORDS
    assert names_of(data) == TAGS


def test_columns_of_conll(tmp_path):
    path = tmp_path / "train.conll.gz"
    import gzip

    text = "\n\n".join(
        "\n".join(f"{w} X {t}" for w, t in zip(*row, strict=True)) for row in zip(WORDS, TAGS, strict=True)
    )
    path.write_bytes(gzip.compress(text.encode()))
    data = load_data(DataSettings(train_file=str(path)), need_validation=False)
    assert data.task.kind == "token-classification"
    assert names_of(data) == TAGS


@pytest.fixture
def data_dir(tmp_path):
    for split in ("train", "validation", "test"):
        ids = [str(i) for i in range(20)]
        jsonl(tmp_path / "conll2003" / f"{split}.jsonl.gz", id=ids, tokens=WORDS, ner_tags=TAGS)
    return tmp_path


def test_conll2003_from_a_folder(data_dir):
    data = load_data(DataSettings(task="conll2003", data_dir=str(data_dir)))
    assert data.task == BENCHMARKS["conll2003"]
    assert data.task.label_names[:3] == ("O", "B-PER", "I-PER")
    assert len(data.task.label_names) == 9
    assert data.splits == {"train": "train.jsonl.gz", "validation": "validation.jsonl.gz"}
    assert names_of(data) == names_of(data, "validation") == TAGS


def test_conll2003_with_the_integers_of_the_hub(tmp_path):
    rows = {"tokens": WORDS, "ner_tags": [[1, 0, 5, 0]] * 20}
    assert names_of(load(tmp_path, rows, rows, task="conll2003")) == TAGS


def hub_rows(names, tags, words=WORDS):
    label = datasets.ClassLabel(names=names) if names else datasets.Value("int64")
    features = {"tokens": datasets.Sequence(datasets.Value("string")), "ner_tags": datasets.Sequence(label)}
    return datasets.Dataset.from_dict({"tokens": words, "ner_tags": tags}, features=datasets.Features(features))


def test_conll2003_from_the_hub(monkeypatch):
    calls = []
    rows = hub_rows(list(BENCHMARKS["conll2003"].label_names), [[1, 0, 5, 0]] * 20)
    hub(monkeypatch, calls, train=rows, validation=rows, test=rows)
    data = load_data(DataSettings(task="conll2003"))
    assert set(calls) == {("lhoestq/conll2003",)}
    assert data.task == BENCHMARKS["conll2003"]
    assert data.splits == {"train": "train", "validation": "validation"}
    assert names_of(data) == TAGS


def test_a_data_set_of_the_hub_is_known_by_its_lists(monkeypatch):
    rows = hub_rows(["B-X", "O", "I-X"], [[0, 2, 1, 1]] * 20)
    hub(monkeypatch, train=rows, test=rows)
    data = load_data(DataSettings(task="someone/entities"))
    assert (data.task.name, data.task.kind) == ("someone/entities", "token-classification")
    assert data.task.label_names == ("B-X", "O", "I-X")
    assert names_of(data)[0] == ["B-X", "I-X", "O", "O"]


def test_words_with_one_label_for_all_of_them_are_sentences(tmp_path):
    rows = {"text": [" ".join(words) for words in WORDS], "tokens": WORDS, "label": [0, 1] * 10}
    assert load(tmp_path, rows, rows).task.kind == "classification"


def test_the_models_names_are_the_tasks_if_they_hold_all_tags(tmp_path):
    """A model may guess a tag that no row has, and that guess is wrong, not impossible."""
    model = ("B-PER", "I-PER", "O", "B-ORG", "B-LOC", "[CLS]")
    data = load(tmp_path, load={"model_names": model})
    assert data.task.label_names == model[:5]
    assert names_of(data) == TAGS
    for other in (("O", "B-PER", "I-PER"), ("LABEL_0", "LABEL_1"), ("B-PER", "B-LOC")):
        assert load(tmp_path, load={"model_names": other}).task.label_names == tuple(INDICES)


def test_tags_that_are_spelt_otherwise_than_the_models(tmp_path):
    model = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG")
    rows = {"tokens": WORDS, "ner_tags": [["B-per", "O", "B-Loc", "O"]] * 20}
    data = load(tmp_path, rows, rows, load={"model_names": model})
    assert data.task.label_names == ("O", "B-per", "I-per", "B-Loc", "I-Loc", "B-ORG", "I-ORG")
    assert names_of(data) == rows["ner_tags"]
    assert align_labels(data.task, dict(enumerate(model)), 7) == [*range(7)]


@pytest.mark.parametrize("tags", [["B-PER", "B-PER", "O", "B-LOC"], ["I-PER", "B-PER", "O", "I-LOC"]])
def test_a_model_of_iob1_is_given_its_own_tags(tmp_path, tags):
    model = ("O", "B-PER", "I-LOC", "I-PER")  # two places never stood beside each other
    rows = {"tokens": WORDS, "ner_tags": [tags] * 20}
    files = {name: tmp_path / f"{name}.conll" for name in ("train", "validation")}
    for file in files.values():
        file.write_text("\n\n".join("\n".join(map(" ".join, zip(row, tags, strict=True))) for row in WORDS))
    own = {f"{name}_file": str(file) for name, file in files.items()}
    # In files of columns either kind is known for what it is; elsewhere tags are taken as they stand.
    for given in (own, *([{}] if tags[0] == "B-PER" else [])):
        data = load(tmp_path, rows, rows, load={"model_names": model}, **given)
        assert data.task.label_names == model
        assert names_of(data) == [["I-PER", "B-PER", "O", "I-LOC"]] * 20
        assert align_labels(data.task, dict(enumerate(model)), 4) == [*range(4)]
    if tags[0] == "B-PER":
        numbers = {"tokens": WORDS, "ner_tags": [[1, 1, 0, 5]] * 20}
        data = load(tmp_path, numbers, numbers, load={"model_names": model}, task="conll2003")
        assert data.task.label_names == model
        assert names_of(data) == [["I-PER", "B-PER", "O", "I-LOC"]] * 20
    # One of IOB2 is not, and one that cannot tell them apart neither.
    for other in ((*model, "B-LOC"), ("O", "I-LOC", "I-PER")):
        data = load(tmp_path, rows, rows, load={"model_names": other}, **own)
        assert names_of(data) == [["B-PER", "B-PER", "O", "B-LOC"]] * 20


def test_blanks_around_a_tag_do_not_count(tmp_path):
    data = load(tmp_path, {"tokens": WORDS, "ner_tags": [["B-PER", " O", "B-LOC ", "O\t"]] * 20})
    assert data.task.label_names == tuple(INDICES)
    assert names_of(data) == TAGS


def test_validation_may_have_a_tag_whose_type_train_has(tmp_path):
    validation = {"tokens": WORDS, "ner_tags": [["B-PER", "I-PER", "I-LOC", "O"]] * 20}
    assert names_of(load(tmp_path, None, validation), "validation")[0] == ["B-PER", "I-PER", "I-LOC", "O"]


@pytest.mark.parametrize("train", [{"tokens": WORDS}, {"tokens": WORDS, "ner_tags": [None] * 20}])
def test_training_rows_without_tags(tmp_path, train):
    data = load(tmp_path, train, load={"need_labels": False})
    assert set(data.train["label"]) == {None}
    assert data.train["words"][:] == WORDS
    assert data.task.label_names == tuple(INDICES)
    with pytest.raises(UserError, match=r"no label in column 'ner_tags'|no column of labels"):
        load(tmp_path, train)


def test_some_rows_without_tags(tmp_path):
    data = load(tmp_path, {"tokens": WORDS, "ner_tags": [None, *TAGS[1:]]}, load={"need_labels": False})
    assert names_of(data) == [None, *TAGS[1:]]


def test_max_train_rows_and_fingerprint(tmp_path):
    one, two = (load(tmp_path, max_train_rows=count) for count in (16, 17))
    assert len(one.train) == 16
    assert one.fingerprint != two.fingerprint
    assert one.fingerprint == load(tmp_path, max_train_rows=16).fingerprint


def first_row(words=None, tags=None):
    return {"tokens": [words or WORDS[0], *WORDS[1:]], "ner_tags": [tags or TAGS[0], *TAGS[1:]]}


TOKENS = {"task": "token-classification"}


@pytest.mark.parametrize(
    ("columns", "settings", "messages"),
    [
        (first_row(tags=["O", "O"]), {}, ["row 1 has 4 words and 2 tags"]),
        (first_row(tags=["O", "O", "O", "S-PER"]), {}, ["1 row (row 1) has a tag that is not", "'S-PER'", "IOB2"]),
        (first_row(tags=["O", "O", "O", "PER"]), {}, ["'PER'"]),
        (first_row(tags=["O", "O", "O", "B-"]), {}, ["'B-'"]),
        (first_row(tags=[0, 0, 1, 0]), {}, ["1 row (row 1) has numbers for tags", "'B-PER'"]),
        (first_row(tags=[0, 0, 1.5, 0]), {}, ["row 1 has a tag that is neither text nor an integer"]),
        (first_row(tags=[None, "O", "O", "O"]), {}, ["row 1 has a tag that is neither text nor an integer"]),
        (first_row(tags="O O B-PER O"), TOKENS, ["row 1 has no list of tags in column 'ner_tags'"]),
        ({"tokens": [[], *WORDS[1:]], "ner_tags": [[], *TAGS[1:]]}, {}, ["1 row (row 1) has no words"]),
        (first_row(words=["a", "b", "c", 5]), {}, ["1 row (row 1) has a word that is not text"]),
        ({"tokens": ["a b c"] * 20, "ner_tags": TAGS}, TOKENS, ["20 rows (the first is row 1) have no list of words"]),
        (
            {"sentence": WORDS, "ner_tags": TAGS},
            TOKENS,
            ["no column is known to hold lists of words", "--text-columns"],
        ),
        ({"tokens": WORDS, "x": TAGS}, TOKENS, ["no column of labels; there are 'tokens', 'x'", "--label-column"]),
        (first_row(), {**TOKENS, "text_columns": ("a",)}, ["no column 'a'; there are 'tokens', 'ner_tags'"]),
        (first_row(), {**TOKENS, "label_column": "a"}, ["no column 'a'; there are 'tokens'", "--label-column"]),
        (first_row(), {**TOKENS, "text_columns": ("tokens", "b")}, ["--text-columns names 2 columns", "takes one"]),
        (first_row(), {"task": "classification", "text_columns": ("tokens",)}, ["no text in column 'tokens'"]),
        ({"tokens": WORDS, "ner_tags": [["O"] * 4] * 20}, {}, ["every word is tagged 'O'", "at least one entity"]),
        ({"tokens": WORDS, "ner_tags": [None] * 20}, {}, ["no row has tags"]),
        ({"tokens": WORDS[:9], "ner_tags": TAGS[:9]}, {}, ["too few training rows: 9"]),
        (
            first_row(tags=["B-PER", "O", "B-CITY", "O"]),
            {"task": "conll2003"},
            ["task conll2003 does not have: 'B-CITY'"],
        ),
        (first_row(tags=[1, 0, 9, 0]), {"task": "conll2003"}, ["task conll2003 does not have: '9'"]),
    ],
)
def test_errors(tmp_path, columns, settings, messages):
    file = jsonl(tmp_path / "train.jsonl", **columns)
    with pytest.raises(UserError) as caught:
        load_data(DataSettings(train_file=file, **settings), need_validation=False)
    for message in messages:
        assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_type_that_train_lacks(tmp_path):
    validation = {"tokens": WORDS, "ner_tags": [["B-PER", "O", "B-ORG", "O"]] * 20}
    with pytest.raises(UserError, match=r"dev.jsonl: 20 rows .* a tag that .*train.jsonl does not have: 'B-ORG'"):
        load(tmp_path, None, validation)


def test_declared_classes_that_are_no_entity_tags(monkeypatch):
    rows = hub_rows(["NOUN", "VERB"], [[0, 1, 0, 1]] * 20)
    hub(monkeypatch, train=rows, test=rows)
    with pytest.raises(UserError, match=r"'NOUN', 'VERB'.* are no entity tags; .*--label-column"):
        load_data(DataSettings(task="someone/pos"))


def test_integers_whose_names_the_hub_does_not_declare(monkeypatch):
    rows = hub_rows(None, [[0, 1, 0, 1]] * 20)
    hub(monkeypatch, train=rows, test=rows)
    with pytest.raises(UserError, match="numbers for tags"):
        load_data(DataSettings(task="someone/entities"))


def test_a_folder_without_conll2003(tmp_path):
    with pytest.raises(UserError, match=r"holds no train.jsonl.gz; point --data-dir at the folder above conll2003/"):
        load_data(DataSettings(task="conll2003", data_dir=str(tmp_path)))
