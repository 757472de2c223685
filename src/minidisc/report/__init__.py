"""The run's report: one HTML file that needs nothing else, made from the content of ``RUN/results.json`` alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from minidisc.files import new_file
from minidisc.report import comparison, content, formats


def write_report(path: Path, results: dict[str, Any], examples: bool = True) -> None:
    """Write the report of a run, atomically; equal results give equal bytes.

    Args:
        path: the HTML file.
        results: what `minidisc.pipeline` writes to ``results.json``, as it was made or as it is read back.
        examples: whether it may show rows of text, if the results hold any.
    """
    _write(path, "report.html.jinja", {**content.variables(results, examples), "script": _read("tradeoff.js")})


def write_comparison(path: Path, runs: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """Write a page that compares runs, atomically; equal results give equal bytes.

    Args:
        path: the HTML file.
        runs: the name of each, and its results.
    """
    _write(path, "comparison.html.jinja", comparison.variables(runs))


def _write(path: Path, template: str, variables: dict[str, Any]) -> None:
    page = _environment().get_template(template).render(variables)
    with new_file(path) as temporary:
        # File names on Linux need not be valid Unicode.
        temporary.write_text(page + "\n", encoding="utf-8", errors="backslashreplace")


@cache
def _environment() -> Any:
    """What makes pages of templates; it keeps those that it has compiled."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {name: getattr(formats, name) for name in formats.FILTERS}
    return environment


def _read(name: str) -> str:
    return resources.files("minidisc.report").joinpath(name).read_text(encoding="utf-8")
