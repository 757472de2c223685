"""What commands print: progress with time left in a terminal, plain lines when piped."""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich import box
from rich.console import Console, ConsoleDimensions
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from minidisc import ranks
from minidisc.foreign_text import printable
from minidisc.quantities import parameters_text

if TYPE_CHECKING:
    from minidisc.comparison import Comparison
    from minidisc.finetuning import FinetuneResult
    from minidisc.pipeline import Plan
    from minidisc.preflight import Estimate
    from minidisc.results import CompressionResult, ModelResult

PLAIN_SECONDS = 10.0
_BROKEN = 12  # columns that are left of a name at least
_BETWEEN = 2  # columns of a terminal between those of a table


def quiet_libraries() -> None:
    """Silence what the libraries print about themselves; minidisc reports what the user can act on."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning)
    if "transformers" not in sys.modules:
        return  # it takes a second to import, and heeds the variables when it is
    from transformers.utils import logging

    logging.disable_progress_bar()


class Output:
    """Listens to a run and prints it; a context manager, so that the terminal is left in order.

    Args:
        quiet: print results and warnings alone, the warnings to stderr.
        as_json: print a result as one JSON object, and all else to stderr.
    """

    def __init__(self, quiet: bool = False, as_json: bool = False) -> None:
        self._json = as_json
        # Rank 0 speaks for all.
        silent = ranks.rank() > 0
        self.console = Console(highlight=False, quiet=silent)
        if not _is_live(self.console):
            # What reads a pipe has no width; the table must not be squeezed into a terminal's. Of a dumb terminal
            # rich takes the width that it is given only with a height.
            self.console.size = ConsoleDimensions(120, self.console.height)
        aside = Console(stderr=True, highlight=False, quiet=silent) if quiet or as_json else self.console
        self._warnings = aside
        self._progress = Console(quiet=True) if quiet else aside
        self._live = not quiet and _is_live(self._progress)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._progress,
            disable=not self._live,
        )

    def __enter__(self) -> Output:
        self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.stop()

    def note(self, message: str) -> None:
        """Print a line."""
        self._print(message, console=self._progress)

    def warn(self, message: str) -> None:
        """Print a warning."""
        self._print(f"warning: {message}", style="yellow", console=self._warnings)

    def estimated(self, value: Estimate) -> None:
        """Print the preflight's estimate."""
        self.note(_estimate_line(value))

    def plan(self, plan: Plan) -> None:
        """Print what a run would do."""
        if self._answered(asdict(plan)):
            return
        rows = [
            [
                _percent(spec.sparsity),
                str(sum(spec.heads)),
                str(sum(spec.neurons)),
                *map(parameters_text, (sizes.prunable, sizes.without_embeddings, sizes.all)),
            ]
            for spec, sizes in plan.candidates
        ]
        self._print_table(("size", "heads", "neurons", "prunable", "no emb.", "all"), rows)
        for number, (names, steps) in enumerate(zip(plan.stages, plan.steps, strict=True), start=1):
            self._print(f"stage {number}: {', '.join(names)}; at most {steps} steps")
        phases = (f"{name} {size / 2**30:.2f}" for name, size in plan.estimate.phases.items())
        self._print(f"tensors of each phase, GiB: {', '.join(phases)}")
        self._print(_estimate_line(plan.estimate))

    def cell(self, title: str, number: int, of: int, seconds_left: float | None) -> None:
        """Print which cell of a comparison begins, and how long all will take."""
        left = f", about {_duration(seconds_left)} left" if seconds_left is not None else ""
        self.note(f"cell {number}/{of}: {title}{left}")

    def comparison(self, comparison: Comparison) -> None:
        """Print the figures of a comparison, and what failed."""
        from minidisc.comparison.table import HEADINGS, cells_of

        content = comparison.content
        if self._answered(content):
            return
        metrics = content["task"]["metrics"]
        headings = ["method", "target", "seeds", *metrics, *HEADINGS]
        teacher = ["teacher", "", "", *(f"{content['teacher']['metrics'][m]:.3f}" for m in metrics)]
        rows = [cells_of(row, metrics) for row in comparison.rows]
        # Metrics, sizes and costs one below the other: side by side they are wider than a terminal.
        sizes, costs = headings.index("assistants"), headings.index("steps")
        title = "mean ± standard error over seeds, on the validation rows"
        self._print_table(headings[:sizes], [teacher, *(row[:sizes] for row in rows)], title)
        for part in (slice(sizes, costs), slice(costs, None)):
            self._print_table(headings[:2] + headings[part], [row[:2] + row[part] for row in rows])
        for cell, reason in comparison.failures.items():
            self._print(f"failed: {cell}: {reason}")
        self._print(f"table     {comparison.output_dir / 'compare.md'}, {comparison.output_dir / 'compare.json'}")

    def finetuned(self, result: FinetuneResult) -> None:
        """Print what `minidisc.finetuning.finetune` has made."""
        if self._answered({**asdict(result), "output_dir": str(result.output_dir)}):
            return
        self._print(f"teacher: {metrics_line(result.metrics)} on the validation rows; saved in {result.output_dir}")

    def evaluated(self, result: dict[str, Any], model: str) -> None:
        """Print what `minidisc.evaluation.evaluate` has found."""
        if self._answered(result):
            return
        each = f" of {result['tokens_per_row']} tokens" if result["tokens_per_row"] else ""
        trained = f", --max-length {result['max_length']} as in the model's training"
        self._print(
            f"{model}: {metrics_line(result['metrics'])} on {result['rows']} rows{each} of {result['source']}"
            f"{trained if result['max_length_from'] == 'model' else ''}"
        )

    def reported(self, file: Path) -> None:
        """Print where a report is."""
        if not self._answered({"report": str(file)}):
            self._print(f"report    {file}")

    def pushed(self, address: str) -> None:
        """Print where a model is on the Hub."""
        if not self._answered({"url": address}):
            self._print(f"pushed    {address}")

    def extracted(self, model: dict[str, Any]) -> None:
        """Print what `minidisc.sizes.extract_size` has taken out of a run."""
        if self._answered(model):
            return
        self._print(
            f"extracted {_percent(model['sparsity'])}: {metrics_line(model['selection_metrics'])} on the selection "
            f"rows; {parameters_text(model['sizes']['all'])} parameters; {model['path']}"
        )

    def exported(self, record: dict[str, Any], folder: str) -> None:
        """Print what `minidisc.exporting.export` has found."""
        if self._answered(record):
            return
        engines = record["engines"]
        tokens = record["timing"]["tokens"]
        metrics = [name for name in engines["pytorch"]["metrics"] if name != "metric"]
        table = Table(
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
            show_edge=False,
        )
        table.add_column("engine", no_wrap=True)
        batches = [f"{size} × {tokens[size]} tokens" for size in tokens]
        for heading in (*metrics, "largest logit difference", *batches, "MB"):
            table.add_column(heading, justify="right")
        for name, engine in engines.items():
            difference = engine.get("largest_difference")
            times = [engine["latency"][size] for size in tokens]
            table.add_row(
                name,
                *(f"{engine['metrics'][metric]:.4f}" for metric in metrics),
                "" if difference is None else f"{difference:.1e}",
                *(f"{time['milliseconds']:.2f} ({time['speedup']:.2f} ×)" for time in times),
                f"{engine['bytes'] / 1e6:.1f}",
            )
        self._print(
            f"on {record['rows']['count']} rows of {record['rows']['source']}; median times in ms on one thread, and "
            "how many times as fast as PyTorch"
        )
        self.console.print(table)
        if record["timing"]["busy"]:
            self.warn(
                "the machine was busy, and the times are longer than they need be; speedups are of processor time"
            )
        self._print(f"exported  {folder} ({Path(folder) / 'example.py'} shows how to use it)")

    def stage(self, name: str) -> Callable[..., None]:
        """A bar for this stage alone in a terminal; else a line every ten seconds and at every evaluation."""
        # A terminal has not room for many. What a stage has come to is in the lines of its evaluations.
        for before in self._bar.task_ids:
            self._bar.remove_task(before)
        task: TaskID | None = None  # none for a stage that is read back: it takes no step
        last = time.monotonic()
        first: tuple[int, float] | None = None  # step and time, once training goes: what comes before takes long

        def progress(step: int, total: int, loss: Any, metrics: dict[str, float] | None) -> None:
            nonlocal task, last, first
            if task is None:
                task = self._bar.add_task(printable(name), completed=step, total=total or None)
            self._bar.update(task, completed=step, total=total or None)
            now = time.monotonic()
            if metrics is not None:
                shown = "  ".join(f"{network} {metric:.3f}" for network, metric in metrics.items())
                self.note(f"{name} step {step}: {shown}")
            elif first is None:
                first = step, now
            elif not self._live and now - last >= PLAIN_SECONDS:
                last = now
                left = (now - first[1]) / (step - first[0]) * (total - step)
                self.note(f"{name} step {step}/{total}, loss {float(loss):.4f}, {_duration(left)} left")

        return progress

    def result(self, result: CompressionResult) -> None:
        """Print the candidate table, what was chosen from it and how surely, and the three-line summary."""
        if self._answered(result.results):
            return
        if result.candidates:
            self._print_candidates(result.candidates)
            if result.stages == 1:
                self._print("no assistant: --stages is 1")
            else:
                for line in _choices(result):
                    self._print(line)
        if (budget := result.results.get("budget")) is not None:
            sparsity, text = _percent(budget["sparsity"]), budget["reached"]["text"]
            self._print(f"budget    {budget['asked']}: {sparsity} sparsity; reached: {text}")
        cost = result.cost
        for assistant in result.assistants:
            self._print(f"assistant {_described(assistant)}")
        self._print(
            f"cost      {cost.steps} steps, {cost.flops:.2e} FLOPs, {_duration(cost.seconds)}, "
            f"{cost.peak_memory / 2**30:.1f} GiB at its peak"
        )
        self._print(f"teacher   {_described(result.teacher)}")
        self._print(f"student   {_described(result.student)}")
        self._print(f"report    {result.report}")

    def _print_candidates(self, candidates: Sequence[dict[str, Any]]) -> None:
        """Print the candidates in one table, or their sizes in one of their own where the terminal is too narrow."""
        headings = ["stage", "size", "metric", "95 %", "t_λ", "prob.", "prunable", "no emb.", "all"]
        rows = [
            [
                str(row["stage"]),
                ("→ " if row["chosen"] else "") + _percent(row["sparsity"]),
                f"{row['metric']:.4f}",
                "{:.3f}–{:.3f}".format(*row["interval"]),
                f"{row['tradeoff']:.4f}",
                f"{row['probability']:.2f}",
                *(parameters_text(row["sizes"][key]) for key in ("prunable", "without_embeddings", "all")),
            ]
            for row in candidates
        ]
        title = (
            "candidates: metric on the selection rows and its 95 % interval, tradeoff t_λ,\n"
            "probability of being chosen on other such rows, parameters in three ways"
        )
        fits = sum(_longest(headings, rows)) + _BETWEEN * (len(headings) - 1) <= self.console.width
        end = len(headings) if fits else headings.index("prunable")
        self._print_table(headings[:end], [row[:end] for row in rows], title)
        if not fits:
            self._print_table(headings[:2] + headings[end:], [row[:2] + row[end:] for row in rows])

    def _print_table(self, headings: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
        """Print a table in which names are broken where the terminal is too narrow for them; nothing is cut."""
        rows = [[printable(cell) for cell in row] for row in rows]
        if title:
            # Of its own: as the table's it would be broken where that ends.
            self.console.print(title, style="table.title", markup=False)
        table = Table(
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
            show_edge=False,
        )
        needed = 0
        for heading, longest in zip(headings, _longest(headings, rows), strict=True):
            breaks = heading in ("method", "assistants") and _is_live(self.console)
            justify: Literal["left", "right"] = "left" if heading == "method" else "right"
            table.add_column(heading, justify=justify, no_wrap=not breaks, overflow="fold")
            needed += _BETWEEN + (min(longest, _BROKEN) if breaks else longest)
        for row in rows:
            table.add_row(*row)
        self.console.width = max(self.console.width, needed)
        self.console.print(table)
        self.console.print()

    def _answered(self, result: Any) -> bool:
        """Print a result as JSON, if that was asked for; whether it was."""
        self._bar.stop()
        if self._json and ranks.rank() == 0:
            print(json.dumps(result))
        return self._json

    def _print(self, message: str, style: str | None = None, console: Console | None = None) -> None:
        # No wrapping and no markup: the lines are also read by other programs, and paths hold brackets.
        (console or self.console).print(printable(message), style=style, markup=False, soft_wrap=True)


def _is_live(console: Console) -> bool:
    """Whether what a console writes to is a terminal whose lines can be written anew.

    With FORCE_COLOR set rich takes a file for one too, which may have colours, but keeps every state of a bar.
    """
    return console.is_interactive and console.file.isatty()


def metrics_line(values: dict[str, float]) -> str:
    """``accuracy 0.812, f1 0.870``."""
    return ", ".join(f"{name} {value:.3f}" for name, value in values.items() if name != "metric")


def _choices(result: CompressionResult) -> list[str]:
    """For each sandwich a line: what was chosen from it, how surely, and which other λ would have chosen the same."""
    from minidisc.confidence import is_coin_toss
    from minidisc.selection import best_row, lambda_sweeps, range_of, tables_of

    if result.results["settings"]["assistants"]:
        return ["assistants as they were given"]
    if result.results["settings"].get("no_gap") == "assume":
        return ["no assistant, whatever the tradeoffs are"]
    lines = []
    tables, sweeps = tables_of(result.candidates), lambda_sweeps(result.candidates)
    for number, (table, sweep) in enumerate(zip(tables, sweeps, strict=True), start=1):
        row = best_row(table)
        same = range_of(sweep, result.results["settings"]["tradeoff_lambda"])
        own = "" if row["chosen"] else f", the student's own size, so there is no {'further ' * (number > 1)}assistant"
        lines.append(
            f"{f'sandwich {number}: ' if len(tables) > 1 else ''}chosen {_percent(row['sparsity'])}{own}; "
            f"probability {row['probability']:.2f}{', a coin toss' * is_coin_toss(row['probability'])}; "
            f"unchanged for λ from {same.lambda_from:.3g} to {same.lambda_to:.3g}"
        )
    return lines


def _longest(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(headings, *rows, strict=True)]


def _percent(sparsity: float) -> str:
    return f"{100 * sparsity:g} %"


def _described(model: ModelResult) -> str:
    sizes = model.sizes
    return (
        f"{metrics_line(model.metrics)} on validation; {parameters_text(sizes.prunable)} prunable, "
        f"{parameters_text(sizes.without_embeddings)} without embeddings, {parameters_text(sizes.all)} parameters; "
        f"{model.path}"
    )


def _estimate_line(value: Estimate) -> str:
    return (
        f"estimate: about {_duration(value.seconds)} ({_duration(value.cpu_seconds)} of processor time) on this "
        f"machine, {value.flops:.2g} FLOPs, {value.memory / 2**30:.2f} GiB of memory, "
        f"{value.disk / 2**30:.1f} GiB of disk while it runs"
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
