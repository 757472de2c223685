"""Texts to tokens, and rows to padded batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch
from transformers import BatchEncoding, DataCollatorWithPadding, PreTrainedTokenizerBase

from minidisc.errors import UserError
from minidisc.memory import trim_heap
from minidisc.tasks.documents import CAUSAL_LM
from minidisc.tasks.task import Task

IGNORED = -100
"""The label of a token that stands for no word: a later piece of one, a special token, padding."""
_NOT_INPUTS = ("label", "length", "first_tokens")
# The share of rows that are cut without a word: they move an accuracy by no more.
_FEW = 0.01
# Rows that are tokenised at once: what a tokenizer makes of a row is some forty times as large as it is in a table.
_SLICE = 2000


@dataclass
class Cut:
    """What was cut off the rows of one source, all together; `encode` counts it.

    Attributes:
        limit: tokens that a row has at most.
        own: whether that is ``--max-length``, and not what the tokenizer allows.
        rows: how many there are.
        cut: how many of them are longer.
        words: of rows of words, how many were cut off.
    """

    limit: int = 0
    own: bool = True
    rows: int = 0
    cut: int = 0
    words: int = 0

    def told(self, source: str) -> str | None:
        """A line that says so; None where hardly anything was cut off."""
        if self.cut <= _FEW * self.rows:
            return None
        limit = f"--max-length {self.limit}" if self.own else f"the tokenizer's model_max_length of {self.limit}"
        words = f"; {self.words} of their words were cut off, and count as predicted O" if self.words else ""
        return f"{self.cut} of {self.rows} rows of {source} are longer than {limit} tokens and were cut{words}."


def encode_for(
    task: Task, rows: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, length: int, cut: Cut | None = None
) -> datasets.Dataset:
    """Tokens of a task's rows: as `pack` makes them for language modelling, which cuts none off, else as `encode`."""
    return pack(rows, tokenizer, length) if task.kind == CAUSAL_LM else encode(rows, tokenizer, length, cut)


def encode(
    rows: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, cut: Cut | None = None
) -> datasets.Dataset:
    """Tokenise rows, truncated but not padded.

    Args:
        rows: columns ``text_a``, ``text_b`` if rows are pairs, or ``words``; and perhaps ``label``.
        tokenizer: the teacher's; for words a fast one.
        max_length: tokens a row is cut to, special tokens included; at most what the tokenizer's model takes.
        cut: what was cut off is added to it.

    Returns:
        What the tokenizer produces (``input_ids``, ``attention_mask``, perhaps ``token_type_ids``), ``label`` if
        ``rows`` has it, and ``length``, the number of tokens. Rows of words have ``first_tokens`` too: for every word
        the position of its first token, which is one of blanks alone only where it has no other, or -1 for a word that
        was cut off or that the tokenizer makes nothing of.

    Raises:
        UserError: if the tokenizer cannot tell which word a token is of.
    """
    # Without a limit of its own, a tokenizer's model_max_length is 1e30.
    limit = int(min(max_length, tokenizer.model_max_length))
    cut = Cut() if cut is None else cut
    cut.limit, cut.own = limit, limit == max_length
    cut.rows += len(rows)
    table = _table(_encode_slice(texts, tokenizer, limit, cut) for texts in _slices(rows))
    if "label" in rows.column_names:
        # Whole, since all rows say what type it has: those of one slice may have no label.
        table = table.append_column("label", _table([{"label": rows["label"][:]}]).column("label"))
    return datasets.Dataset(datasets.table.InMemoryTable(table))


