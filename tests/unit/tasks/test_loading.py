import dataclasses
import gzip
import json

import datasets
import pytest

from minidisc.config import DataSettings, EvaluateSettings
from minidisc.errors import UserError
from minidisc.tasks import GLUE, load_data

TEXTS = [f"text {index}" for index in range(20)]


def jsonl(path, **columns):
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


def cycle(*values, count=20):
    return [values[index % len(values)] for index in range(count)]


def own(tmp_path, labels, validation_labels=None, load=None, **settings):
    """Load own files, given the labels of 20 training rows and of as many validation rows as there are labels."""
    validation_labels = validation_labels or labels
    count = len(validation_labels)
    return load_data(
        DataSettings(
            train_file=jsonl(tmp_path / "train.jsonl", text=TEXTS, label=labels),
            validation_file=jsonl(tmp_path / "dev.jsonl", text=(TEXTS * 2)[:count], label=validation_labels),
            **settings,
        ),
        **(load or {}),
    )


@pytest.fixture
def glue_dir(tmp_path):
    for name, task in GLUE.items():
        classes = len(task.label_names) if task.label_names else None
        labels = cycle(*range(classes)) if classes else cycle(0.0, 2.5, 5.0)
        columns = {column: [f"{column} {text}" for text in TEXTS] for column in task.text_columns}
        jsonl(tmp_path / name / "train.jsonl.gz", **columns, label=labels, idx=range(20))
        jsonl(tmp_path / name / "validation.jsonl.gz", **columns, label=labels, idx=range(20))
    return tmp_path


@pytest.mark.parametrize("name", GLUE)
def test_glue_from_a_folder(glue_dir, name):
    data = load_data(DataSettings(task=name, data_dir=str(glue_dir)))
    assert data.task == GLUE[name]
    assert data.splits == {"train": "train.jsonl.gz", "validation": "validation.jsonl.gz"}
    names = ["text_a", "text_b"][: len(data.task.text_columns)]
    assert data.train.column_names == data.validation.column_names == [*names, "label"]
    assert data.train["text_a"][3] == f"{data.task.text_columns[0]} text 3"
    if len(data.task.text_columns) == 2:
        assert data.validation["text_b"][3] == f"{data.task.text_columns[1]} text 3"
    expected = cycle(0.0, 2.5, 5.0) if name == "glue/stsb" else cycle(*range(len(data.task.label_names)))
    assert data.train["label"][:] == expected


def test_a_part_of_a_split_is_reported_as_such(glue_dir):
    folder = glue_dir / "glue" / "mnli"
    (folder / "train.jsonl.gz").rename(folder / "train_subset.jsonl.gz")
    (folder / "validation.jsonl.gz").rename(folder / "validation_matched.jsonl.gz")
    data = load_data(DataSettings(task="glue/mnli", data_dir=str(glue_dir)))
    assert data.splits == {"train": "train_subset.jsonl.gz", "validation": "validation_matched.jsonl.gz"}


