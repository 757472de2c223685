"""What a sub-network is taught by."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def task_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy on integer labels; mean squared error on floating-point ones.

    Args:
        logits: (rows, classes), or (rows, 1) for regression.
        labels: (rows,).
    """
    if labels.is_floating_point():
        return F.mse_loss(logits.squeeze(-1).float(), labels)
    return F.cross_entropy(logits.float(), labels)


def distilled_layers(layers: int) -> list[int]:
    """Indices of the hidden states that are compared: the embeddings' output (0) and every L/6-th layer's."""
    return sorted({round(i * layers / 6) for i in range(7)})


def logit_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Soft cross-entropy of the teacher's distribution; for a single output, mean squared error.

    Args:
        student: (rows, classes).
        teacher: (rows, classes).
    """
    if teacher.shape[-1] == 1:
        return F.mse_loss(student.float(), teacher.float())
    return F.cross_entropy(student.float(), teacher.float().softmax(-1))


def hidden_state_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Mean squared error over the non-padding tokens, averaged over the hidden states.

    Args:
        student: hidden states, each (rows, tokens, hidden).
        teacher: as many, of the same shapes; the hidden size is never pruned, so nothing is projected.
        mask: (rows, tokens), 1 for tokens and 0 for padding.
    """
    weight = mask.to(student[0].dtype) / (mask.sum() * student[0].shape[-1])
    errors = [((s - t).square().sum(-1) * weight).sum() for s, t in zip(student, teacher, strict=True)]
    return torch.stack(errors).mean()


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    student_states: Sequence[Tensor],
    teacher_states: Sequence[Tensor],
    mask: Tensor,
) -> Tensor:
    """(hidden-state loss + logit loss) / 2: the loss of a candidate (arXiv 2205.14570, section 3); needs no labels."""
    states = hidden_state_loss(student_states, teacher_states, mask)
    return (states + logit_loss(student_logits, teacher_logits)) / 2
