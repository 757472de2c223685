"""What a run will take, known before any training."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import Trainer

from minidisc.architectures import Architecture
from minidisc.arguments import ResumableArguments, is_evaluated, trainer_arguments
from minidisc.batching import LengthGroupedOrder
from minidisc.config import CompressSettings, sandwich_rule
from minidisc.disk import disk_needed
from minidisc.footprint import Load, phases
from minidisc.latency import BRIEF_ROUNDS, BRIEF_SECONDS, LARGEST_TIMED
from minidisc.layers import embedding_modules
from minidisc.losses import WITHOUT_TEACHER
from minidisc.measure import Shape, measured
from minidisc.memory import HOLES, release_memory, resident_memory
from minidisc.prediction import Collate, flops_over, model_inputs
from minidisc.probing import Probe, ProbeSettings, probe
from minidisc.results import Cost
from minidisc.subnetworks import SubnetworkSpec


@dataclass(frozen=True)
class Estimate:
    """What the run will take.

    Attributes:
        seconds: wall time, at the machine's present load.
        cpu_seconds: processor time.
        flops: of importance, teachers and training.
        memory: bytes, of the device if that is an accelerator.
        phases: bytes of tensors in each phase; the largest of them is in ``memory``.
        disk: bytes while it runs.
    """

    seconds: float
    cpu_seconds: float
    flops: float
    memory: int
    phases: dict[str, int]
    disk: int


def estimate(
    settings: CompressSettings,
    teacher: Any,
    architecture: Architecture,
    shape: Shape,
    stages: Sequence[Sequence[SubnetworkSpec]],
    rows: Mapping[str, Any],
    collate: Collate,
    stored: bool,
    ranked: bool,
) -> Estimate:
    """Run a few steps of some of the run's layers, and scale what they take.

    Args:
        settings: of the run.
        teacher: the full-width model.
        architecture: its family.
        shape: its shape.
        stages: the sub-networks of every stage (see `minidisc.schedules.planned`).
        rows: encoded rows: ``train``, ``calibration``, ``selection``, ``validation``.
        collate: pads a list of rows to tensors.
        stored: whether teachers' outputs are computed once and kept.
        ranked: whether importance is known already.
    """
    specs = sorted({spec for candidates in stages for spec in candidates}, key=lambda spec: spec.sparsity)
    tried = sorted({specs[i].sparsity for i in (0, len(specs) // 2, -1)})
    lengths = np.asarray(rows["train"]["length"][:])
    order = np.argsort(-lengths, kind="stable")
    with measured(Cost()) as spent:
        probed = probe(
            teacher,
            architecture,
            tried,
            [model_inputs(batch, teacher.device) for batch in _typical(settings, rows["train"], lengths, collate)],
            model_inputs(collate([rows["train"][int(i)] for i in order[:2]]), teacher.device),
            partial(_optimizer, settings),
            ProbeSettings(
                loss=settings.effective_loss,
                neuron_multiple=settings.neuron_multiple,
                gradient_checkpointing=settings.gradient_checkpointing,
                bf16=settings.precision == "bf16",
                train_embeddings=settings.train_embeddings,
            ),
        )
    widest, size = shape.sizes(specs[0]).all, settings.batch_size
    on_cpu = teacher.device.type == "cpu"
    # Between none, after a trim, and all that there may be before the next one.
    holes = HOLES / 2 if on_cpu and _differ(lengths) else 0.0
    kept = 0 if settings.train_embeddings else shape.embedding_parameters
    first = settings.of_stage(len(lengths), 1)
    load = Load(
        teacher=shape.all_parameters,
        widest=widest,
        assistant=shape.sizes(specs[len(specs) // 2]).all,
        student=shape.sizes(specs[-1]).all if len(stages) > 1 else 0,
        trained=widest - kept,
        largest=_largest(teacher, architecture, settings.train_embeddings),
        rows=min(size, len(lengths)),
        calibration_rows=min(size, len(rows["calibration"])),
        length=int(lengths.max()),
        importance_bytes=probed.importance_bytes,
        train_bytes=probed.train_bytes,
        optimizer=settings.optimizer,
        loss=settings.effective_loss,
        # A first stage that comes to no row again runs its teacher beside it.
        stored=stored and first.repeats(len(lengths)),
        bf16=settings.precision == "bf16",
    )
    by_phase = phases(shape, load)
    seconds = _seconds(settings, shape, stages, rows, stored, probed, widest - kept)
    if not ranked:
        own = settings.importance_on == "teacher"
        seconds = seconds + len(rows["calibration"]) * (probed.importance + own * probed.forward)
        seconds = seconds + len(rows["selection"]) * probed.forward
    return Estimate(
        seconds=float(seconds[0]) + spent.seconds,
        cpu_seconds=float(seconds[1]) + spent.cpu_seconds,
        flops=_flops(settings, shape, stages, rows, stored),
        # The trial of the passes is a part of the run too.
        memory=max(int((1 + holes) * (_beside(teacher) + max(by_phase.values()))), spent.peak_memory * on_cpu),
        phases=by_phase,
        disk=disk_needed(shape, settings, stages, lengths.tolist() if stored else []),
    )


def _typical(settings: CompressSettings, rows: Any, lengths: np.ndarray, collate: Collate) -> Iterator[Any]:
    """Of an epoch's batches, ordered by their longest row, those a sixth, a half and five sixths of the way."""
    batches = _epoch(settings, lengths)
    whole = [batch for batch in batches if len(batch) == len(batches[0])]
    whole.sort(key=lambda batch: lengths[batch].max())
    for place in sorted({len(whole) * part // 6 for part in (1, 3, 5)}):
        yield collate([rows[i] for i in whole[place]])


def _epoch(settings: CompressSettings, lengths: np.ndarray) -> list[list[int]]:
    """The rows of an epoch's batches."""
    size = settings.batch_size
    order = [*LengthGroupedOrder(lengths.tolist(), size, settings.seed)]
    return [order[i : i + size] for i in range(0, len(order), size)]


def _differ(lengths: np.ndarray) -> bool:
    """Whether rows differ in length; packed text may have a shorter one at its end."""
    return bool(np.mean(lengths == lengths.max()) < 0.9)


def _optimizer(settings: CompressSettings, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    arguments = ResumableArguments(**trainer_arguments(settings, Path(settings.output_dir)))
    kind, values = Trainer.get_optimizer_cls_and_kwargs(arguments)
    return kind(parameters, **values)


def _largest(teacher: Any, architecture: Architecture, embeddings: bool) -> int:
    """Parameters of the largest tensor that is trained."""
    modules = [] if embeddings else embedding_modules(teacher, architecture)
    fixed = {p for module in modules for p in module.parameters()}
    return max(p.numel() for p in teacher.parameters() if p not in fixed)


def _beside(teacher: Any) -> int:
    """Bytes that the process needs besides the tensors of a phase; on an accelerator, which is counted then, none."""
    if teacher.device.type != "cpu":
        return 0
    release_memory()
    weights = 0
    for parameter in teacher.parameters():
        # Weights are mapped from their file, and in memory page by page once they are used.
        parameter.detach().flatten()[:: os.sysconf("SC_PAGE_SIZE") // parameter.element_size()].sum()
        weights += parameter.numel() * parameter.element_size()
    return max(0, resident_memory() - weights)


def _trained_rows(settings: CompressSettings, rows: int) -> float:
    """Rows that go through a stage, as often as they do."""
    return rows * settings.steps(rows) / settings.steps_per_epoch(rows)


def _taught_rows(settings: CompressSettings, rows: int, stored: bool) -> float:
    """Rows that a teacher runs on in a stage: once on each if its outputs are kept for further epochs."""
    return min(rows, _trained_rows(settings, rows)) if stored else _trained_rows(settings, rows)


def _evaluations(settings: CompressSettings, rows: int) -> int:
    """How often a stage's networks are evaluated, before its first step too."""
    steps, every = settings.steps(rows), math.ceil(settings.steps_per_epoch(rows) / settings.evaluations_per_epoch)
    return 1 + sum(is_evaluated(step, steps, every) for step in range(1, steps + 1))


def _chances(candidates: Sequence[SubnetworkSpec], settings: CompressSettings) -> list[tuple[SubnetworkSpec, float]]:
    """How often each sub-network is part of a step."""
    largest, drawn = sandwich_rule(settings.rule_of_step(len(candidates)))
    ordered = sorted(candidates, key=lambda spec: spec.sparsity)
    between = len(candidates) - 1 - largest
    chance = 1.0 if drawn is None or between <= 0 else min(1.0, drawn / between)
    return [(spec, chance if largest <= i < len(ordered) - 1 else 1.0) for i, spec in enumerate(ordered)]


def _seconds(
    settings: CompressSettings,
    shape: Shape,
    stages: Sequence[Sequence[SubnetworkSpec]],
    rows: Mapping[str, Any],
    stored: bool,
    probed: Probe,
    trained: int,
) -> np.ndarray:
    """Wall and processor seconds of all that follows importance."""
    count = {name: len(of) for name, of in rows.items()}
    taught = settings.effective_loss not in WITHOUT_TEACHER
    total = count["validation"] * probed.forward
    teacher = probed.forward
    for number, candidates in enumerate(stages, start=1):
        own = settings.of_stage(count["train"], number)
        chances = _chances(candidates, settings)
        widths = shape.sizes(chances[0][0]).all / shape.sizes(stages[0][0]).all
        step = sum(chance * probed.at(probed.train, spec.sparsity) for spec, chance in chances)
        step = settings.gradient_accumulation_steps * step + widths * trained * probed.update
        total = total + own.steps(count["train"]) * step
        total = total + taught * _taught_rows(own, count["train"], stored) * teacher
        evaluated = sum(probed.at(probed.evaluate, spec.sparsity) for spec in candidates)
        total = total + _evaluations(own, count["train"]) * count["selection"] * evaluated
        # Who teaches next is not known yet: the middle one may.
        teacher = probed.at(probed.evaluate, chances[len(chances) // 2][0].sparsity)
        total = total + (number < len(stages)) * count["validation"] * teacher
    total = total + 2 * count["validation"] * probed.at(probed.evaluate, stages[-1][-1].sparsity)
    return total + _timings(settings, shape, stages, probed)


def _timings(
    settings: CompressSettings, shape: Shape, stages: Sequence[Sequence[SubnetworkSpec]], probed: Probe
) -> np.ndarray:
    """Seconds of the latencies at the end: all widths of sizes and of what stages have made, with the teacher."""
    if shape.all_parameters > LARGEST_TIMED:
        return np.zeros(2)
    made = (*stages[0], *(candidates[-1] for candidates in stages))
    sizes = {(spec.heads, spec.neurons): spec for spec in made}.values()
    passes = [probed.forward + probed.at(probed.evaluate, spec.sparsity) for spec in sizes]
    return sum(np.minimum(BRIEF_SECONDS, settings.latency_batch_size * (BRIEF_ROUNDS + 1) * own) for own in passes)


def _flops(
    settings: CompressSettings,
    shape: Shape,
    stages: Sequence[Sequence[SubnetworkSpec]],
    rows: Mapping[str, Any],
    stored: bool,
) -> float:
    """FLOPs of importance, of teachers and of training, as a run's costs count them."""
    parts = _Flops(settings, shape, rows, stored)
    teacher = shape.full()
    total = parts.importance()
    for number, candidates in enumerate(stages, start=1):
        steps = settings.of_stage(len(rows["train"]), number)
        total += parts.teaching(teacher, steps) + parts.training(candidates, steps)
        teacher = sorted(candidates, key=lambda spec: spec.sparsity)[len(candidates) // 2]
    return total


def flops_of_all_trials(
    settings: CompressSettings,
    shape: Shape,
    candidates: Sequence[SubnetworkSpec],
    rows: Mapping[str, Any],
    stored: bool,
) -> float:
    """FLOPs of distilling every candidate alone, and a student from each, instead of the one trial of a sandwich.

    With as many steps in every stage, importance computed once, and the teacher's outputs too if they are ``stored``.

    Args:
        settings: of the run.
        shape: the teacher's.
        candidates: the assistants to try; the last is the student's size.
        rows: see `estimate`.
        stored: see `estimate`.
    """
    parts = _Flops(settings, shape, rows, stored)
    *assistants, student = candidates
    total = parts.importance() + parts.teaching(shape.full(), settings) * (1 if stored else len(assistants))
    for spec in assistants:
        total += parts.training([spec], settings) + parts.teaching(spec, settings)
        total += parts.training([student], settings)
    return total


class _Flops:
    """FLOPs of a run's parts, as its costs count them."""

    def __init__(self, settings: CompressSettings, shape: Shape, rows: Mapping[str, Any], stored: bool) -> None:
        self._settings, self._shape, self._calibration = settings, shape, rows["calibration"]["length"][:]
        self._taught, self._stored = settings.effective_loss not in WITHOUT_TEACHER, stored
        lengths = np.asarray(rows["train"]["length"][:])
        self._rows = len(lengths)
        self._batches = Counter((len(batch), int(lengths[batch].max())) for batch in _epoch(settings, lengths))

    def _row(self, spec: SubnetworkSpec) -> float:
        """A forward pass of a training row, padded as those of its batch are."""
        passes = (times * self._shape.forward_flops(spec, *batch) for batch, times in self._batches.items())
        return sum(passes) / self._rows

    def importance(self) -> float:
        passes = 2 + (self._settings.importance_on == "teacher")
        forward = partial(self._shape.forward_flops, self._shape.full())
        return passes * flops_over(self._calibration, self._settings.batch_size, forward)

    def teaching(self, teacher: SubnetworkSpec, stage: CompressSettings) -> float:
        return self._taught * _taught_rows(stage, self._rows, self._stored) * self._row(teacher)

    def training(self, candidates: Sequence[SubnetworkSpec], stage: CompressSettings) -> float:
        chances = _chances(candidates, stage)
        return 3 * _trained_rows(stage, self._rows) * sum(chance * self._row(spec) for spec, chance in chances)
