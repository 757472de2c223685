"""What ``compress --dry-run`` says of memory and time, against what the run then takes; each in a fresh process.

    OMP_NUM_THREADS=1 python benchmarks/preflight.py --data-dir DIR --work DIR [--target results/preflight]

``demo`` is the compression of ``minidisc demo``; a teacher that WORK/demo holds is used again. The other teachers have
random weights, since their metrics do not matter here. DIR is as for ``benchmarks/tasks.py``.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)
from watching import compared, off, plan_and_compress

from minidisc.config import FinetuneSettings
from minidisc.demo.assets import backbone_dir, write_splits
from minidisc.demo.run import TRAIN_ROWS
from minidisc.finetuning import finetune
from minidisc.measure import processor
from minidisc.runs import versions


def demo(folder: Path, data_dir: str) -> dict[str, Any]:
    """MiniLM (6 layers of 384) on Rotten Tomatoes, with the demo's settings."""
    files = write_splits(folder / "data", train_rows=TRAIN_ROWS)
    rows = {"train_file": str(files["train"]), "max_length": 64}
    teacher = folder / "teacher"
    if not teacher.exists():
        settings = {**rows, "validation_file": str(files["validation"]), "epochs": 2, "learning_rate": 1e-4}
        finetune(FinetuneSettings(model=str(backbone_dir()), output_dir=str(teacher), **settings))
    return {"teacher": str(teacher), **rows, "validation_file": str(files["test"]), "epochs": 3}


def stsb(folder: Path, data_dir: str) -> dict[str, Any]:
    """A BERT of 4 layers of 512 on 1,000 pairs of STS-B, regression, by the hidden-state loss, at 95 %."""
    sizes = {"hidden_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8, "intermediate_size": 2048}
    _save(BertForSequenceClassification, BertConfig(vocab_size=30522, num_labels=1, **sizes), folder)
    rows = {"task": "glue/stsb", "data_dir": data_dir, "max_train_rows": 1000}
    return {"teacher": str(folder / "teacher"), **rows, "batch_size": 16, "epochs": 2, "target_sparsity": 0.95}


def decoder(folder: Path, data_dir: str) -> dict[str, Any]:
    """A Llama of 8 layers of 384 on 1,000 rows of SST-2, with Adafactor and checkpointing."""
    sizes = {"hidden_size": 384, "num_hidden_layers": 8, "num_attention_heads": 8, "intermediate_size": 1024}
    names = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}
    special = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
    config = LlamaConfig(vocab_size=30522, num_key_value_heads=4, **sizes, **names, **special)
    _save(LlamaForSequenceClassification, config, folder)
    rows = {"task": "glue/sst2", "data_dir": data_dir, "max_train_rows": 1000, "max_length": 64}
    lean = {"optimizer": "adafactor", "gradient_checkpointing": True}
    return {"teacher": str(folder / "teacher"), **rows, **lean, "batch_size": 32, "epochs": 2}


def text(folder: Path, data_dir: str) -> dict[str, Any]:
    """A Llama language model of 6 layers of 256 and 30,522 words on 1,000 film reviews, 16 logits of a token kept."""
    sizes = {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 8, "intermediate_size": 688}
    special = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
    _save(LlamaForCausalLM, LlamaConfig(vocab_size=30522, **sizes, **special), folder)
    files = write_splits(folder / "data", train_rows=1000)
    rows = {"train_file": str(files["train"]), "validation_file": str(files["test"]), "text_columns": ("text",)}
    own = {"task": "causal-lm", "teacher_top_k": 16, "max_length": 64, "batch_size": 16, "epochs": 2}
    return {"teacher": str(folder / "teacher"), **rows, **own}


RUNS = {"demo": demo, "stsb": stsb, "decoder": decoder, "text": text}


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--runs", nargs="*", default=list(RUNS), choices=list(RUNS))
    parser.add_argument("--target", type=Path, help="file for the figures, without .md and .json")
    options = parser.parse_args()
    for name in options.runs:
        folder = options.work / name
        result = folder / "figures.json"
        if not result.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(folder / "run", ignore_errors=True)
            settings = {**RUNS[name](folder, options.data_dir), "output_dir": str(folder / "run"), "device": "cpu"}
            result.write_text(json.dumps(plan_and_compress(settings, folder)))
    found = {name: json.loads((options.work / name / "figures.json").read_text()) for name in options.runs}
    text = report(found)
    print(text)
    if options.target:
        record = {"machine": processor(), "versions": versions(), "runs": found}
        options.target.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
        options.target.with_suffix(".md").write_text(text)


def report(found: dict[str, Any]) -> str:
    """Estimates and measurements as a Markdown page."""
    lines = [
        "# Estimates before a run, and what it took",
        "",
        "`OMP_NUM_THREADS=1 python benchmarks/preflight.py --data-dir DIR --work DIR`, seed 0,",
        f"{processor()}, one thread, with other work on the machine: compare CPU seconds,",
        "not seconds. Both are of fresh processes, without imports; memory is the largest resident size.",
        "",
        "| run | | estimate of `--dry-run` | measured | off by |",
        "|---|---|---|---|---|",
    ]
    for name, figures in found.items():
        for figure, (estimated, measured) in compared(figures).items():
            lines.append(f"| {name} | {figure} | {estimated:.2f} | {measured:.2f} | {off(estimated, measured)} |")
    lines += ["", *(f"- {name}: {RUNS[name].__doc__}" for name in found), ""]
    trial = ", ".join(f"{name} {figures['plan']['cpu_seconds']:.0f}" for name, figures in found.items())
    lines.append(f"CPU seconds of the dry run itself: {trial}. Versions: {_listed(versions())}.")
    return "\n".join(lines) + "\n"


def _listed(values: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _save(model_class: Any, config: Any, folder: Path) -> None:
    torch.manual_seed(0)
    model_class(config).save_pretrained(folder / "teacher")
    AutoTokenizer.from_pretrained(backbone_dir()).save_pretrained(folder / "teacher")


if __name__ == "__main__":
    main()
