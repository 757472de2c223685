"""What the pages take from the code when the site is built: options, messages, and the pages of ``results/``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import messages  # of this folder, which MkDocs can import from

ROOT = Path(__file__).parents[1]
RESULTS = sorted((ROOT / "results").glob("*.md"))


def on_files(files: Any, config: Any) -> Any:
    """Add the files of ``results/`` that its pages show, under their own names."""
    from mkdocs.structure.files import File

    for path in (*RESULTS, *(ROOT / "results").glob("*.svg")):
        files.append(File.generated(config, f"results/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put what is generated in the place of its mark."""
    return re.sub(r"<!-- generated: (\w+) -->", lambda mark: GENERATED[mark[1]](markdown), markdown)


def commands(page: str = "") -> str:
    """A section for every command: what it does, how it is called, its options."""
    import typer

    from minidisc.cli.main import app

    lines = []
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option"]
        usage = " ".join(["minidisc", name, *(a.metavar or a.name.upper() for a in arguments), "[OPTIONS]"])
        lines += [f"## minidisc {name}", "", command.help, "", f"    {usage}", "", "| | |", "|---|---|"]
        lines += [f"| `{a.metavar or a.name.upper()}` | {_cell(a.help)} |" for a in arguments]
        for option in options:
            flags = ", ".join(f"`{flag}`" for flag in (*option.opts, *option.secondary_opts))
            lines.append(f"| {flags} | {_cell(option.help)} |")
        lines.append("")
    return "\n".join(lines)


def other_messages(page: str = "") -> str:
    """The messages that a page does not hold yet, by module."""
    lines = []
    for module, found in messages.templates().items():
        rest = [message for message in found if f"`{message}`" not in page]
        if rest:
            lines += [f"**`{module}`**", "", *(f"- `{message}`" for message in rest), ""]
    return "\n".join(lines)


def results(page: str = "") -> str:
    """A line for every page of results."""
    return "\n".join(f"- [{path.stem.replace('_', ' ')}](results/{path.name})" for path in RESULTS)


GENERATED = {"commands": commands, "messages": other_messages, "results": results}


def _cell(text: str | None) -> str:
    # Names in angle brackets would be HTML, a bar would end the cell.
    return (text or "").replace("<", "&lt;").replace("|", "\\|")
