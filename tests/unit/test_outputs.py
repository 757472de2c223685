from operator import attrgetter

import pytest
import torch

from minidisc.architectures import architecture_for
from minidisc.extraction import extract
from minidisc.nested import NestedNetwork
from minidisc.outputs import OutputReader
from minidisc.subnetworks import SubnetworkSpec

SPECS = [SubnetworkSpec(0.5, (4, 2, 3), (9, 9, 9)), SubnetworkSpec(0.7, (1, 2, 0), (9, 0, 9))]


def parts(family, output):
    """Queries, keys and values, where one map makes all of them; else what the map makes."""
    if family.interleaved:
        by_head = output.unflatten(-1, (-1, 3, family.head_size))
        return [by_head[..., i, :].flatten(-2) for i in range(3)]
    shares = family.fused.get(family.projections[0].split(".")[-1], (1,))
    return output.split([output.shape[-1] // sum(shares) * n for n in shares], -1)


@pytest.mark.parametrize("spec", SPECS)
def test_relations_are_the_projections_of_what_enters_the_last_layer_with_heads(family, spec):
    model, architecture, inputs = family.model(seed=6), architecture_for(family.family), family.inputs()
    last = max(i for i, heads in enumerate(spec.heads) if heads)
    layer = attrgetter(*family.projections)(family.layers_of(extract(model, family.fit(spec)))[last])
    maps = layer if isinstance(layer, tuple) else (layer,)

    network = NestedNetwork(model, architecture)
    network.activate(family.fit(spec))
    entered = []
    wide = attrgetter(family.projections[0])(family.layers_of(model)[last])
    wide.register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    reader = OutputReader(model, architecture, [0, 1], relations=True)
    for _ in range(2):
        with torch.no_grad():
            outputs = reader(inputs)
            # Relative positions, which go through the same maps in some families, are not in rows.
            states = [x for x in entered if x.shape[:2] == inputs["input_ids"].shape][-1]
            expected = [part for linear in maps for part in parts(family, linear(states))]
        for value, truth in zip(outputs.relations, expected, strict=True):
            torch.testing.assert_close(value, truth, atol=1e-5, rtol=0)
    reader.close()
    assert [state.shape for state in outputs.states] == [states.shape] * 2


def test_without_heads_there_are_no_relations(family):
    model, architecture = family.model(), architecture_for(family.family)
    small = extract(model, family.fit(SubnetworkSpec(0.9, (0, 0, 0), (9, 9, 9))))
    with torch.no_grad():
        assert OutputReader(small, architecture, [0], relations=True)(family.inputs()).relations == []


def test_passes_of_others_leave_nothing_behind(family):
    model, architecture, inputs = family.model(seed=6), architecture_for(family.family), family.inputs()
    network = NestedNetwork(model, architecture)
    reader = OutputReader(model, architecture, [0], relations=True)
    with torch.no_grad():
        network.activate(family.fit(SPECS[1]))
        expected = reader(inputs).relations
        network.activate(None)
        model(**family.inputs(rows=2, length=5))
        network.activate(family.fit(SPECS[1]))
        for value, truth in zip(reader(inputs).relations, expected, strict=True):
            torch.testing.assert_close(value, truth)
