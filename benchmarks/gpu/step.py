"""A step of the sandwich on one GPU, of BERT-base and BERT-large shapes: ratios, utilisation, memory.

    python benchmarks/gpu/step.py [--minutes 7] [--target results/gpu_step]
    python benchmarks/gpu/step.py --device cpu --shapes tiny --rounds 2          # its logic, without a GPU

Nothing is downloaded; random weights, random tokens. Bare PyTorch and transformers 5 are all it needs: what is
imported of minidisc, from this source tree, needs no more. After ``--minutes`` no shape is begun, and no round but the
first three of a shape. Shapes that the target holds already, of the same device and versions, are kept.

Rows have lengths as short reviews have: drawn from a gamma distribution of shape 3 with a mean of 27 tokens, cut to
4 to 128; batches of 32 of similar length. Variants train on the same batches in turns, and ratios are of one round:

- plain, fp32: the plain protocol, as the paper's code ran it; plain, bf16: the same under autocast.
- ours, all / sampled: nested network, shared embeddings, SDPA, fused AdamW, bf16 autocast, stored teacher's outputs.
- floor, all: separately built dense networks with the same tricks.
- the last two, graphs: recorded and replayed (see `minidisc.recording`), which is what minidisc does on a GPU; all are
  recorded before the first round, and how long that takes is given apart.

Utilisation (MFU) is the FLOPs of the candidates' forward and backward passes a second, over the peak that the maker
names for dense bf16 products, and over the rate measured here on large square ones.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "src"))

import numpy as np
import torch
import transformers
from dense import dense_networks
from plain_protocol import PlainBert, PlainTraining, pad
from shapes import command, measured_before
from transformers import BertConfig, BertForSequenceClassification

from minidisc.architectures import architecture_for
from minidisc.devices import attention_kernels
from minidisc.extraction import extract
from minidisc.layers import set_dropout
from minidisc.losses import Outputs, Truth, distillation_loss, distilled_layers
from minidisc.measure import Shape, peak_memory
from minidisc.memory import release_memory
from minidisc.nested import NestedNetwork
from minidisc.outputs import OutputReader
from minidisc.recording import MULTIPLE, StepRecorder
from minidisc.subnetworks import SubnetworkSpec, candidate_sparsities, make_spec

# Layers, hidden size, heads, neurons.
SHAPES = {"BERT-base": (12, 768, 12, 3072), "BERT-large": (24, 1024, 16, 4096), "tiny": (2, 32, 4, 64)}
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # FLOPs a second, dense bf16, SXM boards
BATCH, LENGTH, STRATA, VOCABULARY = 32, 128, 4, 30522
NAMES = ("input_ids", "attention_mask")


def drawn_batches(rounds: int, seed: int = 0) -> list[list[list[dict[str, Any]]]]:
    """For each round as many batches as there are strata of lengths, of similar length each."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(rounds):
        lengths = np.sort(random.gamma(3, 9, STRATA * BATCH).round().clip(4, LENGTH).astype(int))
        rows = [{"input_ids": random.integers(5, VOCABULARY, n).tolist(), "attention_mask": [1] * n} for n in lengths]
        found.append([rows[i : i + BATCH] for i in range(0, len(rows), BATCH)])
    return found


