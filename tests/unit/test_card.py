"""The card is read back with the library that the Hub's own checks use."""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard

from minidisc.card import sampling_error, shown_name, write_card
from minidisc.foreign_text import as_code, in_markdown
from minidisc.modeling.classes import CODE_FILE
from minidisc.tasks import METRICS


def model(folder, sparsity, value, metrics=("accuracy",)):
    return {
        "sparsity": sparsity,
        "heads": [2, 0],
        "neurons": [8, 16],
        "path": str(folder),
        "sizes": {"prunable": 1_052_216, "without_embeddings": 1_214_650, "all": 13_133_242},
        "metrics": {**dict.fromkeys(metrics, value), "metric": value},
    }


def results(folder, metrics=("accuracy",), kind="classification", **settings):
    return {
        "task": {"name": settings.get("task") or kind, "kind": kind, "metrics": list(metrics)},
        "rows": {
            "train": {"source": "train.csv", "count": 1200},
            "selection": {"source": "held out of train.csv", "count": 400},
            "validation": {"source": "dev.csv", "count": 400},
        },
        "teacher": model(folder / "teacher", 0.0, 0.9, metrics),
        "assistants": [model(folder / "assistant", 0.6, 0.85, metrics)],
        "student": model(folder / "student", 0.9, 0.8, metrics),
        "versions": {"minidisc": "0.1.0", "torch": "2.13.0"},
        "warnings": ["the teacher is <odd>"],
        "settings": {
            "teacher": str(folder / "teacher"),
            "task": None,
            "train_file": "train.csv",
            "validation_file": "dev.csv",
            "train_text": None,
            "data_dir": None,
            "schedule": "minidisc",
            "loss": "hidden+logits",
            "select_on": "train",
            "target_sparsity": 0.9,
            "tradeoff_lambda": 0.2,
            "epochs": 5.0,
            "max_steps": None,
            "batch_size": 32,
            "learning_rate": 1e-4,
            "max_length": 64,
            "seed": 0,
            "precision": "fp32",
            **settings,
        },
    }


def card(content, which="student", plain=False):
    entry = content["student"] if which == "student" else content["assistants"][0]
    if not plain:
        code = Path(entry["path"]) / CODE_FILE
        code.parent.mkdir(exist_ok=True)
        code.touch()
    write_card(content, entry)
    return ModelCard.load(entry["path"] + "/README.md")


def test_metadata(tmp_path):
    (tmp_path / "teacher").mkdir()
    data = card(results(tmp_path)).data
    assert (data.library_name, data.pipeline_tag, data.metrics) == (
        "transformers",
        "text-classification",
        ["accuracy"],
    )
    assert {"minidisc", "distillation", "arxiv:2205.14570"} <= set(data.tags)
    (found,) = data.eval_results
    assert (found.metric_type, found.metric_value, found.dataset_split) == ("accuracy", 0.8, "dev.csv")
    # Nothing is invented: a local teacher has no name on the Hub, and own files are no data set there.
    assert data.base_model is data.datasets is data.license is None
    assert str(tmp_path) not in (tmp_path / "student" / "README.md").read_text()


def test_a_teacher_and_rows_from_the_hub(tmp_path):
    own = {"train_file": None, "validation_file": None}
    content = results(tmp_path, ["pearson", "spearman"], "regression", teacher="who/bert", task="glue/stsb", **own)
    data = card(content).data
    assert (data.base_model, data.datasets) == ("who/bert", ["nyu-mll/glue"])
    assert data.metrics == ["pearsonr", "spearmanr"]
    assert [r.dataset_config for r in data.eval_results] == ["stsb", "stsb"]


@pytest.mark.parametrize(
    ("source", "splits"),
    [
        ("test", ["test"]),
        ("validation_matched", ["validation_matched"]),
        ("validation_matched.jsonl.gz", ["validation_matched"]),
        ("the rest of validation", []),
    ],
)
def test_results_are_of_the_split_that_was_read_and_of_all_of_it(tmp_path, source, splits):
    content = results(tmp_path, task="glue/mnli", train_file=None, validation_file=None)
    content["rows"]["validation"]["source"] = source
    found = card(content)
    assert [result.dataset_split for result in found.data.eval_results or ()] == splits
    assert f"400 validation rows ({source})" in found.text


def test_a_plain_checkpoint_needs_no_code(tmp_path):
    text = card(results(tmp_path, ["next_token_accuracy", "perplexity"], "causal-lm"), plain=True).text
    assert "trust_remote_code" not in text
    assert "modeling_minidisc" not in text
    assert 'pipeline("text-generation", model="FOLDER")' in text
    assert "trust_remote_code=True" in card(results(tmp_path)).text