def pack(rows: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, length: int) -> datasets.Dataset:
    """Tokenise documents, put them one behind the other, and cut that into rows of equal length.

    Every document ends with the tokenizer's end-of-text token, if it has one: also where the tokenizer only puts
    something in front, as Llama's, or the token behind a document would be the next one's beginning, which no model
    has learnt to foresee. Where every text begins with that very token, as OPT's, it tells them apart as it is. A
    document that was cut has no end; what comes behind it is nothing to predict.

    What is left behind the last whole row is dropped.

    Args:
        rows: column ``text_a``, a document a row, and perhaps ``cut``, whether it was cut.
        tokenizer: the teacher's.
        length: tokens of a row; at most what the tokenizer's model takes.

    Returns:
        ``input_ids``, ``attention_mask`` (all ones), ``length``, and as ``label`` the next token of each, `IGNORED`
        for the last one and where a document was cut.

    Raises:
        UserError: if the documents do not fill one row.
    """
    limit = int(min(length, tokenizer.model_max_length))
    documents = [
        np.asarray(tokens, dtype=np.int64)
        for texts in _slices(rows)
        for tokens in tokenizer(texts["text_a"], verbose=False)["input_ids"]
    ]
    cut = rows["cut"][:] if "cut" in rows.column_names else [False] * len(documents)
    documents = _with_ends(documents, cut, tokenizer.eos_token_id)
    stream = np.concatenate(documents)
    count = len(stream) // limit
    if count == 0:
        raise UserError(
            f"the {len(documents)} documents have {len(stream)} tokens, too few for a row of {limit}; give more text, "
            "or a smaller --max-length."
        )
    ids = stream[: count * limit].reshape(count, limit)
    behind = np.cumsum([len(tokens) for tokens in documents])[np.asarray(cut, dtype=bool)]
    targets = stream.copy()
    targets[behind[behind < len(targets)]] = IGNORED
    targets = targets[: count * limit].reshape(count, limit)
    labels = np.pad(targets[:, 1:], ((0, 0), (0, 1)), constant_values=IGNORED)
    columns = {"input_ids": ids, "attention_mask": np.ones_like(ids), "length": np.full(count, limit), "label": labels}
    table = _table(
        {name: values[start : start + _SLICE].tolist() for name, values in columns.items()}
        for start in range(0, count, _SLICE)
    )
    return datasets.Dataset(datasets.table.InMemoryTable(table))


def _with_ends(documents: list[np.ndarray], cut: Sequence[bool], end: int | None) -> list[np.ndarray]:
    """The tokens of documents as `pack` ends them."""
    if end is None or all(len(tokens) and tokens[0] == end for tokens in documents):
        return documents
    bare = [tokens[:-1] if len(tokens) and tokens[-1] == end else tokens for tokens in documents]
    return [tokens if is_cut else np.append(tokens, end) for tokens, is_cut in zip(bare, cut, strict=True)]


def _slices(rows: datasets.Dataset) -> Iterator[dict[str, Any]]:
    """The columns of `_SLICE` rows at a time."""
    return (rows[start : start + _SLICE] for start in range(0, len(rows), _SLICE))


def _table(slices: Iterable[dict[str, Any]]) -> pa.Table:
    """One table of the columns of slices, each of which is gone from memory before the next one is asked for."""
    tables = [datasets.Dataset.from_dict(columns).data.table.replace_schema_metadata(None) for columns in slices]
    # A slice of empty rows does not tell the type of its columns. In one piece, because rows are looked up in it.
    table = pa.concat_tables(tables, promote_options="permissive").combine_chunks()
    trim_heap()
    return table


