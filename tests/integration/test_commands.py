"""The commands as a user gives them, in this process; `test_bad_input` has their errors."""

import csv
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
import yaml

from minidisc.cli.main import main
from minidisc.config import CompareSettings
from minidisc.errors import UserError
from minidisc.trainer import SandwichTrainer
from minidisc.values import settings_from
from tests.integration import tiny


def run(capsys, *arguments):
    """What a command prints."""
    main([str(argument) for argument in arguments])
    return capsys.readouterr().out


@pytest.fixture
def small(workplace):
    """Flags of a compression of a second or two."""
    values = {**tiny.settings(workplace, "unused", epochs=1), "grid": "0.25,0.5"}
    del values["output_dir"]
    return [part for name, value in values.items() for part in ("--" + name.replace("_", "-"), str(value))]


def test_finetune_compress_evaluate(workplace, tmp_path, capsys, small):
    out = run(
        capsys,
        *("finetune", "--model", workplace / "backbone", "--output-dir", tmp_path / "teacher"),
        *("--train-file", workplace / "train.csv", "--validation-file", workplace / "validation.csv"),
        *("--epochs", "1", "--device", "cpu"),
    )
    assert "teacher: accuracy " in out
    assert (tmp_path / "teacher" / "model.safetensors").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["teacher"]

    out = run(capsys, "compress", *small, "--output-dir", tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    lines = out.splitlines()
    assert any(line.startswith("estimate: about ") for line in lines)
    for row in results["candidates"]:
        assert any(f"{100 * row['sparsity']:g} %" in line and f"{row['tradeoff']:.4f}" in line for line in lines)
    assert [line.split()[0] for line in lines[-3:]] == ["teacher", "student", "report"]
    assert f"accuracy {results['student']['metrics']['accuracy']:.3f}" in lines[-2]
    assert lines[-1].endswith("report.html")

    flags = ("--model", tmp_path / "run" / "student", "--validation-file", workplace / "validation.csv")
    answer = json.loads(run(capsys, "evaluate", *flags, "--json"))
    assert answer["metrics"] == results["student"]["metrics"]
    assert answer["parameters"] == results["student"]["sizes"]["all"]
    assert answer["tokens_per_row"] is None
    # As it was compressed, which is not as its teacher was trained.
    assert (answer["max_length"], answer["max_length_from"]) == (16, "model")
    assert f"accuracy {answer['metrics']['accuracy']:.3f} on 60 rows" in run(capsys, "evaluate", *flags)


def test_a_dry_run_tells_the_plan_and_leaves_nothing(workplace, tmp_path, capsys, small, monkeypatch):
    def refuse(*_):
        raise AssertionError("nothing may be trained")

    monkeypatch.setattr(SandwichTrainer, "fit", refuse)
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in workplace.rglob("*")}
    out = run(capsys, "compress", *small, "--output-dir", tmp_path / "run", "--dry-run")
    # A quarter of the 160 rows is for selection; 16 rows make a batch.
    assert "stage 1: 25 %, 50 %, 75 %; at most 8 steps" in out
    assert "stage 2: 75 %" in out
    assert "estimate: about " in out
    assert not list(tmp_path.iterdir())
    assert {path: path.stat().st_mtime_ns for path in workplace.rglob("*")} == before


@pytest.mark.parametrize(("budget", "sparsest"), [(("--target-size", "20kB"), 95), (("--max-drop", "1%"), 50)])
def test_a_dry_run_of_a_budget_is_for_all_that_it_may_lead_to(tmp_path, capsys, small, budget, sparsest):
    at = small.index("--target-sparsity")
    flags = [*small[:at], *small[at + 2 :], *budget, "--output-dir", tmp_path / "run", "--dry-run"]
    out = run(capsys, "compress", *flags)
    assert f"{' '.join(budget)}: the run itself solves for the sparsity; this is for {sparsest} %" in out
    assert "stage 1: 25 %, 50 %" in out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["compress", "compare", "finetune"])
