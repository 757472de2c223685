"""Latency and throughput of students against their teacher, in PyTorch and ONNX Runtime.

    OMP_NUM_THREADS=2 python benchmarks/inference.py --target results/inference
    python benchmarks/inference.py --shape 3,32,4,64 --rounds 3        # seconds, to try it out

Students of 50 to 97 % are cut from the teacher by random scores, untrained: time does not depend on weights. Each
engine runs on one thread and on two, on batches of 1 and of 32 rows, short (16 tokens) and long (128). In every round
teacher and students run on the same batch; speed-ups are of one round. "Speed-up per removed FLOP" is the part of the
teacher's time that a student saves, over the part of its FLOPs that it lacks: 1 where time follows FLOPs.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rounds import in_rounds, ratio, record, shown, spread, write
from steps import described, loaded_bert, specs_of

from minidisc.architectures import architecture_for
from minidisc.exporting.engines import Engine
from minidisc.exporting.graph import write_onnx
from minidisc.extraction import extract
from minidisc.measure import Shape

SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97)
THREADS, BATCHES, LENGTHS = (1, 2), (1, 32), {"short": 16, "long": 128}
TEACHER = "teacher"


def batch_of(rows: int, length: int, vocabulary: int) -> dict[str, torch.Tensor]:
    """Made-up tokens without padding."""
    torch.manual_seed(0)
    ids = torch.randint(5, vocabulary, (rows, length))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}


def engines_of(models: dict[str, Any], folder: Path, threads: int) -> dict[str, dict[str, Any]]:
    """The same networks in each engine, for so many threads."""
    example = batch_of(2, 8, models[TEACHER].config.vocab_size)
    found: dict[str, Any] = {}
    for name, model in models.items():
        file = folder / f"{name.removesuffix(' %')}.onnx"
        if not file.is_file():
            write_onnx(model, example, file)
        found[name] = Engine(file, threads)
    return {"PyTorch": models, "ONNX Runtime": found}


def time_cell(models: dict[str, Any], inputs: dict[str, torch.Tensor], rounds: int) -> dict[str, Any]:
    """Milliseconds a pass, rows a second, and speed-ups over the teacher, of each network on one batch."""

    def run(model: Any) -> Callable[[int], float]:
        def forward(number: int) -> float:
            model(**inputs)
            return 1.0

        return forward

    with torch.no_grad():
        times = in_rounds({name: run(model) for name, model in models.items()}, rounds, warm_up=2, quiet=True)
    rows = len(inputs["input_ids"])
    return {
        name: {
            "milliseconds": {clock: spread([1000 * value for value in values]) for clock, values in own.items()},
            "rows_per_second": rows / spread(own["wall"])["median"],
            "speedup": ratio(times, TEACHER, name),
        }
        for name, own in times.items()
    }


def measure(model: Any, rounds: int) -> dict[str, Any]:
    """All cells."""
    shape = Shape.of(model, architecture_for(model.config.model_type))
    specs = {spec.name: spec for spec in specs_of(model, SPARSITIES)}
    models = {TEACHER: model.eval(), **{name: extract(model, spec) for name, spec in specs.items()}}
    cells = []
    with tempfile.TemporaryDirectory() as folder:
        for threads in THREADS:
            torch.set_num_threads(threads)
            for engine, networks in engines_of(models, Path(folder), threads).items():
                for rows in BATCHES:
                    for title, length in LENGTHS.items():
                        inputs = batch_of(rows, length, model.config.vocab_size)
                        figures = time_cell(networks, inputs, rounds)
                        whole = shape.forward_flops(shape.full(), rows, length)
                        for name, own in figures.items():
                            spec = specs.get(name, shape.full())
                            removed = 1 - shape.forward_flops(spec, rows, length) / whole
                            saved = 1 - 1 / own["speedup"]["wall"]["median"]
                            own |= {
                                "removed_flops": removed,
                                "saved_per_removed": saved / removed if removed else None,
                            }
                        cells.append(
                            {"engine": engine, "threads": threads, "rows": rows, "length": length, "models": figures}
                        )
                        print(engine, threads, rows, title, flush=True)
    return {"parameters": {name: sum(p.numel() for p in m.parameters()) for name, m in models.items()}, "cells": cells}


def page(content: dict[str, Any]) -> str:
    """The figures as Markdown."""
    about = content["record"]
    lines = [
        "# Students against their teacher: time of a pass",
        "",
        f"`{about['command']}`, {about['machine']}; other work on the machine at the same time (load "
        f"{about['load']:.1f}), so all networks run in turns and speed-ups",
        f"are of one round; medians of {content['rounds']} rounds and, in brackets, the middle 80 % of them.",
        f"Model: {content['shape']}. What is measured: the script's first lines.",
        "",
        "| engine | threads | rows | tokens | network | ms a pass | rows a second | speed-up | of processor time | "
        "FLOPs removed | time saved per FLOP removed |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for cell in content["cells"]:
        for name, own in cell["models"].items():
            saved = own["saved_per_removed"]
            cells = [
                *(str(cell[key]) for key in ("engine", "threads", "rows", "length")),
                name,
                shown(own["milliseconds"]["wall"]),
                f"{own['rows_per_second']:.0f}",
                shown(own["speedup"]["wall"]),
                f"{own['speedup']['processor']['median']:.2f}",
                f"{100 * own['removed_flops']:.0f} %",
                "" if saved is None else f"{saved:.2f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a BERT (default: the demo's MiniLM)")
    parser.add_argument("--shape", help="layers,hidden,heads,neurons of a random BERT in its place")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--target", type=Path, help="file for the figures, without .json and .md")
    options = parser.parse_args()
    model = loaded_bert(options.model, options.shape)
    content = {
        "shape": described(model),
        "rounds": options.rounds,
        **measure(model, options.rounds),
        "record": record(),
    }
    print(page(content))
    write(options.target, content, page(content))


if __name__ == "__main__":
    main()
