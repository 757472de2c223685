"""Loading models from a folder or the Hub, with one clear line when it does not work."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import datasets
import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from minidisc.architectures import FAMILIES, STUDENT_PREFIX, architecture_for
from minidisc.errors import UserError, first_line
from minidisc.modeling.classes import heads_of, register
from minidisc.tasks import CAUSAL_LM, Kind, no_padding
from minidisc.tokenization import fitted, load_tokenizer
from minidisc.values import text_from
from minidisc.weights import check_files, check_weights


@dataclass
class Loaded:
    """A classification or causal language model with its tokenizer.

    ``tokenizer`` is None where `load_model` was asked for the model alone, and there is none. ``fresh`` names
    parameters that the folder had no weights for, such as a classifier that was never trained.
    """

    model: Any
    tokenizer: Any
    fresh: list[str]


def load_config(source: str, trust_remote_code: bool = False) -> Any:
    """The configuration of a model in a folder or on the Hub; names of outputs are text.

    Raises:
        UserError: it is not there or cannot be read, or its outputs are not all named, from 0 on.
    """
    register()
    folder = Path(source)
    if folder.exists() and not (folder / "config.json").is_file():
        raise UserError(f"{source} holds no config.json; give the folder that save_pretrained wrote.")
    if not folder.exists() and not _may_be_hub_id(source):
        raise UserError(f"{source} does not exist; give the folder of a Hugging Face model, or a Hub id.")
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, AttributeError, StrictDataclassError) as error:
        if "custom code" in str(error) and not trust_remote_code:
            raise UserError(
                f"{source!r} comes with code of its own, which is not run; add --trust-remote-code if you trust "
                "whoever wrote it, or give another model."
            ) from None
        raise UserError(
            f"cannot load a model from {source!r}: {first_line(error)} Give the folder of a Hugging Face model, or a "
            "Hub id."
        ) from None
    config.id2label = _output_names(config.id2label, source)
    return config


def kind_of(config: Any) -> Kind | None:
    """The kind of task that a model's configuration speaks of, if it does."""
    named = _kinds_of(config)
    if len(named) == 1:
        return named[0]
    return "regression" if config.num_labels == 1 else None


def check_kind(config: Any, kind: Kind) -> None:
    """Refuse a fine-tuned model for a task that it has the wrong head for.

    Raises:
        UserError: one label a word is asked of a model that gives one a sentence, or the like.
    """
    if getattr(config, "problem_type", None) == "multi_label_classification":
        raise UserError(
            "the model gives any number of labels (its problem_type is multi_label_classification), but minidisc "
            "trains for one label a row, and has no metric for several; use a model with one label."
        )
    kinds = _kinds_of(config)
    if kinds and kind not in kinds:
        gives = {"token-classification": "gives one label a word", CAUSAL_LM: "predicts the next token"}
        raise UserError(
            f"the model is a {config.architectures[0]}, which {gives.get(kinds[0], 'gives one label a sentence')}, "
            f"but the task is {kind}; use a model that was fine-tuned for it, or another --task."
        )


