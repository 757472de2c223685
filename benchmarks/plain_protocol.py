"""The plain protocol: the sandwich as the paper's released code runs it, restated in plain PyTorch.

What it does, as that code does it: every row is padded to the maximum length; the whole teacher runs on every batch;
every candidate is trained at every step, as a slice of one network of the teacher's full width, embeddings and all;
attention is written out, with dropout on its probabilities; the compared hidden states are stacked and those of
non-padding tokens selected; the loss of each candidate is read back; AdamW goes through the parameters one by one.
Dropout is on, at BERT's 0.1. A layer that keeps no heads, or no neurons, loses the bias of its output map too.

It shares no code with minidisc, so that it is also an independent truth for the loss of a candidate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Widths(Protocol):
    """Heads and neurons that each layer keeps, counted from the first."""

    @property
    def heads(self) -> tuple[int, ...]:
        """Of each layer."""

    @property
    def neurons(self) -> tuple[int, ...]:
        """Of each layer."""


class Compared(NamedTuple):
    """Hidden states of non-padding tokens, (states · tokens, hidden), and logits, (rows, classes)."""

    states: Tensor
    logits: Tensor


class PlainBert(nn.Module):
    """A BERT sequence classifier that runs as a slice of itself.

    Args:
        source: transformers' ``BertForSequenceClassification``, ordered by importance; its weights are copied.
        dropout: of embeddings, attention probabilities, layers' outputs and the classifier's input.
    """

    def __init__(self, source: Any, dropout: float = 0.1) -> None:
        super().__init__()
        config, weights = source.config, source.state_dict()

        def linear(name: str) -> nn.Linear:
            weight = weights[f"{name}.weight"]
            made = nn.Linear(weight.shape[1], weight.shape[0])
            made.load_state_dict({"weight": weight, "bias": weights[f"{name}.bias"]})
            return made

        def norm(name: str) -> nn.LayerNorm:
            made = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
            made.load_state_dict({"weight": weights[f"{name}.weight"], "bias": weights[f"{name}.bias"]})
            return made

        def table(name: str) -> nn.Embedding:
            return nn.Embedding.from_pretrained(weights[f"bert.embeddings.{name}.weight"].clone(), freeze=False)

        self.words, self.positions, self.segments = (
            table(name) for name in ("word_embeddings", "position_embeddings", "token_type_embeddings")
        )
        self.norm = norm("bert.embeddings.LayerNorm")
        maps = {
            "query": "attention.self.query",
            "key": "attention.self.key",
            "value": "attention.self.value",
            "out": "attention.output.dense",
            "up": "intermediate.dense",
            "down": "output.dense",
        }
        self.layers = nn.ModuleList()
        for i in range(config.num_hidden_layers):
            name = f"bert.encoder.layer.{i}"
            layer = nn.ModuleDict({own: linear(f"{name}.{path}") for own, path in maps.items()})
            layer["attention_norm"] = norm(f"{name}.attention.output.LayerNorm")
            layer["norm"] = norm(f"{name}.output.LayerNorm")
            self.layers.append(layer)
        self.pooler, self.classifier = linear("bert.pooler.dense"), linear("classifier")
        self.dropout = nn.Dropout(dropout)
        self.head_size = config.hidden_size // config.num_attention_heads
        # As many states as losses compare: the embeddings' output and every L/6-th layer's.
        self.every = max(1, config.num_hidden_layers // 6)

    def forward(self, batch: dict[str, Tensor], widths: Widths | None = None) -> Compared:
        """Run a batch, whose tensors are (rows, tokens), through the sub-network of these widths, or the whole."""
        ids, mask = batch["input_ids"], batch["attention_mask"]
        segments = batch.get("token_type_ids", torch.zeros_like(ids))
        places = torch.arange(ids.shape[1], device=ids.device)
        hidden = self.words(ids) + self.segments(segments) + self.positions(places)
        hidden = self.dropout(self.norm(hidden))
        hidden_mask = (1.0 - mask[:, None, None, :].to(hidden.dtype)) * torch.finfo(hidden.dtype).min
        states = [hidden]
        for i, layer in enumerate(self.layers):
            heads = None if widths is None else widths.heads[i]
            neurons = None if widths is None else widths.neurons[i]
            hidden = self._layer(layer, hidden, hidden_mask, heads, neurons)
            states.append(hidden)
        compared = torch.stack(states[:: self.every], dim=1)
        chosen = mask.bool()[:, None, :, None].expand_as(compared)
        tokens = torch.masked_select(compared, chosen).reshape(-1, compared.shape[-1])
        pooled = torch.tanh(self.pooler(hidden[:, 0]))
        return Compared(tokens, self.classifier(self.dropout(pooled)))

    def _layer(self, layer: Any, hidden: Tensor, mask: Tensor, heads: int | None, neurons: int | None) -> Tensor:
        mixed: Tensor | None = None
        if heads != 0:
            width = None if heads is None else heads * self.head_size
            query, key, value = (self._by_head(_rows(layer[n], hidden, width)) for n in ("query", "key", "value"))
            scores = query @ key.transpose(-1, -2) / math.sqrt(self.head_size) + mask
            mixed = self.dropout(scores.softmax(-1)) @ value
            mixed = _columns(layer["out"], mixed.permute(0, 2, 1, 3).flatten(2), width)
        hidden = layer["attention_norm"](hidden if mixed is None else self.dropout(mixed) + hidden)
        if neurons == 0:
            return layer["norm"](hidden)
        inner = F.gelu(_rows(layer["up"], hidden, neurons))
        return layer["norm"](self.dropout(_columns(layer["down"], inner, neurons)) + hidden)

    def _by_head(self, vectors: Tensor) -> Tensor:
        return vectors.unflatten(-1, (-1, self.head_size)).permute(0, 2, 1, 3)


def _rows(linear: Any, hidden: Tensor, count: int | None) -> Tensor:
    return F.linear(hidden, linear.weight[:count], linear.bias[:count])


def _columns(linear: Any, hidden: Tensor, count: int | None) -> Tensor:
    return F.linear(hidden, linear.weight[:, :count], linear.bias)


def candidate_loss(student: Compared, teacher: Compared) -> Tensor:
    """(MSE of the hidden states + soft cross-entropy of the logits, or MSE of a single one) / 2."""
    states = F.mse_loss(student.states, teacher.states)
    if student.logits.shape[-1] == 1:
        return (states + F.mse_loss(student.logits, teacher.logits)) / 2
    soft = -(teacher.logits.softmax(-1) * student.logits.log_softmax(-1)).sum(-1).mean()
    return (states + soft) / 2


def pad(rows: Sequence[dict[str, Any]], length: int, names: Sequence[str]) -> dict[str, Tensor]:
    """Rows of token ids as tensors (rows, length), 0 behind the last token."""
    return {name: torch.tensor([row[name] + [0] * (length - len(row[name])) for row in rows]) for name in names}


def grouped_parameters(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Biases and norms without weight decay, the rest with."""

    def decays(name: str) -> bool:
        return not name.endswith("bias") and "norm" not in name

    named = list(model.named_parameters())
    return [
        {"params": [p for n, p in named if decays(n)], "weight_decay": weight_decay},
        {"params": [p for n, p in named if not decays(n)], "weight_decay": 0.0},
    ]


