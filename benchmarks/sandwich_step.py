"""Time per training row of minidisc's step against the plain protocol, the floor, and the arithmetic limit.

    OMP_NUM_THREADS=2 python benchmarks/sandwich_step.py --data-dir DIR --target results/sandwich_step
    python benchmarks/sandwich_step.py --tasks random --shape 3,32,4,64 --rounds 2       # seconds, to try it out

Tasks that the target holds of an earlier run with the same shape stay there.

DIR is as for ``benchmarks/tasks.py``; Rotten Tomatoes comes from the demo's data package. The model is that of the
demo (``--model DIR`` for another BERT), with a classifier of random weights: time does not depend on them.

In every round each variant trains on the same batches, one of each quarter of an epoch's batches by length; the plain
protocol, whose batches are all of one size, on one of them. Ratios are of the times of one round.

- plain: `plain_protocol.py`; all candidates, padding to the maximum length, teacher run at every step.
- ours, all / sampled: `minidisc.trainer.SandwichTrainer`, every candidate or the default rule; teacher's outputs read.
- floor, all / sampled: separately built dense models of the same candidates (`steps.FloorStep`).
- limit, all / sampled: the matrix products of the same candidates alone (`arithmetic.Replay`): FLOPs of the step over
  the rate that the machine reaches at the step's own shapes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from arithmetic import Replay, peak_rate, products_of_step
from plain_protocol import PlainBert, PlainTraining, pad
from profiling import shares
from rounds import in_rounds, ratio, record, shown, spread, write
from steps import (
    ALL,
    SAMPLED,
    FloorStep,
    OurStep,
    described,
    loaded_bert,
    padding_tokenizer,
    random_rows,
    specs_of,
    step_flops,
)
from transformers import AutoTokenizer, TrainerCallback

from minidisc.architectures import architecture_for
from minidisc.batching import LengthGroupedOrder
from minidisc.config import CompressSettings, DataSettings
from minidisc.demo.assets import backbone_dir, write_splits
from minidisc.files import read_json
from minidisc.measure import Shape
from minidisc.subnetworks import SubnetworkSpec, candidate_sparsities
from minidisc.tasks import encode, load_data

TITLES = {"rt": "Rotten Tomatoes", "mrpc": "MRPC", "random": "random rows"}
STRATA = 4
RATIOS = (
    ("plain", "ours, all"),
    ("plain", "ours, sampled"),
    ("ours, all", "floor, all"),
    ("ours, sampled", "floor, sampled"),
    ("ours, all", "limit, all"),
    ("ours, sampled", "limit, sampled"),
)


def rows_of(name: str, tokenizer: Any, data_dir: str | None, length: int, work: Path) -> Any:
    """All training rows of a task, encoded."""
    if name == "random":
        return random_rows(np.random.default_rng(0).integers(4, length // 2, 400).tolist(), 100)
    if name == "rt":
        data = DataSettings(train_file=str(write_splits(work)["train"]), max_length=length)
    else:
        data = DataSettings(task=f"glue/{name}", data_dir=data_dir, max_length=length)
    train = load_data(data, need_validation=False).train
    assert train is not None
    return encode(train, tokenizer, length).remove_columns("label")


def drawn_batches(lengths: Sequence[int], size: int, rounds: int, seed: int = 0) -> list[list[np.ndarray]]:
    """For each round one batch of an epoch out of each quarter of them by length, as minidisc batches rows.

    Their mean over many rounds is that of the epoch.
    """
    order = np.array(list(LengthGroupedOrder(lengths, size, seed)))
    batches = [order[i : i + size] for i in range(0, len(order) // size * size, size)]
    batches.sort(key=lambda rows: max(lengths[row] for row in rows))
    random = np.random.default_rng(seed)
    strata = np.array_split(np.arange(len(batches)), STRATA)
    return [[batches[random.choice(stratum)] for stratum in strata] for _ in range(rounds)]


class Bench:
    """All variants of one task, ready to be timed.

    Args:
        model: the teacher.
        rows: all encoded training rows.
        tokenizer: pads batches.
        length: maximum length.
        batch_size: rows in a batch.
        rounds: of timing; one more is drawn to warm up.
        work: folder for what the teacher gives.
    """

    def __init__(
        self, model: Any, rows: Any, tokenizer: Any, length: int, batch_size: int, rounds: int, work: Path
    ) -> None:
        self.shape = Shape.of(model, architecture_for(model.config.model_type))
        self.candidates = specs_of(model, candidate_sparsities(0.95))
        self.length, self.rounds = length, rounds
        self.lengths = rows["length"][:]
        drawn = drawn_batches(self.lengths, batch_size, rounds + 1)
        used = sorted({int(row) for batches in drawn for batch in batches for row in batch})
        self.rows = rows.select(used).flatten_indices()
        self._padded = [self.lengths[row] for row in used]
        place = {row: i for i, row in enumerate(used)}
        self.drawn = [[[place[int(row)] for row in batch] for batch in batches] for batches in drawn]
        begin = time.perf_counter(), time.process_time()
        first = OurStep(model, self.candidates, self.rows, tokenizer, ALL, work, batch_size=batch_size)
        took = time.perf_counter() - begin[0], time.process_time() - begin[1]
        self.stored = {clock: value / len(used) for clock, value in zip(("wall", "processor"), took, strict=True)}
        sampled = OurStep(model, self.candidates, self.rows, tokenizer, SAMPLED, work, batch_size=batch_size)
        self.ours = {"all": first, "sampled": sampled}
        self.floor = FloorStep(model, self.candidates, self.rows, tokenizer, work)
        self.plain = PlainTraining(PlainBert(model), PlainBert(model), self.candidates)
        self.inputs = [n for n in ("input_ids", "attention_mask", "token_type_ids") if n in self.rows.column_names]
        self.replay = Replay()
        longest = [batches[-1] for batches in self.drawn]
        for batch in longest:  # makes room for the largest products
            self.replay(products_of_step(self.shape, self.candidates, len(batch), self.padded(batch)))

    def variants(self) -> dict[str, Callable[[int], float]]:
        """By name; each trains on a round's batches and returns how many rows that were."""
        return {
            "plain": self._plain,
            "ours, all": lambda number: self._ours("all", number),
            "ours, sampled": lambda number: self._ours("sampled", number),
            "floor, all": lambda number: self._floor("all", number),
            "floor, sampled": lambda number: self._floor("sampled", number),
            "limit, all": lambda number: self._limit("all", number),
            "limit, sampled": lambda number: self._limit("sampled", number),
        }

    def trained(self, rule: str, number: int) -> list[list[SubnetworkSpec]]:
        """The candidates of each of a round's steps, drawn as the trainer draws them."""
        first = STRATA * (number + 1)
        return [self.ours[rule].trainer.step_candidates(first + i) for i in range(STRATA)]

    def padded(self, batch: Sequence[int]) -> int:
        """Tokens of each row of a batch, padding included."""
        return max(self._padded[row] for row in batch)

    def flops(self, rule: str) -> list[float]:
        """Of a row, on average over each round's batches."""
        return [
            float(
                np.mean(
                    [
                        step_flops(self.shape, candidates, len(batch), self.padded(batch)) / len(batch)
                        for batch, candidates in zip(self.drawn[number], self.trained(rule, number), strict=True)
                    ]
                )
            )
            for number in range(self.rounds)
        ]

    def _plain(self, number: int) -> int:
        batch = self.drawn[number][number % STRATA]
        self.plain.step(pad(self.rows.__getitems__(batch), self.length, self.inputs))
        return len(batch)

    def _ours(self, rule: str, number: int) -> int:
        step = self.ours[rule]
        step.trainer.state.global_step = STRATA * (number + 1)
        for batch in self.drawn[number]:
            step(batch)
        return sum(map(len, self.drawn[number]))

    def _floor(self, rule: str, number: int) -> int:
        for batch, candidates in zip(self.drawn[number], self.trained(rule, number), strict=True):
            self.floor(batch, candidates)
        return sum(map(len, self.drawn[number]))

    def _limit(self, rule: str, number: int) -> int:
        for batch, candidates in zip(self.drawn[number], self.trained(rule, number), strict=True):
            self.replay(products_of_step(self.shape, candidates, len(batch), self.padded(batch)))
        return sum(map(len, self.drawn[number]))

    def loop(self, steps: int = 60) -> float:
        """Seconds that transformers' loop takes for a step, beside what `OurStep` does: a stub is trained instead.

        The last thing that is done with this bench, whose sampled trainer it changes.
        """
        trainer: Any = self.ours["sampled"].trainer
        trainer.training_step = lambda *args, **kwargs: torch.zeros(())
        clock = _Clock()
        trainer.callback_handler.callbacks = [clock]
        trainer.state.global_step, trainer.args.max_steps = 0, steps
        trainer.train()
        return float(np.median(np.diff(clock.ends)))

    def single(self) -> dict[str, Callable[[int], float]]:
        """Each candidate's dense network alone, forward, backward and the optimiser's step."""
        batch = self.drawn[0][STRATA // 2]

        def run(spec: SubnetworkSpec) -> Callable[[int], float]:
            def step(number: int) -> int:
                self.floor(batch, [spec])
                return len(batch)

            return step

        return {spec.name: run(spec) for spec in self.candidates}


class _Clock(TrainerCallback):
    """Notes when each step has ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Note it."""
        self.ends.append(time.perf_counter())


def measure(bench: Bench) -> dict[str, Any]:
    """All figures of one task."""
    times = in_rounds(bench.variants(), bench.rounds)
    ratios = {f"{above} / {below}": ratio(times, above, below) for above, below in RATIOS}
    epochs = CompressSettings.epochs
    for rule in bench.ours:
        with_teacher = {
            clock: [value + bench.stored[clock] / epochs for value in times[f"ours, {rule}"][clock]]
            for clock in bench.stored
        }
        key = f"plain / ours, {rule}, with the teacher's pass spread over {epochs:g} epochs"
        ratios[key] = ratio({"plain": times["plain"], "ours": with_teacher}, "plain", "ours")
    flops = {rule: bench.flops(rule) for rule in bench.ours}
    rates = {
        rule: spread(np.divide(own, times[f"limit, {rule}"]["wall"]).tolist())["median"] for rule, own in flops.items()
    }
    flops_of = {rule: float(np.mean(own)) for rule, own in flops.items()}
    flops_of["plain"] = step_flops(bench.shape, bench.candidates, 1, bench.length) + bench.shape.forward_flops(
        bench.shape.full(), 1, bench.length
    )
    alone = in_rounds(bench.single(), max(2, bench.rounds // 3))
    widest = bench.candidates[0].name
    padded = [bench.padded(batch) for batches in bench.drawn[: bench.rounds] for batch in batches]
    return {
        "rows": len(bench.lengths),
        "tokens": float(np.mean(bench.lengths)),
        "padded_tokens": float(np.mean(padded)),
        "seconds_per_row": {name: {c: spread(v) for c, v in own.items()} for name, own in times.items()},
        "teacher_pass_seconds_per_row": bench.stored,
        "ratios": ratios,
        "flops_per_row": flops_of,
        "flops_per_second": {"at the step's shapes": rates, "large squares": peak_rate()},
        "candidates_alone": {name: ratio(alone, name, widest) for name in alone},
        "profile": {
            name: shares(lambda run=run: run(0)) for name, run in bench.variants().items() if "lim" not in name
        },
        "loop_seconds_per_step": bench.loop(),
        "raw": times,
    }


def page(content: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        "# A step of the sandwich against the plain protocol, the floor and the limit",
        "",
        f"{content['shape']}; batches of {content['batch_size']} rows, maximum length {content['length']}. All",
        "variants run in turns, since the machine has other work, and ratios are of one round; medians and, in",
        "brackets, the middle 80 % of the rounds. Processor time is that of all threads, spinning included. What the",
        "variants are: the script's first lines.",
    ]
    for name, task in content["tasks"].items():
        about = task["record"]
        lines += [
            "",
            f"## {TITLES[name]}",
            "",
            f"{task['rows']:,} rows of {task['tokens']:.1f} tokens on average, {task['padded_tokens']:.1f} in batches "
            f"of similar length. Candidates: {', '.join(task['candidates_alone'])}.",
            f"`{about['command']}`, {about['threads']} threads, {about['machine']}, load {about['load']:.1f}, "
            f"{task['rounds']} rounds.",
            "",
            "| variant | ms a row | processor ms a row |",
            "|---|---|---|",
        ]
        for variant, seconds in task["seconds_per_row"].items():
            lines.append(f"| {variant} | {shown(seconds['wall'], 1000)} | {shown(seconds['processor'], 1000)} |")
        lines += ["", "| ratio | time | processor time |", "|---|---|---|"]
        for title, values in task["ratios"].items():
            lines.append(f"| {title} | {shown(values['wall'])} | {shown(values['processor'])} |")
        rates = task["flops_per_second"]
        lines.append("")
        for rule, rate in rates["at the step's shapes"].items():
            share = 1 / task["ratios"][f"ours, {rule} / limit, {rule}"]["wall"]["median"]
            lines.append(
                f"- {rule}: {task['flops_per_row'][rule] / 1e9:.3f} GFLOPs a row; at {rate / 1e9:.0f} GFLOPs/s, "
                f"as measured at the step's shapes, the step reaches {100 * share:.0f} % of the arithmetic limit."
            )
        alone = ", ".join(f"{k} {v['wall']['median']:.2f}" for k, v in task["candidates_alone"].items())
        lines += [
            f"- plain: {task['flops_per_row']['plain'] / 1e9:.3f} GFLOPs a row. Large square products: "
            f"{rates['large squares'] / 1e9:.0f} GFLOPs a second.",
            f"- The teacher's pass, done once: {1000 * task['teacher_pass_seconds_per_row']['wall']:.2f} ms a row.",
            f"- transformers' loop around our step, not in the figures above: "
            f"{1000 * task['loop_seconds_per_step'] / content['batch_size']:.2f} ms a row.",
            f"- A dense network's step alone, relative to the widest's: {alone}.",
            "",
            "Shares of the time by kind of operation (torch.profiler, which itself slows down short operations):",
            "",
        ]
        profiles = task["profile"]
        kinds = sorted({kind for own in profiles.values() for kind in own}, key=lambda k: -profiles["plain"].get(k, 0))
        lines += [f"| | {' | '.join(profiles)} |", "|---|" + "---|" * len(profiles)]
        for kind in kinds:
            lines.append(
                f"| {kind} | " + " | ".join(f"{100 * p.get(kind, 0):.0f} %" for p in profiles.values()) + " |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir")
    parser.add_argument("--model", type=Path, help="folder of a BERT (default: the demo's MiniLM)")
    parser.add_argument("--shape", help="layers,hidden,heads,neurons of a random BERT in its place")
    parser.add_argument("--tasks", nargs="*", default=["rt", "mrpc"], choices=list(TITLES))
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--target", type=Path, help="file for the figures, without .json and .md")
    options = parser.parse_args()
    datasets.disable_progress_bars()
    model = loaded_bert(options.model, options.shape)
    tokenizer: Any = (
        padding_tokenizer() if options.shape else AutoTokenizer.from_pretrained(options.model or backbone_dir())
    )
    about = {"shape": described(model), "batch_size": options.batch_size, "length": options.length}
    content: dict[str, Any] = {**about, "tasks": {}}
    if options.target and options.target.with_suffix(".json").is_file():
        before = read_json(options.target.with_suffix(".json"))
        if about.items() <= before.items():
            content = before
    for name in options.tasks:
        with tempfile.TemporaryDirectory() as work:
            rows = rows_of(name, tokenizer, options.data_dir, options.length, Path(work))
            bench = Bench(model, rows, tokenizer, options.length, options.batch_size, options.rounds, Path(work))
            content["tasks"][name] = {"record": record(), "rounds": options.rounds, **measure(bench)}
        write(options.target, content, page(content))
    print(page(content))


if __name__ == "__main__":
    main()
