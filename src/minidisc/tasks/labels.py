"""Match the classes of the data with the outputs of a teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minidisc.errors import UserError
from minidisc.tasks.benchmarks import BENCHMARKS
from minidisc.tasks.classes import normal, placeholder_names, shorten
from minidisc.tasks.task import Task


def model_outputs(task: Task, config: Any) -> list[int] | None:
    """The teacher's output of each class of the data (see `align_labels`), its only one, or None for all it has.

    Raises:
        UserError: if teacher and data do not fit.
    """
    if task.kind == "causal-lm":
        return None
    return align_labels(task, config.id2label, config.num_labels) or [0]


def align_labels(task: Task, id2label: Mapping[int, str], num_labels: int) -> list[int]:
    """Find the teacher's output of each class of the data.

    Names that are not all the very same are compared without regard to case, ``-``, ``_`` and blanks. Where the data
    or the teacher has no names, the order is taken to be the same; names of the data that are integers count as
    indices if there are fewer of them than outputs.

    Args:
        task: the data's task.
        id2label: the teacher's class names, from its config.
        num_labels: the teacher's number of outputs.

    Returns:
        Index of the teacher's output for each of ``task.label_names``; empty for regression.

    Raises:
        UserError: if teacher and data do not fit.
    """
    if task.label_names is None:
        if num_labels != 1:
            raise UserError(
                f"the task is regression, but the teacher has {num_labels} outputs (1 is needed); use a teacher that "
                "was trained for regression, or --task classification."
            )
        return []
    names = task.label_names
    if num_labels == 1:
        raise UserError(
            f"the task is {task.kind} with {len(names)} classes, but the teacher has one output; use --task "
            "regression, or a teacher that was trained for classification."
        )
    if len(names) > num_labels:
        raise UserError(
            f"the data has {len(names)} classes ({shorten(names)}), but the teacher only {num_labels} outputs; use "
            "the data it was trained on, or a teacher of this task."
        )
    identity = list(range(len(names)))
    if not task.named:
        return identity
    exact = {name: index for index, name in id2label.items()}
    if all(name in exact for name in names):
        return [exact[name] for name in names]
    outputs = {normal(name): index for index, name in id2label.items()}
    found = [outputs[normal(name)] for name in names if normal(name) in outputs]
    if len(found) == len(set(found)) == len(names):
        return found
    if placeholder_names(id2label.values()):
        if len(names) == num_labels or task.name in BENCHMARKS:
            return identity
        if all(name.isdecimal() and int(name) < num_labels for name in names):
            return [int(name) for name in names]
        raise UserError(
            f"the data has {len(names)} classes ({shorten(names)}), the teacher {num_labels} outputs without names, "
            "and nothing says which are the same; name them in id2label in the teacher's config.json."
        )
    raise UserError(
        f"the data's classes ({shorten(names)}) are not among the teacher's ({shorten(list(id2label.values()))}); "
        "rename the labels in the data, or correct id2label in the teacher's config.json."
    )


def unnamed_warning(task: Task, id2label: Mapping[int, str]) -> str | None:
    """What there is to say of a model whose labels have no names, of data whose labels do; None if nothing."""
    if not task.named or not placeholder_names(id2label.values()):
        return None
    return (
        f"the model's labels have no names; its outputs are taken to be {', '.join(task.label_names or ())}, in this "
        "order."
    )