def test_a_folder_that_another_process_works_in_is_refused(workplace, tmp_path, capsys, small, command):
    fcntl = pytest.importorskip("fcntl")
    folder = tmp_path / (".run.training" if command == "finetune" else "run")
    folder.mkdir()
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("1234")
        file.flush()
        at = small.index("--target-sparsity")
        flags = {
            "compress": small,
            "compare": [*small[:at], *small[at + 2 :]],
            "finetune": ["--model", workplace / "backbone", *small[2:6]],
        }[command]
        with pytest.raises(SystemExit) as stopped:
            run(capsys, command, *flags, "--output-dir", tmp_path / "run")
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"minidisc: {folder} is in use by another process (pid 1234); ")
    assert error.count("\n") == 1
    # What a killed process leaves is in nobody's way.
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_a_runs_own_settings_repeat_it_and_flags_win(tmp_path, capsys, small):
    run(capsys, "compress", *small, "--output-dir", tmp_path / "one", "--schedule", "direct")
    config = tmp_path / "one" / "run.yaml"
    run(capsys, "compress", "--config", config, "--output-dir", tmp_path / "two")
    run(capsys, "compress", "--config", config, "--output-dir", tmp_path / "three", "--target-sparsity", "0.5")
    weights = [(tmp_path / name / "student" / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]
    settings = [yaml.safe_load((tmp_path / name / "run.yaml").read_text())["settings"] for name in ("one", "three")]
    assert settings[0].pop("target_sparsity") == 0.75
    assert settings[1].pop("target_sparsity") == 0.5
    assert settings[0].pop("output_dir") != settings[1].pop("output_dir")
    assert settings[0] == settings[1]


def test_a_file_need_not_have_all_settings(tmp_path, capsys, small):
    (tmp_path / "part.yaml").write_text("schedule: chain\nmax-steps: 1\ntrust-remote-code: true\n")
    # What is off by default, and on in the file of somebody else, can be turned off.
    flags = ("--config", tmp_path / "part.yaml", "--assistants", "0.5", "--no-trust-remote-code")
    flags += ("--output-dir", tmp_path / "run")
    run(capsys, "compress", *small, *flags)
    settings = yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())["settings"]
    assert (settings["schedule"], settings["assistants"], settings["max_steps"]) == ("chain", [0.5], 1)
    assert settings["trust_remote_code"] is False


def test_json_is_all_of_stdout_and_progress_goes_to_stderr(tmp_path, capsys, small):
    main(["compress", *small, "--output-dir", str(tmp_path / "run"), "--json"])
    shown = capsys.readouterr()
    assert json.loads(shown.out) == json.loads((tmp_path / "run" / "results.json").read_text())
    assert "estimate: about " in shown.err
    assert "sandwich-1 step 0: " in shown.err

    answer = json.loads(
        run(capsys, "extract", tmp_path / "run", "--sparsity", "0.5", *_to(tmp_path / "half"), "--json")
    )
    assert answer["sparsity"] == 0.5
    assert (tmp_path / "half" / "model.safetensors").is_file()
    assert json.loads(run(capsys, "report", tmp_path / "run", "--json")) == {
        "report": str(tmp_path / "run" / "report.html")
    }


def test_quiet_prints_the_result_alone(workplace, tmp_path, capsys, small):
    main(["compress", *small, "--output-dir", str(tmp_path / "run"), "--quiet"])
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.startswith("candidates: ")
    assert "step 0" not in shown.out

    flags = ("--model", workplace / "backbone", "--epochs", "1", "--device", "cpu", *_to(tmp_path / "teacher"))
    rows = ("--train-file", workplace / "train.csv", "--validation-file", workplace / "validation.csv")
    main([str(part) for part in ("finetune", *flags, *rows, "--quiet", "--json")])
    shown = capsys.readouterr()
    assert shown.err == ""
    answer = json.loads(shown.out)
    assert answer["output_dir"] == str(tmp_path / "teacher")
    assert 0 <= answer["metrics"]["accuracy"] <= 1


def _to(folder):
    return "--output-dir", folder


def test_the_shell_completes_commands_and_options():
    def completed(words):
        position = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
        run = [
            sys.executable,
            "-c",
            "import sys; sys.argv[0] = 'minidisc'; from minidisc.cli.main import main; main()",
        ]
        environment = {**os.environ, "_MINIDISC_COMPLETE": "complete_bash", **position}
        return subprocess.run(run, capture_output=True, text=True, env=environment).stdout.split()

    assert completed("minidisc comp") == ["compress", "compare"]
    assert completed("minidisc compress --target-p") == ["--target-params"]


def test_help_lists_only_what_works(capsys):
    out = run(capsys, "--help")
    commands = [line.split()[0] for line in out.partition("Commands:")[2].splitlines() if line.startswith("  ")]
    assert {
        "finetune",
        "compress",
        "compare",
        "evaluate",
        "export",
        "extract",
        "gather",
        "report",
        "push",
        "demo",
    } == set(commands)


def test_help_comes_without_heavy_imports():
    command = [sys.executable, "-X", "importtime", "-m", "minidisc", "compress", "--help"]
    # Where the terminal cannot show what the help holds, too.
    latin = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    result = subprocess.run(command, capture_output=True, text=True, encoding="latin-1", check=True, env=latin)
    assert "--target-sparsity ?" in result.stdout
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "minidisc.cli.main" in imported
    assert not imported & {"torch", "transformers", "datasets", "pandas"}


