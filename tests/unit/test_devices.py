import dataclasses

import pytest
import torch
import yaml

from minidisc import devices
from minidisc.config import CompressSettings
from minidisc.devices import resolve_precision
from minidisc.errors import UserError
from minidisc.runs import open_run, settled

CPU = torch.device("cpu")
SETTINGS = CompressSettings(teacher="t", task="glue/mrpc", target_sparsity=0.9, output_dir="run", device="cpu")


@pytest.fixture(autouse=True)
def forget():
    yield
    resolve_precision.cache_clear()


def clock(monkeypatch, half):
    """Have a linear map take a second in fp32 and so long in bf16."""
    resolve_precision.cache_clear()
    monkeypatch.setattr(devices, "_seconds", lambda linear, inputs, in_half: half if in_half else 1.0)


@pytest.mark.parametrize(("half", "expected"), [(11.0, "fp32"), (0.5, "fp32"), (0.2, "bf16")])
def test_half_precision_is_for_processors_that_are_much_faster_with_it(monkeypatch, half, expected):
    clock(monkeypatch, half)
    assert resolve_precision("auto", CPU) == expected
    assert [resolve_precision(name, CPU) for name in ("fp32", "bf16")] == ["fp32", "bf16"]


def test_a_device_without_half_precision_keeps_single(monkeypatch):
    def refuse(linear, inputs, half):
        raise RuntimeError("not implemented for 'BFloat16'")

    resolve_precision.cache_clear()
    monkeypatch.setattr(devices, "_seconds", refuse)
    assert resolve_precision("auto", CPU) == "fp32"


def test_the_map_runs_in_the_precision_that_is_timed():
    class Noting(torch.nn.Linear):
        def forward(self, input):
            output = super().forward(input)
            seen.append(output.dtype)
            return output

    seen = []
    for half in (False, True):
        assert devices._seconds(Noting(4, 8), torch.ones(2, 4), half) > 0
    assert seen == [torch.float32, torch.bfloat16]
    # Else that would be taken for a device without bf16.
    with torch.no_grad():
        assert devices._seconds(Noting(4, 8), torch.ones(2, 4), True) > 0


def test_a_run_goes_on_in_the_precision_it_began_with(monkeypatch, tmp_path):
    clock(monkeypatch, 0.2)
    first = settled(dataclasses.replace(SETTINGS, output_dir=str(tmp_path / "run")), tmp_path / "run")
    assert first.precision == "bf16"
    folder = open_run(first, {}, resume=False)
    assert yaml.safe_load((folder / "run.yaml").read_text())["settings"]["precision"] == "bf16"
    # Taken up again where half precision is slow.
    clock(monkeypatch, 11.0)
    assert settled(dataclasses.replace(first, precision="auto"), folder) == first
    assert settled(SETTINGS, tmp_path / "another").precision == "fp32"
    assert settled(SETTINGS, None).precision == "fp32"


def test_deepspeed_on_cpus_has_no_half_precision(monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "ACCELERATE_USE_DEEPSPEED": "true"}.items():
        monkeypatch.setenv(name, value)
    clock(monkeypatch, 0.2)
    assert settled(SETTINGS, None).precision == "fp32"
    with pytest.raises(UserError, match="give --precision fp32"):
        settled(dataclasses.replace(SETTINGS, precision="bf16"), None)
