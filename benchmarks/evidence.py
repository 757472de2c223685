"""Does the assistant that one trial finds hold up against trying them all, and against none?

    python benchmarks/evidence.py --data-dir DIR --work runs/evidence --tasks mrpc stsb --seeds 0 1 2
    python benchmarks/evidence.py --work runs/evidence --report results/evidence

The first form trains what is missing (a killed one goes on); start it twice with different tasks to use two cores, and
set OMP_NUM_THREADS=1 then. The second writes the tables and a plot a task from whatever is finished.

Teacher, rows (at most 4,000), batches, learning rate and steps of a stage are the same for all methods of a task;
nothing stops early. Metrics are on the benchmark's validation sets, which neither training nor selection has seen;
the tradeoff of an assistant is from the selection rows.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from tasks import Cell, Printer, prepare

from minidisc.comparison import compare, markdown, read_comparison
from minidisc.comparison.table import mean_and_error, with_error
from minidisc.config import CompareSettings
from minidisc.files import new_file, write_json

SANDWICH = "minidisc:stages=1"  # the student as the sandwich leaves it
NO_ASSISTANT = "minidisc:tradeoff_lambda=1:no_gap=train"  # it is trained on, against the teacher
LAMBDAS = (0.0, 0.1, 0.2, 0.3, 0.5, 1.0)


@dataclass(frozen=True)
class Plan:
    """What is compared: tasks, assistants, targets."""

    tasks: dict[str, Cell]
    assistants: tuple[float, ...]
    targets: tuple[float, ...]
    batch_size: int

    def named(self) -> dict[float, str]:
        """The method that takes each assistant from the sandwich, whatever its tradeoff."""
        return {a: f"minidisc:assistants={a:g}" for a in self.assistants}

    def chains(self) -> dict[float, str]:
        """The method that trains each assistant, and then the student, alone."""
        return {a: f"chain:assistants={a:g}" for a in self.assistants}

    def methods(self, cell: Cell, search: bool = True) -> tuple[str, ...]:
        """No assistant; one trial, and all that it could have chosen; the search, and all that it tries."""
        one = (*direct(cell), "minidisc", SANDWICH, NO_ASSISTANT, *self.named().values())
        return (*one, "maxidisc", *self.chains().values()) if search else one


PLAN = Plan(
    {
        "mrpc": Cell("MRPC", 3, 5e-5, 16, 600, 3e-4, task="glue/mrpc"),
        "stsb": Cell("STS-B", 3, 5e-5, 16, 600, 3e-4, rows=4000, task="glue/stsb"),
        "mnli": Cell("MNLI (a part)", 3, 5e-5, 16, 600, 3e-4, rows=4000, task="glue/mnli"),
        "sst2": Cell("SST-2", 3, 5e-5, 16, 600, 3e-4, rows=4000, task="glue/sst2"),
        "qnli": Cell("QNLI (a part)", 3, 5e-5, 16, 600, 3e-4, rows=4000, task="glue/qnli"),
        "rte": Cell("RTE", 3, 5e-5, 16, 600, 3e-4, task="glue/rte"),
        "cola": Cell("CoLA", 3, 5e-5, 16, 600, 3e-4, rows=4000, task="glue/cola"),
        "conll2003": Cell("CoNLL-2003", 3, 3e-4, 16, 600, 3e-4, rows=4000, task="conll2003"),
    },
    assistants=(0.5, 0.6, 0.7, 0.8),
    targets=(0.9, 0.95),
    batch_size=16,
)


def direct(cell: Cell) -> tuple[str, str]:
    """No assistant, with the steps of one stage and of two."""
    return "direct", f"direct:max_steps={2 * cell.steps}"


def run(
    plan: Plan,
    name: str,
    seeds: Sequence[int],
    shared: dict[str, Any],
    work: Path,
    listener: Any,
    search: bool = True,
) -> None:
    """Train the cells of a task that are missing; ``shared`` are the settings that `tasks.prepare` gave."""
    folder = work / name / "comparison"
    compare(
        settings=CompareSettings(
            **shared,
            output_dir=str(folder),
            methods=plan.methods(plan.tasks[name], search),
            seeds=tuple(seeds),
            target_sparsities=plan.targets,
            grid=plan.assistants,
            batch_size=plan.batch_size,
            learning_rate=plan.tasks[name].learning_rate,
            max_steps=plan.tasks[name].steps,
            train_embeddings=False,
            teacher_cache=8.0,
            patience=1000,
            keep_checkpoints=True,
        ),
        resume=True,
        listener=listener,
    )
    # Gigabytes, and quickly computed again.
    shutil.rmtree(folder / "checkpoints" / "outputs", ignore_errors=True)


def points(
    plan: Plan, cells: Sequence[dict[str, Any]], target: float, lam: float
) -> dict[float, tuple[list[float], list[float]]]:
    """For every assistant: its t_λ in the sandwich, and its student's metric, seed by seed."""
    found: dict[float, tuple[list[float], list[float]]] = {}
    by_key = {(c["method"], c["target_sparsity"], c["seed"]): c for c in cells}
    for assistant, method in plan.chains().items():
        for seed in sorted({c["seed"] for c in cells}):
            one, chain = by_key.get(("minidisc", target, seed)), by_key.get((method, target, seed))
            if one and chain:
                (row,) = [r for r in one["candidates"] if r["sparsity"] == assistant]
                tradeoffs, students = found.setdefault(assistant, ([], []))
                tradeoffs.append(row["metric"] + lam * assistant)
                students.append(chain["metrics"]["metric"])
    return found


