"""What a sub-network is taught by."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


@dataclass(frozen=True)
class LargestLogits:
    """What is kept of logits over a vocabulary: the largest of every token, and what the others weigh together.

    ``values`` (rows, tokens, k); ``places`` (rows, tokens, k) in the vocabulary; ``rest`` (rows, tokens, 1), the
    logarithm of the sum of the others' exponentials.
    """

    values: Tensor
    places: Tensor
    rest: Tensor


@dataclass(frozen=True)
class Outputs:
    """What a network makes of a batch, as far as a loss compares it.

    ``logits`` (rows, classes) or (rows, tokens, classes); ``states``, hidden states, each (rows, tokens, hidden);
    ``relations``, the queries, keys and values of one layer, each (rows, tokens, width), or nothing where no loss
    wants them or no layer has any; ``largest``, of a teacher, where these are to be compared instead of all logits.
    """

    logits: Tensor
    states: Sequence[Tensor]
    relations: Sequence[Tensor] = ()
    largest: LargestLogits | None = None


@dataclass(frozen=True)
class Share:
    """What a mean over the rows, tokens or labels that this process has of a batch counts for.

    Each is their number over the mean number of all processes and of all batches of the step. So the mean over
    processes and batches of share · mean is the mean over all rows of the step.
    """

    rows: float | Tensor = 1.0
    tokens: float | Tensor = 1.0
    labels: float | Tensor = 1.0


@dataclass(frozen=True)
class Truth:
    """What is known of a batch: ``mask`` (rows, tokens), 1 for tokens and 0 for padding; ``labels`` or None.

    Labels are as `task_loss` takes them. ``classes`` are the logits, in the order of the labels' integers; None for
    all of them. ``share`` says what part of the step's batch it is; ``at_last`` whether the model reads a sentence's
    label from its last token.
    """

    mask: Tensor
    labels: Tensor | None
    classes: Sequence[int] | None
    share: Share = Share()
    at_last: bool = False


def of_classes(logits: Tensor, classes: Sequence[int] | None) -> Tensor:
    """The logits of some classes, or of all of them."""
    # Not by a list of them, for which the device would wait.
    return logits if classes is None else torch.stack([logits[..., i] for i in classes], -1)


def task_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy on integer labels; mean squared error on floating-point ones.

    Args:
        logits: (rows, classes), or (rows, 1) for regression, or (rows, tokens, classes).
        labels: (rows,), or (rows, tokens) with negative ones where a token has none.
    """
    if labels.is_floating_point():
        return F.mse_loss(logits.squeeze(-1).float(), labels)
    labels = labels.flatten()
    # Not the mean of PyTorch, which is NaN where no token of a batch has a label.
    losses = F.cross_entropy(logits.flatten(0, -2).float(), labels, reduction="sum")
    return losses / (labels >= 0).sum().clamp_min(1)


def distilled_layers(layers: int, decoder_layers: int = 0) -> list[int]:
    """Indices of the hidden states that are compared: the embeddings' output (0) and every L/6-th layer's.

    Those of so many decoder layers, if there are any, stand behind the encoder's and are chosen in the same way.
    """
    own = sorted({round(i * layers / 6) for i in range(7)})
    return own + [layers + 1 + i for i in distilled_layers(decoder_layers)] if decoder_layers else own


def logit_loss(student: Tensor, teacher: Tensor, mask: Tensor | None = None, temperature: float = 1.0) -> Tensor:
    """Soft cross-entropy of the teacher's distribution; for a single output, mean squared error.

    Args:
        student: (rows, classes), or (rows, tokens, classes).
        teacher: of the same shape.
        mask: (rows, tokens), 1 for tokens and 0 for padding; outputs of tokens are compared where it is 1.
        temperature: divides both logits; the loss is multiplied by its square (arXiv 1503.02531).
    """
    classes = teacher.shape[-1]
    if classes == 1:
        losses = F.mse_loss(student.float(), teacher.float(), reduction="none").flatten()
    else:
        targets = (teacher.float() / temperature).softmax(-1).reshape(-1, classes)
        logits = student.float().reshape(-1, classes) / temperature
        losses = F.cross_entropy(logits, targets, reduction="none") * temperature**2
    if teacher.dim() == 2 or mask is None:
        return losses.mean()
    # Not those of some tokens alone: how many they are is not known without waiting for the device.
    return (losses * mask.flatten()).sum() / mask.sum()


