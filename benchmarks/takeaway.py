"""What a user takes away: students that keep a budget, and how small and fast the smallest one gets.

    python benchmarks/takeaway.py --work runs/takeaway --target results/takeaway

MiniLM on Rotten Tomatoes (the demo's data and backbone). One student for each of the four budgets, measured afterwards
in a fresh process that does not import minidisc: size of the weights' file, parameters as
transformers counts them, latency in a loop of its own. Then one student step by step: sparsity, trimmed vocabulary,
ONNX, int8. Last, the ONNX files in a process that has only onnxruntime and tokenizers (``--engine-python``: of an
environment that holds nothing else), against PyTorch. Finished runs are not run again; TARGET.md and TARGET.json are
written at the end.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rounds import given
from tasks import Cell, Printer, prepare
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from minidisc import compress
from minidisc.config import CompressSettings, ExportSettings
from minidisc.exporting import export
from minidisc.files import read_json, write_json
from minidisc.measure import processor
from minidisc.results import CompressionResult

BUDGETS = {"target_params": "13M", "target_size": "60MB", "target_latency": "8ms", "max_drop": "5%"}
LENGTH = 32
TEXTS = 200
RANKS = (128,)  # a third of the 384 numbers that MiniLM has for a piece
MEASURE = """
import csv, json, pathlib, statistics, sys, time
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
assert "minidisc" not in sys.modules
torch.set_num_threads(1)
found, models, times = {}, {}, {}
rows = list(csv.DictReader(open(sys.argv[3], encoding="utf-8", newline="")))
for name, folder in json.loads(sys.argv[1]).items():
    model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True).eval()
    models[name] = model
    size = sum(file.stat().st_size for file in pathlib.Path(folder).glob("*.safetensors"))
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer)
    told = classify([row["text"] for row in rows], batch_size=32, truncation=True, max_length=int(sys.argv[4]))
    right = sum(each["label"] == row["label"] for each, row in zip(told, rows, strict=True))
    found[name] = {"parameters": model.num_parameters(), "bytes": size, "accuracy": right / len(rows)}
    times[name] = []
inputs = {"input_ids": torch.full((1, int(sys.argv[2])), 5), "attention_mask": torch.ones(1, int(sys.argv[2])).long()}
with torch.no_grad():
    for turn in range(60):
        for name, model in models.items():
            begin = time.process_time()
            for _ in range(5):
                model(**inputs)
            if turn >= 10:
                times[name].append((time.process_time() - begin) * 200)
for name, values in found.items():
    ordered = sorted(times[name])
    values.update(median=statistics.median(ordered), low=ordered[5], high=ordered[-6])
