"""Saved models are loaded in fresh processes, in each of the ways that users load them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import minidisc
from minidisc.extraction import extract, save_small
from minidisc.subnetworks import SubnetworkSpec
from tests.unit.families import MATRIX, tiny_tokenizer

SOURCE = Path(minidisc.__file__).parents[1]
SPEC = SubnetworkSpec(0.8, (2, 0, 1), (0, 11, 24))
TEXTS = ["w10 w20 w30", "w59", "w7 w7 w8 w9 w10 w11 w12", "nothing known w6"]
NAMES = {0: "bad", 1: "fair", 2: "good"}
DROPOUT = 0.17

# What every script below begins with: logits of all models of a folder, compared with those of this process.
COMMON = """
import json, pathlib, sys
import numpy as np, torch

folder = pathlib.Path(sys.argv[1])
families = sorted(path.name for path in folder.iterdir())
def check(family, model):
    saved = np.load(folder / family / "expected.npz")
    inputs = {name: torch.from_numpy(saved[name]) for name in saved.files if name != "logits"}
    with torch.no_grad():
        difference = np.abs(model.eval()(**inputs).logits.numpy() - saved["logits"]).max()
    assert difference <= 1e-5, (family, difference)
"""
HIDE_MINIDISC = """
import sys
class Hide:
    @staticmethod
    def find_spec(name, *rest):
        if name.partition(".")[0] == "minidisc":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hide)
"""
IMPORT = (
    COMMON
    + """
import minidisc
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
report = {}
for family in families:
    path = folder / family
    model, loading = AutoModelForSequenceClassification.from_pretrained(path, output_loading_info=True)
    assert not any(loading.values()), loading
    check(family, model)
    again = pathlib.Path(sys.argv[2]) / family
    model.save_pretrained(again)
    check(family, AutoModelForSequenceClassification.from_pretrained(again))
    assert len(AutoTokenizer.from_pretrained(path)) == 60
    config = AutoConfig.from_pretrained(path)
    report[family] = [type(model).__module__, config.model_type, config.id2label, config.to_dict()]
print(json.dumps(report))
"""
)
REMOTE_CODE = (
    HIDE_MINIDISC
    + COMMON
    + """
try:
    import minidisc
    raise SystemExit("minidisc must not be importable here")
except ModuleNotFoundError:
    pass
from transformers import AutoModelForSequenceClassification, pipeline
report = {}
for family in families:
    model = AutoModelForSequenceClassification.from_pretrained(folder / family, trust_remote_code=True)
    check(family, model)
    again = pathlib.Path(sys.argv[2]) / family
    model.save_pretrained(again)
    check(family, AutoModelForSequenceClassification.from_pretrained(again, trust_remote_code=True))
    classify = pipeline("text-classification", model=str(folder / family), trust_remote_code=True, device="cpu")
    report[family] = [type(model).__module__, classify(json.loads(sys.argv[3]), top_k=None)]
assert "minidisc" not in sys.modules
print(json.dumps(report))
"""
)


@pytest.fixture(scope="module")
def models():
    labels = {"id2label": NAMES, "label2id": {name: i for i, name in NAMES.items()}}
    return {f.name: extract(f.model(dropout=DROPOUT, **labels), SPEC) for f in MATRIX}


@pytest.fixture(scope="module")
def folder(models, tmp_path_factory):
    """One folder a family, each with what the model computes in this process."""
    folder = tmp_path_factory.mktemp("models")
    for family in MATRIX:
        model, inputs = models[family.name], family.inputs()
        save_small(model, tiny_tokenizer(), folder / family.name)
        with torch.no_grad():
            expected = model(**inputs).logits.numpy()
        arrays = {name: value.numpy() for name, value in inputs.items()}
        np.savez(folder / family.name / "expected.npz", logits=expected, **arrays)
    return folder


def run(script, tmp_path, *arguments):
    """Run Python code in a fresh process with empty caches; what it prints last is JSON."""
    result = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={
            **os.environ,
            "HF_HOME": str(tmp_path / "home"),
            "HF_MODULES_CACHE": str(tmp_path / "modules"),
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": str(SOURCE),
        },
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_after_import_minidisc(folder, tmp_path):
    report = run(IMPORT, tmp_path, folder, tmp_path / "again")
    for family in MATRIX:
        module, model_type, names, config = report[family.name]
        assert module.startswith("minidisc.")
        assert model_type == f"minidisc_{family.family}"
        assert names == {str(i): name for i, name in NAMES.items()}
        assert config["heads_per_layer"] == list(SPEC.heads)
        assert config["neurons_per_layer"] == list(SPEC.neurons)
        assert {config[name] for name in family.dropouts} == {DROPOUT}


def test_with_trust_remote_code_where_minidisc_is_not_installed(folder, models, tmp_path):
    report = run(REMOTE_CODE, tmp_path, folder, tmp_path / "again", json.dumps(TEXTS))
    tokenizer = tiny_tokenizer()
    for family in MATRIX:
        module, pipeline_scores = report[family.name]
        assert module.startswith("transformers_modules.")
        inputs = dict(tokenizer(TEXTS, padding=True, return_tensors="pt"))
        if not family.token_types:
            inputs.pop("token_type_ids", None)
        with torch.no_grad():
            expected = models[family.name](**inputs).logits.softmax(-1).numpy()
        for row, scores in zip(expected, pipeline_scores, strict=True):
            by_name = {s["label"]: s["score"] for s in scores}
            assert set(by_name) == set(NAMES.values())
            np.testing.assert_allclose([by_name[NAMES[i]] for i in range(3)], row, atol=1e-5)


def test_files(folder, models):
    for family in MATRIX:
        path = folder / family.name
        names = {file.name for file in path.iterdir()}
        assert {"config.json", "model.safetensors", "modeling_minidisc.py", "tokenizer.json"} <= names
        assert not [name for name in names if name.endswith((".bin", ".pt", ".tmp"))]
        weights = 4 * sum(p.numel() for p in models[family.name].parameters())
        size = (path / "model.safetensors").stat().st_size
        assert weights <= size < weights + 64 * 1024


def test_the_code_file_needs_only_torch_and_transformers(folder):
    for family in MATRIX:
        source = (folder / family.name / "modeling_minidisc.py").read_text()
        lines = [line for line in source.splitlines() if line.startswith(("import ", "from "))]
        roots = {line.split()[1].partition(".")[0] for line in lines}
        assert roots - sys.stdlib_module_names == {"torch", "transformers"}


def test_saving_again_replaces_the_folder(models, tmp_path):
    target = tmp_path / "student"
    for name in ("bert", "roberta"):
        save_small(models[name], tiny_tokenizer(), target)
        config = json.loads((target / "config.json").read_text())
        assert config["model_type"] == f"minidisc_{name}"
    assert [path.name for path in tmp_path.iterdir()] == ["student"]
