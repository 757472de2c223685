"""A run that is killed again and again ends with the very weights of one that is left alone."""

import dataclasses
import gc
import json
import os
import random
import re
import shutil
import signal
import sys
import time

import pytest
import yaml
from safetensors.torch import load_file

import minidisc
from minidisc.comparison import compare
from minidisc.config import FinetuneSettings
from minidisc.errors import UserError
from minidisc.finetuning import finetune
from minidisc.listening import LoggingListener
from tests.integration import tiny


def _child(settings):
    # As in tests/conftest.py, and in this folder's.
    gc.freeze()
    os.fsync = lambda descriptor: None
    tiny.end_briefly()
    # On this easy task the student's own size may win, and then there is no second stage to be killed in.
    schedule = sys.modules["minidisc.schedules.minidisc"]
    schedule.choose_assistant = lambda candidates: candidates[0]
    minidisc.compress(**settings, resume=True)


def kill(context, settings, delay):
    """Start the run, kill -9 it after ``delay`` seconds; True if it was still at work."""
    process = context.Process(target=_child, args=(settings,))
    process.start()
    process.join(delay)
    alive = process.is_alive()
    if alive:
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    return alive


def finish(context, settings):
    """Let the run go to its end."""
    process = context.Process(target=_child, args=(settings,))
    process.start()
    process.join()
    assert process.exitcode == 0


def test_what_a_kill_left_beside_the_last_checkpoint_is_removed(workplace, tmp_path):
    settings = tiny.settings(workplace, tmp_path / "run", schedule="direct", keep_checkpoints=True, precision="fp32")
    minidisc.compress(**settings)
    whole = tiny.weights(tmp_path / "run")
    (last,) = (tmp_path / "run" / "checkpoints").glob("*/checkpoint-*")
    shutil.copytree(last, last.with_name("checkpoint-1"))
    (last.parent / "snapshot-1.safetensors").write_bytes(b"")
    (tmp_path / "run" / "results.json").unlink()
    minidisc.compress(**settings, resume=True)
    assert tiny.weights(tmp_path / "run") == whole
    assert not (last.parent / "snapshot-1.safetensors").exists()


KILLS = 10


def test_ten_runs_killed_at_random_moments_end_with_the_same_weights(workplace, tmp_path, context):
    def settings(name, second_stage):
        # Every one of these processes would measure which precision is the fastest.
        changes = {"second_stage": second_stage, "keep_checkpoints": True, "precision": "fp32"}
        return tiny.settings(workplace, tmp_path / name, **changes)

    finish(context, settings("warm-up", "student"))
    wholes, seconds = {}, 0.0
    for second_stage in ("student", "sandwich"):
        start = time.monotonic()
        finish(context, settings(second_stage, second_stage))
        seconds = time.monotonic() - start
        wholes[second_stage] = tiny.weights(tmp_path / second_stage)
        assert {name.split("/")[0] for name in wholes[second_stage]} == {"assistant", "student", "checkpoints"}
        assert len(wholes[second_stage]) == 4

    moments = random.Random(0)
    kills = attempts = 0
    while kills < KILLS and attempts < 4 * KILLS:
        second_stage, name = ("student", "sandwich")[attempts % 2], f"killed-{attempts}"
        run = settings(name, second_stage)
        if kill(context, run, moments.uniform(0.05, 0.95) * seconds):
            kills += 1
            finish(context, run)
        else:
            # It was over before its moment came: the machine has become faster since it was timed.
            seconds *= 0.8
        attempts += 1
        assert tiny.weights(tmp_path / name) == wholes[second_stage]
        candidates = [(tmp_path / each / "candidates.json").read_text() for each in (second_stage, name)]
        assert candidates[0] == candidates[1]
    assert kills == KILLS


def test_the_kill_test_would_notice_another_student(workplace, tmp_path, context):
    finish(context, tiny.settings(workplace, tmp_path / "one", epochs=1, seed=0))
    finish(context, tiny.settings(workplace, tmp_path / "two", epochs=1, seed=1))
    one, two = (load_file(tmp_path / name / "student" / "model.safetensors") for name in ("one", "two"))
    assert any(one[name].shape != two[name].shape or (one[name] != two[name]).any() for name in one)


