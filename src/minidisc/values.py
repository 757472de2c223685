"""Plain values, as YAML, JSON or keyword arguments give them, made into settings or paths; and their hash."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import numbers
import os
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from minidisc.errors import UserError

_LONGEST = 200  # characters of a value in a message


class _Repr(reprlib.Repr):
    """Goes through few of a container's parts: a small file of YAML can hold one whose whole text fills the memory."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = self.maxfrozenset = 20
        self.maxstring = self.maxlong = self.maxother = 2 * _LONGEST  # what is longer is not shown anyway


def settings_from(cls: type, values: dict[str, Any], source: str = "settings") -> Any:
    """Build a settings dataclass from plain values; see `known_values`, and the class for what it refuses."""
    return cls(**known_values(cls, values, source))


def whole_settings(cls: type, settings: Any, named: dict[str, Any], others: dict[str, Any]) -> Any:
    """Settings as a function of the Python API takes them: all at once, or one by one.

    Args:
        cls: a dataclass of settings (see `minidisc.config`).
        settings: all of them, if they are given so.
        named: the function's own arguments among the settings; None where not given.
        others: its other keyword arguments.

    Raises:
        UserError: both are given, they are none of that class, or see `settings_from`.
    """
    given = {name: value for name, value in named.items() if value is not None} | others
    if settings is None:
        return settings_from(cls, given)
    if given:
        raise UserError(
            f"settings are given, and {', '.join(given)} beside them; put all into the settings, or give no settings."
        )
    check_class(cls, settings)
    return settings


def check_class(cls: type, settings: Any) -> None:
    """Refuse settings that are not a function's own.

    Args:
        cls: a dataclass of settings (see `minidisc.config`).
        settings: what was given for them.

    Raises:
        UserError: they are none of that class.
    """
    if not isinstance(settings, cls):
        raise UserError(f"settings is {_shown(settings)}; {cls.__name__} of minidisc.config is expected.")


def known_values(cls: type, values: dict[str, Any], source: str = "settings") -> dict[str, Any]:
    """Plain values, as YAML, JSON or keyword arguments give them, as the fields of a settings dataclass take them.

    Args:
        cls: a dataclass of settings (see `minidisc.config`).
        values: field names (with ``_`` or ``-``) to values; numbers may be text.
        source: what the values came from, for error messages.

    Raises:
        UserError: an unknown name, a value of the wrong type, None for what is not None by default, or text that no
            file can be called.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}
    known = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in fields:
            raise UserError(f"{source}: unknown setting {key!r}; allowed are {', '.join(sorted(fields))}.")
        # What is None by default counts as not given when it is that.
        absent = value is None and fields[name].default is None
        converted = None if absent else _convert(name, value, str(fields[name].type), source)
        for part in converted if isinstance(converted, tuple) else (converted,):
            _check_characters(f"{source}: {name}", part)
        known[name] = converted
    return known


def path_from(name: str, value: Any) -> Path:
    """A path as a caller of the Python API gives it; ``~`` is the user's home.

    Raises:
        UserError: it is neither text nor a path.
    """
    return Path(text_from(name, value, "a path"))


def text_from(name: str, value: Any, kind: str) -> str:
    """The text that a caller of the Python API gives, be it as a path, with its leading ``./``; ``~`` is a home.

    Args:
        name: what it is given for.
        value: what is given.
        kind: what is expected, for the error message.

    Raises:
        UserError: it is neither text nor a path, or no file can be called so.
    """
    try:
        text = _text(value)
    except TypeError:
        raise UserError(f"{name} is {_shown(value)}; {kind} is expected.") from None
    _check_characters(name, text)
    return os.path.expanduser(text)


def paths_from(name: str, values: Any) -> list[Path]:
    """One path or several, each as `path_from` has it; ``name`` is that of one."""
    given = [values] if isinstance(values, str) or not isinstance(values, Iterable) else values
    return [path_from(name, value) for value in given]


def number_from(name: str, value: Any) -> float:
    """A number as a caller of the Python API gives it, or the text of one.

    Raises:
        UserError: it is neither.
    """
    try:
        return float(value)
    except (TypeError, ValueError):
        raise UserError(f"{name} is {_shown(value)}; a number is expected.") from None


def changes(before: Mapping[str, Any], now: Mapping[str, Any], free: Sequence[str] = ()) -> list[str]:
    """What was otherwise before, one text a name; those in ``free`` may have changed."""
    return [
        f"{key} was {before.get(key)!r} and is now {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if key not in free and before.get(key) != now.get(key)
    ]


def fingerprint(values: Any) -> str:
    """A short hash of plain values; equal values give equal hashes in every process."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _convert(name: str, value: Any, type_text: str, source: str) -> Any:
    try:
        if type_text.startswith("tuple"):
            parts = value.split(",") if isinstance(value, str) else list(value)
            convert = float if "float" in type_text else _whole if "int" in type_text else _text
            return tuple(convert(part.strip() if isinstance(part, str) else part) for part in parts)
        if type_text.startswith("bool"):
            if isinstance(value, bool):
                return value
            raise ValueError
        if type_text.startswith("int"):
            return _whole(value)
        if type_text.startswith("float"):
            if not math.isfinite(float(value)):
                raise ValueError
            return float(value)
        if type_text.startswith("str"):
            return _text(value)
        # Of the few texts that another type allows, the class says which.
        return str(value) if isinstance(value, str) else _shown(value)
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{source}: {name} is {_shown(value)}; {type_text} is expected.") from None


def _text(value: Any) -> str:
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    # True is a number to Python.
    if isinstance(value, bool) or not isinstance(value, (str, numbers.Real)):
        raise TypeError
    return str(value)


def _check_characters(name: str, value: Any) -> None:
    """Refuse text that the system takes for no path, as YAML can write it."""
    with suppress(ValueError):
        if not isinstance(value, str) or b"\0" not in os.fsencode(value):
            return
    raise UserError(
        f"{name} is {_shown(value)}, with a character that no path can have (a null character, or half of a pair); "
        "leave it out."
    )


def _shown(value: Any) -> str:
    """A value in one line; of a large one, such as a model, the type."""
    with suppress(ValueError):  # a number of more digits than Python writes
        text = _Repr().repr(value)
        if len(text) <= _LONGEST and "\n" not in text:
            return text
    return f"a {type(value).__name__}"


def _whole(value: Any) -> int:
    if float(value) != int(float(value)):
        raise ValueError
    return int(float(value))
