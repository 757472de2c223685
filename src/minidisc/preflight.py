"""What can be known to go wrong before any training, and what the run will take."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from minidisc.architectures import Architecture
from minidisc.config import CompressSettings, random_candidates
from minidisc.errors import UserError
from minidisc.measure import Shape
from minidisc.prediction import batches_by_length, model_inputs
from minidisc.subnetworks import SubnetworkSpec, candidate_sparsities
from minidisc.tasks import Task, placeholder_names

_BYTES = 4  # of an fp32 number


@dataclass(frozen=True)
class Estimate:
    """What the run will take, roughly: seconds, bytes of memory, bytes of disk while it runs."""

    seconds: float
    memory: int
    disk: int


def check_length(config: Any, architecture: Architecture, max_length: int) -> None:
    """Refuse rows that are longer than the model has positions for, if they are counted."""
    positions = getattr(config, "max_position_embeddings", math.inf) - architecture.reserved_positions
    if max_length > positions:
        raise UserError(f"--max-length is {max_length}, but the teacher has positions for {positions} tokens only.")


def teacher_warnings(
    task: Task, metric: float, labels: np.ndarray, fresh: Sequence[str], id2label: dict[int, str]
) -> list[str]:
    """What speaks against the teacher having been fine-tuned for this task.

    Args:
        task: the rows' task.
        metric: the teacher's metric on the selection rows.
        labels: labels of those rows.
        fresh: parameters that the teacher's folder had no weights for.
        id2label: the teacher's label names.
    """
    warnings = []
    if task.named and placeholder_names(id2label):
        warnings.append(
            f"the teacher's labels have no names; its outputs are taken to be {', '.join(task.label_names or ())}, in "
            "this order."
        )
    if fresh:
        warnings.append(
            f"the teacher has no trained weights for {', '.join(fresh)}: it was not fine-tuned; "
            "run 'minidisc finetune' first."
        )
    chance, error = task.chance(labels), 1 / math.sqrt(len(labels))
    if metric <= chance + error / 2:
        warnings.append(
            f"the teacher scores {metric:.3f} on {len(labels)} rows where chance is {chance:.3f}: it is not "
            "fine-tuned for this task, or its labels are in another order."
        )
    return warnings


def estimate(
    settings: CompressSettings,
    teacher: Any,
    shape: Shape,
    stages: Sequence[Sequence[SubnetworkSpec]],
    train_rows: Any,
    selection_rows: Any,
    collate: Any,
    stored: bool,
) -> Estimate:
    """Time a forward pass of the teacher on a typical batch, and scale it by FLOPs.

    Args:
        settings: of the run.
        teacher: the full-width model.
        shape: its shape.
        stages: the sub-networks of every stage (see `minidisc.schedules.planned`).
        train_rows: encoded rows.
        selection_rows: encoded rows.
        collate: pads a list of rows to tensors.
        stored: whether teachers' outputs are computed once and kept.
    """
    length = int(np.mean(train_rows["length"]))
    rate = _forward_rate(teacher, shape, train_rows, collate, settings.batch_size)
    full = shape.full()
    updates, steps = settings.steps_per_epoch(len(train_rows)), settings.steps(len(train_rows))
    rows = steps * settings.batch_size * settings.gradient_accumulation_steps
    evaluations = 1 + math.ceil(steps / updates * settings.evaluations_per_epoch)
    checked = evaluations * len(selection_rows)
    full_flops = shape.forward_flops(full, 1, length)
    total = 3 * full_flops * settings.calibration_rows
    for candidates in stages:
        total += (len(train_rows) if stored else rows) * full_flops
        total += rows * full_flops * 3 * _mean_step(shape, candidates, settings.candidates_per_step)
        total += checked * sum(shape.forward_flops(c, 1, length) for c in candidates)

    widest = min((c for candidates in stages for c in candidates), key=lambda c: c.sparsity)
    largest = shape.sizes(widest).all * _BYTES
    longest = int(np.max(train_rows["length"]))
    activations = (
        _BYTES
        * settings.batch_size
        * longest
        * (shape.depth + shape.decoder_depth)
        * (10 * shape.hidden + 3 * shape.neurons)
    )
    return Estimate(
        seconds=total / rate,
        # The teacher, its copy on the way to a device, and weights, gradients and two moments of what is trained.
        memory=2 * shape.all_parameters * _BYTES + 4 * largest + activations + 700 * 2**20,
        disk=disk_needed(shape, settings, stored),
    )


def disk_needed(shape: Shape, settings: CompressSettings, stored: bool) -> int:
    """Bytes on disk while a run is at work, at the worst.

    The old and the new checkpoint, each of weights and two moments, and a snapshot per candidate, which may be kept
    in ``RUN/sizes`` too; and, if teachers' outputs are ``stored``, those.
    """
    candidates = len(candidate_sparsities(settings.target_sparsity, settings.grid))
    return (6 + (1 + settings.keep_sizes) * candidates) * shape.all_parameters * _BYTES + stored * int(
        settings.teacher_cache * 2**30
    )


def check_disk(folder: Path, needed: int) -> None:
    """Refuse a run that the disk has no room for."""
    existing = next(parent for parent in [folder, *folder.absolute().parents] if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(
            f"the disk of {folder} has {free / 1e9:.1f} GB free, but the run needs about {needed / 1e9:.1f} GB; "
            "free some, or give --output-dir on another disk."
        )


def _mean_step(shape: Shape, candidates: Sequence[SubnetworkSpec], per_step: str) -> float:
    """FLOPs of the sub-networks of a step, as a share of the full width's, on average."""
    full = shape.prunable(shape.full())
    shares = [shape.prunable(c) / full for c in candidates]
    largest, *between, smallest = shares if len(shares) > 1 else [*shares, 0.0]
    drawn = random_candidates(per_step)
    count = len(between) if drawn is None else min(drawn, len(between))
    return largest + smallest + (count * sum(between) / len(between) if between else 0.0)


@torch.no_grad()
def _forward_rate(teacher: Any, shape: Shape, rows: Any, collate: Any, batch_size: int) -> float:
    batches = list(batches_by_length(rows.select(range(min(len(rows), 8 * batch_size))), collate, batch_size))
    _, batch = batches[len(batches) // 2]
    inputs = model_inputs(batch, teacher.device)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        teacher(**inputs)
        seconds.append(time.perf_counter() - start)
    full = shape.full()
    return shape.forward_flops(full, *inputs["input_ids"].shape) / sorted(seconds)[1]
