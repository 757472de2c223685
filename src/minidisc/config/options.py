"""What every group of settings is made with."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Any

from minidisc.errors import UserError
from minidisc.values import known_values

_PATHS = ("teacher", "model", "output_dir", "train_file", "validation_file", "data_dir")
SEEDS = 2**32
"""How many seeds NumPy's generators take, from 0 on."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A group of settings, whose values are of their types also where Python code has others: paths, NumPy's, text.

    Of paths ``~`` is the user's home: some libraries take it for that, and others for a folder of this name.
    """

    def __post_init__(self) -> None:
        for name, value in known_values(type(self), vars(self)).items():
            expanded = os.path.expanduser(value) if name in _PATHS and value is not None else value
            object.__setattr__(self, name, expanded)


def option(default: Any, help: str) -> Any:
    """A dataclass field whose help text the command line shows."""
    return dataclasses.field(default=default, metadata={"help": help})


def flag(name: str) -> str:
    """A setting's name on the command line."""
    return "--" + name.replace("_", "-")


def choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse a value that is none of those allowed.

    Raises:
        UserError: it is none.
    """
    require(value in allowed, f"{flag(name)} is {value!r}; allowed are {', '.join(allowed)}.")


def require(condition: bool, message: str) -> None:
    """Refuse what does not fulfil a condition.

    Raises:
        UserError: with this message.
    """
    if not condition:
        raise UserError(message)
