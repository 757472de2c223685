"""`minidisc report`: the report of a finished run from its files, or one page that compares several runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from minidisc.errors import UserError
from minidisc.report import write_comparison, write_report
from minidisc.results import read_result


def report(runs: Sequence[Path], output: Path | None = None, examples: bool = True) -> Path:
    """Write the report of one run, or a comparison of several.

    Args:
        runs: folders of finished runs.
        output: the HTML file; for one run ``RUN/report.html`` if not given.
        examples: whether the report of one run may show rows of text, if its results hold any.

    Returns:
        The file.

    Raises:
        UserError: a folder is no finished run or given twice, or there is no place for the page.
    """
    if len({run.resolve() for run in runs}) < len(runs):
        raise UserError("a run is given twice; give each once.")
    found = [(str(run), read_result(run).results) for run in runs]
    if output is not None and output.is_dir():
        raise UserError(f"--output {output} is a folder; give an HTML file.")
    if len(found) == 1:
        file = output or runs[0] / "report.html"
        write_report(file, found[0][1], examples)
        return file
    if output is None:
        raise UserError("several runs give one page of their own; say with --output which file it goes to.")
    write_comparison(output, found)
    return output