def test_text(tmp_path):
    content = results(tmp_path)
    text = card(content).text
    lines = text.splitlines()
    error = math.sqrt(0.8 * 0.2 / 400)
    assert f"| student | 0.8000 ± {error:.4f} |" in lines
    assert "| assistant | 0.8500 ± 0.0179 |" in lines
    assert "| student | 90 % | 1.05 M | 1.21 M | 13.1 M |" in lines
    assert "400 validation rows (dev.csv)" in text
    assert "through an assistant of 60 % sparsity" in text
    assert "- the teacher is &lt;odd>" in lines
    assert "trust_remote_code=True" in text
    assert "AutoModelForSequenceClassification" in text
    assert "optimistic" not in text
    # Tables are whole: no empty line within.
    table = lines[lines.index("| | accuracy |") :][:5]
    assert all(line.startswith("|") for line in table)
    assert card(content, "assistant").text.startswith("\n# Assistant: ")


def test_a_card_lists_no_faults_of_another_model(tmp_path):
    content = results(tmp_path)
    of = {"student": ["the student scores 0.5"], "assistant": ["weights of assistant are large"]}
    content |= {"warnings": [*of["assistant"], "the teacher is odd", *of["student"]], "warnings_of": of}
    extracted = {**model(tmp_path / "student", 0.7, 0.8), "selection_metrics": {"accuracy": 0.8, "metric": 0.8}}
    del extracted["metrics"]
    for each in (content["teacher"], *content["assistants"], content["student"]):
        each["selection_metrics"] = each["metrics"]

    def limits(which):
        return [line for line in card(content, which).text.splitlines() if line[2:] in content["warnings"]]

    assert limits("student") == ["- the teacher is odd", "- the student scores 0.5"]
    assert limits("assistant") == ["- weights of assistant are large", "- the teacher is odd"]
    # Whatever its folder is called.
    write_card(content, extracted)
    text = (tmp_path / "student" / "README.md").read_text()
    assert "- the teacher is odd" in text
    assert "scores 0.5" not in text
    # Older runs do not say whose a warning is.
    del content["warnings_of"]
    assert len(limits("assistant")) == 3


def test_what_others_have_named_is_text(tmp_path):
    label = "b\n\n# Injected <img src=https://evil.example/x.png> ![x](https://evil.example/y.png)"
    content = results(tmp_path, teacher=str(tmp_path / "a`b"))
    content["rows"]["validation"]["source"] = "v`\n# Inj <b>.csv"
    content["rows"]["train"]["source"] = "my_train-*.jsonl"
    content["warnings"] = [f"label {label!r} is rare", f"label {label} is rare"]
    text = card(content).text
    assert "<img" not in text
    assert "<b>" not in text
    assert not [line for line in text.splitlines() if line.startswith("# Inj")]
    assert r"(v\` # Inj &lt;b>.csv)" in text
    assert r"- label b # Injected &lt;img src=https://evil.example/x.png> !\[x](https" in text
    assert r"(my_train-\*.jsonl)" in text
    assert "(``a`b``, a local folder)" in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("train.csv", "train.csv"),
        ("label_0, B-PER (5 % of 1,000 rows): 'no'; it's -1 → > 0.5!", None),
        ("# no heading", r"\# no heading"),
        ("1. of (2) lists", r"1\. of (2) lists"),
        ("> quoted", "&gt; quoted"),
        ("__init__ a_b _c_", r"\_\_init\_\_ a_b \_c\_"),
        (r"C:\data \n \* \\", r"C:\data \n \\\* \\\\"),
        ("&lt; AT&T a|b ~~c~~", r"\&lt; AT&T a\|b \~\~c\~\~"),
        ("\x1b[2J", r"\x1b\[2J"),
    ],
)
def test_markdown_reads_a_text_as_it_is(text, shown):
    assert in_markdown(text) == (text if shown is None else shown)


@pytest.mark.parametrize(("text", "shown"), [("a_b", "`a_b`"), ("a\n`b", "``a `b``"), ("``x", "``` ``x ```")])
def test_a_span_of_code_ends_where_its_text_does(text, shown):
    assert as_code(text) == shown


def test_words_and_selection_on_validation_rows(tmp_path):
    content = results(tmp_path, ["entity_f1"], "token-classification", select_on="validation")
    found = card(content)
    assert found.data.pipeline_tag == "token-classification"
    assert found.data.metrics == ["f1"]
    assert "AutoModelForTokenClassification" in found.text
    assert "optimistic" in found.text
    assert "| student | 0.8000 |" in found.text


