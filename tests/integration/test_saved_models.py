"""Saved models are loaded in fresh processes, in each of the ways that users load them."""

import dataclasses
import json
import shutil
import sys
from unittest.mock import create_autospec

import huggingface_hub
import numpy as np
import pytest
import torch
import transformers
from huggingface_hub import ModelCard
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from minidisc.architectures import architecture_for
from minidisc.extraction import extract, save_small
from minidisc.low_rank import factorise
from minidisc.nested import order_by_importance
from minidisc.subnetworks import SubnetworkSpec
from tests.integration.fresh import run
from tests.unit.families import BERT, ENCT5, LLAMA, MATRIX, ROBERTA, T5_ENCODER, tiny_tokenizer

SPEC = SubnetworkSpec(0.8, (2, 0, 1), (0, 11, 24))
TEXTS = ["w10 w20 w30", "w59", "w7 w7 w8 w9 w10 w11 w12", "nothing known w6"]
NAMES = {0: "bad", 1: "fair", 2: "good"}
TAGS = {0: "O", 1: "B-PER", 2: "I-PER"}
DROPOUT = 0.17
# Every family with every head: name of the saved model, how it is built, what its outputs are called.
CASES = {
    f"{family.name}-{head}": (family, head, {"sentences": NAMES, "words": TAGS}[head])
    for family in MATRIX
    for head in ("sentences", "words")
    if head == "sentences" or family.token_class
}
# With word embeddings of low rank.
CASES |= {f"{family.name}-thin-sentences": (family, "sentences", NAMES) for family in (BERT, ROBERTA, LLAMA)}

# Of full width, in classes that transformers lacks.
WHOLE = {"t5-encoder-whole-sentences": T5_ENCODER, "enct5-whole-sentences": ENCT5}

# What every script below begins with: logits of all models of a folder, compared with those of this process.
COMMON = """
import json, pathlib, sys
import numpy as np, torch

from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification
folder = pathlib.Path(sys.argv[1])
cases = sorted(path.name for path in folder.iterdir())
def auto(case):
    return AutoModelForTokenClassification if case.endswith("words") else AutoModelForSequenceClassification
def check(case, model):
    saved = np.load(folder / case / "expected.npz")
    inputs = {name: torch.from_numpy(saved[name]) for name in saved.files if name != "logits"}
    with torch.no_grad():
        difference = np.abs(model.eval()(**inputs).logits.numpy() - saved["logits"]).max()
    assert difference <= 1e-5, (case, difference)
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
from transformers import AutoConfig, AutoTokenizer
report = {}
for case in cases:
    path = folder / case
    model, loading = auto(case).from_pretrained(path, output_loading_info=True)
    assert not any(loading.values()), loading
    check(case, model)
    check(case, minidisc.from_pretrained(path))
    again = pathlib.Path(sys.argv[2]) / case
    model.save_pretrained(again)
    check(case, auto(case).from_pretrained(again))
    assert len(AutoTokenizer.from_pretrained(path)) == 60
    config = AutoConfig.from_pretrained(path)
    report[case] = [type(model).__module__, config.model_type, config.id2label, config.to_dict()]
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
from transformers import pipeline
report = {}
for case in cases:
    model = auto(case).from_pretrained(folder / case, trust_remote_code=True)
    check(case, model)
    again = pathlib.Path(sys.argv[2]) / case
    model.save_pretrained(again)
    check(case, auto(case).from_pretrained(again, trust_remote_code=True))
    task = "token-classification" if case.endswith("words") else "text-classification"
    arguments = {"ignore_labels": []} if case.endswith("words") else {"top_k": None}
    apply = pipeline(task, model=str(folder / case), trust_remote_code=True, device="cpu")
    answer = json.dumps(apply(json.loads(sys.argv[3]), **arguments), default=float)
    report[case] = [type(model).__module__, json.loads(answer)]
assert "minidisc" not in sys.modules
print(json.dumps(report))
"""
)
SAVED_AGAIN = (
    HIDE_MINIDISC
    + COMMON
    + """
for case in cases:
    check(case, auto(case).from_pretrained(folder / case, trust_remote_code=True))
assert "minidisc" not in sys.modules
print(json.dumps(cases))
"""
)


@pytest.fixture(scope="module")
def models():
    def small(case, family, head, names):
        build = family.token_model if head == "words" else family.model
        teacher = build(dropout=DROPOUT, id2label=names, label2id={name: i for i, name in names.items()})
        plain = dataclasses.replace(family, decoder_layers=0) if head == "words" else family
        order_by_importance(teacher, architecture_for(family.family), plain.importance(1))
        if "thin" in case:
            factorise(teacher, 7, torch.ones(teacher.config.vocab_size))
        return extract(teacher, plain.fit(SPEC))

    return {case: small(case, *values) for case, values in CASES.items()}


@pytest.fixture(scope="module")
def folder(models, tmp_path_factory):
    """One folder a model, each with what the model computes in this process."""
    folder = tmp_path_factory.mktemp("models")
    for case, (family, _, _) in CASES.items():
        save_small(models[case], tiny_tokenizer(), folder / case)
        write_expected(folder / case, models[case], family)
    for case, family in WHOLE.items():
        model = family.model(num_labels=3)
        model.save_pretrained(folder / case)
        tiny_tokenizer().save_pretrained(folder / case)
        write_expected(folder / case, model, family)
    return folder


def write_expected(folder, model, family):
    inputs = family.inputs()
    with torch.no_grad():
        arrays = {name: value.numpy() for name, value in {**inputs, "logits": model(**inputs).logits}.items()}
    np.savez(folder / "expected.npz", **arrays)


