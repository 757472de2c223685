"""The error messages in the source, as templates: what a run fills in is ``…``.

``python docs/messages.py`` prints them by module.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "minidisc"
# What is called with a message, and which argument that is.
_CALLS = {"UserError": 0, "ChangedError": 0, "CheckFailed": 0, "require": 1, "_fail": 0}


def templates() -> dict[str, list[str]]:
    """Messages by the file that has them, each once, in the order of the source."""
    found: dict[str, list[str]] = {}
    seen: set[str] = set()
    for file in sorted(SOURCE.rglob("*.py")):
        calls = [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        for call in sorted(calls, key=lambda call: call.lineno):
            position = _CALLS.get(getattr(call.func, "id", ""))
            text = _text(call.args[position]) if position is not None and len(call.args) > position else ""
            text = re.sub("…+", "…", text)
            # What is only filled in, such as the reason that a library gives, is no message of ours.
            if re.search(r"\w", text) and text not in seen:
                seen.add(text)
                found.setdefault(str(file.relative_to(SOURCE)), []).append(text)
    return found


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_text, node.values))
    return "…"


if __name__ == "__main__":
    for module, messages in templates().items():
        print(f"{module}\n" + "".join(f"    {message}\n" for message in messages))
