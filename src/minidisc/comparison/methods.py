"""What a method is: a schedule, and the settings in which it differs from the comparison's."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from minidisc.config import CompareSettings, CompressSettings
from minidisc.errors import UserError
from minidisc.schedules import SCHEDULES
from minidisc.values import settings_from

# What the methods of one comparison may differ in: all that comes after the rows, the importance and the teacher.
_OWN = (
    "assistants",
    "candidates_per_step",
    "decay_over",
    "dropout",
    "epochs",
    "final_learning_rate",
    "grid",
    "learning_rate",
    "loss",
    "max_steps",
    "no_gap",
    "patience",
    "sandwich_share",
    "second_importance",
    "second_learning_rate",
    "second_stage",
    "second_teacher",
    "stages",
    "student",
    "tradeoff_lambda",
    "train_embeddings",
    "warmup",
    "weight_decay",
)
_REFERENCE = "flops_of"
_OF_ASSISTANTS = ("second_importance", "second_teacher")
_OF_MINIDISC = (
    "candidates_per_step",
    "decay_over",
    "no_gap",
    "sandwich_share",
    "second_learning_rate",
    "second_stage",
    "stages",
    "tradeoff_lambda",
)
UNREAD = {
    "direct": (*_OF_MINIDISC, *_OF_ASSISTANTS),
    "finetune": (*_OF_MINIDISC, *_OF_ASSISTANTS, "loss"),
    "maxidisc": _OF_MINIDISC,
    "chain": _OF_MINIDISC,
}
"""What no figure of a schedule depends on; settings that go with some schedules alone say so themselves."""


@dataclass(frozen=True)
class Method:
    """A method's name, as it was given, its settings, and perhaps the method whose FLOPs it is given."""

    name: str
    schedule: str
    changes: dict[str, Any]
    flops_of: str | None = None

    @property
    def shares_targets(self) -> bool:
        """Whether a cell depends on the comparison's other targets: its sandwich trains their sizes too."""
        if self.flops_of is not None:
            return read_method(self.flops_of).shares_targets
        return self.schedule == "minidisc"

    def settings(self, common: CompareSettings, target: float, seed: int) -> CompressSettings:
        """The settings of one cell.

        Raises:
            UserError: values that do not go together.
        """
        values = {f.name: getattr(common, f.name) for f in dataclasses.fields(CompressSettings)}
        if "epochs" in self.changes:
            values["max_steps"] = None  # the comparison's, which would count before them
        cell = {**values, "schedule": self.schedule, "target_sparsity": target, "seed": seed, **self.changes}
        try:
            return settings_from(CompressSettings, cell, f"--methods {self.name}")
        except UserError as error:
            raise UserError(f"method {self.name!r} at {100 * target:g} %: {error}") from None


def parse_method(text: str) -> Method:
    """Read ``SCHEDULE[:SETTING=VALUE]…[:flops_of=METHOD]``; ``/`` stands for the comma in a list of values.

    Raises:
        UserError: an unknown schedule, a setting that methods cannot differ in, or one that would change nothing.
    """
    method = read_method(text)
    for name in method.changes:
        if method.flops_of is not None and name in ("epochs", "max_steps"):
            raise UserError(
                f"--methods holds {text!r}: {_REFERENCE} says how long it is trained, and {name} too; leave one out."
            )
        if name in UNREAD.get(method.schedule, ()):
            raise UserError(f"--methods holds {text!r}: {name} changes nothing for {method.schedule}; leave it out.")
    return method


def read_method(text: str) -> Method:
    """Read a method that a comparison already has: older versions took settings that would change nothing.

    Raises:
        UserError: an unknown schedule, or a setting that methods cannot differ in.
    """
    schedule, *parts = text.split(":")
    if schedule not in SCHEDULES:
        raise UserError(f"--methods holds {text!r}; a method begins with one of {', '.join(SCHEDULES)}.")
    changes: dict[str, Any] = {}
    while parts:
        part = parts.pop(0)
        name, equals, value = part.partition("=")
        name = name.strip().replace("-", "_")
        if name == _REFERENCE:
            # The other method's name has settings of its own.
            value, parts = ":".join([value, *parts]), []
        if not equals or name not in (*_OWN, _REFERENCE):
            raise UserError(
                f"--methods holds {text!r}: {part!r} is not SETTING=VALUE with one of "
                f"{', '.join((*_OWN, _REFERENCE))}."
            )
        changes[name] = value.strip() if name == _REFERENCE else value.strip().replace("/", ",")
    if "train_embeddings" in changes:
        changes["train_embeddings"] = {"true": True, "false": False}.get(
            changes["train_embeddings"].lower(), changes["train_embeddings"]
        )
    return Method(text, schedule, changes, changes.pop(_REFERENCE, None))


def in_order(methods: list[Method]) -> list[Method]:
    """Methods that are given another's FLOPs after all others.

    Raises:
        UserError: the other one is not there, or waits for a third.
    """
    free = [method for method in methods if method.flops_of is None]
    for method in methods:
        if method.flops_of is not None and method.flops_of not in [other.name for other in free]:
            raise UserError(
                f"--methods holds {method.name!r}, but no method {method.flops_of!r} of its own budget; "
                f"{_REFERENCE} comes last, and takes another method of the list, settings and all."
            )
        if method.flops_of is not None and method.schedule not in ("direct", "finetune"):
            raise UserError(f"--methods holds {method.name!r}; {_REFERENCE} goes with direct or finetune.")
    return free + [method for method in methods if method.flops_of is not None]
