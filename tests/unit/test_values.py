import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from minidisc.comparison import gather
from minidisc.config import (
    CompressSettings,
    DataSettings,
    EvaluateSettings,
    ExportSettings,
    FinetuneSettings,
    TrainingSettings,
)
from minidisc.errors import UserError
from minidisc.evaluation import evaluate
from minidisc.exporting import export
from minidisc.finetuning import finetune
from minidisc.hub import push
from minidisc.pipeline import compress
from minidisc.reporting import report
from minidisc.sizes import extract_size
from minidisc.teachers import from_pretrained
from minidisc.values import fingerprint, settings_from

COMPRESS = {"teacher": "t", "output_dir": "o"}


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("target_sparsity", "0.95", 0.95),
        ("target-sparsity", 0.5, 0.5),
        ("learning_rate", "3e-5", 3e-5),
        ("epochs", 2, 2.0),
        ("batch_size", "16", 16),
        ("batch_size", 16.0, 16),
        ("max_steps", None, None),
        ("max_steps", "100", 100),
        ("max_steps", "1e3", 1000),
        ("grid", "0.5,0.7", (0.5, 0.7)),
        ("grid", "0.5, 0.7", (0.5, 0.7)),
        ("grid", [0.5, "0.7"], (0.5, 0.7)),
        ("grid", None, None),
        ("text_columns", "a,b", ("a", "b")),
        ("text_columns", ["a"], ("a",)),
        ("text-columns", " a , b ", ("a", "b")),
        ("keep_checkpoints", True, True),
        ("task", "glue/sst2", "glue/sst2"),
        ("train_file", Path("a.csv"), "a.csv"),
        ("output_dir", 2024, "2024"),
        ("text_columns", [1, np.str_("b")], ("1", "b")),
        ("seed", 0, 0),
    ],
)
def test_conversion(name, given, expected):
    settings = settings_from(CompressSettings, {**COMPRESS, name: given})
    value = getattr(settings, name.replace("-", "_"))
    assert value == expected
    assert type(value) is type(expected)


def test_settings_made_in_python_are_converted_alike():
    values = {
        "model": Path("m"),
        "output_dir": Path("o"),
        "text_columns": "text",
        "epochs": "3",
        "batch_size": np.int64(8),
        "seed": np.int64(1),
        "learning_rate": np.float32(0.5),
        "max_train_rows": 10.0,
    }
    expected = {
        "model": "m",
        "output_dir": "o",
        "text_columns": ("text",),
        "epochs": 3.0,
        "batch_size": 8,
        "seed": 1,
        "learning_rate": 0.5,
        "max_train_rows": 10,
    }
    made = dataclasses.asdict(FinetuneSettings(**values))
    found = {name: made[name] for name in expected}
    assert found == expected
    assert [type(value) for value in found.values()] == [type(value) for value in expected.values()]


@pytest.mark.parametrize(
    ("cls", "values", "message"),
    [
        (FinetuneSettings, {"batch_size": [1]}, r"^settings: batch_size is \[1\]; int is expected\.$"),
        (EvaluateSettings, {"batch_size": None}, r"^settings: batch_size is None; int is expected\.$"),
        (ExportSettings, {"int8": "yes"}, r"^settings: int8 is 'yes'; bool is expected\.$"),
        (DataSettings, {"text_columns": 3}, r"^settings: text_columns is 3; tuple"),
        (TrainingSettings, {"epochs": "many"}, r"^settings: epochs is 'many'; float is expected\.$"),
    ],
)
def test_settings_made_in_python_are_refused_alike(cls, values, message):
    with pytest.raises(UserError, match=message):
        cls(**values)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("teacher", nn.Sequential(nn.Linear(1, 1)), "a Sequential"),
        ("train_file", ["a.csv", "b.csv"], "['a.csv', 'b.csv']"),
        ("output_dir", b"run", "b'run'"),
        ("teacher", True, "True"),
        ("text_columns", [["a"]], "[['a']]"),
    ],
)
def test_what_is_no_text_is_refused(name, value, shown):
    with pytest.raises(UserError, match=rf"^settings: {name} is {re.escape(shown)}; .* is expected\.$"):
        settings_from(CompressSettings, {**COMPRESS, name: value})


