import sys
import weakref

import pytest
import torch

from minidisc.memory import free_weights, give_weights, is_freed, release_memory, resident_memory
from tests.unit.families import LLAMA


def test_a_model_runs_again_once_it_has_weights_again():
    model, same = LLAMA.model(seed=3), LLAMA.model(seed=3)
    inputs = LLAMA.inputs()
    shapes = [p.shape for p in model.parameters()]
    storages = [weakref.ref(p) for p in model.parameters()]
    free_weights(model)
    assert is_freed(model)
    assert not any(reference() is not None for reference in storages)
    assert [p.shape for p in model.parameters()] == shapes
    give_weights(model, same)
    assert not is_freed(model)
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, LLAMA.model(seed=3)(**inputs).logits)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux to know the truth")
def test_what_is_released_is_no_longer_resident():
    # Blocks of the size of activations, of which glibc keeps the free ones below the last that is in use.
    blocks = [torch.ones(2**18) for _ in range(100)]
    last = blocks[-1]
    full = resident_memory()
    del blocks
    release_memory()
    assert full - resident_memory() > 0.8 * 99 * 2**20
    assert last.sum() == 2**18
