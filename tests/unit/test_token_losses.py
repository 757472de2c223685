"""The losses of outputs that stand one at each token."""

import pytest
import torch
from torch.nn import functional as F

from minidisc.losses import logit_loss, task_loss

MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
LABELS = torch.tensor([[-100, 2, 0, -100], [-100, 1, -100, -100]])


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_task_loss_is_the_mean_over_the_labelled_tokens():
    logits = normal(2, 4, 3, seed=1)
    probabilities = logits.softmax(-1)
    expected = -(probabilities[0, 1, 2].log() + probabilities[0, 2, 0].log() + probabilities[1, 1, 1].log()) / 3
    torch.testing.assert_close(task_loss(logits, LABELS), expected)


def test_task_loss_of_a_batch_without_labelled_tokens_is_zero():
    logits = normal(2, 4, 3, seed=1).requires_grad_()
    loss = task_loss(logits, torch.full((2, 4), -100))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("temperature", [1.0, 10.0])
def test_logit_loss_is_the_mean_over_all_tokens_that_are_no_padding(temperature):
    student, teacher = normal(2, 4, 3, seed=1), normal(2, 4, 3, seed=2)
    losses = [
        -((teacher[i, j] / temperature).softmax(-1) * F.log_softmax(student[i, j] / temperature, -1)).sum()
        for i, j in [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)]
    ]
    expected = temperature**2 * sum(losses) / 6
    torch.testing.assert_close(logit_loss(student, teacher, MASK, temperature=temperature), expected)


def test_what_stands_at_padding_does_not_matter():
    student, teacher = normal(2, 4, 3, seed=1), normal(2, 4, 3, seed=2)
    before = logit_loss(student, teacher, MASK)
    student[1, 2:], teacher[1, 2:] = 1e9, -7
    assert torch.equal(logit_loss(student, teacher, MASK), before)