def test_fine_tuning_that_was_cut_short_goes_on(workplace, tmp_path):
    def train(name, stop=None, resume=True, **changes):
        steps = []

        def progress(step, total, loss, metrics):
            if loss is not None:
                steps.append(step)
            if stop is not None and step == stop:
                raise KeyboardInterrupt

        settings = FinetuneSettings(
            model=str(workplace / "backbone"),
            output_dir=str(tmp_path / name),
            train_file=str(workplace / "train.csv"),
            validation_file=str(workplace / "validation.csv"),
            **{"epochs": 3, "batch_size": 16, "learning_rate": 3e-3, "max_length": 16, "device": "cpu", **changes},
        )
        finetune(settings, progress, resume)
        return steps

    every = train("whole")
    assert every == list(range(1, 31))
    with pytest.raises(KeyboardInterrupt):
        train("killed", stop=17)
    assert not (tmp_path / "killed").exists()
    with pytest.raises(UserError, match=r"learning_rate was 0\.003 and is now 0\.1"):
        train("killed", learning_rate=0.1)
    # The same command given again would have to train anew what is there.
    with pytest.raises(UserError, match=r"\.killed\.training already holds a training .*; add --resume to go on"):
        train("killed", resume=False)
    # The first epoch's ten steps are not trained again.
    assert train("killed") == list(range(11, 31))
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "killed")]
    assert weights[0] == weights[1]
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "killed"}


def test_fine_tuning_that_was_cut_short_before_its_first_checkpoint_begins_anew(workplace, tmp_path):
    def stop(step, *_):
        raise KeyboardInterrupt

    names = ("train_file", "validation_file", "max_length", "device", "epochs")
    values = {name: tiny.settings(workplace, "unused", epochs=1)[name] for name in names}
    settings = FinetuneSettings(model=str(workplace / "backbone"), output_dir=str(tmp_path / "teacher"), **values)
    with pytest.raises(KeyboardInterrupt):
        finetune(settings, stop)
    assert (tmp_path / ".teacher.training" / "run.yaml").is_file()
    finetune(settings)
    assert [path.name for path in tmp_path.iterdir()] == ["teacher"]


def test_fine_tuning_that_is_finished_is_read_again_not_repeated(workplace, tmp_path, monkeypatch):
    names = ("train_file", "validation_file", "max_length", "device")
    values = {name: tiny.settings(workplace, "unused")[name] for name in names}
    settings = FinetuneSettings(
        model=str(workplace / "backbone"), output_dir=str(tmp_path / "teacher"), epochs=0.2, **values
    )
    remove = shutil.rmtree

    def killed(folder, *arguments, **options):
        if str(folder).endswith(".training"):
            raise KeyboardInterrupt
        remove(folder, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            finetune(settings, resume=True)
    left, model = tmp_path / ".teacher.training", tmp_path / "teacher"
    assert list(left.glob("checkpoint-*"))
    before = {path: path.stat().st_mtime_ns for path in model.rglob("*")}
    # A training for a folder of that name, when the finished one was elsewhere.
    other = yaml.safe_load((left / "run.yaml").read_text())
    assert other["settings"]["output_dir"] == str(model)
    other["settings"]["learning_rate"] = 0.1
    shutil.copytree(left, tmp_path / "same")
    (left / "run.yaml").write_text(yaml.safe_dump(other))
    lines = []
    result = finetune(settings, resume=True, note=lines.append)
    assert lines == [f"{model} is complete already."]
    assert result.metrics["accuracy"] == tiny.accuracy(model, workplace)
    assert (result.output_dir, result.cost.steps) == (model, 1)
    assert list(left.glob("checkpoint-*"))
    # Its own.
    remove(left)
    (tmp_path / "same").rename(left)
    precision = json.loads((model / "finetune.json").read_text())["precision"]
    assert finetune(dataclasses.replace(settings, precision=precision), resume=True) == result
    assert [path.name for path in tmp_path.iterdir()] == ["teacher"]
    # No file's name, nor a folder's, is published with a model.
    assert str(tmp_path) not in (text := (model / "finetune.json").read_text())
    assert str(workplace) not in text

    with pytest.raises(UserError, match="exists and is not empty"):
        finetune(settings)
    for change in ({"learning_rate": 0.1}, {"validation_file": str(workplace / "train.csv")}):
        with pytest.raises(UserError, match="exists and is not empty"):
            finetune(dataclasses.replace(settings, **change), resume=True)
    assert before == {path: path.stat().st_mtime_ns for path in model.rglob("*")}
    (model / "finetune.json").write_text("[1]")
    with pytest.raises(UserError, match="exists and is not empty"):
        finetune(settings, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["teacher"]


def test_a_finished_run_is_read_again_not_repeated(workplace, tmp_path):
    settings = tiny.settings(workplace, tmp_path / "run", epochs=1)
    first = minidisc.compress(**settings)
    before = {path: path.stat().st_mtime_ns for path in first.output_dir.rglob("*")}
    # It was killed when all was written, and before it had removed what nobody needs.
    (first.output_dir / "checkpoints" / "student").mkdir(parents=True)
    again = minidisc.compress(**settings, resume=True, keep_checkpoints=True)
    assert again == first
    assert before == {path: path.stat().st_mtime_ns for path in first.output_dir.rglob("*")}


def test_a_run_that_goes_on_with_another_torch_says_so(workplace, tmp_path):
    settings = tiny.settings(workplace, tmp_path / "run", schedule="direct", max_steps=1)
    listener = LoggingListener()
    listener.stage = lambda name: None.stop
    with pytest.raises(AttributeError, match="stop"):
        minidisc.compress(**settings, listener=listener)
    file = tmp_path / "run" / "run.yaml"
    file.write_text(re.sub(r"(?<=  torch: ).*", "1.13.0", file.read_text()))
    (warning,) = minidisc.compress(**settings, resume=True).results["warnings"]
    assert warning.startswith("begun with torch 1.13.0, goes on with torch 2.")


def test_an_option_that_came_after_the_run_was_made_was_its_default(workplace, tmp_path):
    settings = tiny.settings(workplace, tmp_path / "run", epochs=1)
    first = minidisc.compress(**settings)

    def forget(name):
        record = yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())
        del record["settings"][name]
        (tmp_path / "run" / "run.yaml").write_text(yaml.safe_dump(record))

    forget("stream")
    assert minidisc.compress(**settings, resume=True) == first
    forget("epochs")
    with pytest.raises(UserError, match=r"epochs was 5\.0 and is now 1"):
        minidisc.compress(**settings, resume=True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target_sparsity": 0.6}, ["target_sparsity was 0.75 and is now 0.6"]),
        ({"seed": 3, "learning_rate": 0.1}, ["learning_rate was 0.001", "seed was 0 and is now 3"]),
        ({"max_train_rows": 120}, ["max_train_rows", "rows was"]),
    ],
)
def test_a_folder_of_other_settings_is_refused_and_left_alone(workplace, tmp_path, changes, words):
    settings = tiny.settings(workplace, tmp_path / "run", epochs=1, schedule="direct")
    minidisc.compress(**settings)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    with pytest.raises(UserError) as caught:
        minidisc.compress(**{**settings, **changes}, resume=True)
    for word in words:
        assert word in str(caught.value)
    with pytest.raises(UserError, match="already holds a run; add --resume"):
        minidisc.compress(**settings)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}


