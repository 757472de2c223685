"""Command-line options made from the settings classes, so that a default and a help text stand in one place."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer

from minidisc.config import TARGETS
from minidisc.errors import UserError
from minidisc.runs import read_config
from minidisc.values import known_values, settings_from


def command_from(
    settings_class: type,
    action: Callable[..., None],
    hidden: Sequence[str] = (),
    several: Mapping[str, str] = MappingProxyType({}),
    **flags: Any,
) -> Callable[..., None]:
    """A typer command with one option per field of ``settings_class``, plus ``--config``.

    Args:
        settings_class: a settings dataclass of `minidisc.config`.
        action: called with the settings and the ``flags``.
        hidden: settings that the command does not offer. A file may have them, since runs write all of theirs, and the
            user is told of those that are not left at their defaults.
        several: hidden settings to those that take several of them; a file's one is taken for them.
        flags: name to (type, default, help) of options that are no settings.
    """
    all_fields = dataclasses.fields(settings_class)
    fields = [f for f in all_fields if f.name not in hidden]

    def command(**given: Any) -> None:
        file = given.pop("config")
        extra = {name: given.pop(name) for name in flags}
        values = read_config(Path(file)) if file else {}
        known = known_values(settings_class, values, str(file))
        for one, many in several.items():
            if known.get(one) is not None and many not in known:
                known[many] = (known.pop(one),)
        unused = [f for f in all_fields if f.name in hidden and known.get(f.name, f.default) != f.default]
        if unused and not extra.get("quiet"):
            names = ", ".join(f.name.replace("_", "-") for f in unused)
            typer.echo(f"minidisc: of {file} this command does not use {names}", err=True)
        known = {name: value for name, value in known.items() if name not in hidden}
        given = {name: value for name, value in given.items() if value is not None}
        if known.get("trust_remote_code") and "trust_remote_code" not in given:
            # The file also names the model: it would bring the code and the leave to run it.
            raise UserError(
                f"{file} asks that code which comes with the model be run; add --trust-remote-code if you trust "
                "whoever wrote it, or --no-trust-remote-code."
            )
        if given.keys() & set(TARGETS):
            # One target is allowed, and flags win.
            known = {name: value for name, value in known.items() if name not in TARGETS}
        known |= given
        action(settings_from(settings_class, known, "command line"), **extra)

    # A class's own settings come before those it shares with other commands.
    ordered = sorted(fields, key=lambda f: f.name not in settings_class.__annotations__)
    parameters = [_parameter(f.name, _option_type(f), None, f.metadata["help"], f.default) for f in ordered]
    parameters.append(_parameter("config", str | None, None, "YAML file of the same settings; flags win", None))
    parameters += [_parameter(name, kind, default, help, None) for name, (kind, default, help) in flags.items()]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__doc__ = action.__doc__
    return command


def _option_type(field: dataclasses.Field) -> Any:
    # Everything but switches goes through settings_from as text, whose errors are one clear line.
    return bool | None if str(field.type).startswith("bool") else str | None


def _parameter(name: str, kind: Any, default: Any, help: str, shown: Any) -> inspect.Parameter:
    if isinstance(shown, bool):
        shown = "yes" if shown else "no"
    elif isinstance(shown, tuple):
        shown = ",".join(map(str, shown))
    flag = "--" + name.removeprefix("as_").replace("_", "-")
    if kind == bool | None:
        flag += "/--no-" + flag.removeprefix("--")
    if shown is not None:
        help += f" [{shown}]"
    option = typer.Option(flag, help=help, show_default=False, metavar=None if kind in (bool, bool | None) else "…")
    annotation = Annotated[kind, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
