import os
import subprocess
import sys
import weakref
from pathlib import Path

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


LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
FLAGS_OF_A_TENSOR = """
import os, minidisc
assert "THP_MEM_ALLOC_ENABLE" not in os.environ
import minidisc.trainer, torch
tensor = torch.ones(2**22)
inside = False
for line in open("/proc/self/smaps"):
    first, _, last = line.split()[0].partition("-")
    if last:
        inside = int(first, 16) <= tensor.data_ptr() < int(last, 16)
    if inside and line.startswith("VmFlags:"):
        print(line)
"""


@pytest.mark.skipif(not LARGE_PAGES.exists(), reason="the system has no large pages")
def test_large_pages_are_asked_for_by_what_trains_alone():
    # A process of its own: torch asks for its settings once.
    own = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    command = [sys.executable, "-c", FLAGS_OF_A_TENSOR]
    flags = subprocess.run(command, env=own, check=True, capture_output=True, text=True).stdout.split()
    assert flags[0] == "VmFlags:"
    assert "hg" in flags


@pytest.fixture
def heap(monkeypatch):
    """A guard, and a step whose memory is given; it returns how often the heap was trimmed."""
    resident, trims = [0], []
    monkeypatch.setattr(memory, "resident_memory", lambda: resident[0])
    monkeypatch.setattr(memory, "trim_heap", lambda: trims.append(1))
    monkeypatch.setattr(memory, "HOLES", 0.1)
    guard = memory.HeapGuard()

    def called(now, size=None):
        resident[0] = now
        trims.clear()
        guard.part() if size is None else guard.step(size)
        return len(trims)

    return called


def test_the_heap_is_trimmed_once_it_has_grown(heap):
    # Before the first step in any case. Then 100 is the level, of which 110 is a tenth more and 111 more than that;
    # after that trim the level is the larger of 100 and 120, after the next one that of 120 and 90.
    steps = [500, 100, 90, 110, 111, 120, 132, 133, 90, 131, 133]
    assert [heap(now, 7) for now in steps] == [1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 1]


def test_the_level_is_that_of_the_largest_batch(heap):
    assert [heap(100, 7), heap(100, 9), heap(150, 8)] == [1, 1, 0]
    # 9 left 150, so that 165 may be there.
    assert [heap(165, 1), heap(165, 9), heap(166, 8), heap(120, 8), heap(165, 9)] == [0, 0, 1, 0, 0]


def test_a_step_without_holes_has_none_before_its_parts(heap):
    assert [heap(100, 7), heap(120), heap(100, 7), heap(110), heap(111), heap(100, 7)] == [1, 1, 0, 0, 1, 0]