def correlation(found: dict[float, tuple[list[float], list[float]]]) -> float | None:
    """Spearman's correlation over the assistants, of means over seeds; None where it is not defined."""
    if len(found) < 3:
        return None
    tradeoffs, students = zip(*((np.mean(t), np.mean(s)) for t, s in found.values()), strict=True)
    if np.ptp(tradeoffs) == 0 or np.ptp(students) == 0:
        return None
    return float(stats.spearmanr(tradeoffs, students).statistic)


def against_all(plan: Plan, cells: Sequence[dict[str, Any]], target: float) -> dict[str, Any] | None:
    """One trial against the search: metrics of the best, the mean and the searched student, and the cost ratios."""
    rows = []
    for seed in sorted({c["seed"] for c in cells}):
        own = {c["method"]: c for c in cells if (c["target_sparsity"], c["seed"]) == (target, seed)}
        chains = [own[m]["metrics"]["metric"] for m in plan.chains().values() if m in own]
        if len(chains) == len(plan.assistants) and {"minidisc", "maxidisc"} <= own.keys():
            one, search = own["minidisc"], own["maxidisc"]
            rows.append(
                {
                    "minidisc": one["metrics"]["metric"],
                    "searched": search["metrics"]["metric"],
                    "best": max(chains),
                    "mean": float(np.mean(chains)),
                    "flops": one["cost"]["flops"] / search["cost"]["flops"],
                    "cpu_seconds": one["cost"]["cpu_seconds"] / search["cost"]["cpu_seconds"],
                }
            )
    return {key: mean_and_error([row[key] for row in rows]) for key in rows[0]} if rows else None