print(json.dumps(found))
"""


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--backbone", type=Path, help="what the teacher is fine-tuned from, if not the demo's MiniLM")
    parser.add_argument("--budget-steps", type=int, default=240)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--sparsities", nargs="*", type=float, default=[0.9])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine-python", default=sys.executable)
    options = parser.parse_args()
    cell = Cell("Rotten Tomatoes", 2, 1e-4, 32, options.steps, 3e-4)
    shared = prepare("rotten", cell, options.work, None, options.backbone)
    runs = {
        name: run(options, {**shared, **own(name, shared)}, f"budget-{name}", options.budget_steps, **{name: value})
        for name, value in BUDGETS.items()
    }
    folders = {"teacher": shared["teacher"]} | {name: str(made.student.path) for name, made in runs.items()}
    steps = {sparsity: smaller(options, shared, sparsity) for sparsity in options.sparsities}
    content = {
        "options": given(options),
        "machine": f"{processor()}, one thread",
        "budgets": {name: budget(made) for name, made in runs.items()},
        "measured": measured(folders, shared),
        "steps": {f"{sparsity:g}": value for sparsity, value in steps.items()},
        "alone": alone(options, shared),
    }
    options.target.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.target.with_suffix(".json"), content)
    options.target.with_suffix(".md").write_text(markdown(content), encoding="utf-8")


def own(name: str, shared: dict[str, Any]) -> dict[str, Any]:
    """The settings that one budget needs and others do not.

    What is lost against the teacher is judged on rows that it was not trained on: those that chose its best epoch.
    """
    if name == "max_drop":
        return {
            "select_on": "validation",
            "validation_file": str(Path(shared["train_file"]).with_name("validation.csv")),
        }
    return {"latency_length": LENGTH} if name == "target_latency" else {}


def run(
    options: argparse.Namespace, shared: dict[str, Any], name: str, steps: int, **changes: Any
) -> CompressionResult:
    """A run of the main job."""
    settings = CompressSettings(
        **shared,
        output_dir=str(options.work / name),
        batch_size=32,
        max_steps=steps,
        learning_rate=3e-4,
        seed=options.seed,
        **changes,
    )
    return compress(settings=settings, resume=True, listener=Printer(name))


def smaller(options: argparse.Namespace, shared: dict[str, Any], sparsity: float) -> dict[str, Any]:
    """What each step makes of size, latency and accuracy; ``teacher`` and others are entries of export.json."""
    found: dict[str, Any] = {}
    changes: dict[str, dict[str, Any]] = {"student": {}, "trimmed": {"trim_vocabulary": True}}
    changes |= {f"trimmed-rank-{rank}": {"trim_vocabulary": True, "embedding_rank": rank} for rank in RANKS}
    made = {
        name: run(options, shared, f"{100 * sparsity:g}-{name}", options.steps, target_sparsity=sparsity, **own)
        for name, own in changes.items()
    }
    models = {name: str(result.student.path) for name, result in made.items()}
    for name, folder in {"teacher": shared["teacher"], **models}.items():
        exported = options.work / f"{100 * sparsity:g}-onnx-{name}"
        if not (exported / "export.json").is_file():
            rows = {key: shared[key] for key in ("validation_file", "max_length")}
            # What int8 loses is the result here, so nothing is refused.
            export(ExportSettings(model=folder, output_dir=str(exported), int8=True, max_drop=0.99, **rows))
        found[name] = {**read_json(exported / "export.json"), "model": Path(folder).parent.name}
    found["vocabulary"] = made["trimmed"].results["vocabulary"]
    return found


def alone(options: argparse.Namespace, shared: dict[str, Any]) -> dict[str, Any]:
    """Logits of ONNX Runtime in a process without PyTorch against PyTorch's, of all students that were exported.

    One more student is of 98 %, hardly trained: so small that whole attentions and FFNs are gone.
    """
    tiny = run(options, shared, "98-hardly-trained", 20, target_sparsity=0.98)
    exported = options.work / "98-onnx-hardly-trained"
    if not (exported / "export.json").is_file():
        rows = {key: shared[key] for key in ("validation_file", "max_length")}
        export(ExportSettings(model=str(tiny.student.path), output_dir=str(exported), **rows))
    with open(shared["validation_file"], encoding="utf-8", newline="") as file:
        every = sorted({row["text"] for row in csv.DictReader(file)}, key=lambda text: (len(text), text))
    texts = [every[i] for i in np.linspace(0, len(every) - 1, TEXTS).astype(int)]
    found = {}
    for folder in sorted(options.work.glob("*-onnx-*")):
        source = read_json(folder / "export.json")["model"]
        model = AutoModelForSequenceClassification.from_pretrained(source, trust_remote_code=True).eval()
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=True)
        encoded = [
            tokenizer(text, truncation=True, max_length=shared["max_length"], return_tensors="pt") for text in texts
        ]
        with torch.no_grad():
            expected = np.concatenate([model(**each).logits.numpy() for each in encoded])
        differences = []
        for rows in (1, 8):
            command = [options.engine_python, str(Path(__file__).with_name("onnx_alone.py"))]
            command += [str(folder), str(shared["max_length"]), str(rows)]
            done = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, check=True)
            differences.append(float(np.abs(np.array(json.loads(done.stdout)) - expected).max()))
        heads, neurons = (getattr(model.config, name, None) for name in ("heads_per_layer", "neurons_per_layer"))
        lengths = [each["input_ids"].shape[1] for each in encoded]
        found[folder.name.replace("onnx-", "")] = {
            "texts": len(texts),
            "tokens": [min(lengths), max(lengths)],
            "heads": heads,
            "neurons": neurons,
            "largest_difference": dict(zip(("1", "8"), differences, strict=True)),
        }
    return found


def budget(made: CompressionResult) -> dict[str, Any]:
    """What a run says of its budget."""
    told = made.results["budget"]
    return {
        "asked": told["asked"],
        "limit": told["limit"],
        "sparsity": made.student.spec.sparsity,
        "kept": told["reached"]["kept"],
        "told": told["reached"]["value"],
    }


def measured(folders: dict[str, str], shared: dict[str, Any]) -> dict[str, Any]:
    """The models' figures by another route, in one fresh process."""
    rows = [shared["validation_file"], str(shared["max_length"])]
    command = [sys.executable, "-c", MEASURE, json.dumps(folders), str(LENGTH), *rows]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return json.loads(lines[-1])


