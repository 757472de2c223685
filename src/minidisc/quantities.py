"""Numbers with units, as people write them: ``2M``, ``20MB``, ``3ms``, ``1%``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from minidisc.errors import UserError

PARAMETERS = {"": 1.0, "k": 1e3, "M": 1e6, "B": 1e9}
BYTES = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
SHARE = {"": 1.0, "%": 0.01}


def parameters_text(parameters: float) -> str:
    """So many parameters: ``85.05 M``; below a hundred thousand ``4.65 k``, from a thousand millions on ``1.03 B``."""
    if parameters < 1000:
        return f"{parameters:.0f}"
    unit = "k" if parameters < 1e5 else "M" if parameters < 1e9 else "B"
    return f"{parameters / PARAMETERS[unit]:.2f} {unit}"


def quantity(flag: str, text: str, units: Mapping[str, float], example: str) -> float:
    """The number that a text stands for, in the unit whose factor is 1.

    Args:
        flag: that the text was given with, for the error message.
        text: a positive number and a unit, with or without a space between.
        units: what each allowed unit is worth; "" where none is needed.
        example: a text that is right, for the error message.

    Raises:
        UserError: it is not a positive number, or the unit is not known.
    """
    match = re.fullmatch(r"([0-9.]+(?:e[+-]?[0-9]+)?)\s*([A-Za-z%]*)", text.strip())
    try:
        # 0.7 times 0.01 is less than 0.007 in floating point.
        value = float(f"{float(match[1]) * units[match[2]]:.15g}") if match else math.nan
    except (ValueError, KeyError):
        value = math.nan
    if not 0 < value < math.inf:
        allowed = ", ".join(unit for unit in units if unit)
        raise UserError(f"{flag} is {text!r}; give a number with one of {allowed}, such as {example}.")
    return value