def test_a_package_that_is_run_and_imports_minidisc_can_load_students(tmp_path):
    # In the place of what takes seconds to import.
    stub = """
import sys, types
for name in ("minidisc.modeling", "minidisc.modeling.classes"):
    sys.modules[name] = types.ModuleType(name)
sys.modules[name].register = lambda: print("registered")
import minidisc
"""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").write_text(stub)
    (tmp_path / "app" / "main.py").write_text("print(__name__)\n")
    command = [sys.executable, "-m", "app.main", "minidisc"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert result.stdout.split() == ["registered", "__main__"]


@pytest.mark.parametrize("arguments", [["finetune"], ["compare"], ["compress", "--dry-run"]])
def test_what_runs_on_one_process_alone_says_so(monkeypatch, capsys, arguments):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == (
        "minidisc: only 'minidisc compress' runs on several processes; start other commands without a launcher.\n"
    )


def test_a_training_that_diverges_is_no_bad_input(monkeypatch, capsys):
    def diverge(*_, **__):
        raise FloatingPointError("the loss is not a number")

    monkeypatch.setattr("minidisc.cli.main.app", diverge)
    with pytest.raises(SystemExit) as stopped:
        main(["compress"])
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "minidisc: the loss is not a number\n"


@pytest.mark.parametrize(
    ("names", "cases"),
    [
        (("-1", "0", "1"), {(-1, 0): 0.0, (0, 1): 0.5, (-1, 1): 0.5}),
        (("LABEL_0", "LABEL_1", "LABEL_2"), {(0, 1): 0.0, (0, 2): 0.5}),
        (
            ("negative", "neutral", "positive"),
            {
                **{("negative", "neutral"): 0.0, ("Negative", "Neutral"): 0.0, ("NEUTRAL", "Positive"): 0.5},
                **{(0, 1): 0.0, (0, 2): 0.5},
            },
        ),
    ],
    ids=["numbers", "nameless", "named"],
)
def test_a_class_that_no_row_has_can_be_guessed_wrongly(tmp_path, capsys, names, cases):
    model = tiny.backbone(num_labels=3, id2label=dict(enumerate(names)))
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([1.0, 0.0, 2.0]))
    model.save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    # It always says the last: of some labels none, of others half.
    for labels, accuracy in cases.items():
        rows = [{"text": "fine warm", "label": labels[number % 2]} for number in range(20)]
        (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
        flags = ("--model", tmp_path / "model", "--validation-file", tmp_path / "rows.jsonl", "--max-length", "16")
        assert json.loads(run(capsys, "evaluate", *flags, "--json"))["metrics"]["accuracy"] == accuracy, labels


def test_evaluate_says_what_it_takes_outputs_without_names_for(tmp_path, caplog):
    tiny.backbone(num_labels=2, num_hidden_layers=1).save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    flags = ("--model", str(tmp_path / "model"), "--validation-file", str(tmp_path / "rows.csv"))
    for labels, said in (("pro", "contra"), True), (("0", "1"), False):
        (tmp_path / "rows.csv").write_text("text,label\n" + "".join(f"fine,{label}\n" for label in labels))
        caplog.clear()
        main(["evaluate", *flags])
        assert ("no names; its outputs are taken to be contra, pro, in this order." in caplog.text) is said


def test_rows_that_are_cut_are_counted(workplace, tmp_path, caplog, capsys, small):
    rows = ("--train-file", workplace / "train.csv", "--validation-file", workplace / "validation.csv")
    model = (
        "--model",
        workplace / "backbone",
        "--epochs",
        "1",
        "--device",
        "cpu",
        "--output-dir",
        tmp_path / "teacher",
    )
    commands = {
        "finetune": (*model, *rows),
        "evaluate": ("--model", workplace / "teacher", *rows[2:]),
        "compress": (*small, "--dry-run", "--output-dir", tmp_path / "run"),
    }
    for command, flags in commands.items():
        caplog.clear()
        main([command, *map(str, flags), "--max-length", "10", "--quiet"])
        said = caplog.text + capsys.readouterr().err
        for name, count in (("train", 160), ("validation", 60)):
            with (workplace / f"{name}.csv").open(encoding="utf-8") as file:
                longer = sum(len(row["text"].split()) > 8 for row in csv.DictReader(file))
            line = f"{longer} of {count} rows of {name}.csv are longer than --max-length 10 tokens and were cut."
            assert 0 < longer < count
            assert said.count(line) == (name == "validation" or command != "evaluate"), (command, name)
    caplog.clear()
    main(["evaluate", *map(str, commands["evaluate"]), "--max-length", "16"])
    assert "were cut" not in caplog.text


def test_finetune_says_that_a_teacher_has_learnt_nothing(workplace, tmp_path, caplog):
    rows = ("--train-file", workplace / "train.csv", "--validation-file", workplace / "validation.csv")
    for rate, said in (("1e-9", True), ("3e-3", False)):
        flags = (*rows, "--model", workplace / "backbone", "--epochs", "12", "--batch-size", "16", "--device", "cpu")
        caplog.clear()
        main(["finetune", *map(str, flags), "--learning-rate", rate, "--output-dir", str(tmp_path / rate), "--quiet"])
        assert ("on 60 rows where chance is 0.500: it may give one answer" in caplog.text) is said


def test_rows_that_are_trained_on_and_evaluated_are_told(workplace, tmp_path, caplog, capsys, small):
    rows = ("--train-file", workplace / "train.csv", "--validation-file", workplace / "train.csv")
    line = "160 of 160 validation rows (train.csv) have texts that the training rows (train.csv) have too"
    main(["compress", *map(str, (*small, *rows, "--dry-run", "--quiet", "--output-dir", tmp_path / "run"))])
    assert capsys.readouterr().err.count(line) == 1
    flags = (*rows, "--model", workplace / "backbone", "--max-steps", "1", "--device", "cpu")
    main(["finetune", *map(str, flags), "--output-dir", str(tmp_path / "teacher"), "--quiet"])
    assert caplog.text.count(line) == 1


def test_evaluate_cuts_rows_as_the_models_training_did(workplace, tmp_path, capsys):
    shutil.copytree(workplace / "teacher", tmp_path / "teacher")
    file = tmp_path / "teacher" / "config.json"
    config = json.loads(file.read_text())
    # Whoever generates text with transformers reads max_length.
    assert config.pop("minidisc_max_length") == 16
    assert "max_length" not in config
    for written, flags, expected in (
        ({"minidisc_max_length": 16}, (), (16, "model")),
        ({"minidisc_max_length": 6}, (), (6, "model")),
        ({"minidisc_max_length": 6}, ("--max-length", "16"), (16, "given")),
        ({"minidisc_max_length": "long"}, ("--max-length", "16"), (16, "given")),
    ):
        file.write_text(json.dumps({**config, **written}))
        evaluated = ("evaluate", "--model", tmp_path / "teacher", "--validation-file", workplace / "validation.csv")
        found = json.loads(run(capsys, *evaluated, *flags, "--json"))
        assert (found["max_length"], found["max_length_from"]) == expected
        assert (found["metrics"]["accuracy"] > 0.9) is (expected[0] == 16)
        shown = run(capsys, *evaluated, *flags)
        assert (f"validation.csv, --max-length {expected[0]} as in the model's training" in shown) is (not flags)
    tiny.backbone(max_position_embeddings=128).save_pretrained(tmp_path / "foreign")
    tiny.tokenizer().save_pretrained(tmp_path / "foreign")
    found = json.loads(run(capsys, "evaluate", "--model", tmp_path / "foreign", *map(str, evaluated[3:]), "--json"))
    assert (found["max_length"], found["max_length_from"]) == (128, "default")


def test_classes_that_are_numbers_in_another_order(tmp_path, capsys):
    model = tiny.backbone(num_labels=2, id2label={0: "1", 1: "0"})
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([1.0, 0.0]))
    model.save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    # It always says "1".
    rows = [{"text": "fine warm", "label": int(number < 15)} for number in range(20)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    flags = ("--model", tmp_path / "model", "--validation-file", tmp_path / "rows.jsonl", "--max-length", "16")
    assert json.loads(run(capsys, "evaluate", *flags, "--json"))["metrics"]["accuracy"] == 0.75


def test_commands_offer_what_they_use(capsys):
    for command in ("evaluate", "export"):
        shown = run(capsys, command, "--help")
        assert "--validation-file" in shown
        assert not any(flag in shown for flag in ("--train-file", "--max-train-rows", "--stream", "--seed"))


def test_a_comparison_takes_a_runs_target_and_says_what_it_leaves(tmp_path, capsys, monkeypatch):
    seen = []
    monkeypatch.setattr("minidisc.comparison.compare", lambda settings, **_: seen.append(settings) or sys.exit(0))
    (tmp_path / "run.yaml").write_text("target-sparsity: 0.5\nschedule: direct\nexamples: true\n")
    needed = {"teacher": "t", "train_file": "f", "output_dir": "o"}
    flags = [part for name, value in needed.items() for part in ("--" + name.replace("_", "-"), value)]
    for more, targets in (((), (0.5,)), (("--target-sparsities", "0.9"), (0.9,))):
        with pytest.raises(SystemExit):
            main(["compare", "--config", str(tmp_path / "run.yaml"), *flags, *more])
        assert seen.pop().target_sparsities == targets
        assert "run.yaml this command does not use schedule\n" in capsys.readouterr().err
    with pytest.raises(UserError, match="--target-sparsity says what one run makes; a comparison takes --target-sp"):
        settings_from(CompareSettings, {**needed, "target_sparsity": 0.5})