@pytest.mark.parametrize("name", ["target_sparsity", "teacher", "text_columns", "schedule", "keep_sizes"])
def test_a_value_of_a_billion_parts_is_not_shown_in_full(name):
    value = ["lol"] * 9
    for _ in range(9):
        value = [value] * 9
    with pytest.raises(UserError) as caught:
        settings_from(CompressSettings, {**COMPRESS, name: value})
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", ["seed", "teacher", "learning_rate"])
def test_a_number_of_more_digits_than_python_writes(name):
    with pytest.raises(UserError, match=rf"^settings: {name} is a int; .* is expected\.$"):
        settings_from(CompressSettings, {**COMPRESS, name: 16**5000})


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"])
def test_what_no_file_can_be_called_is_refused(text):
    for values in ({"output_dir": text}, {"text_columns": ["a", text]}):
        with pytest.raises(UserError, match=r"^settings: \w+ is 'a\\\w+b', with a character that no path can have"):
            settings_from(CompressSettings, {**COMPRESS, **values})
    with pytest.raises(UserError, match=r"^source is 'a\\\w+b', with a character that no path can have"):
        from_pretrained(text)


@pytest.mark.parametrize(
    "call",
    [
        report,
        lambda run: report([run]),
        lambda run: extract_size(run, "0.5", "out"),
        lambda run: push(run, "me/x"),
        lambda folder: gather([folder], "out"),
    ],
)
def test_a_path_may_be_text_and_nothing_else(tmp_path, call):
    for path in (tmp_path / "run", str(tmp_path / "run")):
        with pytest.raises(UserError, match=f"^{path} holds no "):
            call(path)
    with pytest.raises(UserError, match=" is None; a path is expected"):
        call(None)


def test_a_size_is_a_number_or_the_text_of_one(tmp_path):
    with pytest.raises(UserError, match=r"^sparsity is 'half'; a number is expected\.$"):
        extract_size(tmp_path, "half", tmp_path / "out")


@pytest.mark.parametrize("settings", [COMPRESS, TrainingSettings()])
@pytest.mark.parametrize(
    ("call", "cls"),
    [
        (lambda settings: compress(settings=settings), CompressSettings),
        (evaluate, EvaluateSettings),
        (finetune, FinetuneSettings),
        (export, ExportSettings),
    ],
)
def test_settings_at_once_are_of_their_class(call, cls, settings):
    with pytest.raises(UserError, match=rf"^settings is .*; {cls.__name__} of minidisc\.config is expected\.$"):
        call(settings)


@pytest.mark.parametrize(("source", "shown"), [(None, "None"), (True, "True"), (nn.Identity(), "Identity()")])
def test_a_model_is_loaded_from_a_folder_or_a_hub_id(source, shown):
    with pytest.raises(UserError, match=rf"^source is {re.escape(shown)}; a folder or a Hub id is expected\.$"):
        from_pretrained(source)
    # Without its ./ it could be a Hub id.
    with pytest.raises(UserError, match=r"^\./nowhere does not exist"):
        from_pretrained("./nowhere")


@pytest.mark.parametrize("call", [from_pretrained, lambda folder: extract_size(folder, 0.5, "out")])
def test_a_tilde_is_the_home(tmp_path, monkeypatch, call):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "nowhere"))):
        call("~/nowhere")


def test_a_report_of_no_run_is_refused():
    with pytest.raises(UserError, match=r"^no run is given"):
        report([])


def test_the_source_is_named():
    with pytest.raises(UserError, match=r"^run\.yaml: unknown setting 'x'"):
        settings_from(CompressSettings, {"x": 1}, "run.yaml")


@pytest.mark.parametrize(
    "field",
    ["target_sparsity", "tradeoff_lambda", "learning_rate", "dropout", "selection_fraction", "stages", "batch_size"],
)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_what_is_no_number_is_refused(field, value):
    with pytest.raises(UserError):
        settings_from(CompressSettings, {**COMPRESS, field: value})


def test_fingerprint_tells_values_apart_but_not_their_order():
    assert fingerprint({"a": 1, "b": [2, 3]}) == fingerprint({"b": [2, 3], "a": 1})
    assert len({fingerprint(v) for v in ({"a": 1}, {"a": 2}, {"a": "1"}, {"b": 1}, [1], [1, 2], [2, 1])}) == 7
    # sha256sum of the text {"a": 1}; Python's own hash would differ from process to process.
    assert fingerprint({"a": 1}) == "f9d86028c6e0d64e"