@pytest.mark.parametrize("command", ["compress", "compare", "finetune"])
def test_another_tokenizer_under_the_same_name_is_another_run(workplace, tmp_path, command):
    name = "backbone" if command == "finetune" else "teacher"
    shutil.copytree(workplace / name, tmp_path / "model")
    values = tiny.settings(workplace, tmp_path / "run", epochs=1)

    def stop(*_):
        raise KeyboardInterrupt

    def start(resume):
        if command == "finetune":
            names = ("train_file", "validation_file", "max_length", "device", "output_dir")
            given = {name: values[name] for name in names}
            return finetune(FinetuneSettings(model=str(tmp_path / "model"), **given), stop, resume)
        listener = LoggingListener()
        listener.stage = lambda name: stop
        given = {**values, "teacher": str(tmp_path / "model"), "resume": resume, "listener": listener}
        if command == "compress":
            return minidisc.compress(**given)
        given["target_sparsities"] = (given.pop("target_sparsity"),)
        return compare(**given)

    for resume in (False, True):
        with pytest.raises(KeyboardInterrupt):
            start(resume)
    # Every text has as many tokens as before.
    file = tmp_path / "model" / "tokenizer.json"
    file.write_text(file.read_text().replace('"word1"', '"word_1"'))
    with pytest.raises(UserError, match=r"tokenizer was '\w+' and is now '\w+'"):
        start(True)


def test_other_weights_under_the_same_name_are_another_teacher(workplace, tmp_path):
    import torch
    from transformers import AutoModelForSequenceClassification

    shutil.copytree(workplace / "teacher", tmp_path / "teacher")
    settings = {
        **tiny.settings(workplace, tmp_path / "run", epochs=1, schedule="direct"),
        "teacher": str(tmp_path / "teacher"),
    }
    minidisc.compress(**settings)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "teacher")
    with torch.no_grad():
        model.classifier.bias.add_(1)
    model.save_pretrained(tmp_path / "teacher")
    with pytest.raises(UserError, match="teacher_weights"):
        minidisc.compress(**settings, resume=True)
