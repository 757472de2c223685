import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from minidisc.architectures import architecture_for
from minidisc.extraction import extract
from minidisc.importance import ABSENT, Importance, compute_importance
from minidisc.losses import task_loss
from minidisc.subnetworks import SubnetworkSpec
from tests.unit.families import BERT, HEADS, LAYERS, NEURONS, matrix


def classification(logits, labels):
    return F.cross_entropy(logits, labels)


def regression(logits, labels):
    return ((logits[:, 0] - labels) ** 2).mean()


def tokens(logits, labels):
    """Word by word: each label that is one, against the output at its token."""
    pairs = [(logits[i, j], labels[i, j]) for i, j in (labels >= 0).nonzero().tolist()]
    return torch.stack([F.cross_entropy(logit, label) for logit, label in pairs]).mean()


TASKS = {
    "classification": (classification, 3, torch.tensor([0, 2, 1, 2])),
    "regression": (regression, 1, torch.tensor([0.5, -1.0, 3.0, 0.1])),
    "tokens": (tokens, 3, torch.tensor([[-100, 0, -100, 2, 1], [-100, 2, 2, -100, -100]])),
}


def batches_of(family, labels, count=2):
    def batch(i):
        inputs = family.inputs(rows=len(labels), length=9 + 2 * i, seed=i)
        if labels.dim() == 2:
            return {**inputs, "labels": F.pad(labels, (0, 4 + 2 * i), value=-100)}
        return {**inputs, "labels": labels}

    return [batch(i) for i in range(count)]


def mask_gradients(family, model, batches, loss_of):
    """The definition, word for word: masks of ones, their gradients batch by batch, |.|, sum, norm."""
    model, size = copy.deepcopy(model).eval(), family.head_size
    attention_outputs, ffn_downs = family.attention_outputs(model), family.ffn_downs(model)
    head_masks = torch.ones(len(attention_outputs), HEADS, requires_grad=True)
    neuron_masks = torch.ones(len(ffn_downs), NEURONS, requires_grad=True)
    for i, linear in enumerate(attention_outputs):
        heads = matrix(linear).shape[1] // size
        linear.register_forward_pre_hook(
            lambda _, args, i=i, n=heads: (args[0] * head_masks[i, :n].repeat_interleave(size),)
        )
    for i, linear in enumerate(ffn_downs):
        neurons = matrix(linear).shape[1]
        linear.register_forward_pre_hook(lambda _, args, i=i, n=neurons: (args[0] * neuron_masks[i, :n],))
    sums = [np.zeros(head_masks.shape), np.zeros(neuron_masks.shape)]
    for batch in batches:
        inputs = {k: v for k, v in batch.items() if k != "labels"}
        loss = loss_of(model(**inputs).logits, batch["labels"])
        for total, gradient in zip(sums, torch.autograd.grad(loss, [head_masks, neuron_masks]), strict=True):
            total += gradient.abs().double().numpy()
    # What nothing depends on has scores of zero.
    return [total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-300) for total in sums]


@pytest.mark.parametrize("task", TASKS)
def test_scores_are_the_gradients_of_masks(family, task, attention):
    loss_of, outputs, labels = TASKS[task]
    # Dropout would show if the model were not put in evaluation mode.
    build = family.token_model if task == "tokens" else family.model
    model = build(num_labels=outputs, dropout=0.4, attention=attention).double().train()
    batches = batches_of(family, labels)
    # The tool's own loss on the one side, the one written down above on the other.
    importance = compute_importance(model, architecture_for(family.family), batches, task_loss)
    heads, neurons = mask_gradients(family, model, batches, loss_of)
    np.testing.assert_allclose(importance.heads.numpy(), heads, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(importance.neurons.numpy(), neurons, rtol=1e-5, atol=1e-6)
    assert importance.heads.dtype == importance.neurons.dtype == torch.float32


def test_scores_of_a_network_whose_layers_have_their_own_widths(family):
    loss_of, outputs, labels = TASKS["classification"]
    spec = family.fit(SubnetworkSpec(0.5, (3, 0, 1), (0, 20, 9)))
    model = extract(family.model(num_labels=outputs), spec)
    batches = batches_of(family, labels)
    widths = HEADS, NEURONS
    importance = compute_importance(model, architecture_for(family.family), batches, task_loss, widths)
    expected = mask_gradients(family, model, batches, loss_of)
    for found, truth, kept in zip(
        (importance.heads, importance.neurons), expected, (spec.heads, spec.neurons), strict=True
    ):
        for row, own, count in zip(found.numpy(), truth, kept, strict=True):
            np.testing.assert_allclose(row[:count], own[:count], rtol=1e-5, atol=1e-6)
            assert (row[count:] == ABSENT).all()


def test_the_absolute_value_is_taken_per_batch():
    loss_of, _, labels = TASKS["classification"]
    batch = {**BERT.inputs(), "labels": labels}
    model, architecture = BERT.model(num_labels=3), architecture_for("bert")

    def opposite(logits, labels):
        opposite.sign = -opposite.sign
        return opposite.sign * loss_of(logits, labels)

    opposite.sign = 1
    once = compute_importance(model, architecture, [batch], loss_of)
    twice = compute_importance(model, architecture, [batch, batch], opposite)
    torch.testing.assert_close(once.heads, twice.heads)
    torch.testing.assert_close(once.neurons, twice.neurons)


def hooks_of(model):
    return [h for m in model.modules() for h in (*m._forward_pre_hooks, *m._forward_hooks, *m._backward_hooks)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_the_model_is_left_as_it_was(training, error):
    loss_of, _, labels = TASKS["classification"]
    model = BERT.model(num_labels=3, dropout=0.4).train(training)
    model.bert.embeddings.requires_grad_(False)
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    before = copy.deepcopy(model.state_dict())

    def failing(logits, labels):
        if error is not None:
            raise error
        return loss_of(logits, labels)

    arguments = (model, architecture_for("bert"), batches_of(BERT, labels), failing)
    if error is None:
        with torch.no_grad():  # a caller's no_grad does not matter either
            compute_importance(*arguments)
    else:
        with pytest.raises(error):
            compute_importance(*arguments)
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
    assert False in flags.values()
    assert all(p.grad is None for p in model.parameters())
    assert all(module.training == training for module in model.modules())
    assert not hooks_of(model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_batches_are_not_changed():
    loss_of, _, labels = TASKS["classification"]
    batches = batches_of(BERT, labels)
    compute_importance(BERT.model(num_labels=3), architecture_for("bert"), batches, loss_of)
    assert all("labels" in batch for batch in batches)


def test_a_layer_without_effect_scores_zero():
    loss_of, _, labels = TASKS["classification"]
    model = BERT.model(num_labels=3)
    torch.nn.init.zeros_(BERT.attention_outputs(model)[1].weight)
    torch.nn.init.zeros_(BERT.ffn_downs(model)[1].weight)
    importance = compute_importance(model, architecture_for("bert"), batches_of(BERT, labels), loss_of)
    assert not importance.heads[1].any()
    assert not importance.neurons[1].any()
    torch.testing.assert_close(importance.heads[[0, 2]].norm(dim=1), torch.ones(2))


def test_saved_scores_are_read_back(tmp_path):
    importance = Importance(torch.rand(LAYERS, HEADS), torch.rand(LAYERS, NEURONS))
    importance.save(tmp_path / "importance.safetensors")
    again = Importance.load(tmp_path / "importance.safetensors")
    assert torch.equal(again.heads, importance.heads)
    assert torch.equal(again.neurons, importance.neurons)
