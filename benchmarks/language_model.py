"""A real language model, compressed with text that it writes itself.

    python benchmarks/language_model.py --teacher DIR --work runs/stories --target results/stories15M

Trains what is missing (a killed one goes on), then writes TARGET.md and TARGET.json from what is finished. For every
target sparsity: minidisc, and direct distillation with as many FLOPs of training. The same text, batches, learning
rate and loss for both; embeddings are the teacher's and stay frozen; nothing stops early.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from rounds import given
from tasks import Printer

from minidisc import compress
from minidisc.architectures import architecture_for
from minidisc.config import CompressSettings
from minidisc.files import read_json, write_json
from minidisc.measure import Shape, processor
from minidisc.results import CompressionResult
from minidisc.teachers import load_model
from minidisc.writing import open_texts, write_documents

GRID = (0.3, 0.5, 0.65, 0.75, 0.85)
PROMPT, TOKENS = "Once upon a time", 120


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--targets", nargs="*", type=float, default=[0.5, 0.75, 0.9])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--top-k", type=int, default=64)
    parser.add_argument("--prompt", default=PROMPT)
    options = parser.parse_args()
    files = write_text(options)
    records = {}
    for target in options.targets:
        through = run(options, files, target, "minidisc", options.steps)
        direct = run(options, files, target, "direct", equal_steps(through, options))
        records[f"{target:g}"] = {"minidisc": record(through, options), "direct": record(direct, options)}
        content = {
            "options": given(options),
            "machine": f"{processor()}, torch threads {torch.get_num_threads()}",
            "teacher": {
                "name": Path(options.teacher).name,
                "metrics": through.teacher.metrics,
                "sizes": through.results["teacher"]["sizes"],
                "text": paragraph(options.teacher, options),
            },
            "targets": records,
        }
        options.target.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.target.with_suffix(".json"), content)
        options.target.with_suffix(".md").write_text(markdown(content), encoding="utf-8")


def write_text(options: argparse.Namespace) -> dict[str, Path]:
    """The teacher's own text: to train and select on, and to report on."""
    folder = options.work / "text"
    wanted = {"train": options.documents, "validation": max(64, options.documents // 5)}
    open_texts(folder, {"documents": wanted, "length": options.length, "seed": options.seed})

    def load() -> tuple[Any, Any]:
        loaded = load_model(options.teacher, kind="causal-lm")
        return loaded.model, loaded.tokenizer

    return write_documents(folder, load, wanted, options.length, options.seed, Printer("text").note)


def run(
    options: argparse.Namespace, files: dict[str, Path], target: float, schedule: str, steps: int
) -> CompressionResult:
    """One student."""
    settings = CompressSettings(
        teacher=options.teacher,
        task="causal-lm",
        train_file=str(files["train"]),
        validation_file=str(files["validation"]),
        output_dir=str(options.work / f"{schedule}-{target:g}"),
        target_sparsity=target,
        schedule=schedule,  # type: ignore[arg-type]
        grid=GRID,
        max_length=options.length,
        batch_size=options.batch_size,
        max_steps=steps,
        learning_rate=options.learning_rate,
        calibration_rows=256,
        train_embeddings=False,
        teacher_top_k=options.top_k,
        patience=1000,
        seed=options.seed,
    )
    return compress(settings=settings, resume=True, listener=Printer(f"{schedule} {target:g}"))


def equal_steps(through: CompressionResult, options: argparse.Namespace) -> int:
    """Steps of direct distillation with as many FLOPs as minidisc's training, teachers' outputs included in both."""
    model = load_model(options.teacher, kind="causal-lm").model
    shape = Shape.of(model, architecture_for(model.config.model_type))
    spent = sum(stage["flops"] for name, stage in through.results["cost"]["stages"].items() if name != "importance")
    # More steps than an epoch has: the teacher runs once on every row.
    once = shape.forward_flops(shape.full(), through.results["rows"]["train"]["count"], options.length)
    step = 3 * shape.forward_flops(through.student.spec, options.batch_size, options.length)
    return math.ceil((spent - once) / step)


def record(result: CompressionResult, options: argparse.Namespace) -> dict[str, Any]:
    """What is told of a run."""
    made = {"student": result.student} | {f"assistant {a.sparsity:g}": a for a in result.assistants}
    return {
        "models": {
            name: {
                "metrics": model.metrics,
                "sizes": vars(model.sizes),
                "heads": model.spec.heads,
                "neurons": model.spec.neurons,
                "text": paragraph(str(model.path), options),
            }
            for name, model in made.items()
        },
        "candidates": [
            {"sparsity": row["sparsity"], "metrics": row["metrics"], "tradeoff": row["tradeoff"]}
            for row in result.candidates
        ],
        "cost": read_json(result.output_dir / "results.json")["cost"],
    }


def paragraph(folder: str, options: argparse.Namespace) -> str:
    """What a model writes, sampled from its own probabilities with the same random numbers for all."""
    loaded = load_model(folder, kind="causal-lm")
    torch.manual_seed(options.seed)
    inputs = loaded.tokenizer(options.prompt, return_tensors="pt")
    ids = loaded.model.generate(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        max_new_tokens=TOKENS,
        do_sample=True,
        temperature=0.7,
        top_k=0,
        pad_token_id=loaded.tokenizer.eos_token_id,
    )
    return " ".join(loaded.tokenizer.decode(ids[0], skip_special_tokens=True).split())


def markdown(content: dict[str, Any]) -> str:
    """The tables and the texts."""
    options, teacher = content["options"], content["teacher"]
    lines = [
        f"# {teacher['name']}, compressed with its own text",
        "",
        f"`python benchmarks/language_model.py --teacher DIR --work runs/lm --target TARGET` with "
        f"{options['documents']} documents of up to {options['length']} tokens, {options['steps']} steps a stage of "
        f"{options['batch_size']} rows of {options['length']} tokens, learning rate {options['learning_rate']}, the "
        f"teacher's {options['top_k']} largest logits and its hidden states, seed {options['seed']} (one run: chance "
        f"in training is not measured). {content['machine']}; other work on the machine.",
        "",
        "Figures are on other text of the teacher's own (perplexity on it is the teacher's best case). `direct` was "
        "given about as many FLOPs as `minidisc`; the column has what both took, importance included.",
        "",
        "| target | model | perplexity | next-token accuracy | heads and neurons | all parameters | steps | FLOPs | "
        "CPU s |",
        "|---|---|---|---|---|---|---|---|---|",
        _line("", "teacher", teacher, {}),
    ]
    for target, methods in content["targets"].items():
        for method, made in methods.items():
            for name, model in made["models"].items():
                cost = made["cost"]["total"] if name == "student" else {}
                title = method if name == "student" else f"its {name}"
                lines.append(_line(f"{100 * float(target):g} %", title, model, cost))
    lines += ["", "## What they write", "", f"Sampled at temperature 0.7 from *{options['prompt']}*.", ""]
    lines += [f"- **teacher**: {teacher['text']}"]
    for target, methods in content["targets"].items():
        for method, made in methods.items():
            lines += [
                f"- **{100 * float(target):g} %, {method if name == 'student' else name}**: {model['text']}"
                for name, model in made["models"].items()
            ]
    return "\n".join(lines) + "\n"


def _line(target: str, name: str, model: dict[str, Any], cost: dict[str, Any]) -> str:
    metrics, sizes = model["metrics"], model["sizes"]
    cells = [
        target,
        name,
        f"{metrics['perplexity']:.2f}",
        f"{metrics['next_token_accuracy']:.3f}",
        f"{sizes['prunable'] / 1e6:.2f} M",
        f"{sizes['all'] / 1e6:.2f} M",
        str(cost.get("steps", "")),
        f"{cost['flops']:.2e}" if cost else "",
        f"{cost['cpu_seconds']:.0f}" if cost else "",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