def markdown(content: dict[str, Any]) -> str:
    """The two tables."""
    options = content["options"]
    lines = [
        "# What a user takes away",
        "",
        f"`python benchmarks/takeaway.py --work runs/takeaway --target TARGET`: all-MiniLM-L6-v2 on Rotten Tomatoes, "
        f"seed {options['seed']} (one run each: chance in training is not measured). {content['machine']}, torch "
        f"{torch.__version__}; times are processor times, as other work was on the machine.",
        "",
        f"## Budgets ({options['budget_steps']} steps a stage)",
        "",
        "The last columns are of a fresh process that does not import minidisc: parameters as transformers counts "
        f"them, size of the weights' files, milliseconds for 1 × {LENGTH} tokens (median, middle 80 % of 50 turns). "
        "What `--max-drop` allows is judged on rows that the teacher was not trained on (`--select-on validation`).",
        "",
        "| asked | sparsity | the run says | kept | accuracy on the test rows | parameters | MB | ms | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines.append(_measured("teacher", "", "", "", content["measured"]["teacher"]))
    for name, told in content["budgets"].items():
        value = f"{told['told']:,.4g}" if told["told"] < 1000 else f"{told['told']:,}"
        sparsity = f"{100 * told['sparsity']:g} %"
        kept = "yes" if told["kept"] else "no"
        lines.append(_measured(f"`{told['asked']}`", sparsity, value, kept, content["measured"][name]))
    lines += ["", f"## Step by step ({options['steps']} steps a stage)", ""]
    for sparsity, found in content["steps"].items():
        words = found["vocabulary"]
        whole = found["teacher"]["engines"]["pytorch"]
        tokens = found["teacher"]["timing"]["tokens"]["1"]
        lines += [
            f"{100 * float(sparsity):g} % sparsity. {words['kept']:,} of {words['of']:,} pieces of words are kept; in "
            f"{words['rows']} of {found['trimmed']['rows']['count']} test rows others occur. Latency at batch 1, "
            f"{tokens} tokens, each engine beside PyTorch in its own row's run.",
            "",
            "| | MB on disk | times smaller | accuracy | points lost | ms | times faster |",
            "|---|---|---|---|---|---|---|",
        ]
        for name in [name for name in found if name != "vocabulary"]:
            for engine, figures in found[name]["engines"].items():
                milliseconds = figures["latency"]["1"]["processor_milliseconds"]
                lines.append(
                    f"| {name}, {engine} | {figures['bytes'] / 1e6:.1f} | {whole['bytes'] / figures['bytes']:.1f} | "
                    f"{figures['metrics']['accuracy']:.4f} | "
                    f"{100 * (whole['metrics']['accuracy'] - figures['metrics']['accuracy']):.2f} | "
                    f"{milliseconds:.2f} | "
                    f"{whole['latency']['1']['processor_milliseconds'] / milliseconds:.1f} |"
                )
        lines.append("")
    first = next(iter(content["alone"].values()))
    lines += [
        "## ONNX Runtime alone",
        "",
        f"Largest difference of a logit from PyTorch's, of {first['texts']} sentences of the test rows, from the "
        f"shortest to the longest ({first['tokens'][0]} to {first['tokens'][1]} tokens); in a process that has only "
        "onnxruntime and tokenizers, one sentence at a time and eight.",
        "",
        "| model | heads of the layers | neurons of the layers | one at a time | eight |",
        "|---|---|---|---|---|",
    ]
    for name, figures in content["alone"].items():
        widths = [", ".join(map(str, figures[part])) if figures[part] else "all" for part in ("heads", "neurons")]
        differences = [f"{value:.1e}" for value in figures["largest_difference"].values()]
        lines.append(f"| {' | '.join([name, *widths, *differences])} |")
    return "\n".join([*lines, ""])


def _measured(name: str, sparsity: str, told: str, kept: str, found: dict[str, Any]) -> str:
    figures = [f"{found['accuracy']:.4f}", f"{found['parameters']:,}", f"{found['bytes'] / 1e6:.1f}"]
    times = [f"{found['median']:.2f}", f"{found['low']:.2f} to {found['high']:.2f}"]
    return f"| {' | '.join([name, sparsity, told, kept, *figures, *times])} |"


if __name__ == "__main__":
    main()
