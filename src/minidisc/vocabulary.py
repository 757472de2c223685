"""A tokenizer and a model with fewer pieces: those that some text needs.

After a sparsity of 90 % the embeddings are most of what is left of a small model, and most of their rows are of pieces
that a task's texts never use. Text in which no dropped piece occurs gives the same pieces as before, and so the same
logits; where one would occur, its word falls apart into smaller pieces.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn

from minidisc.errors import UserError


def needed_pieces(tokenizer: Any, seen: Iterable[int]) -> list[int]:
    """The pieces that a trimmed vocabulary holds.

    Args:
        tokenizer: a fast one, of WordPiece, BPE, Unigram or words.
        seen: numbers of the pieces that the text consists of.

    Returns:
        Ascending: those, special and other added tokens, single characters or bytes, so that any text can still be
        spelt, and what BPE makes the seen ones of.

    Raises:
        UserError: a tokenizer of another kind.
    """
    content = _content(tokenizer)
    added = {token["id"] for token in content["added_tokens"]}
    names = {number: piece for piece, number in tokenizer.get_vocab().items()}
    pieces = {int(number) for number in seen} - added
    # A model may have more pieces than its tokenizer, and name one of those.
    known = pieces & names.keys()
    return sorted(added | pieces | _KINDS[content["model"]["type"]](content["model"], names, known))


def named_pieces(model: Any) -> set[int]:
    """The pieces that a model's configurations name, such as its padding or what ends a text."""
    table = model.get_input_embeddings()
    values = [v for config in _configs(model) for name, v in vars(config).items() if name.endswith("_token_id")]
    numbers = [number for v in (*values, table.padding_idx) for number in (v if isinstance(v, list) else [v])]
    return {number for number in numbers if isinstance(number, int) and 0 <= number < table.num_embeddings}


def trim_tokenizer(tokenizer: Any, kept: Sequence[int]) -> Any:
    """A tokenizer of the ``kept`` pieces alone, which are numbered from 0 on in their order."""
    content, new = _content(tokenizer), _renumbered(kept)
    model, every = content["model"], content["model"]["vocab"]
    if isinstance(every, dict):
        model["vocab"] = {piece: new[number] for piece, number in every.items() if number in new}
    else:
        model["vocab"] = [entry for number, entry in enumerate(every) if number in new]
        model["unk_id"] = new.get(model["unk_id"])
    if "merges" in model:
        known = {*model["vocab"]}
        model["merges"] = [pair for pair in model["merges"] if {*_parts(pair), "".join(_parts(pair))} <= known]
    for token in content["added_tokens"]:
        token["id"] = new[token["id"]]
    _renumber_post_processor(content["post_processor"] or {}, new)
    # Whoever calls a tokenizer says how to pad; what it was saved with has the padding's old number.
    content["padding"] = None
    trimmed = copy.deepcopy(tokenizer)
    trimmed._tokenizer = Tokenizer.from_str(json.dumps(content))
    return trimmed


@torch.no_grad()
def trim_model(model: Any, kept: Sequence[int]) -> None:
    """Leave a model the embeddings (and, of a language model, the outputs) of the ``kept`` pieces, in place.

    A tokenizer may have more pieces than the model has embeddings; those without one come last then, too.
    """
    new, own = _renumbered(kept), [number for number in kept if number < model.get_input_embeddings().num_embeddings]
    rows = torch.tensor(own, device=model.device)
    tables = [table for table in (model.get_input_embeddings(), model.get_output_embeddings()) if table is not None]
    wide = [table.weight for table in tables]
    narrow = {id(weight): nn.Parameter(weight[rows], weight.requires_grad) for weight in wide}
    for module in model.modules():
        if isinstance(module, nn.Embedding | nn.Linear) and id(module.weight) in narrow:
            module.weight = narrow[id(module.weight)]
            if isinstance(module, nn.Linear):
                module.out_features = len(own)
                if module.bias is not None:
                    module.bias = nn.Parameter(module.bias[rows], module.bias.requires_grad)
            else:
                module.num_embeddings = len(own)
                module.padding_idx = None if module.padding_idx is None else new[module.padding_idx]
    generation: Any = getattr(model, "generation_config", None)
    as_read = generation is not None and generation._original_object_hash == hash(generation)
    for config in _configs(model):
        _renumber_config(config, new, len(own))
    if as_read:
        # Odd ones are saved as they were read, but not with changes; new numbers are none that made them odd.
        generation._original_object_hash = hash(generation)


def dropped(rows: Iterable[Sequence[int]], kept: Sequence[int]) -> dict[str, Any]:
    """How often pieces that are not ``kept`` occur in rows of pieces: in how many rows, and their share of all."""
    known = set(kept)
    missing = [(sum(number not in known for number in row), len(row)) for row in rows]
    return {
        "rows": sum(count > 0 for count, _ in missing),
        "pieces": sum(count for count, _ in missing) / max(1, sum(length for _, length in missing)),
    }