def test_own_file_for_one_split_of_glue(glue_dir, tmp_path):
    file = jsonl(tmp_path / "mine.jsonl", sentence=TEXTS, label=cycle("positive", "negative"))
    data = load_data(DataSettings(task="glue/sst2", data_dir=str(glue_dir), train_file=file))
    assert data.splits == {"train": "mine.jsonl", "validation": "validation.jsonl.gz"}
    assert data.train["label"][:4] == [1, 0, 1, 0]
    assert data.validation["label"][:4] == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("labels", "names", "named", "first"),
    [
        (cycle("pos", "neg"), ("neg", "pos"), True, [1, 0]),
        (cycle(2, 0, 1), ("LABEL_0", "LABEL_1", "LABEL_2"), False, [2, 0, 1]),
        (cycle(1.0, 0.0), ("LABEL_0", "LABEL_1"), False, [1, 0]),
        (cycle("1", "0"), ("LABEL_0", "LABEL_1"), False, [1, 0]),
        (cycle(1, -1), ("-1", "1"), True, [1, 0]),
        (cycle(10, 9, 1), ("1", "9", "10"), True, [2, 1, 0]),
        (cycle(True, False), ("False", "True"), True, [1, 0]),
        (cycle("nan", "null"), ("nan", "null"), True, [0, 1]),
        (cycle(2, "b"), ("2", "b"), True, [0, 1]),
        (cycle("1_0", "0"), ("0", "1_0"), True, [1, 0]),
        # Written otherwise than numbers are, they are names; those of one value are told apart.
        (cycle("01", "1", "2"), ("01", "1", "2"), True, [0, 1, 2]),
        (cycle("1e3", "2e3"), ("1e3", "2e3"), True, [0, 1]),
        (cycle("1.0", "0.0"), ("LABEL_0", "LABEL_1"), False, [1, 0]),
        (cycle(2**53 + 1, 2**53, 5), ("5", str(2**53), str(2**53 + 1)), True, [2, 1, 0]),
    ],
)
def test_classes_of_own_files(tmp_path, labels, names, named, first):
    task = (data := own(tmp_path, labels)).task
    assert (task.name, task.kind, task.metrics) == ("classification", "classification", ("accuracy",))
    assert (task.text_columns, task.label_column) == (("text",), "label")
    assert (task.label_names, task.named) == (names, named)
    assert data.train["label"][: len(first)] == data.validation["label"][: len(first)] == first
    assert data.train.features["label"].dtype == "int64"
    assert data.splits == {"train": "train.jsonl", "validation": "dev.jsonl"}


@pytest.mark.parametrize(
    ("labels", "settings", "load"),
    [
        (cycle(0.5, 1, 2), {}, {}),
        (cycle("0.5", "1", "2"), {}, {}),
        (cycle("0.5", "1e1", "02"), {}, {}),
        (cycle("1e1", "02"), {"task": "regression"}, {}),
        (cycle(0, 1, 2), {"task": "regression"}, {}),
        (cycle(0, 1, 2), {}, {"kind": "regression"}),
    ],
)
def test_regression_of_own_files(tmp_path, labels, settings, load):
    data = own(tmp_path, labels, load=load, **settings)
    assert (data.task.name, data.task.kind) == ("regression", "regression")
    assert (data.task.label_names, data.task.metrics) == (None, ("pearson", "spearman"))
    assert data.train["label"][:3] == [float(label) for label in labels[:3]]
    assert data.train.features["label"].dtype == "float64"


def test_the_setting_goes_before_the_hint(tmp_path):
    data = own(tmp_path, cycle(0, 1), task="classification", load={"kind": "regression"})
    assert data.task.kind == "classification"


