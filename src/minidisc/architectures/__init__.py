"""The model families minidisc knows: one declarative file each.

A new family is a new file here that defines ``ARCHITECTURE``, its name in ``FAMILIES``, and a row in the
test matrix (``tests/unit/families.py``).
"""

from __future__ import annotations

import importlib

from minidisc.architectures.architecture import Architecture, Parts
from minidisc.errors import UserError

FAMILIES = (
    "albert",
    "bert",
    "camembert",
    "deberta-v2",
    "distilbert",
    "electra",
    "gemma",
    "gemma2",
    "gemma3_text",
    "gpt2",
    "gpt_neox",
    "llama",
    "mistral",
    "modernbert",
    "mpnet",
    "opt",
    "phi3",
    "qwen2",
    "qwen3",
    "roberta",
    "smollm3",
    "t5",
    "t5-enct5",
    "t5-encoder",
    "xlm-roberta",
)
STUDENT_PREFIX = "minidisc_"


def architecture_for(model_type: str) -> Architecture:
    """The architecture of a Hugging Face ``model_type``.

    Raises:
        UserError: a family that is not known, or a model that minidisc has already made small.
    """
    if model_type in FAMILIES:
        return importlib.import_module(f"minidisc.architectures.{model_type.replace('-', '_')}").ARCHITECTURE
    if model_type.removeprefix(STUDENT_PREFIX) in FAMILIES:
        raise UserError(f"the model is itself a minidisc student ({model_type}); give the full-width teacher instead.")
    raise UserError(
        f"model family {model_type!r} is not known; known are {', '.join(FAMILIES)}. "
        "docs/adding-a-family.md in minidisc's repository shows how to add one."
    )


__all__ = ["FAMILIES", "STUDENT_PREFIX", "Architecture", "Parts", "architecture_for"]
