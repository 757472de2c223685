"""How the cost of a step of the sandwich grows with candidates, layers, hidden size, length and rows.

    OMP_NUM_THREADS=1 python benchmarks/scaling.py --target results/scaling
    python benchmarks/scaling.py --rounds 2 --base 2,32,16,4                  # seconds, to try it out

One thing at a time is varied around a base shape; the others stay as they are. Models are BERTs of random weights,
heads of 32 dimensions, FFNs of four times the hidden size, a vocabulary of 1,000; rows all of one length; every
candidate is trained at every step, evenly spaced from 50 % to 95 %. In every round all sizes of a thing take a step in
turns. The slope is that of a straight line through the logarithms of the times of one round: 1 is linear growth, 2
quadratic. Beside it the slope of the step's FLOPs, which say how it would grow if nothing but matrix products cost.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rounds import CLOCKS, in_rounds, record, shown, spread, write
from steps import ALL, OurStep, padding_tokenizer, random_bert, random_rows, specs_of, step_flops

from minidisc.measure import Shape

HEAD, FFN, VOCABULARY = 32, 4, 1000
THINGS = ("layers", "hidden", "length", "rows", "candidates")
FACTORS = (0.5, 1.0, 2.0, 4.0)
CANDIDATES = (2, 3, 6, 12)


def sizes_of(thing: str, base: Mapping[str, int]) -> list[dict[str, int]]:
    """The base with other values of one thing."""
    values = CANDIDATES if thing == "candidates" else [round(factor * base[thing]) for factor in FACTORS]
    return [{**base, thing: value} for value in values]


class Sized:
    """A step of one size, ready to be timed."""

    def __init__(self, size: Mapping[str, int], work: Path) -> None:
        hidden, length = size["hidden"], size["length"]
        model = random_bert(size["layers"], hidden, max(1, hidden // HEAD), FFN * hidden, VOCABULARY, length).eval()
        candidates = specs_of(model, np.linspace(0.5, 0.95, size["candidates"]).tolist())
        rows = random_rows([length] * size["rows"], VOCABULARY)
        self._step = OurStep(model, candidates, rows, padding_tokenizer(), ALL, work, batch_size=size["rows"])
        self._batch = list(range(size["rows"]))
        shape: Shape = self._step.trainer._shape
        self.flops = step_flops(shape, candidates, size["rows"], length)

    def __call__(self, number: int) -> float:
        """One step."""
        self._step(self._batch)
        return 1.0


def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Of the straight line through their logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def measure(thing: str, base: Mapping[str, int], rounds: int) -> dict[str, Any]:
    """The times of a step over one thing's values, and how they grow."""
    sizes = sizes_of(thing, base)
    values = [size[thing] for size in sizes]
    with tempfile.TemporaryDirectory() as work:
        steps = {str(value): Sized(size, Path(work, str(value))) for value, size in zip(values, sizes, strict=True)}
        variants: dict[str, Callable[[int], float]] = dict(steps)
        times = in_rounds(variants, rounds, quiet=True)
    flops = [step.flops for step in steps.values()]
    return {
        "values": values,
        "seconds": {name: {clock: spread(own[clock]) for clock in CLOCKS} for name, own in times.items()},
        "flops": flops,
        "slope": {
            clock: spread([slope(values, [own[clock][i] for own in times.values()]) for i in range(rounds)])
            for clock in CLOCKS
        },
        "slope_of_flops": slope(values, flops),
    }


def page(content: dict[str, Any]) -> str:
    """The figures as Markdown."""
    about, base = content["record"], content["base"]
    shape = ", ".join(f"{name} {value}" for name, value in base.items())
    lines = [
        "# How the cost of a step grows",
        "",
        f"`{about['command']}`, {about['threads']} threads, {about['machine']}; other work on the machine at the same",
        f"time (load {about['load']:.1f}). Base: {shape}. Medians of {content['rounds']} rounds and, in brackets, the",
        "middle 80 % of them. What is varied and how: the script's first lines.",
        "",
        "| varied | values | ms a step | slope of time | of processor time | of FLOPs |",
        "|---|---|---|---|---|---|",
    ]
    for thing, own in content["things"].items():
        values = ", ".join(map(str, own["values"]))
        times = ", ".join(f"{1000 * value['wall']['median']:.1f}" for value in own["seconds"].values())
        slopes = f"{shown(own['slope']['wall'])} | {shown(own['slope']['processor'])} | {own['slope_of_flops']:.2f}"
        lines.append(f"| {thing} | {values} | {times} | {slopes} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="4,256,32,16", help="layers,hidden,length,rows")
    parser.add_argument("--candidates", type=int, default=6, help="of the base")
    parser.add_argument("--things", nargs="*", default=list(THINGS), choices=THINGS)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--target", type=Path, help="file for the figures, without .json and .md")
    options = parser.parse_args()
    numbers = [*map(int, options.base.split(",")), options.candidates]
    base = dict(zip(THINGS, numbers, strict=True))
    content: dict[str, Any] = {"record": record(), "base": base, "rounds": options.rounds}
    content["things"] = {thing: measure(thing, base, options.rounds) for thing in options.things}
    print(page(content))
    write(options.target, content, page(content))


if __name__ == "__main__":
    main()
