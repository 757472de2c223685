"""A Llama classifier of any shape with random weights, a tokenizer of made-up words, and rows of them; no network."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

# Layers, hidden size, query heads, key heads, FFN neurons, vocabulary.
SHAPES = {
    "tiny": (4, 64, 4, 4, 176, 1000),
    "110M": (12, 768, 12, 12, 2048, 32000),
    # TinyLlama with two layers more: without the output map, which a classifier lacks, its 22 have 1.03 billion.
    "1.1B": (24, 2048, 32, 4, 5632, 32000),
    "3B": (26, 3200, 32, 32, 8640, 32000),
    "7B": (32, 4096, 32, 32, 11008, 32000),
}
WORDS = [f"w{number}" for number in range(900)]


def config(shape: str) -> LlamaConfig:
    """The configuration of a shape in `SHAPES`."""
    layers, hidden, heads, key_heads, neurons, vocabulary = SHAPES[shape]
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        intermediate_size=neurons,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
        id2label={0: "no", 1: "yes"},
        label2id={"no": 0, "yes": 1},
    )


def write_teacher(folder: Path, shape: str, seed: int = 0) -> int:
    """Save model and tokenizer; returns the number of parameters."""
    torch.manual_seed(seed)
    model = LlamaForSequenceClassification(config(shape))
    model.save_pretrained(folder, max_shard_size="1GB")
    words = {word: i for i, word in enumerate(["<pad>", "<unk>", *WORDS])}
    core = Tokenizer(WordLevel(words, unk_token="<unk>"))
    core.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", unk_token="<unk>", padding_side="right", model_max_length=512
    )
    tokenizer.save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())


def write_rows(file: Path, count: int, words: int, seed: int) -> None:
    """A CSV file of texts of so many made-up words, with labels."""
    generator = random.Random(seed)
    with file.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["text", "label"])
        for row in range(count):
            writer.writerow([" ".join(generator.choices(WORDS, k=words)), ("no", "yes")[row % 2]])
