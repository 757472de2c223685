"""Every mistake a user can make ends in one clear line and exit code 2, and leaves nothing behind."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError
from transformers import AutoModelForSequenceClassification

from minidisc import compress
from minidisc.architectures import FAMILIES
from minidisc.cli.main import main
from minidisc.errors import UserError
from tests.integration import tiny

# (name, flags that are changed, words that the line must hold); None takes a flag away.
CASES = [
    ("no teacher", {"teacher": None}, ["--teacher is missing"]),
    ("teacher folder is not there", {"teacher": "./nowhere"}, ["./nowhere does not exist"]),
    ("teacher is no Hub id either", {"teacher": "nobody/nothing"}, ["'nobody/nothing'", "or a Hub id"]),
    ("teacher folder is empty", {"teacher": "{empty}"}, ["holds no config.json"]),
    (
        "unknown family",
        {"teacher": "{bloom}"},
        [
            "'bloom' is not known",
            ", ".join(FAMILIES),
            "docs/adding-a-family.md",
        ],
    ),
    ("teacher without its tokenizer", {"teacher": "{bare}"}, ["holds no tokenizer", "save_pretrained"]),
    ("teacher with too few embeddings", {"teacher": "{short}"}, ["train.csv", "embeddings for 20 alone"]),
    ("tokenizer that cannot pad", {"teacher": "{unpadded}"}, ["no padding token"]),
    ("teacher that gives several labels", {"teacher": "{several}"}, ["multi_label_classification"]),
    ("teacher of an odd configuration", {"teacher": "{odd}"}, ["cannot load a model", "hidden_size"]),
    ("pickled weights only", {"teacher": "{pickled}"}, ["safetensors"]),
    ("training file is not there", {"train-file": "absent.csv"}, ["absent.csv"]),
    ("no rows given", {"train-file": None, "validation-file": None}, ["--train-file"]),
    ("file of an unknown kind", {"train-file": "{odd.xlsx}"}, ["odd.xlsx", ".csv"]),
    ("empty file", {"train-file": "{empty.csv}"}, ["empty"]),
    ("text column is missing", {"text-columns": "review"}, ["'review'", "'text', 'label'"]),
    ("three text columns", {"text-columns": "a,b,c"}, ["--text-columns"]),
    ("label column is missing", {"label-column": "stars"}, ["'text', 'label'", "--label-column"]),
    (
        "one class only",
        {"train-file": "{one_class.csv}", "validation-file": "{one_class.csv}"},
        ["all labels are the same"],
    ),
    ("NaN labels", {"validation-file": "{nan.csv}"}, ["no label"]),
    ("too few rows", {"train-file": "{few.csv}"}, ["too few training rows"]),
    (
        "labels are not the teacher's",
        {"train-file": "{other.csv}", "validation-file": "{other.csv}"},
        ["'ham', 'spam'", "'contra', 'pro'"],
    ),
    ("regression rows, classifying teacher", {"task": "regression"}, ["number"]),
    ("sparsity of 1", {"target-sparsity": "1"}, ["--target-sparsity is 1", "[0, 1)"]),
    ("negative sparsity", {"target-sparsity": "-0.5"}, ["--target-sparsity is -0.5"]),
    ("sparsity of 0", {"target-sparsity": "0"}, ["as large as the teacher"]),
    ("sparsity is no number", {"target-sparsity": "much"}, ["target_sparsity is 'much'", "float"]),
    (
        "sparsity so small that nothing is removed",
        {"target-sparsity": "0.001", "grid": None, "schedule": "direct"},
        ["the teacher"],
    ),
    ("no candidate above the student", {"grid": "0.8,0.85"}, ["--grid"]),
    ("grid holds 1", {"grid": "0.5,1"}, ["--grid holds 1"]),
    ("unknown sampling", {"candidates-per-step": "some"}, ["largest+smallest+K"]),
    ("unknown schedule", {"schedule": "maxi"}, ["minidisc, direct"]),
    ("longer than the teacher's positions", {"max-length": "64"}, ["positions for 32 tokens"]),
    ("unknown optimiser", {"optimizer": "sgd"}, ["adamw, adafactor"]),
    ("device is not there", {"device": "tpu"}, ["auto, cpu, cuda, mps"]),
    ("unknown option", {"sparsity": "0.5"}, ["--sparsity"]),
    ("unknown benchmark", {"task": "glue/imdb"}, ["glue/sst2"]),
    ("configuration file is not there", {"config": "absent.yaml"}, ["absent.yaml"]),
    ("configuration of unknown settings", {"config": "{unknown.yaml}"}, ["'sparsty'"]),
    ("configuration with a blank", {"config": "{blank.yaml}"}, ["blank.yaml: epochs is None; float is expected"]),
    (
        "configuration that trusts code",
        {"config": "{trusting.yaml}"},
        ["asks that code", "--trust-remote-code if"],
    ),
    ("configuration is no mapping", {"config": "{list.yaml}"}, ["YAML mapping"]),
    ("configuration without settings", {"config": "{none.yaml}"}, ["YAML mapping"]),
    ("configuration whose names are numbers", {"config": "{numbers.yaml}"}, ["YAML mapping"]),
    ("seed that no generator takes", {"seed": "4294967296"}, ["--seed is 4294967296", "to 4294967295"]),
    ("negative weight decay", {"weight-decay": "-1"}, ["--weight-decay is -1", "not be negative"]),
    ("output folder in a file", {"output-dir": "{odd.xlsx}/run"}, ["cannot be made", "odd.xlsx is a file"]),
    ("a drop that chooses among one size", {"target-sparsity": None, "max-drop": "1%", "grid": "0.5"}, ["one size"]),
    ("output folder holds something else", {"output-dir": "{full}"}, ["is not empty"]),
    ("output folder that is no Unicode", {"output-dir": "r\udce9sultats"}, ["'r\\udce9sultats'", "not UTF-8"]),
    ("output folder is a file", {"output-dir": "{odd.xlsx}"}, ["is a file"]),
]


@pytest.fixture(scope="module")
def mistakes(workplace, tmp_path_factory):
    """Files and folders that are wrong, each in one way."""
    folder = tmp_path_factory.mktemp("mistakes")
    lines = (workplace / "train.csv").read_text().splitlines()
    (folder / "empty").mkdir()
    (folder / "empty.csv").write_text("")
    (folder / "odd.xlsx").write_text("not a table")
    (folder / "few.csv").write_text("\n".join(lines[:8]) + "\n")
    (folder / "one_class.csv").write_text("\n".join([lines[0], *(x for x in lines if x.endswith(",pro"))]) + "\n")
    (folder / "nan.csv").write_text("\n".join([*lines[:30], "no label here,"]) + "\n")
    (folder / "other.csv").write_text("\n".join(lines).replace(",pro", ",spam").replace(",contra", ",ham") + "\n")
    (folder / "unknown.yaml").write_text("sparsty: 0.5\n")
    (folder / "blank.yaml").write_text("epochs:\n")
    (folder / "trusting.yaml").write_text("trust-remote-code: true\n")
    (folder / "list.yaml").write_text("- 1\n- 2\n")
    (folder / "none.yaml").write_text("settings:\n")
    (folder / "numbers.yaml").write_text("1: 0.5\n")
    _teachers(workplace / "teacher", folder)
    (folder / "bloom").mkdir()
    (folder / "bloom" / "config.json").write_text(json.dumps({"model_type": "bloom"}))
    (folder / "full").mkdir()
    (folder / "full" / "thesis.txt").write_text("years of work")
    (folder / "pickled").mkdir()
    for file in (workplace / "teacher").iterdir():
        if file.suffix == ".json":
            (folder / "pickled" / file.name).write_bytes(file.read_bytes())
    (folder / "pickled" / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    return folder


def _teachers(teacher, folder):
    """Copies of a teacher with one mistake each."""
    for name in ("bare", "short", "unpadded", "several", "odd"):
        shutil.copytree(teacher, folder / name)
    for file in (folder / "bare").glob("*token*"):
        file.unlink()
    model = AutoModelForSequenceClassification.from_pretrained(teacher)
    model.resize_token_embeddings(20)
    model.save_pretrained(folder / "short")
    unpadded = tiny.tokenizer()
    unpadded.pad_token = None
    unpadded.save_pretrained(folder / "unpadded")
    config = json.loads((teacher / "config.json").read_text())
    for name, change in (("several", {"problem_type": "multi_label_classification"}), ("odd", {"hidden_size": "32"})):
        (folder / name / "config.json").write_text(json.dumps({**config, **change}))


@pytest.mark.parametrize(("name", "changes", "words"), CASES, ids=[case[0] for case in CASES])
def test_one_clear_line_and_exit_code_2(workplace, mistakes, tmp_path, monkeypatch, capsys, name, changes, words):
    monkeypatch.chdir(tmp_path)
    flags = {
        "teacher": str(workplace / "teacher"),
        "train-file": str(workplace / "train.csv"),
        "validation-file": str(workplace / "validation.csv"),
        "target-sparsity": "0.75",
        "grid": "0.25,0.5",
        "max-length": "16",
        "output-dir": str(tmp_path / "run"),
    }
    for flag, value in changes.items():
        if value is not None and value.startswith("{"):
            value = str(mistakes / value.replace("{", "").replace("}", ""))
        flags[flag] = value
    arguments = [part for flag, value in flags.items() if value is not None for part in (f"--{flag}", value)]
    before = sorted(mistakes.rglob("*"))
    with pytest.raises(SystemExit) as stopped:
        main(["compress", *arguments])
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert error.startswith("minidisc: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error
    for word in words:
        assert word in error
    assert not (tmp_path / "run").exists()
    assert sorted(mistakes.rglob("*")) == before


def test_the_command_itself_exits_with_2_and_prints_no_traceback(tmp_path):
    # Without a teacher, which it says before it has loaded torch.
    command = [sys.executable, "-m", "minidisc", "compress", "--output-dir", str(tmp_path / "run")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr == "minidisc: --teacher is missing; give a folder or a Hub id of a fine-tuned model.\n"
    assert result.stdout == ""


def test_a_full_disk_is_refused(workplace, tmp_path, monkeypatch):
    run = tiny.settings(workplace, tmp_path / "run", max_steps=1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(UserError, match="has 0\\.0 GB free"):
        compress(**run)
    assert not (tmp_path / "run").exists()
    # A few megabytes are enough for a few small rows' outputs, whatever --teacher-cache allows.
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 0, 10**7))
    finished = compress(**run)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 0))
    assert compress(**run, resume=True) == finished
    # What a run has written already is a part of what it needs.
    (tmp_path / "run" / "results.json").unlink()
    (tmp_path / "run" / "checkpoints").mkdir()
    (tmp_path / "run" / "checkpoints" / "half").write_bytes(bytes(10**7))
    assert compress(**run, resume=True).student.metrics == finished.student.metrics


def _finetuning(workplace, folder):
    rows = ("--train-file", str(workplace / "train.csv"), "--validation-file", str(workplace / "validation.csv"))
    flags = ("--model", str(workplace / "backbone"), "--max-steps", "1", "--device", "cpu")
    return "finetune", *flags, *rows, "--output-dir", str(folder)


def test_fine_tuning_looks_at_the_disk_first(workplace, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000))
    _refused(capsys, "has 0.0 GB free", *_finetuning(workplace, tmp_path / "teacher"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (
            "minidisc.checkpoints.save_file",
            SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        ),
        ("torch.save", RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")),
    ],
    ids=["weights", "moments"],
)
def test_a_disk_that_fills_up_is_one_line(workplace, tmp_path, monkeypatch, capsys, function, error):
    def full(*_, **__):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 0))
        raise error

    command = _finetuning(workplace, tmp_path / "teacher")
    with monkeypatch.context() as patch:
        patch.setattr(function, full)
        _refused(capsys, "no space left on device; make room on the disk; go on with: minidisc finetune", *command)
    monkeypatch.undo()
    main([*command, "--resume"])
    assert [path.name for path in tmp_path.iterdir()] == ["teacher"]


@pytest.mark.parametrize("command", ["finetune", "evaluate"])
def test_rows_that_are_longer_than_the_models_positions(workplace, tmp_path, capsys, command):
    shutil.copytree(workplace / "teacher", tmp_path / "model")
    config = tmp_path / "model" / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_max_length": 10**30}))
    output = ("--output-dir", str(tmp_path / "out"), "--train-file", str(workplace / "train.csv"))
    rows = ("--validation-file", str(workplace / "validation.csv"), *(output if command == "finetune" else ()))
    given = ("--model", str(tmp_path / "model"), "--max-length", "33", *rows)
    _refused(capsys, "positions for 32 tokens", command, *given)
    assert not (tmp_path / "out").exists()


def test_a_file_of_weights_that_was_cut_short(workplace, tmp_path, capsys):
    shutil.copytree(workplace / "teacher", tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    rows = ("--validation-file", str(workplace / "validation.csv"), "--max-length", "16")
    _refused(capsys, "cannot load weights", "evaluate", "--model", str(tmp_path / "model"), *rows)


def test_an_untrained_classifier_is_not_evaluated(workplace, tmp_path, capsys):
    AutoModelForSequenceClassification.from_pretrained(workplace / "teacher").base_model.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    rows = ("--validation-file", str(workplace / "validation.csv"), "--max-length", "16")
    _refused(capsys, "no trained weights for classifier", "evaluate", "--model", str(tmp_path), *rows)


def test_an_untrained_pooler_is_not_evaluated(workplace, tmp_path, capsys):
    """A BERT's classifier reads nothing else."""
    model = AutoModelForSequenceClassification.from_pretrained(workplace / "teacher")
    weights = {name: values for name, values in model.state_dict().items() if "pooler" not in name}
    model.save_pretrained(tmp_path, state_dict=weights)
    tiny.tokenizer().save_pretrained(tmp_path)
    capsys.readouterr()
    rows = ("--validation-file", str(workplace / "validation.csv"), "--max-length", "16")
    _refused(capsys, "no trained weights for bert.pooler", "evaluate", "--model", str(tmp_path), *rows)


