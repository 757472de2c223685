"""Every size that a run has trained comes out of it, with the metric that the run reported for it."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import MPNetConfig, MPNetForSequenceClassification

import minidisc
from minidisc import scoring
from minidisc.cli.main import main
from minidisc.importance import Importance
from minidisc.sizes import extract_size
from tests.integration import tiny


@pytest.fixture(scope="module")
def run(workplace, tmp_path_factory):
    """Selected on the validation rows, so that a test can count on them what the run reports."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    changes = {"select_on": "validation", "assistants": (0.5,), "learning_rate": 3e-3}
    return minidisc.compress(**tiny.settings(workplace, folder, **changes))


@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.75])
def test_every_trained_size(run, workplace, tmp_path, sparsity):
    made = extract_size(run.output_dir, sparsity, tmp_path / "model")
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    assert made["sizes"]["all"] == sum(t.numel() for t in tensors.values())
    assert made["selection_metrics"]["accuracy"] == pytest.approx(tiny.accuracy(tmp_path / "model", workplace))
    same_size = {0.5: "assistant", 0.75: "student"}.get(sparsity)
    if same_size:
        beside = run.output_dir / same_size
        assert {f.name for f in (tmp_path / "model").iterdir()} == {f.name for f in beside.iterdir()}
        for name, tensor in load_file(beside / "model.safetensors").items():
            assert torch.equal(tensors[name], tensor)
        config = json.loads((tmp_path / "model" / "config.json").read_text())
        assert config == json.loads((beside / "config.json").read_text())
        named = run.results["student"] if same_size == "student" else run.results["assistants"][0]
        assert made["sizes"] == named["sizes"]
    card = (tmp_path / "model" / "README.md").read_text()
    assert "On 60 selection rows (validation.csv)" in card
    assert f"| extracted | {made['selection_metrics']['accuracy']:.4f}" in card
    assert f"{100 * sparsity:g} % of heads and neurons removed" in card
    # Its code comes with it, as the card has to say.
    assert (tmp_path / "model" / "modeling_minidisc.py").is_file()
    assert "trust_remote_code=True" in card


def test_heads_are_in_the_order_of_the_stage_that_trained_them(workplace, tmp_path, monkeypatch):
    """MPNet's position biases are one table for all layers, so that a model has to know which head was which."""
    torch.manual_seed(0)
    config = MPNetConfig(
        vocab_size=46,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=8,
        intermediate_size=64,
        max_position_embeddings=34,
    )
    teacher = MPNetForSequenceClassification(config)
    with torch.no_grad():
        for name, parameter in teacher.named_parameters():
            parameter.mul_(100 if "relative_attention_bias" in name else 5 if parameter.dim() == 2 else 1)
    teacher.save_pretrained(tmp_path / "teacher")
    tiny.tokenizer().save_pretrained(tmp_path / "teacher")
    score, calls = scoring.compute_importance, []

    def turned_round(*args):
        """Of the assistant the teacher's least important heads are the most important ones."""
        found = score(*args)
        calls.append(found)
        present = found.heads >= 0
        return found if len(calls) == 1 else Importance(torch.where(present, 1 - found.heads, -1), found.neurons)

    monkeypatch.setattr(scoring, "compute_importance", turned_round)
    changes = {"second_importance": "assistant", "assistants": (0.25,), "grid": (0.25,), "max_steps": 2}
    settings = {**tiny.settings(workplace, tmp_path / "run", **changes), "teacher": str(tmp_path / "teacher")}
    result = minidisc.compress(**settings)
    extract_size(result.output_dir, 0.25, tmp_path / "model")
    assistant, extracted, student = (
        minidisc.from_pretrained(folder)
        for folder in (result.output_dir / "assistant", tmp_path / "model", result.student.path)
    )
    assert assistant.config.head_order != student.config.head_order
    ids = torch.arange(4, 40).reshape(4, 9)
    with torch.no_grad():
        assert torch.equal(assistant(ids).logits, extracted(ids).logits)


