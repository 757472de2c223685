import sys
import weakref

import pytest
import torch

from minidisc import memory
from minidisc.layers import state_to_save
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


def test_weights_with_two_names_stay_one():
    model, same = (LLAMA.causal_model(tie_word_embeddings=True) for _ in range(2))
    whole, count = state_to_save(model), sum(p.numel() for p in model.parameters())
    free_weights(model)
    assert state_to_save(model).keys() == whole.keys() < model.state_dict().keys()
    give_weights(model, same)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert sum(p.numel() for p in model.parameters()) == count
    inputs = LLAMA.inputs()
    with torch.no_grad():
        expected = LLAMA.causal_model(tie_word_embeddings=True)(**inputs).logits
        assert torch.equal(model(**inputs).logits, expected)


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


def test_the_heap_is_trimmed_once_it_has_grown(monkeypatch):
    resident, trimmed = [], []
    monkeypatch.setattr(memory, "resident_memory", lambda: resident[-1])
    monkeypatch.setattr(memory, "trim_heap", lambda: trimmed.append(len(resident)))
    guard = memory.HeapGuard()
    # Before the first step in any case. Then 100 is the level, of which 110 is a tenth more and 111 more than that;
    # after that trim the level is the larger of 100 and 120, after the next one that of 120 and 90.
    for value in (500, 100, 90, 110, 111, 120, 132, 133, 90, 131, 133):
        resident.append(value)
        guard.step()
    assert trimmed == [1, 5, 8, 11]
