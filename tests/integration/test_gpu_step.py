"""The script for a step on a GPU, at a tiny shape on the CPU."""

import json
from pathlib import Path

from tests.integration.test_billions import run_bare

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu" / "step.py"


def test_bare_pytorch_and_transformers_are_enough(tmp_path):
    run_bare(SCRIPT, tmp_path, *["--device", "cpu", "--shapes", "tiny", "--rounds", "1", "--target", "found"])
    found = json.loads((tmp_path / "found.json").read_text())["shapes"]["tiny"]
    flops, variants = found["flops_per_row"], found["variants"]
    assert flops["floor, all"] == flops["ours, all"] > flops["ours, sampled"]
    assert flops["plain, fp32"] == flops["plain, bf16"] > flops["ours, all"]
    assert list(variants)[-3:] == ["ours, all, graphs", "ours, sampled, graphs", "floor, all, graphs"]
    for name, own in variants.items():
        rate = flops[name] / (own["milliseconds_per_row"] / 1000)
        assert abs(own["of_measured_rate"] * found["measured_rate"] / rate - 1) < 1e-6
        assert own["mfu"] is None
    assert (tmp_path / "found.md").read_text().count("| tiny |") == len(variants)


def test_compiled_steps_are_measured_beside_those_that_are_not(tmp_path):
    # Each width is compiled for itself, which takes its time.
    few = ["--compile", "1", "--sparsities", "0.5", "0.8", "0.95"]
    run_bare(
        SCRIPT,
        tmp_path,
        *["--device", "cpu", "--shapes", "tiny", "--rounds", "1", "--target", "out", *few],
    )
    found = json.loads((tmp_path / "out.json").read_text())["shapes"]["tiny"]["variants"]
    ways = "graphs", "compiled", "compiled, graphs"
    assert list(found)[4:-1] == [f"ours, {rule}, {how}" for rule in ("all", "sampled") for how in ways]
    assert "--compile 1 --sparsities 0.5" in (tmp_path / "out.md").read_text()
