"""Numbers as people read them."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from minidisc.foreign_text import without_secrets

FILTERS = (
    *("score", "signed", "percent", "lam", "count", "parameters", "times", "speed", "milliseconds"),
    *("flops", "duration", "size", "setting"),
)

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


_LARGE = 1e15  # beyond which decimals say nothing, and Decimal gives up


def score(value: float) -> str:
    """A metric or t_λ with four decimals; halves go away from zero, as a reader would round what JSON shows."""
    if not abs(value) < _LARGE:
        return f"{value:.3g}"
    rounded = Decimal(repr(float(value))).quantize(Decimal("0.0001"), ROUND_HALF_UP)
    return str(rounded or abs(rounded)).replace("-", "−")


def signed(value: float) -> str:
    """A difference of metrics, with its sign."""
    text = score(value)
    return text if value <= 0 or text == "0.0000" else f"+{text}"


def percent(value: float) -> str:
    """A sparsity: 0.9 is ``90 %``."""
    return f"{100 * value:g} %"


def lam(value: float) -> str:
    """A λ, three digits: ``0.125``."""
    return f"{value:.3g}"


def milliseconds(value: float) -> str:
    """A time, three digits: ``1.23 ms``."""
    return f"{value:.3g} ms"


def assistant_name(number: int, of: int) -> str:
    """Role of the assistant of a number from 1 on, among so many."""
    return "assistant" if of == 1 else f"assistant {number}"


def count(value: int) -> str:
    """A whole number, its thousands apart."""
    return f"{value:,}"


def parameters(value: int) -> str:
    """A number of parameters, three digits: ``10.6 M``."""
    scaled, unit = _scaled(value, ("", "k", "M", "B", "T"))
    return f"{scaled} {unit}".strip()


def times(larger: float, smaller: float) -> str:
    """How many times as large ``larger`` is, or a dash where there is nothing to divide by."""
    if not smaller:
        return "–"
    ratio = larger / smaller
    return f"{ratio:.3g} ×" if ratio < 100 else f"{ratio:,.0f} ×"


def speed(ratio: float) -> str:
    """How a network's speed compares, so many times another's: ``3.53 × faster``, ``1.04 × slower``, ``as fast``."""
    text = times(max(ratio, 1), min(ratio, 1))
    return "as fast" if text == "1 ×" else f"{text} {'faster' if ratio > 1 else 'slower'}"


def flops(value: float) -> str:
    """Floating-point operations as a power of ten: ``5.30 × 10¹²``."""
    if not value:
        return "0"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa} × 10{str(int(exponent)).translate(_SUPERSCRIPTS)}"


def duration(seconds: float) -> str:
    """Seconds; from a minute on minutes, from an hour on hours."""
    whole = round(seconds)
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"


def size(value: int) -> str:
    """Bytes in decimal units: ``2.06 GB``."""
    scaled, unit = _scaled(value, ("bytes", "kB", "MB", "GB", "TB"))
    return f"{scaled} {unit}"


def setting(value: Any) -> str:
    """A setting's value as it is given on the command line, but for passwords and signatures in addresses."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(setting(v) for v in value)
    return f"{value:g}" if isinstance(value, float) else without_secrets(str(value))


def _scaled(value: float, units: tuple[str, ...]) -> tuple[str, str]:
    if value < 1000:
        return f"{value:g}", units[0]
    power = 0
    while float(f"{value:.2e}") >= 1000 and power < len(units) - 1:
        value, power = value / 1000, power + 1
    digits = 2 if float(f"{value:.2e}") < 10 else 1 if float(f"{value:.2e}") < 100 else 0
    return f"{value:.{digits}f}", units[power]
