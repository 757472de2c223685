import sys
from types import SimpleNamespace

import pytest
import torch

from minidisc import compiling
from minidisc.architectures import architecture_for
from minidisc.checkpointing import checkpointed
from minidisc.compiling import compiled
from minidisc.errors import UserError
from minidisc.nested import NestedNetwork
from minidisc.subnetworks import SubnetworkSpec
from tests.unit.families import BERT, GPT_NEOX, LLAMA

LARGE = SubnetworkSpec(0.25, (3, 2), (40, 24))
SMALL = SubnetworkSpec(0.75, (1, 0), (0, 8))


class Counting:
    """A backend that runs what it is given as it is, and counts how often that was."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph.forward


@pytest.fixture(autouse=True)
def nothing_compiled_before():
    torch.compiler.reset()


def nested(family):
    model = family.model(seed=1, num_hidden_layers=2).train()
    return model, NestedNetwork(model, architecture_for(family.family))


def gradients(model, network, lengths=(11, 7)):
    """Of the sum of all passes: each sub-network, on rows of each length."""
    model.zero_grad()
    for length in lengths:
        for spec in (SMALL, LARGE):
            network.activate(spec)
            model(**BERT.inputs(length=length)).logits.square().sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("row", "checkpointing"),
    [(BERT, False), (LLAMA, True), (GPT_NEOX, False)],
    ids=["bert", "llama-checkpointed", "gpt-neox"],
)
def test_gradients_are_those_of_layers_as_they_are(row, checkpointing):
    model, network = nested(row)
    plain = gradients(model, network)
    architecture = architecture_for(row.family)
    with (
        compiled(model, architecture, backend="eager"),
        checkpointed(model, architecture, checkpointing),
    ):
        fast = gradients(model, network)
    assert plain.keys() == fast.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(fast[name], gradient, atol=1e-4, rtol=1e-4)


def test_a_layer_is_compiled_once_for_each_width_whatever_the_length():
    model, network = nested(BERT)
    backend = Counting()
    with compiled(model, architecture_for("bert"), backend=backend):
        gradients(model, network, lengths=(11,))
        once = backend.graphs
        gradients(model, network, lengths=(7, 11, 5))
    layers, widths = 2, 2
    assert once == layers * widths
    assert backend.graphs == once


@pytest.mark.parametrize("row", [BERT, LLAMA], ids=lambda row: row.name)
def test_layers_stay_whole_where_hidden_states_are_wanted(row):
    model, network = nested(row)
    backend = Counting()
    network.activate(LARGE)
    model(**row.inputs(), output_hidden_states=True)
    hooks = [[*module._forward_hooks.values()] for module in model.modules()]
    with compiled(model, architecture_for(row.family), backend=backend):
        for _ in range(2):
            states = model(**row.inputs(), output_hidden_states=True).hidden_states
            states[-1].sum().backward()
    assert len(states) == 3
    assert backend.graphs == 2
    assert [[*module._forward_hooks.values()] for module in model.modules()] == hooks


def test_more_widths_than_torch_compiles_unasked():
    model, network = nested(BERT)
    backend = Counting()
    widths = range(8, 44, 4)  # torch's own limit is 8
    with compiled(model, architecture_for("bert"), backend=backend):
        for _ in range(2):
            for neurons in widths:
                network.activate(SubnetworkSpec(0.5, (2, 2), (neurons, 8)))
                model(**BERT.inputs()).logits.sum().backward()
    assert backend.graphs == len(widths) + 1


def test_evaluation_is_not_compiled():
    model, network = nested(BERT)
    backend = Counting()
    with compiled(model, architecture_for("bert"), backend=backend), torch.no_grad():
        network.activate(SMALL)
        model(**BERT.inputs())
    assert backend.graphs == 0


def test_the_model_is_left_as_it_was():
    model, _ = nested(BERT)
    before = [set(module.__dict__) for module in model.modules()]
    with compiled(model, architecture_for("bert"), backend=Counting()), checkpointed(model, architecture_for("bert")):
        pass
    assert [set(module.__dict__) for module in model.modules()] == before


def test_a_machine_that_cannot_compile_is_told_in_one_line():
    def without_compiler(graph, inputs):
        raise RuntimeError("no compiler found\nand much more")

    model, network = nested(BERT)
    with (
        pytest.raises(UserError, match=r"^--compile failed on this machine: no compiler found; go on .* --resume\.$"),
        compiled(model, architecture_for("bert"), backend=without_compiler),
    ):
        gradients(model, network)


def test_an_older_torch_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch._dynamo", SimpleNamespace(config=SimpleNamespace()))
    with pytest.raises(UserError, match="--compile needs a newer PyTorch"):
        compiling.check_compilation()