def collator(
    tokenizer: PreTrainedTokenizerBase, multiple: int = 1, most: int = 0
) -> Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]:
    """A function that makes a batch of encoded rows, padded to the longest of them.

    Or to the next ``multiple`` of its length, but no further than to ``most`` for that, since a model has only so many
    positions.

    The batch has the tokenizer's tensors of shape (N, longest), ``labels`` of shape (N,) (int64, or float32 for
    regression) if every row has a label, and ``row`` of shape (N,) if the rows have such a column. Labels of words are
    of shape (N, longest): each stands at its word's first token, and `IGNORED` everywhere else. So are those of
    packed text, whose rows need no padding.

    The function raises UserError if rows have to be padded and the tokenizer has no padding token.
    """

    def collate(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        inputs = [{name: feature[name] for name in feature if name not in _NOT_INPUTS} for feature in features]
        if tokenizer.pad_token is not None:
            longest = max(len(row["input_ids"]) for row in inputs)
            length = max(longest, min(-(-longest // multiple) * multiple, most))
            batch = dict(DataCollatorWithPadding(tokenizer, "max_length", length)(inputs))
        elif len({feature["length"] for feature in features}) == 1:
            batch = {name: torch.tensor([row[name] for row in inputs]) for name in inputs[0]}
        else:
            raise no_padding()
        labels: list[Any] = [feature.get("label") for feature in features]
        if None not in labels:
            if "first_tokens" in features[0]:
                batch["labels"] = _token_labels(labels, features, batch["attention_mask"])
            else:
                dtype = torch.float32 if isinstance(labels[0], float) else torch.int64
                batch["labels"] = torch.tensor(labels, dtype=dtype)
        return batch

    return collate


def no_padding() -> UserError:
    """The error that says a tokenizer cannot pad."""
    return UserError(
        "the tokenizer has no padding token; set pad_token in its tokenizer_config.json and pad_token_id in the "
        "model's config.json."
    )


def label_array(rows: datasets.Dataset) -> np.ndarray:
    """The labels of encoded rows, on the first axis, as `minidisc.tasks.Task.evaluate` takes them."""
    labels = rows["label"][:]
    if "first_tokens" not in rows.column_names:
        return np.asarray(labels)
    # Filled one by one: numpy would make one table of rows that happen to be equally long.
    array = np.empty(len(labels), dtype=object)
    for row, tags in enumerate(labels):
        array[row] = np.asarray(tags)
    return array


def _longer(encoded: BatchEncoding, texts: list[list[str]], tokenizer: PreTrainedTokenizerBase, limit: int) -> int:
    """How many rows have more tokens than they were cut to."""
    if encoded.encodings is not None:
        return sum(bool(row.overflowing) for row in encoded.encodings)
    # A tokenizer of Python keeps nothing of what it cuts off.
    full = [row for row, tokens in enumerate(encoded["input_ids"]) if len(tokens) >= limit]
    whole = tokenizer(*([column[row] for row in full] for column in texts), verbose=False)["input_ids"] if full else []
    return sum(len(tokens) > limit for tokens in whole)


def _encode_slice(rows: dict[str, Any], tokenizer: PreTrainedTokenizerBase, limit: int, cut: Cut) -> dict[str, list]:
    """The columns that `encode` makes of texts or words; what was cut off is added to ``cut``."""
    if "words" in rows:
        columns = _encode_words(rows["words"], tokenizer, limit, cut)
    else:
        texts = [rows[name] for name in ("text_a", "text_b") if name in rows]
        encoded = tokenizer(*texts, truncation=True, max_length=limit)
        cut.cut += _longer(encoded, texts, tokenizer, limit)
        columns = dict(encoded)
    return {**columns, "length": [len(tokens) for tokens in columns["input_ids"]]}


def _encode_words(words: list[list[str]], tokenizer: PreTrainedTokenizerBase, limit: int, cut: Cut) -> dict[str, list]:
    if not tokenizer.is_fast:
        raise UserError(
            "the tokenizer cannot tell which word a token is of; token classification needs one with a tokenizer.json."
        )
    given = [[*row[:1], *(f" {word}" for word in row[1:])] for row in words] if joins_words(tokenizer) else words
    encoded = tokenizer(given, is_split_into_words=True, truncation=True, max_length=limit)
    for row in filter(lambda row: row.overflowing, encoded.encodings or ()):
        cut.cut += 1
        cut.words += len({word for rest in row.overflowing for word in rest.word_ids} - {*row.word_ids})
    is_blank = cache(lambda token: not str(tokenizer.decode([token])).strip())
    first = [
        _first_tokens(encoded.word_ids(row), tokens, len(words[row]), is_blank)
        for row, tokens in enumerate(encoded["input_ids"])
    ]
    return {**encoded, "first_tokens": first}


def joins_words(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether words given one by one, unlike those of a text, are encoded as if no space stood between them.

    So do the byte-level tokenizers of Qwen and Llama 3, which take the space for a part of the word behind it.
    """
    apart, spaced = (tokenizer(pair, is_split_into_words=True)["input_ids"] for pair in (["a", "b"], ["a", " b"]))
    return apart != spaced and spaced == tokenizer("a b")["input_ids"]


def _first_tokens(
    word_ids: Sequence[int | None], tokens: Sequence[int], words: int, is_blank: Callable[[int], bool]
) -> list[int]:
    first = [-1] * words
    for position, word in reversed(list(enumerate(word_ids))):
        # Where the space before a number is a token of its own, a decoder has not seen the number there.
        if word is not None and (first[word] < 0 or not is_blank(tokens[position])):
            first[word] = position
    return first


def _token_labels(labels: list[list[int]], features: list[dict[str, Any]], mask: torch.Tensor) -> torch.Tensor:
    result = torch.full(mask.shape, IGNORED)
    # Where the padding stands on the left, a row begins behind it.
    starts = mask.argmax(1).tolist()
    for row, (tags, feature, start) in enumerate(zip(labels, features, starts, strict=True)):
        for tag, token in zip(tags, feature["first_tokens"], strict=True):
            if token >= 0:
                result[row, start + token] = tag
    return result
