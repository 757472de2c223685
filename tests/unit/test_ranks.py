import pytest
import torch

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