def _configs(model: Any) -> list[Any]:
    """Those of a model and its parts, as an encoder and a decoder have one each, and of how it generates."""
    holders = [getattr(module, "config", None) for module in model.modules()]
    found = {id(config): config for config in (*holders, getattr(model, "generation_config", None))}
    return [config for config in found.values() if config is not None]


def _renumbered(kept: Sequence[int]) -> dict[int, int]:
    return {old: number for number, old in enumerate(kept)}


def _content(tokenizer: Any) -> dict[str, Any]:
    """What ``tokenizer.json`` holds."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = json.loads(backend.to_str()) if backend is not None else {"model": {"type": type(tokenizer).__name__}}
    model = content["model"]
    kind = model["type"]
    if kind == "BPE" and (model["continuing_subword_prefix"] or model["end_of_word_suffix"]):
        kind = "BPE with prefixes or suffixes"
    if kind not in _KINDS:
        raise UserError(
            f"--trim-vocabulary takes pieces out of fast tokenizers of the kinds {', '.join(_KINDS)}, but the "
            f"teacher's is {kind}; leave it out."
        )
    return content


def _characters(model: dict[str, Any], names: dict[int, str], pieces: set[int]) -> set[int]:
    """Single characters. The longest piece that a word begins with stays the longest among fewer."""
    prefix = model.get("continuing_subword_prefix") or ""
    return {number for number, piece in names.items() if len(piece.removeprefix(prefix)) == 1}


def _unigrams(model: dict[str, Any], names: dict[int, str], pieces: set[int]) -> set[int]:
    """Single characters, also behind a space, and bytes. The most probable pieces stay so among fewer."""
    return {n for n, piece in names.items() if len(piece.removeprefix("▁")) <= 1 or _BYTE.fullmatch(piece)}


def _merged(model: dict[str, Any], names: dict[int, str], pieces: set[int]) -> set[int]:
    """What no merge makes, and what merges make the pieces of.

    Within a piece merges follow one another as if it stood alone, since none of them reached across its ends. Merges
    that a text did not use can go: at every step the first one that applied is still there.
    """
    ranks = {tuple(_parts(pair)): rank for rank, pair in enumerate(model["merges"])}
    numbers = model["vocab"]
    found = set(numbers.values()) - {numbers["".join(pair)] for pair in ranks}
    for number in pieces:
        symbols = list(names[number])
        while merges := [(ranks[x], i) for i, x in enumerate(pairwise(symbols)) if x in ranks]:
            _, i = min(merges)
            symbols[i : i + 2] = ["".join(symbols[i : i + 2])]
            found.add(numbers[symbols[i]])
    return found


_BYTE = re.compile("<0x[0-9A-F]{2}>")
_KINDS: dict[str, Callable[[dict[str, Any], dict[int, str], set[int]], set[int]]] = {
    "WordPiece": _characters,
    "BPE": _merged,
    "Unigram": _unigrams,
    "WordLevel": _characters,
}
"""What else than seen pieces and added tokens is needed, by the tokenizer's kind."""


def _parts(pair: str | list[str]) -> list[str]:
    """Both sides of a merge; older files have them in one string."""
    return pair.split(" ") if isinstance(pair, str) else pair


def _renumber_post_processor(content: dict[str, Any], new: dict[int, int]) -> None:
    """Renumber the special tokens that are put around a text."""
    for part in content.get("processors", []):
        _renumber_post_processor(part, new)
    for token in content.get("special_tokens", {}).values():
        token["ids"] = [new[number] for number in token["ids"]]
    for name in ("sep", "cls"):
        if name in content:
            content[name][1] = new[content[name][1]]


def _renumber_config(config: Any, new: dict[int, int], size: int) -> None:
    for name, value in vars(config).items():
        if name == "vocab_size":
            setattr(config, name, size)
        elif name.endswith("_token_id") and isinstance(value, list):
            setattr(config, name, _pieces(value, new))
        elif name.endswith("_token_id") and isinstance(value, int):
            # The last piece is -1, and is kept.
            setattr(config, name, new.get(value, value if value < 0 else None))
        elif name in _WORDS and value:
            # What has a dropped piece in it can no longer be written; nothing at all is None, and not an empty list.
            setattr(config, name, _WORDS[name](value, new) or None)


def _without_dropped(words: Iterable[Sequence[int]], new: dict[int, int]) -> list[list[int]]:
    return [[new[number] for number in word] for word in words if new.keys() >= {*word}]


def _biases(biases: Any, new: dict[int, int]) -> list[list[Any]]:
    pairs = biases.items() if isinstance(biases, dict) else biases
    return [[word, bias] for pieces, bias in pairs for word in _without_dropped([pieces], new)]


def _pieces(pieces: Iterable[int], new: dict[int, int]) -> list[int]:
    return [new[number] for number in pieces if number in new]


_WORDS: dict[str, Callable[[Any, dict[int, int]], list[Any]]] = {
    "suppress_tokens": _pieces,
    "begin_suppress_tokens": _pieces,
    "bad_words_ids": _without_dropped,
    "sequence_bias": _biases,
}
"""What says that some pieces, or some in a row, are not to be generated, or less or more so; and it renumbered."""
