"""Two processes train what one does: the same rows in every step, and the same weights after twenty."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

WORKER = Path(__file__).with_name("worker.py")
# Rows of very different length, so that a mean of means is not the mean; 11 of them in batches of 4, so that the last
# batch is uneven, and of one row in batches of 5.
ROWS = [9, 3, 12, 5, 7, 4, 11, 9, 2, 6, 8]
CASES = {
    "plain": {"stored": False},
    "stored": {"stored": True, "candidates_per_step": "largest+smallest+0"},
    "accumulated": {"stored": False, "gradient_accumulation_steps": 2},
    "one-row": {"stored": False, "batch_size": 5, "loss": "labels"},
    "pkd": {"stored": False, "loss": "pkd", "gradient_accumulation_steps": 2},
    "minilm": {"stored": False, "loss": "minilm"},
    "interrupted": {"stored": False, "interrupted": 8},
    "fsdp2": {"stored": False, "sharded": True},
    "fsdp2-interrupted": {"stored": True, "sharded": True, "gradient_accumulation_steps": 2, "interrupted": 8},
}


def run(command, **changes):
    """Run a command that starts processes; a hang ends it too."""
    root = WORKER.parents[2]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{root / 'src'}:{root}", **changes}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """What one process has made, and what two have."""
    found = []
    two = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    cases = {name: {"rows": ROWS, **case} for name, case in CASES.items()}
    for launcher in ((), two):
        found.append(tmp_path_factory.mktemp("processes"))
        for name in cases:
            (found[-1] / name).mkdir()
        run([sys.executable, *launcher, str(WORKER), str(found[-1]), json.dumps(cases)])
    return found


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_what_one_does(folders, case):
    one, two = (load_file(folder / case / "checkpoint-20" / "model.safetensors") for folder in folders)
    assert one.keys() == two.keys()
    for name, weight in one.items():
        assert (two[name] - weight).norm() <= 1e-6 * weight.norm(), name
    figures = [json.loads((folder / case / "figures.json").read_text()) for folder in folders]
    assert figures[0]["flops"] == figures[1]["flops"]
    if "fsdp2" in case:
        assert "DTensor (Shard(dim=0),)" in figures[1]["placed"]
    else:
        # Gradients are sent once a step, and nothing else has sent them before: a rank has those of its rows alone.
        # What was interrupted at step 8 goes on from the checkpoint at step 6.
        steps = [*range(8), *range(6, 20)] if case == "interrupted" else range(20)
        assert figures[1]["sent"] == [{"step": step, "own": True} for step in steps]
    assert [row["step"] for row in figures[0]["history"]] == [row["step"] for row in figures[1]["history"]]


def test_the_cases_differ_and_move(folders):
    different = ("plain", "stored", "accumulated", "one-row", "pkd", "minilm")
    finals = [load_file(folders[0] / case / "checkpoint-20" / "model.safetensors") for case in different]
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    for i, weights in enumerate(finals):
        for other in finals[:i]:
            assert (weights[name] - other[name]).norm() > 1e-3 * weights[name].norm()


def test_what_fails_on_one_rank_fails_on_all(folders):
    told = [(folders[1] / f"rank-{rank}.txt").read_text().splitlines() for rank in (0, 1)]
    assert told[0] == [
        "UserError: no such file",
        "UserError: no such file",
        "RuntimeError: rank 1: KeyError: 'x'",
        "4 4",
    ]
    assert told[1] == ["UserError: no such file", "UserError: no such file", "KeyError: 'x'", "4 4"]
