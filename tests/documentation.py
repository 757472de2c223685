"""The pages of the documentation, and the blocks of code in them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"(?:<!-- (not run|in the tests): ([^>]+) -->\n)?```(\w*)\n(.*?)\n```", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block; ``not_run`` is the reason why the tests do not run it, if they do not."""

    page: str
    language: str
    text: str
    not_run: str | None

    def commands(self) -> list[list[str]]:
        """The words of each command; of a block in no language only those that call minidisc."""
        lines = self.text.replace("\\\n", " ").splitlines()
        if not self.language:
            lines = [line for line in lines if line.startswith("minidisc ")]
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def pages() -> list[Path]:
    """Those that the site shows, in its order, and then the README."""
    entries = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    names = [name for entry in entries for name in ([entry] if isinstance(entry, str) else next(iter(entry.values())))]
    return [*(ROOT / "docs" / name for name in names), ROOT / "README.md"]


def blocks(page: Path) -> list[Block]:
    """A page's, in their order, with what the tests put in place of real sizes (``in the tests: 2M → 10k``)."""
    found = []
    for note, content, language, text in _BLOCK.findall(page.read_text(encoding="utf-8")):
        if note == "in the tests":
            before, after = content.split(" → ")
            assert before in text, f"{page.name}: no {before} in the block"
            text = text.replace(before, after)
        found.append(Block(page.name, language, text, content if note == "not run" else None))
    return found