def test_equal_results_give_equal_bytes(tmp_path):
    content = results(tmp_path)
    before = copy.deepcopy(content)
    first = str(card(content))
    assert content == before
    assert str(card(content)) == first
    assert {file.name for file in (tmp_path / "student").iterdir()} == {"README.md", CODE_FILE}


@pytest.mark.parametrize("metric", ["accuracy", "pearson", "spearman"])
def test_sampling_error_is_the_spread_over_samples(metric):
    random = np.random.default_rng(0)
    values = []
    for _ in range(2000):
        labels = random.normal(size=200)
        predictions = 0.6 * labels + 0.8 * random.normal(size=200)
        if metric == "accuracy":
            labels, predictions = labels > 0, predictions > 0
        values.append(METRICS[metric](predictions, labels))
    assert sampling_error(metric, float(np.mean(values)), 200) == pytest.approx(np.std(values), rel=0.15)


def test_no_sampling_error_where_there_is_no_formula():
    assert sampling_error("f1", 0.5, 100) is None
    assert sampling_error("accuracy", 1.0, 100) is None
    assert sampling_error("pearson", 0.5, 1) is None


@pytest.mark.parametrize("plain", [False, True])
def test_a_taggers_card_says_what_a_word_is(tmp_path, plain):
    of_words = card(results(tmp_path, ["entity_f1"], "token-classification"), plain=plain).text
    assert "is_split_into_words=True" in of_words[: of_words.index("\n\n## Metrics")]
    assert "is_split_into_words" not in card(results(tmp_path), plain=plain).text


def test_what_the_card_of_a_fine_tuned_model_says(tmp_path):
    from datasets import Dataset

    from minidisc.config import FinetuneSettings
    from minidisc.finetuned_card import write_finetuned_card
    from minidisc.tasks import GLUE, TaskData

    rows = {name: Dataset.from_dict({"sentence": ["a"] * n}) for name, n in (("train", 9), ("validation", 400))}
    data = TaskData(task=GLUE["glue/sst2"], **rows, splits={"train": "train", "validation": "dev"}, fingerprint="x")
    settings = FinetuneSettings(model="who/bert", output_dir="unused", task="glue/sst2")
    write_finetuned_card(settings, data, {"accuracy": 0.8, "metric": 0.8}, tmp_path)
    found = ModelCard.load(tmp_path / "README.md")
    assert (found.data.base_model, found.data.datasets) == ("who/bert", ["nyu-mll/glue"])
    (result,) = found.data.eval_results
    assert (result.dataset_config, result.dataset_split, result.metric_value) == ("sst2", "dev", 0.8)
    assert "400 validation rows (dev)" in found.text
    assert "- accuracy: 0.8000 ± 0.0200" in found.text.splitlines()
    assert "optimistic" in found.text
    assert "trust_remote_code" not in found.text
    # A form of T5 brings its code.
    (tmp_path / "modeling_x.py").touch()
    write_finetuned_card(settings, data, {"accuracy": 0.8, "metric": 0.8}, tmp_path)
    # For the tokenizer too: for its class transformers looks at the configuration, and asks at a terminal.
    lines = (tmp_path / "README.md").read_text().splitlines()
    assert all("trust_remote_code=True" in line for line in lines if '"FOLDER"' in line and "(" in line)


@pytest.mark.parametrize(
    ("model", "name"), [("who/bert", "who/bert"), ("/home/alice/bert", "bert"), ("../bert/", "bert"), (".", "here")]
)
def test_a_model_goes_by_its_name_on_the_hub_or_its_folders(tmp_path, monkeypatch, model, name):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert shown_name(model) == name


def test_a_student_of_whole_layers_that_labels_have_taught(tmp_path):
    found = card(results(tmp_path, student="layers", schedule="finetune", loss="labels"))
    assert "It is a dense transformer with fewer\nlayers, each as wide as the teacher's:" in found.text
    assert "what their labels say, mistakes" in found.text
    assert "distillation" not in found.data.tags
    usual = card(results(tmp_path))
    assert "its own numbers of\nattention heads" in usual.text
    assert "what its teacher does, mistakes" in usual.text
    assert "distillation" in usual.data.tags


def test_a_local_teacher_that_is_gone_is_not_on_the_hub(tmp_path):
    content = results(tmp_path, teacher="models/sst2")
    assert card(content).data.base_model == "models/sst2"
    for weights, base in (
        ("models/sst2", "models/sst2"),
        ("models/sst2@0123abc", "models/sst2"),
        ("0123456789abcdef", None),
    ):
        found = card({**content, "fingerprints": {"teacher_weights": weights}})
        assert found.data.base_model == base
        assert ("huggingface.co/models/sst2" in found.text) == (base is not None)
