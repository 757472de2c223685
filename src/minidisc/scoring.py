"""Importance of a run's networks, on the calibration rows; kept in a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from safetensors import safe_open

from minidisc import ranks
from minidisc.architectures import Architecture
from minidisc.config import CompressSettings
from minidisc.files import damage_named
from minidisc.importance import Importance, compute_importance
from minidisc.losses import of_classes, task_loss
from minidisc.measure import Shape, measured
from minidisc.memory import release_memory
from minidisc.prediction import Collate, batches_by_length, flops_over, model_inputs, predict
from minidisc.results import Cost
from minidisc.subnetworks import SubnetworkSpec
from minidisc.tasks import Task


@dataclass(frozen=True)
class Scorer:
    """Scores the heads and neurons of networks of one shape on the same rows.

    Args:
        settings: of the run.
        architecture: of its teacher.
        shape: of its teacher.
        task: of the rows.
        outputs: see `minidisc.tasks.model_outputs`.
        rows: the calibration rows.
        collate: makes a batch of them.
        device: to compute on.
        note: is told when it begins.
    """

    settings: CompressSettings
    architecture: Architecture
    shape: Shape
    task: Task
    outputs: Sequence[int] | None
    rows: datasets.Dataset
    collate: Collate
    device: torch.device
    note: Callable[[str], None]

    def importance(self, model: Any, spec: SubnetworkSpec, file: Path) -> tuple[Importance, Cost]:
        """Scores of a network of the widths ``spec``, and what they cost; read from ``file`` if they are there."""
        # The order must be the same everywhere, and another processor may round otherwise.
        return ranks.by_zero(partial(self._importance, model, spec, file))

    def _importance(self, model: Any, spec: SubnetworkSpec, file: Path) -> tuple[Importance, Cost]:
        if file.is_file():
            with damage_named(file), safe_open(file, "pt") as stored:
                return Importance.load(file), Cost(**json.loads(stored.metadata()["cost"]))
        self.note(f"importance of heads and neurons on {len(self.rows)} rows")
        # Forward, and backward to the activations alone.
        rows, passes, cost = self.rows, 2, Cost()
        with measured(cost):
            if self.settings.importance_on == "teacher":
                rows, passes = self._labelled_by(model), 3
            widths, checkpointing = (self.shape.heads, self.shape.neurons), self.settings.gradient_checkpointing
            model.to(self.device)
            importance = compute_importance(
                model, self.architecture, self._batches(rows), self._loss, widths, checkpointing
            )
        release_memory()
        forward = partial(self.shape.forward_flops, spec)
        cost.flops = passes * flops_over(rows["length"][:], self.settings.batch_size, forward)
        importance.save(file, {"cost": json.dumps(asdict(cost))})
        return importance, cost

    def _labelled_by(self, model: Any) -> datasets.Dataset:
        """The rows with a network's own predictions as labels."""
        logits = predict(model, self.rows, self.collate, 2 * self.settings.batch_size, self.outputs)
        labels: Any
        if self.task.kind == "token-classification":
            labels = [words.argmax(1).tolist() for words in logits]
        elif self.task.kind == "regression":
            # The loss against the prediction itself has no gradient. Labels to either side of it give one, as those of
            # a normal distribution around it would. On one side alone, heads that part the rows would cancel out in a
            # batch, and those that move all rows alike be left.
            labels = (logits[:, 0] + np.random.default_rng(0).choice((-1.0, 1.0), len(logits))).tolist()
        else:
            labels = logits.argmax(1).tolist()
        return self.rows.remove_columns("label").add_column("label", labels)

    def _batches(self, rows: datasets.Dataset) -> Iterator[dict[str, torch.Tensor]]:
        for _, batch in batches_by_length(rows, self.collate, self.settings.batch_size):
            yield {**model_inputs(batch, self.device), "labels": batch["labels"].to(self.device)}

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return task_loss(of_classes(logits, self.outputs), labels)
