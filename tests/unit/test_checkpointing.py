import pytest
import torch

from minidisc.architectures import architecture_for
from minidisc.checkpointing import checkpointed
from minidisc.importance import compute_importance
from minidisc.losses import task_loss
from minidisc.probing import saved_bytes
from tests.unit.families import BERT, HIDDEN, LLAMA


def gradients(family, *, on, training=True):
    """Gradients of all parameters, and the bytes that the forward pass has saved."""
    model = family.model(dropout=0.3 if training else 0.0).train(training)
    inputs = family.inputs()
    torch.manual_seed(4)
    with checkpointed(model, architecture_for(family.family), on), saved_bytes(model) as saved:
        loss = model(**inputs).logits.square().sum()
        loss.backward()
    return {name: p.grad for name, p in model.named_parameters()}, sum(saved.values())


@pytest.mark.parametrize("training", [True, False])
def test_gradients_are_the_same_and_less_is_kept(family, training):
    (plain, much), (checkpointing, little) = (gradients(family, on=on, training=training) for on in (False, True))
    # What layers recompute is saved inside of them; autograd's own hooks see what is saved outside.
    assert little < 0.4 * much
    for name, gradient in plain.items():
        assert (gradient is None) == (checkpointing[name] is None), name
        if gradient is not None:
            torch.testing.assert_close(gradient, checkpointing[name], atol=1e-4, rtol=1e-5)


def test_the_model_is_left_as_it_was():
    model = LLAMA.model()
    before = [dict(module.__dict__) for module in model.modules()]
    with pytest.raises(KeyError), checkpointed(model, architecture_for("llama")):
        assert not model.config.use_cache
        raise KeyError
    assert model.config.use_cache
    assert [module.__dict__.keys() for module in model.modules()] == [names.keys() for names in before]


def test_importance_is_the_same(family):
    model = family.model(num_labels=3)
    batches = [{**family.inputs(seed=seed), "labels": torch.tensor([0, 1, 2, 1])} for seed in (0, 1)]
    one, other = (
        compute_importance(model, architecture_for(family.family), batches, task_loss, gradient_checkpointing=on)
        for on in (False, True)
    )
    assert torch.equal(one.heads, other.heads)
    assert torch.equal(one.neurons, other.neurons)


def test_importance_keeps_no_layers_activations():
    model, inputs = BERT.model(num_hidden_layers=12), BERT.inputs(rows=8)
    kept = []

    def loss_of(logits, labels):
        # All that autograd still holds when the forward pass is over; storages are freed with their last tensor.
        kept.append(sum(sizes.values()))
        return logits.sum()

    for on in (False, True):
        with saved_bytes(model) as sizes:
            batch = {**inputs, "labels": None}
            compute_importance(model, architecture_for("bert"), [batch], loss_of, gradient_checkpointing=on)
    layers_inputs = 12 * 8 * 11 * HIDDEN * 4
    assert kept[1] == pytest.approx(layers_inputs, rel=0.05)
    assert kept[0] > 5 * kept[1]
