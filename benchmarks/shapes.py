"""One file of figures for shapes that were measured in several calls, as short as a lent GPU makes them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def measured_before(target: Path | None, machine: dict[str, str]) -> dict[str, Any]:
    """The shapes that ``target`` holds already, if they are of the same device and versions.

    Args:
        target: file of figures; its ``shapes`` are by name.
        machine: what has to be the same in it.
    """
    if target is None or not target.is_file():
        return {}
    earlier = json.loads(target.read_text(encoding="utf-8"))
    return earlier["shapes"] if all(earlier.get(key) == value for key, value in machine.items()) else {}


def command() -> str:
    """The command that runs, from the project's folder; a target elsewhere is named by its file alone."""
    given = [Path(word).name if word.startswith("/") else word for word in sys.argv[1:]]
    return " ".join([f"python benchmarks/gpu/{Path(sys.argv[0]).name}", *given])
