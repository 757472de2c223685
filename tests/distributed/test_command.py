"""The command under accelerate's launcher: one run folder, one voice, and a killed run that goes on."""

import gc
import json
import os
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
from accelerate.commands.config.config_args import load_config_from_file

from minidisc.cli.main import main
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


def flags(folder, run, *more):
    """Of a compression."""
    # Random weights, and steps small enough to keep them bad: no evaluation is perfect from the start.
    settings = {**tiny.settings(folder, run, epochs=1, patience=99, learning_rate=1e-4), "grid": "0.25,0.5"}
    flags = [part for name, value in settings.items() for part in ("--" + name.replace("_", "-"), str(value))]
    return [*flags, "--keep-checkpoints", *more]


class Launched:
    """A compression on two processes, started by accelerate."""

    def __init__(self, example, flags):
        self.process = subprocess.Popen(
            [*LAUNCH, str(EXAMPLES / f"{example}.yaml"), "-m", "minidisc", "compress", *flags],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PATH": PATH},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def goes_on(self):
        return self.process.poll() is None

    def finish(self):
        """What it prints."""
        out, err = self.process.communicate(timeout=LIMIT)
        assert self.process.returncode == 0, err[-3000:]
        return out

    def kill(self):
        launcher = psutil.Process(self.process.pid)
        for each in [*launcher.children(recursive=True), launcher]:
            each.kill()
        self.process.communicate()


class Forked:
    """The same on two processes that are told what a launcher would tell them, and are there in a moment."""

    def __init__(self, context, flags):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.processes = [context.Process(target=_rank, args=(number, port, flags)) for number in (0, 1)]
        for process in self.processes:
            process.start()

    def goes_on(self):
        return all(process.is_alive() for process in self.processes)

    def finish(self):
        for process in self.processes:
            process.join(LIMIT)
        assert [process.exitcode for process in self.processes] == [0, 0]

    def kill(self):
        for process in self.processes:
            process.kill()
            process.join()


def _rank(number, port, flags):
    # As in tests/conftest.py, and in that of tests/integration.
    gc.freeze()
    os.fsync = lambda descriptor: None
    tiny.end_briefly()
    told = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in told.items()}
    main(["compress", *flags])


def kill_once(path, run):
    """SIGKILL to all of a run's processes as soon as a path is there."""
    until = time.monotonic() + LIMIT
    while not list(path.parent.glob(path.name)):
        assert run.goes_on() or run.finish()
        assert time.monotonic() < until
        time.sleep(0.02)
    run.kill()


@pytest.mark.parametrize(
    "example",
    ["ddp-cpu", *(pytest.param(f"deepspeed-zero{stage}", marks=needs_deepspeed) for stage in (2, 3))],
)
def test_a_killed_run_of_two_processes_goes_on_to_the_same_student(folder, tmp_path, context, example):
    # One run is what a user starts; DeepSpeed is told much more by the launcher, and so has it for the others too.
    start = partial(Forked, context) if example == "ddp-cpu" else partial(Launched, example)
    whole_out = Launched(example, flags(folder, tmp_path / "whole")).finish()
    kill_once(tmp_path / "cut" / "checkpoints" / "sandwich-1" / "checkpoint-*", start(flags(folder, tmp_path / "cut")))
    assert not (tmp_path / "cut" / "results.json").exists()
    start(flags(folder, tmp_path / "cut", "--resume")).finish()
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
