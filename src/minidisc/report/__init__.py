"""The run's report: one HTML file that needs nothing else, made from the content of ``RUN/results.json`` alone."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from minidisc.files import new_file
from minidisc.report import formats
from minidisc.report.content import variables


def write_report(path: Path, results: dict[str, Any]) -> None:
    """Write the report of a run, atomically; equal results give equal bytes.

    Args:
        path: the HTML file.
        results: what `minidisc.pipeline` writes to ``results.json``, as it was made or as it is read back.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {name: getattr(formats, name) for name in formats.FILTERS}
    source = resources.files("minidisc.report").joinpath("report.html.jinja").read_text(encoding="utf-8")
    page = environment.from_string(source).render(variables(results))
    with new_file(path) as temporary:
        # File names on Linux need not be valid Unicode.
        temporary.write_text(page + "\n", encoding="utf-8", errors="backslashreplace")
