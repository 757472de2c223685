"""Loading models and tokenizers from a folder or the Hub, with one clear line when it does not work."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from minidisc.errors import UserError
from minidisc.modeling.classes import register


@dataclass
class Loaded:
    """A sequence classification model with its tokenizer.

    ``fresh`` names parameters that the folder had no weights for, such as a classifier that was never trained.
    """

    model: Any
    tokenizer: Any
    fresh: list[str]


def load_config(source: str, trust_remote_code: bool = False) -> Any:
    """The configuration of a model in a folder or on the Hub.

    Raises:
        UserError: it is not there or cannot be read.
    """
    register()
    folder = Path(source)
    if folder.exists() and not (folder / "config.json").is_file():
        raise UserError(f"{source} holds no config.json; give the folder that save_pretrained wrote.")
    if not folder.exists() and not _may_be_hub_id(source):
        raise UserError(f"{source} does not exist; give the folder of a Hugging Face model, or a Hub id.")
    try:
        return AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"cannot load a model from {source!r}: {_first_line(error)} Give the folder of a Hugging Face model, or a "
            "Hub id."
        ) from None


def load_classifier(
    source: str, trust_remote_code: bool = False, *, new_head: bool = False, **config_changes: Any
) -> Loaded:
    """Load weights (safetensors only), tokenizer and configuration; fp32, on the CPU, in evaluation mode.

    Args:
        source: folder or Hub id.
        trust_remote_code: whether code that comes with the model may run.
        new_head: whether a classifier of another shape may be replaced by a freshly initialised one.
        config_changes: settings of the configuration to override.

    Raises:
        UserError: anything missing or unreadable.
    """
    config = load_config(source, trust_remote_code)
    for name, value in config_changes.items():
        setattr(config, name, value)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(f"{source!r} has no usable tokenizer: {_first_line(error)}") from None
    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            source,
            config=config,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            ignore_mismatched_sizes=new_head,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"cannot load weights (safetensors) from {source!r}: {_first_line(error)}") from None
    return Loaded(model.eval(), tokenizer, sorted(report["missing_keys"]))


def from_pretrained(source: str | os.PathLike, trust_remote_code: bool = False) -> Any:
    """Load a student (or any sequence classification model) from a folder or the Hub, in evaluation mode.

    Raises:
        UserError: it is not there or cannot be loaded.
    """
    return load_classifier(str(source), trust_remote_code).model


def fingerprint_of(source: str) -> str:
    """A short hash of the weights and configuration in a folder; of the name for a Hub id."""
    digest = hashlib.sha256()
    files = sorted([*Path(source).glob("*.safetensors"), *Path(source).glob("config.json")])
    for file in files:
        with file.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest() if _HAS_FILE_DIGEST else handle.read())
    return digest.hexdigest()[:16] if files else source


_HAS_FILE_DIGEST = hasattr(hashlib, "file_digest")


def _may_be_hub_id(source: str) -> bool:
    return re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", source) is not None


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
