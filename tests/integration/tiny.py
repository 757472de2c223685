"""A task that a tiny model learns in seconds: the label is whether more good words than bad ones occur."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
)

GOOD, BAD = ["fine", "warm", "bright", "clever"], ["dull", "cold", "flat", "clumsy"]
OTHER = [f"word{i}" for i in range(30)]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def write_rows(folder: Path, train: int = 160, validation: int = 60) -> None:
    """train.csv and validation.csv with columns text, label (pro or contra)."""
    generator = random.Random(0)
    for name, count in (("train", train), ("validation", validation)):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            for number in range(count):
                label = number % 2
                words = generator.choices(OTHER, k=generator.randint(2, 9))
                words += generator.choices(BAD if label else GOOD, k=2)
                generator.shuffle(words)
                writer.writerow([f"{name}{number} " + " ".join(words), "contra" if label else "pro"])


def tokenizer() -> PreTrainedTokenizerFast:
    """Whole words; unknown ones are [UNK]."""
    words = {word: i for i, word in enumerate(SPECIAL + GOOD + BAD + OTHER)}
    core = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    core.pre_tokenizer = Whitespace()
    core.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", words["[CLS]"]), ("[SEP]", words["[SEP]"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=32,
    )


def backbone(**changes: Any) -> BertForSequenceClassification:
    """An untrained BERT of 3 layers, 4 heads, hidden size 32."""
    torch.manual_seed(0)
    values: dict[str, Any] = {
        "vocab_size": len(SPECIAL + GOOD + BAD + OTHER),
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 32,
        **changes,
    }
    return BertForSequenceClassification(BertConfig(**values))


def write_teacher(folder: Path) -> None:
    """``backbone`` as a pre-trained model, ``teacher`` fine-tuned from it by the tool itself."""
    from minidisc.config import FinetuneSettings
    from minidisc.finetuning import finetune

    backbone().save_pretrained(folder / "backbone")
    tokenizer().save_pretrained(folder / "backbone")
    finetune(
        FinetuneSettings(
            model=str(folder / "backbone"),
            output_dir=str(folder / "teacher"),
            train_file=str(folder / "train.csv"),
            validation_file=str(folder / "validation.csv"),
            epochs=12,
            batch_size=16,
            learning_rate=3e-3,
            max_length=16,
            device="cpu",
        )
    )


def end_briefly(
    put: Callable[[Any, str, Any], None] = setattr, pictures: bool = False, measured: bool = False
) -> None:
    """Spare a tiny run what tests seldom look at: nothing is timed before or after it, and reports have no pictures.

    If it is ``measured``, networks are timed three times at its end.
    """
    from minidisc import latency, preflight, probing, timings
    from minidisc.report import plots

    put(timings, "BRIEF_ROUNDS", 3)
    put(preflight, "probe", probing.probe if measured else _unmeasured)
    put(timings, "side_by_side", latency.side_by_side if measured else _untimed)
    if not pictures:
        put(plots, "_svg", lambda name, *_, **__: f'<svg id="{name}"></svg>')


def _unmeasured(teacher: Any, architecture: Any, sparsities: list[float], *_: Any) -> Any:
    """Stands for `minidisc.probing.probe`: a millisecond for everything."""
    from minidisc.probing import Probe

    once = np.full(2, 1e-3)
    times = {name: once for name in ("forward", "importance", "update")}
    of_each = {name: [once] * len(sparsities) for name in ("train", "evaluate")}
    return Probe(sparsities=list(sparsities), importance_bytes=1.0, train_bytes=1.0, **times, **of_each)


def _untimed(models: dict[str, Any], *_: Any) -> dict[str, dict[str, float]]:
    """Stands for `minidisc.latency.side_by_side`: a millisecond for every network."""
    figures = dict.fromkeys(("milliseconds", "processor_milliseconds", "low", "high", "speedup"), 1.0)
    return {name: dict(figures) for name in models}


def settings(folder: Path, run: Path, **changes: Any) -> dict[str, Any]:
    """Keyword arguments of `minidisc.compress` for a run of a few seconds."""
    return {
        "teacher": str(folder / "teacher"),
        "train_file": str(folder / "train.csv"),
        "validation_file": str(folder / "validation.csv"),
        "output_dir": str(run),
        "target_sparsity": 0.75,
        "grid": (0.25, 0.5),
        "neuron_multiple": 1,
        "epochs": 2,
        "evaluations_per_epoch": 2,
        "batch_size": 16,
        "learning_rate": 1e-3,
        "max_length": 16,
        "dropout": 0.1,
        "device": "cpu",
        **changes,
    }


def weights(run: Path) -> dict[str, bytes]:
    """Those that are handed over, and, if checkpoints are kept, those that each stage ended with.

    What is handed over may be of an evaluation before all training, since on this easy task the first is good enough.
    """
    files = [run / name / "model.safetensors" for name in ("assistant", "student")]
    files += run.glob("checkpoints/*/checkpoint-*/model.safetensors")
    return {str(path.parent.relative_to(run)): path.read_bytes() for path in files if path.is_file()}


def accuracy(folder: Path, rows: Path) -> float:
    """Of a saved model on ``validation.csv`` of ``rows``, counted with nothing of minidisc but the model's class."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with (rows / "validation.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    right = 0
    for row in table:
        with torch.no_grad():
            logits = model(**tokenizer(row["text"], truncation=True, max_length=16, return_tensors="pt")).logits
        right += model.config.id2label[int(logits.argmax())] == row["label"]
    return right / len(table)