@pytest.mark.parametrize("command", ["finetune", "compress", "evaluate", "export"])
@pytest.mark.parametrize(("layers", "words"), [(12, "lack 144 of the layers"), (1, "hold 32 that")])
def test_a_configuration_of_more_or_fewer_layers(workplace, tmp_path, capsys, command, layers, words):
    shutil.copytree(workplace / "teacher", tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_hidden_layers": layers}))
    output = ("--output-dir", str(tmp_path / "out"))
    training = ("--train-file", str(workplace / "train.csv"), *output)
    more = {
        "finetune": training,
        "compress": (*training, "--target-sparsity", "0.5"),
        "evaluate": (),
        "export": output,
    }[command]
    rows = ("--validation-file", str(workplace / "validation.csv"), "--max-length", "16")
    option = "--teacher" if command == "compress" else "--model"
    _refused(capsys, words, command, option, str(tmp_path / "model"), *rows, *more)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["finetune", "evaluate", "export"])
def test_what_cannot_be_trained_leaves_nothing(workplace, mistakes, tmp_path, capsys, command):
    rows = ("--validation-file", str(workplace / "validation.csv"), "--max-length", "16")
    more = {
        "finetune": ("--train-file", str(workplace / "train.csv"), "--output-dir", str(tmp_path / "teacher")),
        "evaluate": (),
        "export": ("--output-dir", str(tmp_path / "onnx")),
    }[command]
    for name, words in (("bare", "holds no tokenizer"), ("short", "embeddings for 20"), ("unpadded", "no padding")):
        _refused(capsys, words, command, "--model", str(mistakes / name), *rows, *more)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("errno", "words"), [(errno.EACCES, "permission denied"), (errno.ENOSPC, "no space left"), (errno.EIO, None)]
)
def test_what_the_system_refuses_is_one_line(monkeypatch, capsys, errno, words):
    def refused(*_):
        raise OSError(errno, os.strerror(errno), *path)

    path = ("there/run.yaml",)

    monkeypatch.setattr("minidisc.reporting.report", refused)
    if words:
        _refused(capsys, f"there/run.yaml: {words}", "report", "run")
        # A write that fails names no file.
        path = ()
        if words == "no space left":
            _refused(capsys, f"minidisc: {words}", "report", "run")
    else:
        with pytest.raises(OSError, match="there"):
            main(["report", "run"])