def largest_logit_loss(student: Tensor, teacher: LargestLogits, mask: Tensor) -> Tensor:
    """Soft cross-entropy of the teacher's distribution, in which all but its largest logits are one class.

    Were the others left out, the student would be taught that what the teacher gives a fifth of its probability to
    (SmolLM2-135M beyond its 64 largest logits) never comes next; as one class they keep the student's own order.

    Args:
        student: (rows, tokens, classes).
        teacher: the largest logits of these tokens.
        mask: (rows, tokens), 1 for tokens and 0 for padding.
    """
    targets = torch.cat([teacher.values, teacher.rest], -1).float().softmax(-1)
    logarithms = cast(Tensor, _KeptAndOthers.apply(student.float(), teacher.places)).log_softmax(-1)
    return -((targets * logarithms).sum(-1) * mask).sum() / mask.sum()


class _KeptAndOthers(torch.autograd.Function):
    """The logits at each token's own places, (rows, tokens, k), and behind them what all others weigh together.

    Autograd would make a dozen tensors as large as the logits, which takes a third of a small student's pass or more.
    A token's places differ, except in padding, whose gradients are zero.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, places: Tensor) -> Tensor:
        weights = logits.scatter(-1, places, -torch.inf)
        # Finite, so that others that all are -inf weigh nothing.
        top = weights.amax(-1, keepdim=True).clamp_min_(torch.finfo(weights.dtype).min)
        total = weights.sub_(top).exp_().sum(-1, keepdim=True)
        ctx.save_for_backward(weights, total, places)
        return torch.cat([logits.gather(-1, places), total.log() + top], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        weights, total, places = ctx.saved_tensors
        kept, others = gradient[..., :-1], gradient[..., -1:]
        return (weights * (others / total)).scatter_(-1, places, kept), None


def hidden_state_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Mean squared error over the non-padding tokens, averaged over the hidden states.

    Args:
        student: hidden states, each (rows, tokens, hidden).
        teacher: as many, of the same shapes; the hidden size is never pruned, so nothing is projected.
        mask: (rows, tokens), 1 for tokens and 0 for padding.
    """
    weight = mask.to(student[0].dtype) / mask.sum()
    pairs = zip(student, teacher, strict=True)
    errors = [(F.mse_loss(s, t, reduction="none").mean(-1) * weight).sum() for s, t in pairs]
    return torch.stack(errors).mean()


def distillation_loss(student: Outputs, teacher: Outputs, truth: Truth) -> Tensor:
    """(hidden-state loss + logit loss) / 2: the loss of a candidate (arXiv 2205.14570, section 3); needs no labels."""
    states = hidden_state_loss(student.states, teacher.states, truth.mask) * truth.share.tokens
    return (states + logits_only(student, teacher, truth)) / 2


def logits_only(student: Outputs, teacher: Outputs, truth: Truth, temperature: float = 1.0) -> Tensor:
    """Knowledge distillation on the logits alone (arXiv 1503.02531, temperature 1)."""
    if teacher.largest is not None:
        return largest_logit_loss(student.logits, teacher.largest, truth.mask) * truth.share.tokens
    share = truth.share.tokens if teacher.logits.dim() == 3 else truth.share.rows
    return logit_loss(student.logits, teacher.logits, truth.mask, temperature) * share


