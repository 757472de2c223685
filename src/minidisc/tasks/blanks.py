"""Documents without text, of which a corpus may have some."""

from __future__ import annotations

import logging
from typing import Any

import pandas as pd

from minidisc.errors import UserError


def is_blank(text: Any) -> bool:
    """Whether a document is missing, or nothing but blanks."""
    if isinstance(text, str):
        return not text.strip()
    return text is None or text is pd.NA or (isinstance(text, float) and text != text)


def tell_left_out(name: str, blank: int, left: int) -> None:
    """Say how many documents are left out, if any are.

    Args:
        name: what the user knows the documents by.
        blank: how many are `is_blank`.
        left: how many others there are.

    Raises:
        UserError: there is no other.
    """
    if blank and not left:
        raise UserError(f"{name} has no document with text in it; give at least one.")
    if blank:
        what = "1 document without text is" if blank == 1 else f"{blank} documents without text are"
        logging.getLogger("minidisc").warning("%s: %s left out.", name, what)
