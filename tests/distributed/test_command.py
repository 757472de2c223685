"""The command under accelerate's launcher: one run folder, one voice, and a killed run that goes on."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from accelerate.commands.config.config_args import load_config_from_file

from tests.distributed.needs import PATH, needs_deepspeed
from tests.integration import tiny

EXAMPLES = Path(__file__).parents[2] / "examples" / "accelerate"
# Against a test that hangs; on a machine with other work a run of seconds takes minutes.
LIMIT = 900
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--config_file"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Teacher and rows."""
    folder = tmp_path_factory.mktemp("distributed")
    tiny.write_rows(folder)
    tiny.backbone().save_pretrained(folder / "teacher")
    tiny.tokenizer().save_pretrained(folder / "teacher")
    return folder


def start(example, folder, run, *more):
    """Start a compression on two processes."""
    # Random weights, and steps small enough to keep them bad: no evaluation is perfect from the start.
    settings = {**tiny.settings(folder, run, epochs=1, patience=99, learning_rate=1e-4), "grid": "0.25,0.5"}
    flags = [part for name, value in settings.items() for part in ("--" + name.replace("_", "-"), str(value))]
    return subprocess.Popen(
        [
            *LAUNCH,
            str(EXAMPLES / f"{example}.yaml"),
            "-m",
            "minidisc",
            "compress",
            *flags,
            "--keep-checkpoints",
            *more,
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PATH": PATH},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_once(path, process):
    """SIGKILL to launcher and processes as soon as a path is there."""
    until = time.monotonic() + LIMIT
    while not list(path.parent.glob(path.name)):
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < until
        time.sleep(0.02)
    for each in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
        each.kill()
    process.communicate()


@pytest.mark.parametrize(
    "example",
    ["ddp-cpu", *(pytest.param(f"deepspeed-zero{stage}", marks=needs_deepspeed) for stage in (2, 3))],
)
def test_a_killed_run_of_two_processes_goes_on_to_the_same_student(folder, tmp_path, example):
    whole = start(example, folder, tmp_path / "whole")
    whole_out, err = whole.communicate(timeout=LIMIT)
    assert whole.returncode == 0, err[-3000:]
    cut = start(example, folder, tmp_path / "cut")
    kill_once(tmp_path / "cut" / "checkpoints" / "sandwich-1" / "checkpoint-*", cut)
    assert not (tmp_path / "cut" / "results.json").exists()
    resumed = start(example, folder, tmp_path / "cut", "--resume")
    _, err = resumed.communicate(timeout=LIMIT)
    assert resumed.returncode == 0, err[-3000:]
    for line in ("report    ", "student   ", "student step 8:"):
        assert sum(each.startswith(line) for each in whole_out.splitlines()) == 1, line

    weights = tiny.weights(tmp_path / "whole")
    assert weights.keys() >= {"student", "checkpoints/sandwich-1/checkpoint-8"}
    assert tiny.weights(tmp_path / "cut") == weights
    results = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("whole", "cut")]
    assert results[0]["candidates"] == results[1]["candidates"]
    assert results[0]["history"] == results[1]["history"]
    assert results[0]["machine"].endswith(", 2 processes")


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_examples_are_what_accelerate_reads(file):
    config = load_config_from_file(str(file))
    assert (
        config.distributed_type.value
        == {
            "ddp-cpu": "MULTI_GPU",
            "ddp": "MULTI_GPU",
            "fsdp2": "FSDP",
            "deepspeed-zero2": "DEEPSPEED",
            "deepspeed-zero3": "DEEPSPEED",
        }[file.stem]
    )
    assert config.num_processes > 1
    assert config.deepspeed_config.get("zero_stage") == {"deepspeed-zero2": 2, "deepspeed-zero3": 3}.get(file.stem)
    assert config.fsdp_config.get("fsdp_version") == (2 if file.stem == "fsdp2" else None)
