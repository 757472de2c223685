"""`minidisc report`: the report of a finished run from its files, or one page that compares several runs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from minidisc.errors import UserError
from minidisc.report import write_comparison, write_report
from minidisc.results import read_result
from minidisc.values import path_from, paths_from


def report(runs: str | Path | Iterable[str | Path], output: str | Path | None = None, examples: bool = True) -> Path:
    """Write the report of one run, or a comparison of several.

    Args:
        runs: the folder of a finished run, or several.
        output: the HTML file; for one run ``RUN/report.html`` if not given.
        examples: whether the report of one run may show rows of text, if its results hold any.

    Returns:
        The file.

    Raises:
        UserError: no run is given, or one twice; a folder is no finished run; or there is no place for the page.
    """
    folders = paths_from("run", runs)
    output = None if output is None else path_from("output", output)
    if not folders:
        raise UserError("no run is given; give the folder of a finished one.")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError("a run is given twice; give each once.")
    found = [(str(folder), read_result(folder).results) for folder in folders]
    if output is not None and output.is_dir():
        raise UserError(f"--output {output} is a folder; give an HTML file.")
    if len(found) == 1:
        file = output or folders[0] / "report.html"
        write_report(file, found[0][1], examples)
        return file
    if output is None:
        raise UserError("several runs give one page of their own; say with --output which file it goes to.")
    write_comparison(output, found)
    return output
