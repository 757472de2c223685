import numpy as np
import pytest
import torch
from torch import nn

from minidisc import probing
from minidisc.architectures import architecture_for
from minidisc.measure import Shape
from minidisc.probing import ProbeSettings, probe, saved_bytes
from tests.unit.families import BERT, LAYERS, LLAMA, MATRIX


def probed(family, monkeypatch, parameters=probing.PARAMETERS, layers=8, model=None, **settings):
    monkeypatch.setattr(probing, "PARAMETERS", parameters)
    if model is None:
        # Where the configuration has lists of three layers, it stays at them.
        deep = family.drops_layers and not family.per_layer
        model = family.model(num_hidden_layers=layers) if deep else family.model()
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
    result = probed(family, monkeypatch, parameters=0)
    for figure in (result.forward, result.importance, result.update, *result.train, *result.evaluate):
        assert np.shape(figure) == (2,)
        assert (figure >= 0).all()
    assert result.importance_bytes > 0
    assert result.train_bytes > 0


@pytest.mark.parametrize("settings", [{}, {"loss": "minilm"}, {"loss": "labels"}, {"loss": "pkd"}, {"bf16": True}])
def test_every_way_of_training_can_be_probed(monkeypatch, settings):
    assert probed(BERT, monkeypatch, **settings).train_bytes > 0


@pytest.mark.parametrize("kind", ["bert", "llama", "language model"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("loss", ["logits", "hidden+logits"])
def test_a_few_layers_tell_what_all_keep(monkeypatch, kind, checkpointing, loss):
    # 12 layers of which two are tried, against all of them; embeddings and classifier are a part of neither.
    row, model = (BERT if kind == "bert" else LLAMA), None
    if kind == "language model":
        model = LLAMA.causal_model(num_hidden_layers=12, vocab_size=2000)
    few, every = (
        probed(row, monkeypatch, parameters, 12, model, gradient_checkpointing=checkpointing, loss=loss)
        for parameters in (0, 1e9)
    )
    assert few.importance_bytes == pytest.approx(every.importance_bytes, rel=0.1)
    assert few.train_bytes == pytest.approx(every.train_bytes, rel=0.15)


def test_what_a_vocabulary_keeps_by_hand(monkeypatch):
    small, large = (
        probed(LLAMA, monkeypatch, 0, model=LLAMA.causal_model(vocab_size=words), loss="logits")
        for words in (1000, 3000)
    )
    more = 12 * 2000 * 4  # bytes of the logits of a row's tokens
    # The logarithm of the softmax; in training the teacher's softmax too.
    assert large.importance_bytes - small.importance_bytes == pytest.approx(more, rel=1e-3)
    assert large.train_bytes - small.train_bytes == pytest.approx(2 * more, rel=1e-3)


@pytest.mark.parametrize("words", [0, 1000])
def test_layers_take_as_much_longer_as_there_are_more_but_a_vocabulary_does_not(monkeypatch, words):
    monkeypatch.setattr(probing, "PARAMETERS", 0)
    models = [
        LLAMA.causal_model(num_hidden_layers=n, vocab_size=words) if words else LLAMA.model(num_hidden_layers=n)
        for n in (12, 2)
    ]
    twelve, two = (Shape.of(model, architecture_for("llama")) for model in models)
    networks = probing._Networks(models[0], architecture_for("llama"), [0.5], ProbeSettings())
    flops = [shape.forward_flops(shape.full(), 3, 11) for shape in (twelve, two)]
    assert networks.scale(two.full(), 11) == pytest.approx(flops[0] / flops[1])
    assert (networks.scale(two.full(), 11) == 6) == (words == 0)


@pytest.mark.parametrize("row", [row for row in MATRIX if row.causal_class], ids=lambda row: row.name)
@pytest.mark.parametrize("train_embeddings", [False, True])
def test_every_language_model_can_be_probed(monkeypatch, row, train_embeddings):
    result = probed(row, monkeypatch, 0, model=row.causal_model(), train_embeddings=train_embeddings)
    assert min(*result.update, *np.ravel(result.train), *np.ravel(result.evaluate)) >= 0
    assert result.importance_bytes > 0
    assert result.train_bytes > 0


def test_checkpointing_keeps_less(monkeypatch):
    plain, less = (probed(BERT, monkeypatch, gradient_checkpointing=on) for on in (False, True))
    assert less.importance_bytes < 0.5 * plain.importance_bytes
    assert less.train_bytes < 0.5 * plain.train_bytes


def test_between_two_sparsities(monkeypatch):
    result = probed(BERT, monkeypatch, layers=LAYERS)
    middle = result.at(result.train, 0.7)
    np.testing.assert_allclose(middle, (result.train[0] + result.train[1]) / 2)