def report(plan: Plan, work: Path, target: Path, command: str) -> None:
    """Write TARGET.json, TARGET.md and TARGET-TASK.svg."""
    contents = {
        name: read_comparison(work / name / "comparison").content
        for name in plan.tasks
        if (work / name / "comparison" / "compare.json").is_file()
    }
    lines = [
        f"Made by `{command} --tasks {' '.join(contents)}` (see the script's first lines). Teachers are fine-tuned "
        "all-MiniLM-L6-v2.",
        "",
        "## The finding: is a student better whose assistant has a better tradeoff?",
        "",
        f"Spearman's correlation of the student's metric against its assistant's t_λ over the assistants "
        f"{', '.join(f'{100 * a:g}' for a in plan.assistants)} %, means over seeds.",
        "",
        "| task | target | seeds | " + " | ".join(f"λ = {lam:g}" for lam in LAMBDAS) + " |",
        "|---" * (3 + len(LAMBDAS)) + "|",
    ]
    figures: dict[str, Any] = {}
    for name, content in contents.items():
        for sparsity in plan.targets:
            found = {lam: correlation(points(plan, content["cells"], sparsity, lam)) for lam in LAMBDAS}
            shown = ["" if value is None else f"{value:.2f}" for value in found.values()]
            seeds = len({c["seed"] for c in content["cells"] if c["target_sparsity"] == sparsity})
            lines.append(f"| {plan.tasks[name].title} | {100 * sparsity:g} % | {seeds} | " + " | ".join(shown) + " |")
            figures.setdefault(name, {})[f"{sparsity:g}"] = {"spearman": {f"{k:g}": v for k, v in found.items()}}
    lines += [
        "",
        "## One trial against all",
        "",
        "The search's student is the one it picks on the selection rows; the best is the best on the validation set.",
        "",
        "| task | target | minidisc | maxidisc | best of all | mean of all | FLOPs, one : all | CPU s, one : all |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, content in contents.items():
        for sparsity in plan.targets:
            row = against_all(plan, content["cells"], sparsity)
            if row:
                shown = [with_error(row[key]) for key in ("minidisc", "searched", "best", "mean")]
                shown += [with_error(row[key], 2) for key in ("flops", "cpu_seconds")]
                lines.append(f"| {plan.tasks[name].title} | {100 * sparsity:g} % | " + " | ".join(shown) + " |")
                figures[name][f"{sparsity:g}"]["against_all"] = row
    lines += ["", "## Everything", ""]
    for name, content in contents.items():
        content["task"]["name"] = plan.tasks[name].title
        lines.append(markdown(content).replace("# ", "### ", 1))
        figures[name]["table"], figures[name]["versions"] = content["table"], content["versions"]
        figures[name]["cells"] = content["cells"]
        plot(plan, content, name, target.with_name(f"{target.name}-{name}.svg"))
    with new_file(target.with_suffix(".md")) as temporary:
        temporary.write_text("# Evidence\n\n" + "\n".join(lines), encoding="utf-8")
    write_json(target.with_suffix(".json"), figures)


def plot(plan: Plan, content: dict[str, Any], name: str, path: Path) -> None:
    """Student's metric over its assistant's t_λ at λ = 0.2, with standard errors, one series a target."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5.2, 3.7), layout="constrained")
    for sparsity, marker in zip(plan.targets, "os", strict=False):
        found = points(plan, content["cells"], sparsity, 0.2)
        if found:
            x, dx = zip(*(mean_and_error(t) for t, _ in found.values()), strict=True)
            y, dy = zip(*(mean_and_error(s) for _, s in found.values()), strict=True)
            errors = {"xerr": dx, "yerr": dy} if None not in (*dx, *dy) else {}
            axes.errorbar(x, y, **errors, fmt=marker, capsize=2, label=f"student at {100 * sparsity:g} %")
            for assistant, a, b in zip(found, x, y, strict=True):
                axes.annotate(f"{100 * assistant:g} %", (a, b), xytext=(4, 4), textcoords="offset points")
    axes.set_xlabel("t_λ of the assistant (metric on selection rows + 0.2 · sparsity)")
    axes.set_ylabel("student's metric on the validation set, in [0, 1]")
    axes.set_title(f"{plan.tasks[name].title}: assistants and their students")
    axes.legend()
    with new_file(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
    pyplot.close(figure)


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data-dir")
    parser.add_argument("--tasks", nargs="*", default=list(PLAN.tasks), choices=list(PLAN.tasks))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--without-search", action="store_true", help="leave the search's cells for later")
    parser.add_argument("--report", type=Path, help="write REPORT.json, REPORT.md and the plots instead of training")
    options = parser.parse_args()
    if options.report:
        command = "OMP_NUM_THREADS=1 python benchmarks/evidence.py --data-dir DIR --work runs/evidence"
        report(PLAN, options.work, options.report, command)
        sys.exit()
    for name in options.tasks:
        shared = prepare(name, PLAN.tasks[name], options.work, options.data_dir)
        run(PLAN, name, options.seeds, shared, options.work, Printer(name), not options.without_search)


if __name__ == "__main__":
    main()