def test_csv_labels_are_numbers_and_words_stay_words(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("text,label\n" + "NA,1\nnull,0\n" * 10)
    data = load_data(DataSettings(train_file=str(path)), need_validation=False)
    assert data.validation is None
    assert data.train["text_a"][:2] == ["NA", "null"]
    assert data.train["label"][:2] == [1, 0]
    assert not data.task.named


@pytest.mark.parametrize(
    ("columns", "chosen"),
    [
        (["text", "label"], ("text",)),
        (["id", "sentence", "labels"], ("sentence",)),
        (["sentence2", "sentence1", "label"], ("sentence1", "sentence2")),
        (["premise", "hypothesis", "label"], ("premise", "hypothesis")),
        (["question", "sentence", "label"], ("question", "sentence")),
        (["question1", "question2", "label"], ("question1", "question2")),
    ],
)
def test_columns_go_by_their_usual_names(tmp_path, columns, chosen):
    values = {name: cycle(0, 1) if name.startswith("label") else TEXTS for name in columns}
    data = load_data(DataSettings(train_file=jsonl(tmp_path / "train.jsonl", **values)), need_validation=False)
    assert data.task.text_columns == chosen
    assert data.task.label_column == columns[-1]


def test_named_columns(tmp_path):
    file = jsonl(tmp_path / "a.jsonl", text=TEXTS, body=[f"{text}!" for text in TEXTS], label=TEXTS, y=cycle(0, 1))
    settings = DataSettings(validation_file=file, text_columns=("body", "text"), label_column="y")
    data = load_data(settings, need_train=False)
    # Training rows need no labels in every case, and then no column of them.
    bare = jsonl(tmp_path / "bare.jsonl", text=TEXTS, body=TEXTS)
    both = load_data(dataclasses.replace(settings, train_file=bare), need_labels=False)
    assert both.train["label"][:] == [None] * len(TEXTS)
    assert both.validation["label"][:] == data.validation["label"][:]
    assert data.train is None
    assert (data.task.text_columns, data.task.label_column) == (("body", "text"), "y")
    assert data.validation[1] == {"text_a": "text 1!", "text_b": "text 1", "label": 1}


@pytest.mark.parametrize("missing", [None, "", " ", float("nan")])
def test_rows_without_labels_are_kept_if_allowed(tmp_path, missing):
    labels = ["pos", missing, "neg", missing] * 5
    data = own(tmp_path, labels, ["pos", "neg"], load={"need_labels": False})
    assert data.train["label"][:4] == [1, None, 0, None]


def test_training_rows_without_any_label(tmp_path):
    settings = DataSettings(
        train_file=jsonl(tmp_path / "train.jsonl", text=TEXTS),
        validation_file=jsonl(tmp_path / "dev.jsonl", text=TEXTS, label=cycle("b", "a")),
    )
    data = load_data(settings, need_labels=False)
    assert set(data.train["label"]) == {None}
    assert data.task.label_names == ("a", "b")
    assert data.validation["label"][:2] == [1, 0]


def test_minus_one_is_no_label_in_glue(glue_dir):
    folder = glue_dir / "glue" / "sst2"
    jsonl(folder / "train.jsonl.gz", sentence=TEXTS, label=cycle(0, 1, -1))
    settings = DataSettings(task="glue/sst2", data_dir=str(glue_dir))
    assert load_data(settings, need_labels=False).train["label"][:3] == [0, 1, None]
    with pytest.raises(UserError, match=r"6 rows \(the first is row 3\) have no label"):
        load_data(settings)


def test_max_train_rows(tmp_path):
    file = jsonl(
        tmp_path / "train.jsonl", text=[f"text {index}" for index in range(100)], label=cycle(0, 1, count=100)
    )

    def texts(**settings):
        settings = EvaluateSettings(model="m", train_file=file, **settings)
        return load_data(settings, need_validation=False).train["text_a"][:]

    drawn = texts(max_train_rows=30)
    assert len(set(drawn)) == 30
    assert drawn == sorted(drawn, key=lambda text: int(text.split()[1]))
    assert drawn == texts(max_train_rows=30) != texts(max_train_rows=30, seed=1)
    assert drawn != texts()[:30]
    assert len(texts(max_train_rows=1000)) == 100


def test_names_do_not_depend_on_the_rows_drawn(tmp_path):
    file = jsonl(tmp_path / "train.jsonl", text=TEXTS * 5, label=[0, 1] * 49 + [2, 3])
    data = load_data(DataSettings(train_file=file, max_train_rows=16), need_validation=False)
    assert len(data.task.label_names) == 4


@pytest.mark.parametrize("kind", ["texts", "pairs", "words", "documents"])
def test_validation_rows_whose_texts_are_trained_on_are_counted(tmp_path, kind):
    def of(dev, **settings):
        files = {}
        for name, texts in (("train", TEXTS), ("dev", dev)):
            columns = {"text": texts, "label": cycle(0, 1)}
            if kind == "pairs":
                columns = {"premise": ["same"] * len(texts), "hypothesis": texts, "label": cycle(0, 1)}
            elif kind == "words":
                columns = {"tokens": [text.split() for text in texts], "ner_tags": [["B-A", "O"]] * len(texts)}
            elif kind == "documents":
                columns = {"text": texts}
            files[name] = jsonl(tmp_path / f"{name}.jsonl", **columns)
        task = {"pairs": {"text_columns": ("premise", "hypothesis")}, "documents": {"task": "causal-lm"}}.get(kind, {})
        return load_data(DataSettings(train_file=files["train"], validation_file=files["dev"], **task, **settings))

    new = [f"new {number}" for number in range(18)]
    # A tenth may be there by chance, and is no more than a tenth.
    assert (of([*new, *TEXTS[:2]]).known, of([*new, *TEXTS[:2]]).warning()) == (2, None)
    most = of([*new[:17], *TEXTS[:2], TEXTS[0]])
    assert most.known == 3
    assert most.warning() == (
        "3 of 20 validation rows (dev.jsonl) have texts that the training rows (train.jsonl) have too; their figures "
        "say little about new text."
    )
    if kind == "texts":
        assert of(TEXTS).known == 20
        streamed = of(TEXTS, stream=True, max_train_rows=20, label_column="label")
        assert (streamed.known, streamed.warning()) == (0, None)


def test_fingerprint(tmp_path):
    def of(labels, *arguments, **settings):
        return own(tmp_path, labels, *arguments, **settings).fingerprint

    same = of(cycle(0, 1))
    assert same == of(cycle(0, 1))
    others = [of(cycle(1, 0)), of(cycle(0, 1), [0, 1]), of(cycle("a", "b")), of(cycle(0, 1), task="regression")]
    assert len({same, *others}) == 5


@pytest.mark.parametrize(
    ("columns", "settings", "load", "messages"),
    [
        ({"body": TEXTS, "label": cycle(0, 1)}, {}, {}, ["there are 'body', 'label'", "--text-columns"]),
        ({"text": TEXTS, "label": cycle(0, 1)}, {"text_columns": ("a",)}, {}, ["no column 'a'", "'text', 'label'"]),
        ({"text": TEXTS, "y": cycle(0, 1)}, {}, {}, ["no column of labels; there are 'text', 'y'", "--label-column"]),
        (
            {"text": TEXTS, "y": cycle(0, 1)},
            {"label_column": "z"},
            {},
            ["no column 'z'; there are 'text', 'y'", "--label-column"],
        ),
        ({"text": TEXTS, "label": cycle(0, 1)}, {"label_column": "z"}, {"need_labels": False}, ["no row has a label"]),
        (
            {"text": [f"text {i}" for i in range(40)], "label": [float(7 * i) for i in range(40)]},
            {},
            {},
            ["40 different whole numbers", "--task classification or --task regression"],
        ),
        ({"text": ["a", "", " ", None, *TEXTS[4:]], "label": cycle(0, 1)}, {}, {}, ["3 rows (the first is row 2)"]),
        ({"text": [*TEXTS[:19], 5], "label": cycle(0, 1)}, {}, {}, ["1 row (row 20) has no text in column 'text'"]),
        ({"text": TEXTS, "label": cycle(0, 1, None)}, {}, {}, ["6 rows (the first is row 3) have no label"]),
        ({"text": TEXTS, "label": [*cycle("a", "b", count=19), ""]}, {}, {}, ["1 row (row 20) has no label"]),
        ({"text": TEXTS, "label": cycle(0.5, 1, float("nan"))}, {}, {}, ["6 rows (the first is row 3) have no label"]),
        ({"text": TEXTS, "label": cycle(0.5, 1, float("inf"))}, {}, {}, ["6 rows (the first is row 3)", "(inf)"]),
        ({"text": TEXTS, "label": cycle(0.5, "x")}, {"task": "regression"}, {}, ["not a finite number", "--task cl"]),
        (
            {"text": TEXTS, "label": ["0.5", "1", "2", "n/a", *cycle("1", "2", count=16)]},
            {"task": "regression"},
            {"need_labels": False},
            ["1 row (row 4) has a label that is not a finite number ('n/a')"],
        ),
        (
            {"text": TEXTS, "label": ["0.5", "1.5", "2", "n/a", "n/a", *cycle("1", "2", count=15)]},
            {},
            {},
            ["2 rows (the first is row 4) have a label that is no number ('n/a') among", "--task classification"],
        ),
        ({"text": TEXTS, "label": cycle(0.5, 1)}, {"task": "classification"}, {}, ["no class (0.5)", "--task regr"]),
        ({"text": TEXTS, "label": cycle([0], [1])}, {}, {}, ["holds something else than text or a number in row 1"]),
        ({"text": TEXTS, "label": cycle("a")}, {}, {}, ["all labels are the same ('a')", "at least two"]),
        ({"text": TEXTS, "label": cycle(2.5)}, {}, {}, ["all labels are the same (2.5)"]),
        ({"text": TEXTS, "label": cycle("a", None)}, {}, {"need_labels": False}, ["all labels are the same ('a')"]),
        ({"text": TEXTS, "label": cycle(None)}, {}, {"need_labels": False}, ["no row has a label"]),
        ({"text": TEXTS[:15], "label": cycle(0, 1, count=15)}, {}, {}, ["too few training rows: 15", "at least 16"]),
        ({"text": TEXTS, "label": cycle(0, 1)}, {"max_train_rows": 15}, {}, ["too few training rows: 15"]),
        ({"text": TEXTS, "label": cycle(0, 1)}, {"task": "sst2"}, {}, ["--task is 'sst2'; write 'glue/sst2'"]),
        ({"text": TEXTS, "label": cycle(0, 1)}, {"task": "glue/imdb"}, {}, ["'glue/imdb'", "glue/cola, glue/sst2"]),
        ({"sentence": TEXTS, "label": cycle(0, 1, 2)}, {"task": "glue/sst2"}, {}, ["6 rows", "'2'", "'0', '1'"]),
        ({"sentence": TEXTS, "label": cycle("negative", "bad")}, {"task": "glue/sst2"}, {}, ["'bad'", "'positive'"]),
        ({"text": TEXTS, "label": cycle(0, 1)}, {"task": "glue/mnli"}, {}, ["no column 'premise'", "--text-columns"]),
    ],
)
def test_errors_of_a_training_file(tmp_path, columns, settings, load, messages):
    file = jsonl(tmp_path / "train.jsonl", **columns)
    with pytest.raises(UserError) as caught:
        load_data(DataSettings(train_file=file, **settings), need_validation=False, **load)
    for message in messages:
        assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_among_names_are_names(tmp_path):
    labels = cycle("1.0", "2.0", "inf", "n/a")
    assert own(tmp_path, labels).task.label_names == ("1.0", "2.0", "inf", "n/a")
    fractions = own(tmp_path, cycle("3.11", "3.x"), task="classification")
    assert fractions.task.label_names == ("3.11", "3.x")


def test_blanks_around_a_label_do_not_count(tmp_path):
    data = own(tmp_path, cycle("pos", "neg ", " pos", "neg"))
    assert data.task.label_names == ("neg", "pos")
    assert data.train["label"][:4] == [1, 0, 1, 0]


@pytest.mark.parametrize(
    ("labels", "validation_labels", "messages"),
    [
        (
            cycle("a", "b"),
            ["a", "c", "d", "c"],
            ["dev.jsonl", "3 rows (the first is row 2)", "'c', 'd'", "train.jsonl"],
        ),
        (
            cycle("caf\xe9", "bar"),
            ["bar", "cafe\u0301", "caf\xe9", "b\u200bar"],
            ["2 rows (the first is row 2) have", r"'cafe\u0301' and 'caf\xe9' differ only in characters"],
        ),
        (cycle(0, 1), [0, 1, 2], ["1 row (row 3)", "'2'", "'0', '1'", "--task regression"]),
        (cycle(-1, 1), [0, 1], ["1 row (row 1)", "'0'", "'-1', '1'"]),
        (cycle(0, 1), ["0", "x"], ["dev.jsonl", "1 row (row 2)", "'x'"]),
        (cycle(0.5, 1), ["0.5", "x"], ["dev.jsonl", "1 row (row 2) has a label that is no number ('x')"]),
        (cycle(0, 1), [0, None], ["dev.jsonl", "1 row (row 2) has no label"]),
        (cycle(0, 1), [1, 1], ["dev.jsonl", "all labels are the same ('LABEL_1')"]),
    ],
)
def test_errors_of_validation_labels(tmp_path, labels, validation_labels, messages):
    with pytest.raises(UserError) as caught:
        own(tmp_path, labels, validation_labels, load={"need_labels": False})
    for message in messages:
        assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("classes", "named"),
    [
        (("bad", "good", "good\u200b", "\ufeffgood"), r"'good' and 'good\u200b' and '\ufeffgood' differ only"),
        (("cafe\u0301", "caf\xe9", "cafe"), r"'cafe\u0301' and 'caf\xe9' differ only"),
        (("a", "a\u200b", "b", "b\u200b"), "cannot be seen, and so do others; write"),
        (("bad", "Bad", "b ad"), None),
    ],
)
def test_classes_that_look_alike_are_told(tmp_path, caplog, classes, named):
    data = own(tmp_path, cycle(*classes))
    assert set(data.task.label_names) == set(classes)
    lines = [record.getMessage() for record in caplog.records if record.name == "minidisc"]
    assert len(lines) == (named is not None)
    assert all("train.jsonl: classes " in line and named in line for line in lines)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "--train-file is missing"),
        ({"task": "classification"}, "--train-file is missing"),
        ({"task": "someone/data", "data_dir": "x"}, "--data-dir serves the tasks glue/cola"),
        ({"task": "glue/sst2", "data_dir": "x"}, "holds no train.jsonl.gz"),
    ],
)
def test_errors_of_missing_sources(settings, message):
    with pytest.raises(UserError, match=message):
        load_data(DataSettings(**settings))


