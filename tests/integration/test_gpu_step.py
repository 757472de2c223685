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