def test_shared_files_take_less_than_one_for_each_size(run):
    kept = run.results["kept"]
    assert {(row["stage"], row["sparsity"]) for row in kept} == {
        *(("sandwich-1", s) for s in (0.25, 0.5, 0.75)),
        ("student", 0.75),
    }
    files = {file.name for file in (run.output_dir / "sizes").iterdir()}
    assert files == {row["file"].removeprefix("sizes/") for row in kept}
    assert len(files) == len({(row["stage"], row["step"]) for row in kept})


def test_other_schedules(workplace, tmp_path):
    """The exhaustive search trains the target several times; a student of whole layers has fewer layers."""
    quick = {"epochs": 1, "select_on": "validation"}
    result = minidisc.compress(**tiny.settings(workplace, tmp_path / "all", schedule="maxidisc", **quick))
    made = extract_size(result.output_dir, 0.75, tmp_path / "of-all")
    assert made["selection_metrics"] == result.results["student"]["selection_metrics"]
    extract_size(result.output_dir, 0.25, tmp_path / "assistant")
    changes = {"schedule": "direct", "student": "layers"}
    result = minidisc.compress(**tiny.settings(workplace, tmp_path / "layers", **changes, **quick))
    made = extract_size(result.output_dir, 0.75, tmp_path / "of-layers")
    assert made["selection_metrics"]["accuracy"] == pytest.approx(tiny.accuracy(tmp_path / "of-layers", workplace))
    assert made["sizes"] == result.results["student"]["sizes"]


def test_nothing_is_kept_if_not_wanted(workplace, tmp_path, capsys):
    changes = {"schedule": "direct", "max_steps": 1, "keep_sizes": False}
    minidisc.compress(**tiny.settings(workplace, tmp_path / "run", **changes))
    assert not (tmp_path / "run" / "sizes").exists()
    assert "has kept no trained sizes" in _refused(capsys, tmp_path / "run", "0.75", tmp_path / "model")


def _refused(capsys, run, sparsity, output_dir):
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(["extract", str(run), "--sparsity", sparsity, "--output-dir", str(output_dir)])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("minidisc: ")
    assert error.count("\n") == 1
    return error


def test_what_cannot_be_had_is_refused(run, tmp_path, capsys):
    error = _refused(capsys, run.output_dir, "0.7", tmp_path / "model")
    assert "--sparsity is 0.7" in error
    assert "trained 0.25, 0.5, 0.75." in error
    assert "no finished run" in _refused(capsys, tmp_path / "nowhere", "0.5", tmp_path / "model")
    assert "a valid number" in _refused(capsys, run.output_dir, "much", tmp_path / "model")
    shutil.copytree(run.output_dir, tmp_path / "run")
    for file in (tmp_path / "run" / "sizes").iterdir():
        file.write_bytes(file.read_bytes()[:1000])
    assert "is gone or damaged" in _refused(capsys, tmp_path / "run", "0.5", tmp_path / "model")
    shutil.rmtree(tmp_path / "run" / "sizes")
    assert "is gone" in _refused(capsys, tmp_path / "run", "0.5", tmp_path / "model")
    assert not (tmp_path / "model").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    assert "not empty" in _refused(capsys, run.output_dir, "0.5", tmp_path / "full")


def test_the_command_says_what_it_took(run, tmp_path, capsys):
    main(["extract", str(run.output_dir), "--sparsity", "0.25", "--output-dir", str(tmp_path / "model")])
    assert capsys.readouterr().out.startswith("extracted 25 %: accuracy ")
    # A run that was moved is still a run.
    shutil.move(shutil.copytree(run.output_dir, tmp_path / "copy"), tmp_path / "moved")
    extract_size(tmp_path / "moved", 0.25, tmp_path / "again")
    names = ("model", "again")
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in names)
    assert first == second
