import numpy as np
import pytest
import torch
from torch import nn

from minidisc import probing
from minidisc.architectures import architecture_for
from minidisc.probing import ProbeSettings, probe, saved_bytes
from tests.unit.families import BERT, LAYERS, LLAMA


def probed(family, monkeypatch, parameters=probing.PARAMETERS, layers=8, **settings):
    monkeypatch.setattr(probing, "PARAMETERS", parameters)
    model = family.model(num_hidden_layers=layers) if family.drops_layers else family.model()
    batches = [family.inputs(rows=4, length=n, padding=False) for n in (6, 9, 12)]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = probe(
        model,
        architecture_for(family.family),
        [0.5, 0.9],
        batches,
        family.inputs(rows=2, length=12, padding=False),
        lambda parameters: torch.optim.SGD(parameters, lr=1.0),
        ProbeSettings(neuron_multiple=1, **settings),
    )
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    return result


def test_saved_bytes_by_hand():
    model = nn.Sequential(nn.Linear(10, 20), nn.Tanh(), nn.Linear(20, 5))
    inputs = torch.ones(3, 10)
    with saved_bytes(model) as saved:
        model(inputs).sum().backward()
    # The first map's input, and what tanh makes, which is also the second map's input.
    assert sorted(saved.values()) == [3 * 10 * 4, 3 * 20 * 4]


def test_every_family_can_be_probed(family, monkeypatch):
    if family.per_layer:
        pytest.skip("the tiny configuration has lists of three layers")
    result = probed(family, monkeypatch, parameters=0)
    for figure in (result.forward, result.importance, result.update, *result.train, *result.evaluate):
        assert np.shape(figure) == (2,)
        assert (figure >= 0).all()
    assert result.importance_bytes > 0
    assert result.train_bytes > 0


@pytest.mark.parametrize("settings", [{}, {"loss": "minilm"}, {"loss": "labels"}, {"loss": "pkd"}, {"bf16": True}])
def test_every_way_of_training_can_be_probed(monkeypatch, settings):
    assert probed(BERT, monkeypatch, **settings).train_bytes > 0


@pytest.mark.parametrize("row", [BERT, LLAMA])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_few_layers_tell_what_all_keep(monkeypatch, row, checkpointing):
    # 24 layers of which two are tried, against all of them; embeddings and classifier are a part of neither.
    few, every = (
        probed(row, monkeypatch, parameters, layers=24, gradient_checkpointing=checkpointing, loss="logits")
        for parameters in (0, 1e9)
    )
    assert few.importance_bytes == pytest.approx(every.importance_bytes, rel=0.1)
    assert few.train_bytes == pytest.approx(every.train_bytes, rel=0.15)


def test_checkpointing_keeps_less(monkeypatch):
    plain, less = (probed(BERT, monkeypatch, gradient_checkpointing=on) for on in (False, True))
    assert less.importance_bytes < 0.5 * plain.importance_bytes
    assert less.train_bytes < 0.5 * plain.train_bytes


def test_between_two_sparsities(monkeypatch):
    result = probed(BERT, monkeypatch, layers=LAYERS)
    middle = result.at(result.train, 0.7)
    np.testing.assert_allclose(middle, (result.train[0] + result.train[1]) / 2)
