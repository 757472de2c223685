"""Compress a fine-tuned Hugging Face transformer in one run, through the best teacher assistant.

Importing minidisc registers its small models with transformers' Auto classes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minidisc.errors import UserError
    from minidisc.pipeline import compress, plan
    from minidisc.results import CompressionResult, ModelResult
    from minidisc.subnetworks import SubnetworkSpec
    from minidisc.teachers import from_pretrained
    from minidisc.trainer import SandwichArguments, SandwichTrainer

__all__ = [
    "CompressionResult",
    "ModelResult",
    "SandwichArguments",
    "SandwichTrainer",
    "SubnetworkSpec",
    "UserError",
    "compress",
    "from_pretrained",
    "plan",
]

_HOMES = {
    "CompressionResult": "results",
    "ModelResult": "results",
    "SandwichArguments": "trainer",
    "SandwichTrainer": "trainer",
    "SubnetworkSpec": "subnetworks",
    "UserError": "errors",
    "compress": "pipeline",
    "from_pretrained": "teachers",
    "plan": "pipeline",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        return metadata.version("minidisc")
    if name not in _HOMES:
        raise AttributeError(f"module 'minidisc' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"minidisc.{_HOMES[name]}"), name)


def _is_the_command() -> bool:
    # torch and transformers take seconds to import; `minidisc --help` must not wait for them.
    if sys.argv[:1] == ["-m"]:
        # Else it is another package that is run, and that imports this one before its own module has been found.
        return " -m minidisc " in f"{' '.join(sys.orig_argv)} "
    return bool(sys.argv[:1]) and Path(sys.argv[0]).stem == "minidisc"


if not _is_the_command():
    from minidisc.modeling.classes import register

    register()