def hub(monkeypatch, calls=None, **splits):
    def load_dataset(*arguments):
        if calls is not None:
            calls.append(arguments)
        return datasets.DatasetDict(splits)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)


def hub_rows(names, labels, **columns):
    columns = columns or {"text": TEXTS}
    features = {name: datasets.Value("string") for name in columns} | {"label": datasets.ClassLabel(names=names)}
    return datasets.Dataset.from_dict({**columns, "label": labels}, features=datasets.Features(features))


def test_glue_from_the_hub(monkeypatch):
    names = ["entailment", "neutral", "contradiction"]
    rows = hub_rows(names, cycle(0, 1, 2), premise=TEXTS, hypothesis=TEXTS)
    calls = []
    hub(monkeypatch, calls, train=rows, validation_mismatched=rows, validation_matched=rows)
    data = load_data(DataSettings(task="glue/mnli"))
    assert set(calls) == {("nyu-mll/glue", "mnli")}
    assert data.task == GLUE["glue/mnli"]
    assert data.splits == {"train": "train", "validation": "validation_matched"}
    assert not datasets.are_progress_bars_disabled()


def test_a_data_set_of_the_hub(monkeypatch):
    rows = hub_rows(["bad", "good"], cycle(1, 0, -1))
    hub(monkeypatch, train=rows, test=rows.filter(lambda row: row["label"] >= 0))
    data = load_data(DataSettings(task="someone/reviews"), kind="regression", need_labels=False)
    assert data.task.name == "someone/reviews"
    assert (data.task.label_names, data.task.named) == (("bad", "good"), True)
    assert data.splits == {"train": "train", "validation": "test"}
    assert data.train["label"][:3] == [1, 0, None]


