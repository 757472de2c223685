"""Fine-tuning on scores of any scale makes a teacher that speaks in it."""

import csv
import logging

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import minidisc
from minidisc.config import EvaluateSettings, FinetuneSettings
from minidisc.evaluation import evaluate
from minidisc.finetuning import finetune
from minidisc.refusals import scale_warning
from minidisc.tasks import Task
from tests.integration import tiny


def rows(workplace, folder, factor, shift):
    """The workplace's texts, with the share of good words, in some scale, for a label."""
    for name in ("train", "validation"):
        with (workplace / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            texts = [row["text"] for row in csv.DictReader(file)]
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            for text in texts:
                words = text.split()
                share = sum(word in tiny.GOOD for word in words) / 2 + 0.01 * len(words)
                writer.writerow([text, round(factor * share + shift, 5)])
    return {f"{name}_file": str(folder / f"{name}.csv") for name in ("train", "validation")}


def settings(model, output, files, **changes):
    values = {"epochs": 5, "batch_size": 16, "learning_rate": 3e-3, "max_length": 16, "device": "cpu", **changes}
    return FinetuneSettings(model=str(model), output_dir=str(output), task="regression", **files, **values)


def predictions(folder, file):
    """Those of a saved model, with nothing of minidisc, and the labels."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with open(file, newline="", encoding="utf-8") as opened:
        table = list(csv.DictReader(opened))
    with torch.no_grad():
        found = [model(**tokenizer(row["text"], return_tensors="pt")).logits.item() for row in table]
    return np.array(found), np.array([float(row["label"]) for row in table])


@pytest.mark.parametrize(("factor", "shift"), [(100, 0), (1, -1000)])
def test_a_teacher_speaks_in_the_scale_of_its_labels(workplace, tmp_path, factor, shift, caplog):
    files = rows(workplace, tmp_path, factor, shift)
    with caplog.at_level("WARNING", logger="minidisc"):
        result = finetune(settings(workplace / "backbone", tmp_path / "teacher", files))
    found, labels = predictions(tmp_path / "teacher", files["validation_file"])
    assert np.square(found - labels).mean() < labels.var() / 4
    assert result.metrics["pearson"] == pytest.approx(np.corrcoef(found, labels)[0, 1], abs=1e-3)
    assert not [record for record in caplog.records if record.name == "minidisc"]


def test_one_that_was_cut_short_ends_with_the_same_weights(workplace, tmp_path):
    files = rows(workplace, tmp_path, 100, 7)

    def stop(step, *_):
        if step == 17:
            raise KeyboardInterrupt

    finetune(settings(workplace / "backbone", tmp_path / "whole", files, epochs=3))
    with pytest.raises(KeyboardInterrupt):
        finetune(settings(workplace / "backbone", tmp_path / "killed", files, epochs=3), stop)
    finetune(settings(workplace / "backbone", tmp_path / "killed", files, epochs=3), resume=True)
    whole, killed = (tmp_path / name / "model.safetensors" for name in ("whole", "killed"))
    assert whole.read_bytes() == killed.read_bytes()


def test_a_trained_head_goes_on_from_what_it_gives(workplace, tmp_path):
    files = rows(workplace, tmp_path, 100, 7)
    finetune(settings(workplace / "backbone", tmp_path / "first", files))
    finetune(settings(tmp_path / "first", tmp_path / "second", files, epochs=0.2, learning_rate=1e-9))
    before, after = (predictions(tmp_path / name, files["validation_file"])[0] for name in ("first", "second"))
    assert after == pytest.approx(before, abs=1e-2)


def test_a_classifiers_head_is_a_new_one(workplace, tmp_path):
    files = rows(workplace, tmp_path, 1, -1000)
    finetune(settings(workplace / "teacher", tmp_path / "regressor", files))
    found, labels = predictions(tmp_path / "regressor", files["validation_file"])
    assert np.square(found - labels).mean() < labels.var() / 4


def test_a_model_of_another_scale_is_named(workplace, tmp_path, caplog):
    files = rows(workplace, tmp_path, 100, 0)
    model = tiny.backbone(num_labels=1)
    model.save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    common = {"validation_file": files["validation_file"], "task": "regression", "device": "cpu"}
    with caplog.at_level(logging.WARNING, logger="minidisc"):
        evaluate(EvaluateSettings(model=str(tmp_path / "model"), **common))
    (line,) = caplog.messages
    assert line.startswith("the model is further from the labels of 60 rows than their mean is (mean squared error ")
    run = tiny.settings(workplace, tmp_path / "run", epochs=1, schedule="direct", **files)
    run = minidisc.compress(**{**run, "task": "regression", "teacher": str(tmp_path / "model")})
    assert any(line.startswith("the teacher is further from the labels of ") for line in run.results["warnings"])


def test_the_mean_itself_is_not_further_than_the_mean():
    task = Task("t", "regression", ("text",), "label", None, False, ("pearson", "spearman"))
    labels = np.array([1.0, 2.0, 6.0])
    assert scale_warning(task, np.full((3, 1), 3.0), labels) is None
    assert scale_warning(task, np.full((3, 1), 3.1), labels) is not None
