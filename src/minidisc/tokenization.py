"""Loading the tokenizer of a model, and what it has to be like for the model's task."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers.normalizers import Replace, Sequence
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from minidisc.architectures import FAMILIES, STUDENT_PREFIX, architecture_for
from minidisc.errors import UserError, first_line
from minidisc.tasks import CAUSAL_LM, Kind, no_padding
from minidisc.values import fingerprint

# How files are named that tokenizers are read from.
_TOKENIZER_FILES = ("tokenizer.*", "*vocab*", "*.model", "merges.txt")


def load_tokenizer(source: str, trust_remote_code: bool) -> Any:
    """The tokenizer of a model in a folder or on the Hub.

    Raises:
        UserError: there is none, it cannot be read, or its limit is no number.
    """
    folder = Path(source)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
    except Exception as error:  # of a file that tokenizers cannot read it raises nothing more specific
        if folder.is_dir() and not _has_any(folder, _TOKENIZER_FILES):
            raise _no_tokenizer(source) from None
        raise UserError(f"{source!r} has no usable tokenizer: {first_line(error)}") from None
    files = {*tokenizer.vocab_files_names.values(), "tokenizer.json"}
    # For some families, transformers makes up one that knows the special tokens alone.
    if tokenizer.vocab_files_names and folder.is_dir() and not _has_any(folder, files):
        raise _no_tokenizer(source)
    if not isinstance(tokenizer.model_max_length, (int, float)):
        raise UserError(
            f"model_max_length in tokenizer_config.json of {source!r} is {tokenizer.model_max_length!r}; write a "
            "number without quotes."
        )
    return tokenizer


def fitted(tokenizer: Any, config: Any, kind: Kind | None) -> Any:
    """A tokenizer as a model needs it for a kind of task: the same one, changed, or another in its place.

    Raises:
        UserError: its padding or end token is not what the model looks for.
    """
    if kind == "token-classification":
        _space_before_words(tokenizer)
    elif kind != CAUSAL_LM:
        _check_padding(config, tokenizer)
        tokenizer = _with_one_end(config, tokenizer)
    return tokenizer


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """A short hash of what a tokenizer makes tokens by; of a slow one the vocabulary, since the rest is code."""
    whole = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else sorted(tokenizer.get_vocab().items())
    settings = ("model_max_length", "truncation_side", "split_special_tokens")
    return fingerprint([whole, *(getattr(tokenizer, name, None) for name in settings)])


def _no_tokenizer(source: str) -> UserError:
    return UserError(
        f"{source!r} holds no tokenizer; save it there with its own save_pretrained, as it was when the model was "
        "trained."
    )


def _has_any(folder: Path, names: Iterable[str]) -> bool:
    """Whether a folder has a file of one of these names, or patterns of names."""
    return any(file.is_file() for name in names for file in folder.glob(name))


def _space_before_words(tokenizer: Any) -> None:
    """Make a byte-level tokenizer, such as RoBERTa's, see the space that stands before a word in a text.

    Given words one by one, it would otherwise take each for the continuation of the one before.
    """
    splitter = tokenizer.backend_tokenizer.pre_tokenizer if tokenizer.is_fast else None
    if isinstance(splitter, ByteLevel):
        splitter.add_prefix_space = True
        # Some tokenizer classes are built anew from this setting when they are loaded, others from tokenizer.json.
        tokenizer.add_prefix_space = tokenizer.init_kwargs["add_prefix_space"] = True


def _check_padding(config: Any, tokenizer: Any) -> None:
    """Refuse a model that would take padding for a sentence's last token."""
    if not _architecture_fact(config, "pools_last_token"):
        return
    if config.pad_token_id is None and tokenizer.pad_token_id is None:
        # Rows that are equally long do not help: without one such models take no two of them at once.
        raise no_padding()
    if config.pad_token_id != tokenizer.pad_token_id:
        raise UserError(
            f"the model's pad_token_id is {config.pad_token_id}, but its tokenizer's is {tokenizer.pad_token_id}; set "
            "pad_token_id in config.json to the tokenizer's."
        )


def _with_one_end(config: Any, tokenizer: Any) -> Any:
    """A tokenizer by which a text cannot hold an end of its own, if the model reads its label there.

    Raises:
        UserError: it puts no end behind a text.
    """
    if not _architecture_fact(config, "pools_end_token"):
        return tokenizer
    end = config.eos_token_id
    ends = tokenizer("")["input_ids"].count(end)
    if not ends:
        raise UserError(
            f"the model reads a sentence's label from its end token (eos_token_id {end}), which its "
            "tokenizer does not put behind a text; use the tokenizer that T5 was trained with."
        )
    # The latter is what is saved with a student.
    tokenizer.split_special_tokens = tokenizer.init_kwargs["split_special_tokens"] = True
    name = tokenizer.convert_ids_to_tokens(end)
    if not tokenizer.is_fast or tokenizer(name)["input_ids"].count(end) == ends:
        return tokenizer
    # To T5's own tokenizer an end is a piece of words like any other, so it must not get to see one.
    backend = tokenizer.backend_tokenizer
    split = Replace(name, f"{name[:1]} {name[1:]}")
    backend.normalizer = Sequence([backend.normalizer, split]) if backend.normalizer else split
    # T5's class would leave the normalizer in tokenizer.json out when it is loaded; this one takes all that is there.
    settings = {**tokenizer.init_kwargs, "model_input_names": tokenizer.model_input_names}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **settings)


def _architecture_fact(config: Any, name: str) -> bool:
    family = config.model_type.removeprefix(STUDENT_PREFIX)
    return family in FAMILIES and getattr(architecture_for(family), name)
