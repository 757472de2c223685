"""Text that others have written, such as labels and names of files and weights, where it is shown."""

from __future__ import annotations

import re

_ESCAPED = re.compile(
    r"^[#+=-]"  # a heading, a list, a line
    r"|(?<=^\d)[.)]"  # a numbered list; lists of two digits do not begin within a paragraph or an item
    r"|[`*~|\[]"
    r"|(?<![^\W_])_|_(?![^\W_])"  # within a word it is no emphasis
    r"|&(?=#?\w+;)"
    r"|\\(?=[!-/:-@\[-`{-~]|$)"  # else it is a backslash as it is
)


def printable(text: str) -> str:
    """The text with escapes for what does not print: a terminal would obey it, a new line forge one."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def in_markdown(text: str) -> str:
    """The text on one line of a Markdown page, as it is: nothing in it is a heading, a link, an image or HTML."""
    line = _ESCAPED.sub(r"\\\g<0>", printable(" ".join(text.split())))
    # All renderers know these, not all of them a backslash before such a bracket.
    return re.sub("^>", "&gt;", line.replace("<", "&lt;"))


def as_code(text: str) -> str:
    """The text as a span of code in a Markdown page."""
    line = printable(" ".join(text.split()))
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    pad = " " if line[:1] == "`" or line[-1:] == "`" else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def without_secrets(text: str) -> str:
    """The text with its addresses as they can be handed on: without names, passwords, signatures and tokens."""
    text = re.sub(r"://[^/\s]*@", "://", text)
    return re.sub(r"(://[^\s?#]*)[?#]\S*?(?=[:;,.)]*(\s|$))", r"\1", text)
