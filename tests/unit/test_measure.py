import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from minidisc.architectures import architecture_for
from minidisc.extraction import extract
from minidisc.layer_dropping import drop_layers
from minidisc.measure import Shape, forget_memory, highest_memory, measured, peak_memory, processor
from minidisc.results import Cost
from minidisc.subnetworks import SubnetworkSpec, full_width
from tests.unit.families import BERT, GPT2, HEADS, HIDDEN, LAYERS, NEURONS, matrix

SPECS = [
    SubnetworkSpec(0.0, (HEADS,) * LAYERS, (NEURONS,) * LAYERS),
    SubnetworkSpec(0.5, (2, 3, 1), (17, 30, 25)),
    SubnetworkSpec(0.9, (1, 0, 0), (0, 8, 5)),
]


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_sizes_are_those_of_the_dense_model(family, spec):
    model, spec = family.model(), family.fit(spec)
    small = extract(model, spec)
    sizes = Shape.of(model, architecture_for(family.family)).sizes(spec)
    assert sizes.all == count(small)
    assert sizes.without_embeddings == count(small) - sum(map(count, family.embedding_modules(small)))
    nothing = extract(model, family.fit(SubnetworkSpec(1.0, (0,) * LAYERS, (0,) * LAYERS)))
    assert sizes.prunable == count(small) - count(nothing)


def test_shape_of(family):
    shape = Shape.of(family.model(), architecture_for(family.family))
    assert (shape.hidden, shape.head_size, shape.layers) == (HIDDEN, family.head_size, LAYERS)
    assert (shape.heads, shape.neurons) == (HEADS, NEURONS)
    assert shape.full() == family.fit(full_width(LAYERS, HEADS, NEURONS))


def test_neurons_that_the_configuration_leaves_open():
    model = GPT2.model(n_inner=None)
    shape = Shape.of(model, architecture_for("gpt2"))
    assert shape.neurons == matrix(GPT2.ffn_downs(model)[0]).shape[1] == 4 * HIDDEN
    small, spec = drop_layers(model, architecture_for("gpt2"), 0.3)
    assert spec.neurons == (4 * HIDDEN,) * 2
    assert shape.sizes(full_width(LAYERS, HEADS, 4 * HIDDEN)).all == count(model)
    assert count(model) - count(small) == count(GPT2.layers_of(model)[0])


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_flops_are_those_that_torch_counts(family, spec):
    model, spec = family.model(attention="eager"), family.fit(spec)
    small = extract(model, spec)
    small.requires_grad_(False)  # the counter stumbles over views of trained parameters
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        small(**family.inputs(rows=3, length=7, padding=False))
    counts = counter.get_flop_counts()
    names = {module: name for name, module in small.named_modules()}
    all_layers = family.layers_of(small) + family.decoder_layers_of(small)
    layers = [counts[f"{type(small).__name__}.{names[layer]}"] for layer in all_layers]
    predicted = Shape.of(model, architecture_for(family.family)).forward_flops(spec, 3, 7)
    assert predicted == sum(sum(layer.values()) for layer in layers)


def test_costs_add_up_but_memory_does_not():
    total = Cost(1, 2.0, 3.0, 4.0, 500) + Cost(10, 20.0, 30.0, 40.0, 50)
    assert total == Cost(11, 22.0, 33.0, 44.0, 500)


@pytest.fixture
def clock(monkeypatch):
    """Seconds on the wall and of the processor; a test lets them pass."""
    now = {"perf_counter": 100.0, "process_time": 10.0}
    for name in now:
        monkeypatch.setattr(time, name, lambda name=name: now[name])
    return now


def test_measured_counts_waiting_as_wall_time_only(clock):
    cost = Cost(seconds=1.0)
    with measured(cost) as same:
        clock["perf_counter"] += 5
    assert same is cost
    assert (cost.seconds, cost.cpu_seconds) == (6, 0)
    assert cost.peak_memory == peak_memory()


def test_measured_counts_a_block_that_fails(clock):
    cost = Cost()
    with pytest.raises(KeyError), measured(cost):
        clock["process_time"] += 3
        raise KeyError
    assert (cost.seconds, cost.cpu_seconds) == (0, 3)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux to know the truth")
def test_peak_memory_is_what_the_kernel_says():
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    assert peak_memory() == pytest.approx(1024 * int(line.split()[1]), rel=0.02)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux to forget a peak")
def test_the_highest_peak_outlives_what_is_measured_after_it():
    block = np.ones(2**24)
    del block
    high = highest_memory()
    cost = Cost()
    with measured(cost):
        pass
    assert cost.peak_memory < high - 2**26
    assert highest_memory() >= high
    # The next run has not needed it.
    forget_memory()
    assert highest_memory() < high - 2**26


def test_processor_names_cores():
    assert processor().endswith("cores")


def test_shape_of_the_teacher_counts_every_parameter_once():
    model = BERT.model()
    shape = Shape.of(model, architecture_for("bert"))
    assert shape.all_parameters == sum(v.numel() for v in model.state_dict().values())