def test_after_import_minidisc(folder, tmp_path):
    report = run(IMPORT, tmp_path, folder, tmp_path / "again")
    for case, (family, head, labels) in CASES.items():
        module, model_type, names, config = report[case]
        spec = SPEC if head == "words" else family.fit(SPEC)
        assert module.startswith("minidisc.")
        assert model_type == f"minidisc_{family.family}"
        assert names == {str(i): name for i, name in labels.items()}
        assert config["heads_per_layer"] == list(spec.heads)
        assert config["neurons_per_layer"] == list(spec.neurons)
        assert {config[name] for name in family.dropouts} == {DROPOUT}
    for case in WHOLE:
        assert report[case][0].startswith("minidisc.")
    # What that process has saved again is for others, who may not have minidisc.
    for case in (*CASES, *WHOLE):
        shutil.copy(folder / case / "expected.npz", tmp_path / "again" / case)
    assert run(SAVED_AGAIN, tmp_path, tmp_path / "again") == sorted((*CASES, *WHOLE))


def test_with_trust_remote_code_where_minidisc_is_not_installed(folder, models, tmp_path):
    report = run(REMOTE_CODE, tmp_path, folder, tmp_path / "again", json.dumps(TEXTS))
    for case in WHOLE:
        assert report[case][0].startswith("transformers_modules.")
    tokenizer = tiny_tokenizer()
    for case, (family, head, names) in CASES.items():
        module, answers = report[case]
        assert module.startswith("transformers_modules.")
        inputs = dict(tokenizer(TEXTS, padding=True, return_tensors="pt"))
        if not family.token_types:
            inputs.pop("token_type_ids", None)
        with torch.no_grad():
            expected = models[case](**inputs).logits.softmax(-1).numpy()
        for text, row, answer in zip(TEXTS, expected, answers, strict=True):
            if head == "sentences":
                by_name = {s["label"]: s["score"] for s in answer}
                assert set(by_name) == set(names.values())
                np.testing.assert_allclose([by_name[names[i]] for i in range(3)], row, atol=1e-5)
            else:
                words = row[1 : len(text.split()) + 1]
                assert [s["entity"] for s in answer] == [names[i] for i in words.argmax(1)]
                np.testing.assert_allclose([s["score"] for s in answer], words.max(1), atol=1e-5)


def test_files(folder, models):
    for case in CASES:
        path = folder / case
        names = {file.name for file in path.iterdir()}
        assert {"config.json", "model.safetensors", "modeling_minidisc.py", "tokenizer.json"} <= names
        assert not [name for name in names if name.endswith((".bin", ".pt", ".tmp"))]
        weights = 4 * sum(p.numel() for p in models[case].parameters())
        size = (path / "model.safetensors").stat().st_size
        assert weights <= size < weights + 64 * 1024


def test_a_model_pushed_as_it_is_saved_takes_its_code_file_along(models, tmp_path, monkeypatch):
    api = create_autospec(huggingface_hub.HfApi, instance=True)
    api.create_repo.return_value = huggingface_hub.RepoUrl("https://huggingface.co/me/student")
    monkeypatch.setattr(transformers.utils.hub, "hf_api", lambda: api)
    monkeypatch.setattr(transformers.modeling_utils, "hf_api", lambda: api)
    monkeypatch.setattr(transformers.utils.hub, "create_and_tag_model_card", lambda *_, **__: ModelCard("a card"))
    monkeypatch.setattr(transformers.modeling_utils, "create_and_tag_model_card", lambda *_, **__: ModelCard("a card"))
    model = next(iter(models.values()))
    model.save_pretrained(tmp_path / "student", push_to_hub=True, repo_id="me/student")
    model.push_to_hub("me/student")
    for call in api.create_commit.call_args_list:
        sent = {operation.path_in_repo for operation in call.kwargs["operations"]}
        assert {"config.json", "model.safetensors", "modeling_minidisc.py"} <= sent
    assert api.create_commit.call_count == 2


def test_the_code_file_needs_only_torch_and_transformers(folder):
    for case in CASES:
        source = (folder / case / "modeling_minidisc.py").read_text()
        lines = [line for line in source.splitlines() if line.startswith(("import ", "from "))]
        roots = {line.split()[1].partition(".")[0] for line in lines}
        assert roots - sys.stdlib_module_names == {"torch", "transformers"}


def test_the_code_file_and_the_configuration_name_the_one_class_of_the_head(folder):
    for case, (_, head, _) in CASES.items():
        config = json.loads((folder / case / "config.json").read_text())
        source = (folder / case / "modeling_minidisc.py").read_text()
        needed, other = "ForTokenClassification", "ForSequenceClassification"
        if head == "sentences":
            needed, other = other, needed
        assert set(config["auto_map"]) == {"AutoConfig", f"AutoModel{needed}"}
        assert [name.endswith(needed) for name in config["architectures"]] == [True]
        assert needed in source
        assert other not in source


def test_the_narrow_classes_of_a_family_share_their_configuration(models):
    for family in [row for row in MATRIX if row.token_class]:
        sentences, words = (models[f"{family.name}-{head}"] for head in ("sentences", "words"))
        assert type(sentences.config) is type(words.config)
        assert type(sentences) is not type(words)
        for auto, model in ((AutoModelForSequenceClassification, sentences), (AutoModelForTokenClassification, words)):
            assert auto._model_mapping[type(model.config)] is type(model)


def test_saving_again_replaces_the_folder(models, tmp_path):
    target = tmp_path / "student"
    for name in ("bert", "roberta"):
        save_small(models[f"{name}-words"], tiny_tokenizer(), target)
        config = json.loads((target / "config.json").read_text())
        assert config["model_type"] == f"minidisc_{name}"
    assert [path.name for path in tmp_path.iterdir()] == ["student"]