def load_model(
    source: str,
    trust_remote_code: bool = False,
    *,
    config: Any = None,
    kind: Kind | None = None,
    new_head: bool = False,
    caches: bool = False,
    needs_tokenizer: bool = True,
    **config_changes: Any,
) -> Loaded:
    """Load weights (safetensors only), tokenizer and configuration; fp32, on the CPU, in evaluation mode.

    Args:
        source: folder or Hub id.
        trust_remote_code: whether code that comes with the model may run.
        config: what to use instead of the configuration that is there.
        kind: kind of task that the model is for, if not the one that its configuration speaks of.
        new_head: whether a classifier of another shape may be replaced by a freshly initialised one.
        caches: whether a decoder's passes keep keys and values for later tokens as its configuration says; else only
            those of generation do, which asks for them. Nothing else uses them, and of a batch they can be gigabytes.
            `minidisc.extraction.save_model` saves what the configuration said.
        needs_tokenizer: whether there has to be a tokenizer that can be used; where there is none, what is checked by
            it is not.
        config_changes: settings of the configuration to override.

    Raises:
        UserError: anything missing or unreadable, weights that are not those of the configuration's model, a task that
            the family has no class for, or a padding or end token that the model does not know.
    """
    config = config or load_config(source, trust_remote_code)
    _check_precision(config, source)
    check_files(source, config)
    for name, value in config_changes.items():
        setattr(config, name, value)
    kind = kind or kind_of(config)
    head = _AUTO_CLASSES.get(kind, AutoModelForSequenceClassification)
    _check_head(config, head)
    try:
        tokenizer = load_tokenizer(source, trust_remote_code)
    except UserError:
        if needs_tokenizer:
            raise
        tokenizer = None
    else:
        tokenizer = fitted(tokenizer, config, kind)
    try:
        model, report = head.from_pretrained(
            source,
            config=config,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # else the error would not say which
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (ImportError, OSError, ValueError, RuntimeError, SafetensorError, UnpicklingError) as error:
        raise UserError(f"cannot load weights (safetensors) from {source!r}: {first_line(error)}") from None
    fresh = check_weights(model, report, new_head, source)
    if getattr(model.config, "use_cache", False) and not caches:
        model.config.use_cache = False
        model.saved_with_cache = True
    return Loaded(model.eval(), tokenizer, fresh)


def check_tokens(loaded: Loaded, rows: datasets.Dataset, name: str) -> None:
    """Refuse rows that the tokenizer cannot pad, or that have pieces of words which the model has no embeddings for.

    Args:
        loaded: the model and its tokenizer.
        rows: encoded by it (see `minidisc.tasks.encode`).
        name: where they are from.

    Raises:
        UserError: the tokenizer has no padding token, or more pieces than the model.
    """
    tokenizer, known = loaded.tokenizer, loaded.model.base_model.get_input_embeddings().num_embeddings
    # Not all at once: as lists they take many times the memory.
    slices = rows.select_columns("input_ids").iter(1000)
    largest = max(max(ids, default=0) for part in slices for ids in part["input_ids"])
    if len({*rows["length"][:]}) > 1:
        if tokenizer.pad_token is None:
            raise no_padding()
        largest = max(largest, tokenizer.pad_token_id)
    if largest >= known:
        raise UserError(
            f"{name}: the tokenizer has piece {largest} ({tokenizer.convert_ids_to_tokens(largest)}) for it, but the "
            f"model embeddings for {known} alone; give a model that was resized to its tokenizer and trained, or its "
            "own tokenizer."
        )


def check_length(config: Any, max_length: int) -> None:
    """Refuse rows that are longer than the model has positions for, if it is of a known family and counts them.

    Raises:
        UserError: they are longer.
    """
    family = config.model_type.removeprefix(STUDENT_PREFIX)
    # DeBERTa may know nothing but how far apart two tokens are.
    if family not in FAMILIES or not getattr(config, "position_biased_input", True):
        return
    positions = getattr(config, "max_position_embeddings", math.inf)
    if reserved := architecture_for(family).reserved_positions:
        positions -= reserved(config)
    if max_length > positions:
        raise UserError(f"--max-length is {max_length}, but the model has positions for {positions} tokens only.")


def from_pretrained(source: str | os.PathLike, trust_remote_code: bool = False) -> Any:
    """Load a student (or any classification or causal language model) from a folder or the Hub, in evaluation mode.

    Its tokenizer need not be there.

    Raises:
        UserError: it is not there or cannot be loaded.
    """
    source = text_from("source", source, "a folder or a Hub id")
    return load_model(source, trust_remote_code, caches=True, needs_tokenizer=False).model


class Halved(NamedTuple):
    """Of weights in half precision: ``float16`` or ``bfloat16``, and the bytes that their files take."""

    dtype: str
    size: int

    @property
    def text(self) -> str:
        """``float16, 30.4 MB``."""
        return f"{self.dtype}, {self.size / 1e6:.1f} MB"

    @property
    def setting(self) -> str:
        """What ``--save-dtype`` calls it."""
        return {"float16": "fp16", "bfloat16": "bf16"}[self.dtype]


def halved(source: str) -> Halved | None:
    """In which half precision most weights of a model are that has been loaded, by the heads of its files; else None.

    `load_model` makes fp32 of them, and its configuration then says so.
    """
    folder = Path(source) if Path(source).exists() else _cached(source)
    if folder is None:
        return None
    whole = folder / "model.safetensors"
    files = [whole] if whole.is_file() else sorted(folder.glob("model-*-of-*.safetensors"))
    numbers: Counter[str] = Counter()
    for file in files:
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  # it is no mapping
                part = tensors.get_slice(name)
                numbers[part.get_dtype()] += math.prod(part.get_shape())
    dtype = {"F16": "float16", "BF16": "bfloat16"}.get(max(numbers, key=numbers.__getitem__, default=""))
    return Halved(dtype, sum(file.stat().st_size for file in files)) if dtype else None


def fingerprint_of(source: str) -> str:
    """A short hash of the weights and configuration in a folder; name and commit of a Hub id that has been loaded."""
    digest = hashlib.sha256()
    files = sorted([*Path(source).glob("*.safetensors"), *Path(source).glob("config.json")])
    for file in files:
        with file.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    if files:
        return digest.hexdigest()[:16]
    folder = None if Path(source).exists() else _cached(source)
    return source if folder is None else f"{source}@{folder.name}"


def _cached(source: str) -> Path | None:
    """Where the files lie of a model on the Hub that was loaded: in a folder of the commit's name."""
    loaded = try_to_load_from_cache(source, "config.json")
    return Path(loaded).parent if isinstance(loaded, str) else None


_AUTO_CLASSES: dict[Any, Any] = {
    "token-classification": AutoModelForTokenClassification,
    CAUSAL_LM: AutoModelForCausalLM,
}
_KINDS: dict[str, tuple[Kind, ...]] = {
    "ForSequenceClassification": ("classification", "regression"),
    "ForTokenClassification": ("token-classification",),
    "ForCausalLM": (CAUSAL_LM,),
    "LMHeadModel": (CAUSAL_LM,),
}


def _output_names(id2label: Mapping[int, Any], source: str) -> dict[int, str]:
    """The names of a model's outputs, in their order and as text: config.json may hold any values."""
    if {*id2label} != {*range(len(id2label))}:
        raise UserError(
            f"id2label in config.json of {source!r} names the outputs {', '.join(map(str, id2label))}, but they count "
            f"from 0 to {len(id2label) - 1}; correct it."
        )
    unnamed = [str(output) for output in sorted(id2label) if id2label[output] is None]
    if unnamed:
        raise UserError(
            f"id2label in config.json of {source!r} has null for output {', '.join(unnamed)}; give every output a "
            "name."
        )
    return {output: str(id2label[output]) for output in range(len(id2label))}


def _kinds_of(config: Any) -> tuple[Kind, ...]:
    """The kinds of task that the class of a model can serve, by its name; nothing if that says nothing."""
    name = (getattr(config, "architectures", None) or [""])[0]
    return next((kinds for ending, kinds in _KINDS.items() if name.endswith(ending)), ())


def _check_head(config: Any, head: Any) -> None:
    """Refuse a task that transformers has no class for in the model's family."""
    family = config.model_type.removeprefix(STUDENT_PREFIX)
    if family in FAMILIES and head not in heads_of(family):
        others = [name for name in FAMILIES if head in heads_of(name)]
        raise UserError(
            f"family {family!r} has no {head.__name__.removeprefix('AutoModel')} class to be made small; use another "
            f"--task, or a model of one of {', '.join(others)}."
        )


def _check_precision(config: Any, source: str) -> None:
    """Refuse quantised weights, which are packed and have no gradients."""
    quantized = getattr(config, "quantization_config", None)
    if quantized:
        method = quantized.get("quant_method") if isinstance(quantized, dict) else quantized.quant_method
        raise UserError(
            f"the weights of {source!r} are quantised ({method}); give the model as it was before, or load it with "
            "transformers, dequantize() it and save it again."
        )


def _may_be_hub_id(source: str) -> bool:
    return re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", source) is not None
