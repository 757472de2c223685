"""The README's table of families, from what the code says of them.

``python docs/family_table.py`` prints it, ``python docs/family_table.py --write`` puts it into the README.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from minidisc.architectures import FAMILIES, Architecture, architecture_for
from minidisc.modeling.classes import HEADS, heads_of

README = Path(__file__).parents[1] / "README.md"
BLOCK = re.compile(r"(?<=<!-- families: docs/family_table.py -->\n).*?(?=<!-- /families -->)", re.DOTALL)


def table() -> str:
    """One line a family, in Markdown."""
    tasks = [_task(head) for head in HEADS]
    lines = [["family", "`model_type`", *tasks, "notes"], ["---", "---", *[":-:"] * len(tasks), "---"]]
    for architecture in sorted(map(architecture_for, FAMILIES), key=lambda a: a.name.lower()):
        own = heads_of(architecture.model_type)
        marks = ["yes" if head in own else "–" for head in HEADS]
        lines.append([architecture.name, f"`{architecture.model_type}`", *marks, "; ".join(_notes(architecture))])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _task(head: type) -> str:
    """The task of an Auto class: ``AutoModelForTokenClassification`` is for token classification."""
    words = re.sub("(?<=[a-z])(?=[A-Z])", " ", head.__name__.removeprefix("AutoModelFor")).lower()
    return words.replace("lm", "language modelling")


def _notes(architecture: Architecture) -> list[str]:
    decodes = any(part.decodes for part in architecture.ffns)
    notes = {
        "heads in groups": architecture.key_value_heads,
        "label at the last token": architecture.pools_last_token,
        "plain checkpoints": architecture.plain_if_uniform,
        "one width for layers that share weights, no `--student layers`": architecture.runs,
        "label at the end token": architecture.pools_end_token,
        "no `--student layers` where it has a decoder": decodes,
        "`--student layers` keeps the first layer": architecture.first_layer_differs and not decodes,
    }
    return [note for note, true in notes.items() if true]


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        README.write_text(BLOCK.sub(lambda _: table(), README.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(table(), end="")