class Bench:
    """All variants of one shape.

    Args:
        shape: layers, hidden size, heads, neurons.
        device: where they run.
        rounds: that are timed; one more warms up.
        sparsities: of the candidates, in ascending order; three or more.
    """

    def __init__(
        self, shape: tuple[int, int, int, int], device: torch.device, rounds: int, sparsities: Sequence[float]
    ) -> None:
        layers, hidden, heads, neurons = shape
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=neurons,
            max_position_embeddings=LENGTH,
        )
        self.device, self.rounds = device, rounds
        self.model = BertForSequenceClassification(config).eval().to(device)
        self.architecture = architecture_for("bert")
        self.shape = Shape.of(self.model, self.architecture)
        random = np.random.default_rng(0)
        scores = random.random((layers, heads)), random.random((layers, neurons))
        self.candidates = [make_spec(*scores, s, 8) for s in sparsities]
        self.states = distilled_layers(layers)
        self.drawn = drawn_batches(rounds + 1)
        self.targets: dict[tuple[int, int], Outputs] = {}
        reader = OutputReader(self.model, self.architecture, self.states, False)
        with torch.no_grad(), self.autocast(), attention_kernels():
            for number, batches in enumerate(self.drawn):
                for i in range(len(batches)):
                    self.targets[number, i] = _halved(reader(self._inputs(number, i)))

    def autocast(self) -> AbstractContextManager:
        """The precision of all but the plain protocol's own: bf16, but on a CPU."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def sampled(self, step: int) -> list[SubnetworkSpec]:
        """The largest, the smallest and one more."""
        middle = np.random.default_rng((0, step)).integers(1, len(self.candidates) - 1)
        return [self.candidates[-1], self.candidates[middle], self.candidates[0]]

    def plain(self, bf16: bool) -> Callable[[int], int]:
        """The plain protocol, one batch a round."""
        student, teacher = (PlainBert(self.model).to(self.device) for _ in range(2))
        training = PlainTraining(student, teacher, self.candidates)

        def run(number: int) -> int:
            batch = pad(self.drawn[number][number % STRATA], LENGTH, NAMES)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16 and self.device.type == "cuda"):
                training.step({name: value.to(self.device) for name, value in batch.items()})
            return BATCH

        return run

    def ours(self, rule: str, recorded: bool = False) -> Callable[[int], int]:
        """The nested network, on all batches of a round, as it is or recorded as CUDA graphs."""
        model = extract(self.model, self.candidates[0]).to(self.device).train()
        set_dropout(model, 0.0)
        network = NestedNetwork(model, self.architecture)
        reader = OutputReader(model, self.architecture, self.states, False)

        def passes(chosen: Sequence[SubnetworkSpec], inputs: dict[str, torch.Tensor], target: Outputs) -> torch.Tensor:
            total = torch.zeros((), device=self.device)
            with self.autocast(), network.one_step():
                for spec in chosen:
                    network.activate(spec)
                    loss = self._loss(reader(inputs), target, inputs, len(chosen))
                    loss.backward()
                    total += loss.detach()
            network.activate(None)
            return total

        return self._on_all(list(model.parameters()), passes, rule, recorded)

    def floor(self, recorded: bool = False) -> Callable[[int], int]:
        """Dense networks, all candidates, on all batches of a round; each has the embeddings' output handed over."""
        networks, embeddings, given = dense_networks(self.model, self.candidates)
        widest = networks[self.candidates[0]]
        readers = {s: OutputReader(n, self.architecture, self.states, False) for s, n in networks.items()}
        trained = [*widest.parameters(), *embeddings.parameters()]
        others = [p for network in networks.values() if network is not widest for p in network.parameters()]

        def passes(chosen: Sequence[SubnetworkSpec], inputs: dict[str, torch.Tensor], target: Outputs) -> torch.Tensor:
            total = torch.zeros((), device=self.device)
            with self.autocast():
                embedded = embeddings(input_ids=inputs["input_ids"])
                given.value = embedded.detach().requires_grad_()
                for spec in chosen:
                    loss = self._loss(readers[spec](inputs), target, inputs, len(chosen))
                    loss.backward()
                    total += loss.detach()
            embedded.backward(given.value.grad)
            given.value = None
            return total

        return self._on_all(trained, passes, "all", recorded, others)

    def flops(self, rule: str) -> float:
        """Of the candidates' passes, a row, on average over the rounds that count."""
        found = []
        for number in range(1, self.rounds + 1):
            for i, batch in enumerate(self.drawn[number]):
                length = LENGTH if rule == "plain" else len(batch[-1]["input_ids"])
                chosen = self.sampled(STRATA * number + i) if rule == "sampled" else self.candidates
                found.append(sum(3 * self.shape.forward_flops(spec, 1, length) for spec in chosen))
        return float(np.mean(found))

    def _on_all(
        self,
        trained: list[torch.nn.Parameter],
        passes: Callable[[Sequence[SubnetworkSpec], dict[str, torch.Tensor], Outputs], torch.Tensor],
        rule: str,
        recorded: bool,
        others: Sequence[torch.nn.Parameter] = (),
    ) -> Callable[[int], int]:
        """What trains on all batches of a round; ``others`` have gradients that nothing is done with."""
        optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.01, fused=True)
        cuda = self.device.type == "cuda"
        # On a CPU nothing can be recorded; the rest can be tried there all the same.
        recorder = StepRecorder([*trained, *others], *(() if cuda else (lambda run, _: run, object)), failed=_fail)

        def step(number: int, i: int) -> None:
            inputs, target = self._inputs(number, i), self.targets[number, i]
            # While it warms up, all widths.
            every = rule == "all" or number == 0
            chosen = self.candidates[::-1] if every else self.sampled(STRATA * number + i)
            with attention_kernels():
                if recorded:
                    names = tuple(spec.name for spec in chosen)
                    recorder.run(names, (inputs, target), lambda batch: passes(chosen, *batch))
                else:
                    passes(chosen, inputs, target)
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            for parameter in (*trained, *others):
                parameter.grad = None

        def run(number: int) -> int:
            for i in range(STRATA):
                step(number, i)
            return STRATA * BATCH

        return run

    def _inputs(self, number: int, i: int) -> dict[str, torch.Tensor]:
        batch = self.drawn[number][i]
        padded = pad(batch, min(-(-len(batch[-1]["input_ids"]) // MULTIPLE) * MULTIPLE, LENGTH), NAMES)
        return {name: value.to(self.device) for name, value in padded.items()}

    def _loss(self, output: Outputs, target: Outputs, inputs: dict[str, torch.Tensor], count: int) -> torch.Tensor:
        return distillation_loss(output, target, Truth(inputs["attention_mask"], None, None)) / count


def _fail(reason: str) -> None:
    raise RuntimeError(f"it could not be recorded: {reason}")


def _halved(outputs: Outputs) -> Outputs:
    """Hidden states in half precision, as they are stored."""
    return Outputs(outputs.logits.float(), [state.half() for state in outputs.states])


def measure(
    name: str, device: torch.device, rounds: int, sparsities: Sequence[float], deadline: float
) -> dict[str, Any]:
    """Times of all variants in turns, and the memory of each."""
    bench = Bench(SHAPES[name], device, rounds, sparsities)
    build: dict[str, Callable[[], Callable[[int], int]]] = {
        "plain, fp32": lambda: bench.plain(False),
        "plain, bf16": lambda: bench.plain(True),
        "ours, all": lambda: bench.ours("all"),
        "ours, sampled": lambda: bench.ours("sampled"),
        "floor, all": bench.floor,
        "ours, all, graphs": lambda: bench.ours("all", True),
        "ours, sampled, graphs": lambda: bench.ours("sampled", True),
        "floor, all, graphs": lambda: bench.floor(True),
    }
    memory: dict[str, float] = {}
    ready: dict[str, float] = {}
    variants: dict[str, Callable[[int], int]] = {}
    for variant, make in build.items():
        release_memory()
        before = _allocated(device)
        begin = time.perf_counter()
        made = make()
        # Once to warm up; twice all that is recorded, which happens the second time.
        for number in [*range(rounds + 1), *range(rounds + 1)] if variant.endswith("graphs") else [0]:
            made(number)
        _wait(device)
        variants[variant] = made
        memory[variant] = _peak(device) - before
        ready[variant] = time.perf_counter() - begin
        print(f"{name}, {variant}: ready after {ready[variant]:.1f} s", flush=True)
    times: dict[str, list[float]] = {variant: [] for variant in variants}
    for number in range(1, rounds + 1):
        if number > 3 and time.monotonic() > deadline:
            break
        for variant in list(variants) if number % 2 else reversed(list(variants)):
            _wait(device)
            begin = time.perf_counter()
            done = variants[variant](number)
            _wait(device)
            times[variant].append((time.perf_counter() - begin) / done)
    flops = {variant: bench.flops(variant.split(", ")[1] if "plain" not in variant else "plain") for variant in times}
    rate = _matmul_rate(device)
    peak = next((value for part, value in PEAKS.items() if part in _device_name(device)), None)
    rows = {}
    for variant, own in times.items():
        seconds = statistics.median(own)
        reached = flops[variant] / seconds
        floor = times["floor, all, graphs" if variant.endswith("graphs") else "floor, all"]
        rows[variant] = {
            "milliseconds_per_row": 1000 * seconds,
            "faster_than_plain": statistics.median(np.divide(times["plain, fp32"], own).tolist()),
            "over_floor": statistics.median(np.divide(own, floor).tolist()),
            "mfu": peak and reached / peak,
            "of_measured_rate": reached / rate,
            "memory": memory[variant],
            "seconds_until_ready": ready[variant],
            "raw": own,
        }
    return {"rounds": len(floor), "flops_per_row": flops, "measured_rate": rate, "peak": peak, "variants": rows}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _allocated(device: torch.device) -> float:
    """Bytes in use now; from here on the peak counts."""
    if device.type != "cuda":
        return 0.0
    torch.cuda.reset_peak_memory_stats()
    return float(torch.cuda.memory_allocated())


def _peak(device: torch.device) -> float:
    """Most bytes in use since `_allocated`; on a CPU those of the whole process."""
    return float(torch.cuda.max_memory_allocated() if device.type == "cuda" else peak_memory())


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else "CPU"


def _matmul_rate(device: torch.device) -> float:
    """FLOPs a second of large square products, bf16 on a GPU."""
    cuda = device.type == "cuda"
    size, dtype = (8192, torch.bfloat16) if cuda else (512, torch.float32)
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    times = []
    for _ in range(10):
        _wait(device)
        begin = time.perf_counter()
        left @ right
        _wait(device)
        times.append(time.perf_counter() - begin)
    return 2 * size**3 / statistics.median(times[2:])


def page(content: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        "# A step of the sandwich on a GPU",
        "",
        f"{content['device']}, torch {content['torch']}, transformers {content['transformers']}; medians of as many "
        "rounds as are named.",
        "",
        *(f"- {name}: `{figures['command']}`" for name, figures in content["shapes"].items()),
        "",
        "What is measured: the script's first lines. Memory is what a variant adds, its peak.",
        "",
        "The floor of what is replayed is replayed too.",
        "",
        "| shape | rounds | variant | ms a row | faster than plain, fp32 | over the floor, all | MFU "
        "| of the measured rate | memory, GiB | ready after, s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, figures in content["shapes"].items():
        for variant, own in figures["variants"].items():
            mfu = "" if own["mfu"] is None else f"{100 * own['mfu']:.1f} %"
            lines.append(
                f"| {name} | {figures['rounds']} | {variant} | {own['milliseconds_per_row']:.3f} "
                f"| {own['faster_than_plain']:.2f} | {own['over_floor']:.2f} | {mfu} "
                f"| {100 * own['of_measured_rate']:.1f} % | {own['memory'] / 2**30:.2f} "
                f"| {own['seconds_until_ready']:.1f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="*", default=["BERT-base", "BERT-large"], choices=list(SHAPES))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--minutes", type=float, default=7.0)
    parser.add_argument("--sparsities", type=float, nargs="*", default=candidate_sparsities(0.95))
    parser.add_argument("--target", type=Path, help="file for the figures, without .json and .md")
    options = parser.parse_args()
    device, deadline = torch.device(options.device), time.monotonic() + 60 * options.minutes
    content: dict[str, Any] = {
        "device": _device_name(device),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    file = options.target and options.target.with_suffix(".json")
    content["shapes"] = measured_before(file, content)
    for name in options.shapes:
        if time.monotonic() > deadline:
            print(f"{name} is left out: no time", flush=True)
            continue
        figures = measure(name, device, options.rounds, options.sparsities, deadline)
        content["shapes"][name] = {"command": command(), **figures}
        release_memory()
        if file:
            file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
            options.target.with_suffix(".md").write_text(page(content), encoding="utf-8")
    print(page(content))


if __name__ == "__main__":
    main()
