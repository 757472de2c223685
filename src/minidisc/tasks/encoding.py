"""Texts to tokens, and rows to padded batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import datasets
import torch
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

from minidisc.errors import UserError


def encode(rows: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> datasets.Dataset:
    """Tokenise rows, truncated but not padded.

    Args:
        rows: columns ``text_a``, ``text_b`` if rows are pairs, and perhaps ``label``.
        tokenizer: the teacher's.
        max_length: tokens a row is cut to, special tokens included; at most what the tokenizer's model takes.

    Returns:
        What the tokenizer produces (``input_ids``, ``attention_mask``, perhaps ``token_type_ids``), ``label`` if
        ``rows`` has it, and ``length``, the number of tokens.
    """
    pairs = rows["text_b"][:] if "text_b" in rows.column_names else None
    # Without a limit of its own, a tokenizer's model_max_length is 1e30.
    limit = int(min(max_length, tokenizer.model_max_length))
    columns = dict(tokenizer(rows["text_a"][:], pairs, truncation=True, max_length=limit))
    columns["length"] = [len(tokens) for tokens in columns["input_ids"]]
    if "label" in rows.column_names:
        columns["label"] = rows["label"][:]
    return datasets.Dataset.from_dict(columns)


def collator(tokenizer: PreTrainedTokenizerBase) -> Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]:
    """A function that makes a batch of encoded rows, padded to the longest of them.

    The batch has the tokenizer's tensors of shape (N, longest), ``labels`` of shape (N,) (int64, or float32 for
    regression) if every row has a label, and ``row`` of shape (N,) if the rows have such a column.

    Raises:
        UserError: if the tokenizer has no padding token.
    """
    if tokenizer.pad_token is None:
        raise UserError(
            "the tokenizer has no padding token; set pad_token in its tokenizer_config.json and pad_token_id in the "
            "model's config.json."
        )
    pad = DataCollatorWithPadding(tokenizer)

    def collate(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        inputs = [{name: feature[name] for name in feature if name not in ("label", "length")} for feature in features]
        batch = dict(pad(inputs))
        labels = [feature.get("label") for feature in features]
        if None not in labels:
            dtype = torch.float32 if isinstance(labels[0], float) else torch.int64
            batch["labels"] = torch.tensor(labels, dtype=dtype)
        return batch

    return collate
