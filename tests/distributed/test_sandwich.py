"""Two processes train what one does: the same rows in every step, and the same weights after twenty."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.distributed.needs import HAVE_DEEPSPEED, PATH, needs_deepspeed

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
    # Two of its modules have the same embeddings.
    "fsdp2-empty": {"stored": False, "sharded": True, "family": "T5", "smallest": True, "interrupted": 8},
    # Its head is its embeddings.
    "fsdp2-writes": {"stored": False, "sharded": True, "family": "LLAMA", "writes": True},
    "zero2": {"stored": False, "zero": 2},
    "zero2-minilm": {"stored": False, "zero": 2, "loss": "minilm", "gradient_accumulation_steps": 2},
    "zero2-interrupted": {"stored": True, "zero": 2, "precision": "bf16", "interrupted": 8},
    # Its attention is passed over where it has no heads.
    "zero3": {"stored": False, "zero": 3, "family": "LLAMA"},
    "zero3-interrupted": {
        "stored": True,
        "zero": 3,
        "gradient_accumulation_steps": 2,
        "gradient_checkpointing": True,
        "interrupted": 8,
    },
}


def run(command, **changes):
    """Run a command that starts processes; a hang ends it too."""
    root = WORKER.parents[2]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{root / 'src'}:{root}", "PATH": PATH, **changes}
    # A process that crashes says where; what the launcher and the other process say after it is longer.
    env["PYTHONFAULTHANDLER"] = "1"
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900)
    crash = done.stderr.find("Fatal Python error")
    assert done.returncode == 0, done.stderr[crash:][:5000] if crash >= 0 else done.stderr[-3000:]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """What one process has made, and what two have."""
    found = []
    two = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    cases = {name: {"rows": ROWS, **case} for name, case in CASES.items() if HAVE_DEEPSPEED or "zero" not in case}
    for launcher in ((), two):
        found.append(tmp_path_factory.mktemp("processes"))
        for name in cases:
            (found[-1] / name).mkdir()
        run([sys.executable, *launcher, str(WORKER), str(found[-1]), json.dumps(cases)])
    return found


@pytest.mark.parametrize(
    "case", [pytest.param(name, marks=needs_deepspeed if "zero" in case else ()) for name, case in CASES.items()]
)
def test_two_processes_train_what_one_does(folders, case):
    one, two = (load_file(folder / case / "checkpoint-20" / "model.safetensors") for folder in folders)
    assert one.keys() == two.keys()
    for name, weight in one.items():
        assert (two[name] - weight).norm() <= 1e-6 * weight.norm(), name
    figures = [json.loads((folder / case / "figures.json").read_text()) for folder in folders]
    assert figures[0]["flops"] == figures[1]["flops"]
    assert [each["cpu_seconds"] for each in figures] == [20, 60]
    # Of the weights, and of what AdamW keeps for them, in every step; shards are filled up to equal length.
    weights, moments = figures[1]["held"]
    # No pass reaches the norm before an attention without heads, and AdamW keeps nothing for it.
    assert figures[0]["held"] == [1, pytest.approx(1, abs=0.01 * (case == "fsdp2-empty"))]
    assert weights == (pytest.approx(0.5, abs=0.05) if "fsdp2" in case or "zero3" in case else 1)
    assert moments == (pytest.approx(0.5, abs=0.05) if "fsdp2" in case or "zero" in case else 1)
    # Of the trained weights, once a finished stage has dropped them; under ZeRO-3 something still holds its shards.
    assert [each["kept"] for each in figures] == [0, 0] or ("zero3" in case and figures[0]["kept"] == 0)
    # FSDP's own copy of the weights is not kept beside them.
    assert not [*(folders[1] / case / "checkpoint-20").glob("pytorch_model*")]
    if "zero" in case:
        # What DeepSpeed itself has counted.
        assert (folders[1] / case / "checkpoint-20" / "global_step20").is_dir()
    elif "fsdp2" not in case:
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
