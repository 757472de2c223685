"""What a teacher, or the rows at hand, cannot be used for, and what speaks against it."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from minidisc import ranks
from minidisc.architectures import Architecture
from minidisc.config import CompressSettings, sandwich_rule
from minidisc.errors import UserError
from minidisc.layer_dropping import check_droppable
from minidisc.losses import WITH_LABELS
from minidisc.rows import Rows, has_labels
from minidisc.subnetworks import SubnetworkSpec, candidate_sparsities, check_grid
from minidisc.tasks import CAUSAL_LM, Task, unnamed_warning
from minidisc.teachers import Halved


def check_usable(
    settings: CompressSettings,
    sparsities: Collection[float],
    model: Any,
    architecture: Architecture,
    full: SubnetworkSpec,
    task: Task,
    rows: Rows,
) -> None:
    """Refuse settings that do not go with this teacher or these rows.

    Args:
        settings: of a schedule.
        sparsities: of all candidates.
        model: the teacher.
        architecture: its own.
        full: its widths.
        task: of the rows.
        rows: of the run.

    Raises:
        UserError: sparsities that the model is too small to tell apart, labels needed that are not there, or
            anything else of the kind.
    """
    if settings.student == "layers":
        check_droppable(model, architecture)
    assistants = set(settings.assistants or ())
    check_grid(sorted({*sparsities, *assistants}), sum(full.heads), sum(full.neurons))
    candidates = candidate_sparsities(settings.target_sparsity, settings.grid)[:-1]
    if settings.schedule == "minidisc" and not assistants <= {*candidates}:
        raise UserError(
            f"--assistants holds a sparsity that is no candidate; allowed are "
            f"{', '.join(f'{s:g}' for s in candidates)} (--grid has others)."
        )
    if settings.schedule == "maxidisc" and not candidates:
        raise UserError(
            f"--schedule maxidisc has no assistant to try for a target sparsity of {settings.target_sparsity:g}; give "
            "--grid, with one below it, or another --schedule."
        )
    if ranks.wanted("DEEPSPEED") and not sandwich_rule(settings.candidates_per_step)[0]:
        # ZeRO-3 would train what no pass of a step reaches by the gradient of the step before.
        raise UserError(
            f"--candidates-per-step {settings.candidates_per_step} does not go with DeepSpeed, which needs the "
            "largest sub-network in every step; give largest+smallest+K or all."
        )
    if settings.optimizer == "adafactor" and (ranks.wanted("FSDP") or ranks.wanted("DEEPSPEED")):
        # It keeps a number for each row and column of a matrix, of which every process has but a part.
        raise UserError("--optimizer adafactor does not go with FSDP and DeepSpeed; give adamw, or start it without.")
    if task.kind == CAUSAL_LM:
        _check_for_text(settings)
    elif settings.teacher_top_k is not None:
        raise UserError(f"--teacher-top-k is for causal language modelling, but the task is {task.kind}.")
    missing = len(rows["train"]) - sum(has_labels(rows["train"]))
    if missing and settings.effective_loss in WITH_LABELS:
        raise UserError(
            f"{missing} training rows have no label, which --schedule finetune, --loss labels and --loss pkd "
            "need; add labels, or use another."
        )


def teacher_warnings(
    task: Task,
    metric: float,
    labels: np.ndarray,
    fresh: Sequence[str],
    id2label: dict[int, str],
    half: Halved | None = None,
) -> list[str]:
    """What speaks against the teacher having been fine-tuned for this task, and that its students are in fp32.

    Args:
        task: the rows' task.
        metric: the teacher's metric on the selection rows.
        labels: labels of those rows.
        fresh: parameters that the teacher's folder had no weights for.
        id2label: the teacher's label names.
        half: of the teacher's files, if they are in half precision and its students are not.
    """
    warnings = []
    if unnamed := unnamed_warning(task, id2label):
        warnings.append(unnamed)
    if fresh:
        warnings.append(
            f"the teacher has no trained weights for {', '.join(fresh)}: it was not fine-tuned; "
            "run 'minidisc finetune' first."
        )
    is_text = task.kind == CAUSAL_LM
    if (chance := _hardly_better_than(task, metric, labels)) is not None:
        warnings.append(
            f"the teacher scores {metric:.3f} on {len(labels)} rows where chance is {chance:.3f}: it is not "
            f"fine-tuned for this {'text' if is_text else 'task, or its labels are in another order'}."
        )
    if half:
        warnings.append(
            f"the teacher's files are in half precision ({half.text}), but students are saved in fp32, in twice the "
            f"bytes a parameter, and may be larger on disk than it; --save-dtype {half.setting} halves them."
        )
    return warnings


def scale_warning(task: Task, logits: np.ndarray, labels: np.ndarray, who: str = "the teacher") -> str | None:
    """One line if a model of numbers is further from the labels than their mean is, which correlations do not show.

    Args:
        task: the rows' task.
        logits: of the model, as ``task.evaluate`` takes them.
        labels: of the same rows.
        who: the model.
    """
    if task.kind != "regression":
        return None
    error, of_mean = float(np.square(logits.reshape(-1) - labels).mean()), float(labels.var())
    if error <= of_mean:
        return None
    return (
        f"{who} is further from the labels of {len(labels)} rows than their mean is (mean squared error {error:.3g}, "
        f"of the mean {of_mean:.3g}): its numbers are of another scale than the labels, or it has learnt nothing."
    )


def chance_warning(task: Task, metric: float, labels: np.ndarray, who: str = "the student") -> str | None:
    """One line if a model that has just been trained is hardly better than chance.

    Args:
        task: the rows' task.
        metric: the model's on the validation rows.
        labels: of those rows.
        who: the model.
    """
    if (chance := _hardly_better_than(task, metric, labels)) is None:
        return None
    return (
        f"{who} scores {metric:.3f} on {len(labels)} rows where chance is {chance:.3f}: it may give one answer to "
        "everything."
    )


def _hardly_better_than(task: Task, metric: float, labels: np.ndarray) -> float | None:
    """What chance scores on these rows, if a model of this metric is at most its standard error above it."""
    # Of a language model every token of a row is an answer, but the first.
    answers = int((labels[:, 1:] >= 0).sum()) if task.kind == CAUSAL_LM else len(labels)
    chance = task.chance(labels)
    # Of what is no share of right answers the error is not known; it is taken for the largest that a share has.
    spread = math.sqrt(chance * (1 - chance)) if "accuracy" in task.metrics else 0.5
    # A perfect model is never in doubt, however little room there is above chance.
    margin = min(spread / math.sqrt(answers), (1 - chance) / 2)
    return chance if metric <= chance + margin and metric < 1 else None


def _check_for_text(settings: CompressSettings) -> None:
    """Refuse what needs labels, or one label a row."""
    if settings.importance_on == "teacher":
        raise UserError("--importance-on teacher is for rows without labels; a text's next tokens are always there.")
    if settings.loss == "pkd":
        raise UserError(
            "--loss pkd compares the token that a sentence's label is read from, and causal language modelling has no "
            "such token; use hidden+logits, logits or minilm."
        )
