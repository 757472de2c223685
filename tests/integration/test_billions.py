"""The script for large models on a GPU, at a tiny shape on the CPU."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from random_llama import SHAPES

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu" / "billions.py"
# What minidisc needs elsewhere, and bare PyTorch and transformers do not bring.
ABSENT = ("accelerate", "datasets", "jinja2", "matplotlib", "pandas", "pyarrow", "scipy", "seqeval", "sklearn")


def run_bare(script, folder, *flags):
    """Run a script where there is no more than PyTorch and transformers."""
    start = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({ABSENT})); sys.argv.pop(0); "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", start, script, *map(str, flags)], check=True, cwd=folder, env=environment)


def test_bare_pytorch_and_transformers_are_enough(tmp_path):
    flags = [
        "--device",
        "cpu",
        "--shapes",
        "tiny",
        "--rows",
        "4",
        "--tokens",
        "8",
        "--target",
        tmp_path / "found.json",
    ]
    run_bare(SCRIPT, tmp_path, *flags)
    found = json.loads((tmp_path / "found.json").read_text())["shapes"]["tiny"]
    layers, hidden, _, _, neurons, vocabulary = SHAPES["tiny"]
    norms, classifier = (2 * layers + 1) * hidden, 2 * hidden
    maps = layers * (4 * hidden * hidden + 3 * hidden * neurons)
    assert found["parameters"] == vocabulary * hidden + maps + norms + classifier
    assert len(found["losses"]) == 5
    assert all(math.isfinite(loss) for loss in found["losses"])
    assert set(found["phases"]) == {"importance", "teacher's outputs", "training"}