OUTPUTS = tuple(f"LABEL_{index}" for index in range(30))


@pytest.mark.parametrize(
    ("labels", "model", "expected"),
    [
        # The last class, one in between or the first does not occur.
        (cycle(2, 0, 1), OUTPUTS[:4], [2, 0, 1]),
        (cycle(3, 0, 1), OUTPUTS[:4], [3, 0, 1]),
        (cycle("3", "1", "2"), OUTPUTS[:4], [3, 1, 2]),
    ],
)
def test_numbers_are_those_of_a_models_outputs_if_these_have_no_names(tmp_path, caplog, labels, model, expected):
    data = own(tmp_path, labels, load={"model_names": model})
    assert (data.task.label_names, data.task.named) == (model, False)
    assert data.validation["label"][:3] == expected
    # Stars from 1 to 3 of 4 would be other outputs.
    lines = [record.getMessage() for record in caplog.records if record.name == "minidisc"]
    assert len(lines) == (0 not in expected)
    assert all("train.jsonl: no label is 0" in line and "1 that of the output LABEL_1" in line for line in lines)


SENTIMENTS = ("negative", "neutral", "positive", "not-said")


@pytest.mark.parametrize(
    ("labels", "model", "expected"),
    [
        (cycle(0, 2), SENTIMENTS, OUTPUTS[:4]),
        (cycle("Positive", "Not said"), SENTIMENTS, ("negative", "neutral", "Positive", "Not said")),
        # They may count the names from 1, or be names that the model does not have.
        (cycle(1, 2), SENTIMENTS, ("1", "2")),
        (cycle(0, 2), ("-1", "0", "1"), ("0", "2")),
        (cycle("Positive", "positive"), SENTIMENTS, ("Positive", "positive")),
        (cycle("a", "B"), ("A", "a", "b"), ("B", "a")),
    ],
)
def test_labels_that_mean_a_models_named_outputs_leave_it_the_others(tmp_path, labels, model, expected):
    assert own(tmp_path, labels, load={"model_names": model}).task.label_names == expected


