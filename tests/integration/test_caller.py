"""What a Python program finds as it was, or where it said, once minidisc has run in it."""

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

import minidisc
from minidisc import comparison, finetuning
from minidisc.config import FinetuneSettings
from tests.integration import tiny


def compress(workplace, folder):
    minidisc.compress(**tiny.settings(workplace, folder, max_steps=2))


def compare(workplace, folder):
    values = tiny.settings(workplace, folder, max_steps=2)
    targets = (values.pop("target_sparsity"),)
    comparison.compare(**values, target_sparsities=targets, seeds=(0,), methods=("direct",))


def finetune(workplace, folder):
    names = ("train_file", "validation_file", "output_dir", "max_length", "device", "batch_size")
    values = {name: tiny.settings(workplace, folder)[name] for name in names}
    finetuning.finetune(FinetuneSettings(model=str(workplace / "backbone"), max_steps=2, **values))


COMMANDS = pytest.mark.parametrize("command", [compress, compare, finetune], ids=lambda command: command.__name__)


@COMMANDS
def test_random_numbers_are_those_without_it(workplace, tmp_path, command):
    def drawn(between):
        random.seed(1)
        np.random.seed(2)
        torch.manual_seed(3)
        between()
        return random.random(), np.random.rand(), torch.rand(()).item()

    assert drawn(lambda: command(workplace, tmp_path / "folder")) == drawn(lambda: None)


@COMMANDS
@pytest.mark.parametrize("mask", [0o022, 0o027], ids=oct)
def test_whoever_may_read_one_file_may_read_all(workplace, tmp_path, command, mask):
    before = os.umask(mask)
    try:
        command(workplace, tmp_path / "folder")
    finally:
        os.umask(before)
    modes = {path: path.stat().st_mode & 0o777 for path in (tmp_path / "folder").rglob("*") if path.is_file()}
    assert any(path.suffix == ".safetensors" for path in modes)
    assert {path.name: oct(mode) for path, mode in modes.items() if mode != 0o666 & ~mask} == {}


@COMMANDS
def test_a_tilde_is_the_home(workplace, tmp_path, monkeypatch, command):
    """transformers takes it for that, and pathlib for a folder of this name."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "home" / "rows").symlink_to(workplace)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    command(Path("~/rows"), Path("~/folder"))
    assert not list((tmp_path / "here").iterdir())
    names = {path.name for path in (tmp_path / "home" / "folder").iterdir()}
    assert names & {"results.json", "compare.json", "config.json"}
    assert "checkpoints" not in names
