"""Llama shapes of 3 and 7 billion parameters through importance, order and five sandwich steps on one GPU.

    python benchmarks/gpu/billions.py [--shapes 3B 7B] [--device cuda] [--target billions.json]

Nothing is downloaded, read or written but the figures; random weights, random tokens. Bare PyTorch and transformers 5
are all it needs: what is imported of minidisc, from this source tree, needs no more. Shapes that the target holds
already, of the same device and versions, are kept. The stages are the pipeline's, in its order, without its files; the
estimate is that of ``minidisc compress --dry-run``, of the tensors of each phase.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "src"))

import torch
from random_llama import SHAPES, config
from shapes import command, measured_before
from transformers import LlamaForSequenceClassification
from transformers.optimization import Adafactor

from minidisc.architectures import architecture_for
from minidisc.checkpointing import checkpointed
from minidisc.extraction import extract
from minidisc.footprint import Load, phases
from minidisc.importance import compute_importance
from minidisc.losses import Truth, distillation_loss, distilled_layers, task_loss
from minidisc.measure import Shape, peak_memory
from minidisc.memory import free_weights, release_memory, resident_memory
from minidisc.nested import NestedNetwork, order_by_importance
from minidisc.outputs import OutputReader
from minidisc.probing import ProbeSettings, probe
from minidisc.subnetworks import make_spec

SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9)
STEPS = 5
RANDOM = (1, 2, 3, 1, 2)  # of the middle candidates, the one of each step


class Phases:
    """Seconds and peak memory of each phase, on the device or, where that is the CPU, of the process."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._begun = time.perf_counter()
        self.found: dict[str, dict[str, float]] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure the block."""
        release_memory()
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        yield
        if self._cuda:
            torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() if self._cuda else peak_memory()
        self.found[name] = {"seconds": time.perf_counter() - start, "peak": peak}
        print(f"  {name}: {self.found[name]['seconds']:.1f} s, {peak / 2**30:.2f} GiB", flush=True)

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.perf_counter() - self._begun


def batches(rows: int, tokens: int, vocabulary: int, count: int, device: torch.device) -> list[dict[str, Any]]:
    """Random tokens, without padding."""
    generator = torch.Generator().manual_seed(0)
    shape = (rows, tokens)
    ids = [torch.randint(1, vocabulary, shape, generator=generator).to(device) for _ in range(count)]
    return [{"input_ids": one, "attention_mask": torch.ones_like(one)} for one in ids]


def run(shape_name: str, device: torch.device, rows: int, tokens: int) -> dict[str, Any]:
    """All stages at one shape; returns estimate and measurement."""
    measured = Phases(device)
    architecture, settings = architecture_for("llama"), config(shape_name)
    torch.manual_seed(0)
    base = 0 if device.type == "cuda" else resident_memory()
    with measured.phase("random teacher"), device:
        teacher = LlamaForSequenceClassification(settings).eval()
    shape = Shape.of(teacher, architecture)
    data = batches(rows, tokens, settings.vocab_size, STEPS, device)

    def optimizer(parameters: Any) -> Adafactor:
        return Adafactor(parameters, lr=1e-5, scale_parameter=False, relative_step=False)

    with measured.phase("estimate"):
        chosen = ProbeSettings(gradient_checkpointing=True)
        tried = probe(teacher, architecture, [0.5, 0.7, 0.9], data[:1], _first(data[0], 2), optimizer, chosen)
    with measured.phase("importance"):
        labels = torch.arange(rows, device=device) % 2
        scores = compute_importance(
            teacher, architecture, [{**data[0], "labels": labels}], task_loss, gradient_checkpointing=True
        )
    order_by_importance(teacher, architecture, scores)
    specs = [make_spec(scores.heads.numpy(), scores.neurons.numpy(), sparsity, 8) for sparsity in SPARSITIES]
    states = distilled_layers(shape.depth)
    with measured.phase("teacher's outputs"), torch.no_grad():
        # The student first: in the pipeline, too, it is there when outputs are computed.
        student = extract(teacher, specs[0]).to(device).train()
        read = OutputReader(teacher, architecture, states, relations=False)
        targets = [_kept(read(inputs)) for inputs in data]
    free_weights(teacher)
    losses = []
    with measured.phase("training"):
        network, read = NestedNetwork(student, architecture), OutputReader(student, architecture, states, False)
        update = optimizer(list(student.parameters()))
        for step, (inputs, target) in enumerate(zip(data, targets, strict=True)):
            losses.append(_step(network, read, architecture, specs, step, inputs, _on(target, device)))
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            update.step()
            update.zero_grad()
    widest = shape.sizes(specs[0]).all
    load = Load(
        teacher=shape.all_parameters,
        widest=widest,
        assistant=0,
        student=0,
        trained=widest,
        largest=max(p.numel() for p in student.parameters()),
        rows=rows,
        calibration_rows=rows,
        length=tokens,
        importance_bytes=tried.importance_bytes,
        train_bytes=tried.train_bytes,
        optimizer="adafactor",
        loss="hidden+logits",
        stored=True,
    )
    estimated = {name: size for name, size in phases(shape, load).items() if name in measured.found}
    compared = {
        name: {"estimate": base + size, "measured": measured.found[name]["peak"]} for name, size in estimated.items()
    }
    return {
        "parameters": shape.all_parameters,
        "rows": rows,
        "tokens": tokens,
        "seconds": measured.seconds,
        "losses": losses,
        "estimate": base + max(estimated.values()),
        "peak": max(found["measured"] for found in compared.values()),
        "phases": compared,
        "took": measured.found,
    }


def _step(network: Any, read: Any, architecture: Any, specs: Any, step: int, inputs: Any, target: Any) -> float:
    """Largest, smallest and a random sub-network, each sent backward at once; returns the loss."""
    drawn = [specs[-1], specs[RANDOM[step]], specs[0]]
    truth, total = Truth(inputs["attention_mask"], None, [0, 1]), 0.0
    with checkpointed(network.model, architecture), network.one_step():
        for spec in drawn:
            network.activate(spec)
            loss = distillation_loss(read(inputs), target, truth) / len(drawn)
            loss.backward()
            total += loss.item()
    return total


def _kept(outputs: Any) -> Any:
    """Outputs on the CPU, states in half precision, as a file would hold them."""
    return type(outputs)(outputs.logits.cpu(), [state.half().cpu() for state in outputs.states])


def _on(outputs: Any, device: torch.device) -> Any:
    return type(outputs)(outputs.logits.to(device), [state.to(device).float() for state in outputs.states])


def _first(inputs: dict[str, Any], rows: int) -> dict[str, Any]:
    return {name: values[:rows] for name, values in inputs.items()}


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="*", default=["3B", "7B"], choices=list(SHAPES))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--target", type=Path)
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("torch sees no GPU; use --device cpu --shapes tiny to try the script.")
    # Single precision at the speed of the tensor cores.
    torch.backends.cuda.matmul.allow_tf32 = True
    machine = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    found: dict[str, Any] = {"machine": machine, "torch": torch.__version__}
    found["shapes"] = measured_before(options.target, found)
    for name in options.shapes:
        print(name, flush=True)
        result = run(name, device, options.rows, options.tokens)
        found["shapes"][name] = {"command": command(), **result}
        for phase, figures in result["phases"].items():
            print(f"  {phase}: {_off(figures['estimate'], figures['measured'])}")
        print(
            f"  {result['parameters'] / 1e9:.2f} billion parameters, {result['seconds']:.0f} s; memory "
            f"{_off(result['estimate'], result['peak'])}",
            flush=True,
        )
    if options.target:
        options.target.write_text(json.dumps(found, indent=2) + "\n")


def _off(estimate: float, measured: float) -> str:
    percent = 100 * (estimate / measured - 1)
    return f"estimated {estimate / 2**30:.2f} GiB, measured {measured / 2**30:.2f}, off by {percent:+.0f} %"


if __name__ == "__main__":
    main()