def test_many_numbers_are_classes_where_they_are_a_models_outputs(tmp_path):
    texts, labels = [f"text {number}" for number in range(60)], cycle(*range(1, 30), count=60)
    settings = DataSettings(
        train_file=jsonl(tmp_path / "train.jsonl", text=texts, label=labels),
        validation_file=jsonl(tmp_path / "dev.jsonl", text=texts, label=labels),
    )
    assert load_data(settings, model_names=OUTPUTS).task.label_names == OUTPUTS
    with pytest.raises(UserError, match="29 different whole numbers"):
        load_data(settings, model_names=OUTPUTS[:29])


def test_numbers_that_are_no_outputs_are_names(tmp_path):
    task = own(tmp_path, cycle(1, 2, 4), load={"model_names": OUTPUTS[:4]}).task
    assert (task.label_names, task.named) == (("1", "2", "4"), True)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [(cycle(0, 1), ("LABEL_0", "LABEL_1")), (cycle("b", "a"), ("a", "b")), (cycle(0.5, 1.0), None)],
)
def test_a_data_set_of_the_hub_that_declares_no_names(monkeypatch, labels, expected):
    rows = datasets.Dataset.from_dict({"text": TEXTS, "label": labels})
    hub(monkeypatch, train=rows, validation=rows)
    task = load_data(DataSettings(task="someone/reviews")).task
    assert task.label_names == expected
    assert task.name == "someone/reviews"


def test_declared_names_that_are_mere_numbers_are_no_names(monkeypatch):
    rows = hub_rows(["0", "1"], cycle(1, 0))
    hub(monkeypatch, train=rows, validation=rows)
    assert not load_data(DataSettings(task="someone/reviews")).task.named


@pytest.mark.parametrize(
    ("task", "messages"),
    [("glue/rte", ["--data-dir", "Couldn't reach it"]), ("someone/data", ["--train-file and --validation-file"])],
)
def test_the_hub_out_of_reach(monkeypatch, task, messages):
    def load_dataset(*arguments):
        raise ConnectionError("Couldn't reach it\n on the Hub.")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(UserError) as caught:
        load_data(DataSettings(task=task))
    for message in messages:
        assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not datasets.are_progress_bars_disabled()


def test_a_split_the_hub_does_not_have(monkeypatch):
    hub(monkeypatch, train=hub_rows(["a", "b"], cycle(0, 1)))
    with pytest.raises(UserError, match="no validation split, only train; give --validation-file"):
        load_data(DataSettings(task="someone/data"))