class PlainTraining:
    """One stage of the plain protocol, step by step.

    Args:
        student: holds every candidate; trained in place.
        teacher: its widths may be less than whole; frozen.
        candidates: all of them are trained at every step.
        teacher_widths: the sub-network of ``teacher`` that teaches; the whole if not given.
        learning_rate: its peak.
        warmup: fraction of ``steps`` over which it rises; it then falls linearly.
        steps: of the stage.
        weight_decay: of AdamW.
        max_grad_norm: gradients are clipped to it.
    """

    def __init__(
        self,
        student: PlainBert,
        teacher: PlainBert,
        candidates: Sequence[Widths],
        teacher_widths: Widths | None = None,
        *,
        learning_rate: float = 1e-4,
        warmup: float = 0.1,
        steps: int = 1000,
        weight_decay: float = 0.01,
        max_grad_norm: float = 1.0,
    ) -> None:
        self.student, self.teacher = student, teacher.eval()
        self.candidates, self.teacher_widths = list(candidates), teacher_widths
        self.max_grad_norm = max_grad_norm
        groups = grouped_parameters(student, weight_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=learning_rate, foreach=False, fused=False)
        rising = max(1, int(steps * warmup))
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: min((step + 1) / rising, (steps - step) / max(1, steps - rising))
        )

    def losses(self, batch: dict[str, Tensor]) -> Iterator[Tensor]:
        """The loss of each candidate in turn."""
        with torch.no_grad():
            target = self.teacher(batch, self.teacher_widths)
        for widths in self.candidates:
            yield candidate_loss(self.student(batch, widths), target)

    def step(self, batch: dict[str, Tensor]) -> float:
        """Train one step; returns the mean of the losses."""
        self.student.train()
        total = 0.0
        for loss in self.losses(batch):
            loss = loss / len(self.candidates)
            total += loss.item()
            loss.backward()
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), self.max_grad_norm, foreach=False)
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        return total


@torch.no_grad()
def logits_of(
    model: PlainBert, widths: Widths, rows: Any, length: int, names: Sequence[str], batch_size: int
) -> Tensor:
    """Logits of all rows, in their order, padded to ``length`` as in training."""
    model.eval()
    batches = (rows[i : i + batch_size] for i in range(0, len(rows), batch_size))
    return torch.cat([model(pad(batch, length, names), widths).logits for batch in batches])
