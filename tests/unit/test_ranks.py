import pytest
import torch
from transformers.distributed.fsdp import is_fsdp_enabled

from minidisc import ranks
from minidisc.errors import UserError


@pytest.mark.parametrize(
    ("engine", "gpus", "message"),
    [("FSDP", False, "accelerate has no FSDP on CPUs"), ("DEEPSPEED", True, "DeepSpeed takes GPUs")],
)
def test_an_engine_that_would_not_run_on_the_cpus_is_refused(monkeypatch, engine, gpus, message):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", f"ACCELERATE_USE_{engine}": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus)
    with pytest.raises(UserError, match=message):
        ranks.join("cpu")


def under_fsdp(monkeypatch, **changes):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "ACCELERATE_USE_FSDP": "true", **changes}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("accelerate.PartialState", lambda **_: None)


@pytest.mark.parametrize("version", [{}, {"FSDP_VERSION": "1"}])
def test_of_fsdp_the_second_version_alone_runs(monkeypatch, version):
    under_fsdp(monkeypatch, **version)
    with pytest.raises(UserError, match="set fsdp_version: 2"):
        ranks.join("cuda")


def test_under_fsdp_every_rank_loads_weights(monkeypatch):
    # What accelerate's launcher says unless told otherwise: transformers then leaves all but rank 0 without.
    under_fsdp(monkeypatch, FSDP_VERSION="2", FSDP_CPU_RAM_EFFICIENT_LOADING="true")
    monkeypatch.setattr("transformers.distributed.fsdp._is_torch_distributed_initialized", lambda: True)
    assert is_fsdp_enabled()
    ranks.join("cuda")
    assert not is_fsdp_enabled()