def pkd_loss(student: Outputs, teacher: Outputs, truth: Truth) -> Tensor:
    """Patient knowledge distillation: labels, softened logits, and the normalised states of one token of each row.

    It is the first one, as in the paper, or, in models that read the label there, the last one that is no padding:
    under a causal mask the first one sees itself alone.

    (1 − α) · task loss + α · logit loss + β · Σ over states ‖s/‖s‖ − t/‖t‖‖² / width (arXiv 1908.09355, equations 6 to
    8; the mean over the width is that of its authors' code), with α = 0.5, β = 100 and temperature 10, the middle of
    the values that the paper searches.

    The states are those of `distilled_layers`, the embeddings' output and the last layer's among them. The paper
    compares layers in between alone: the last one feeds the classifier, which the logits' loss covers.
    """
    pairs = zip(student.states, teacher.states, strict=True)
    token = _last_tokens(truth.mask) if truth.at_last else (slice(None), 0)
    distances = [F.mse_loss(F.normalize(s[token], dim=-1), F.normalize(t[token], dim=-1)) for s, t in pairs]
    labels = label_loss(student, None, truth)
    logits = logits_only(student, teacher, truth, temperature=10.0)
    return 0.5 * labels + 0.5 * logits + 100 * torch.stack(distances).sum() * truth.share.rows


def _last_tokens(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Row and place of every row's last token."""
    rows, places = (torch.arange(count, device=mask.device) for count in mask.shape)
    return rows, (mask * places).argmax(1)


def minilm_loss(student: Outputs, teacher: Outputs, truth: Truth) -> Tensor:
    """Self-attention relations of the last layer, and the logits, which they do not teach.

    The relations are softmax(A·Aᵀ/√d) of the queries, the keys and the values, cut into 32 relation heads; the loss is
    the teacher's cross-entropy on the student's, averaged over tokens and heads (arXiv 2012.15828, equation 7). A
    student's last layer is the last one that kept a head.
    """
    loss = logits_only(student, teacher, truth)
    if student.relations:
        pairs = zip(student.relations, teacher.relations, strict=True)
        relations = torch.stack([relation_loss(s, t, truth.mask) for s, t in pairs]).mean()
        loss = loss + relations * truth.share.tokens
    return loss


def relation_loss(student: Tensor, teacher: Tensor, mask: Tensor, heads: int = 32) -> Tensor:
    """Cross-entropy of the teacher's token-to-token relations, averaged over tokens and relation heads.

    Args:
        student: (rows, tokens, width).
        teacher: (rows, tokens, its own width).
        mask: (rows, tokens), 1 for tokens and 0 for padding.
        heads: relation heads; fewer where the widths are no multiples of it.
    """
    heads = math.gcd(heads, student.shape[-1], teacher.shape[-1])

    def scores(vectors: Tensor) -> Tensor:
        parts = vectors.float().unflatten(-1, (heads, -1)).transpose(1, 2)
        products = parts @ parts.transpose(2, 3) / math.sqrt(parts.shape[-1])
        return products.masked_fill(mask[:, None, None, :] == 0, torch.finfo(products.dtype).min)

    losses = -(scores(teacher).softmax(-1) * scores(student).log_softmax(-1)).sum(-1)
    return (losses * mask[:, None, :]).sum() / (mask.sum() * heads)


def label_loss(student: Outputs, teacher: Outputs | None, truth: Truth) -> Tensor:
    """No distillation: the task loss on labels."""
    assert truth.labels is not None
    share = truth.share.rows if truth.labels.is_floating_point() else truth.share.labels
    return task_loss(of_classes(student.logits, truth.classes), truth.labels) * share


LOSSES: dict[str, Callable[[Outputs, Outputs, Truth], Tensor]] = {
    "hidden+logits": distillation_loss,
    "logits": logits_only,
    "pkd": pkd_loss,
    "minilm": minilm_loss,
    "labels": label_loss,
}
WITH_STATES = ("hidden+logits", "pkd")
WITH_LABELS = ("pkd", "labels")
WITH_RELATIONS = ("minilm",)
WITHOUT_TEACHER = ("labels",)
