"""Text that others have written, such as labels and names of files and weights, where it is shown."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with escapes for what does not print: a terminal would obey it, a new line forge one."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