@pytest.mark.parametrize("given", ["--validation-file", "--model"])
def test_a_name_that_is_too_long_is_one_line(workplace, tmp_path, capsys, given):
    name = 300 * "a" + ".csv"
    paths = {
        "--model": workplace / "teacher",
        "--validation-file": workplace / "validation.csv",
        given: tmp_path / name,
    }
    _refused(capsys, "file name too long", "evaluate", *(str(part) for pair in paths.items() for part in pair))


@pytest.mark.parametrize("content", ["{}", "[1]", "no JSON", '{"teacher": 5}'])
def test_results_of_something_else(tmp_path, capsys, content):
    (tmp_path / "results.json").write_text(content)
    _refused(capsys, "not what 'minidisc compress' has written", "report", str(tmp_path))


def test_the_place_of_a_disk_is_not_replaced(workplace, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Path, "is_mount", lambda path: path == tmp_path / "disk")
    (tmp_path / "disk").mkdir()
    rows = ("--train-file", str(workplace / "train.csv"), "--validation-file", str(workplace / "validation.csv"))
    model = ("--model", str(workplace / "backbone"))
    _refused(capsys, "where a disk is mounted", "finetune", *model, "--output-dir", str(tmp_path / "disk"), *rows)


def test_the_folder_that_the_command_runs_in_is_not_replaced(workplace, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = ("--train-file", str(workplace / "train.csv"), "--validation-file", str(workplace / "validation.csv"))
    model = ("--model", str(workplace / "backbone"))
    _refused(capsys, "folder that this runs in", "finetune", *model, "--output-dir", ".", *rows)
    assert not list(tmp_path.iterdir())


def _refused(capsys, words, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert error.startswith("minidisc: ")
    assert error.count("\n") == 1
    assert words in error
