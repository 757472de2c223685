"""The tables and plots of `evidence.py`, from whatever cells are finished.

    python benchmarks/evidence_report.py --work runs/evidence --target results/evidence

writes TARGET.md, TARGET.json, which holds every cell, and a plot a task. Cells that TARGET.json holds already and that
are not in ``--work`` are kept, so that seeds and tasks can be added on another day.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from evidence import ABLATION, NO_ASSISTANT, PLAN, SANDWICH, STOP, Plan, direct
from scipy import stats

from minidisc.comparison import markdown, read_comparison
from minidisc.comparison.table import mean_and_error, summarise, with_error
from minidisc.files import new_file, read_json, write_json
from minidisc.selection import largest

# Settings that say where things lay, not what was done.
_PLACES = ("teacher", "data_dir", "output_dir", "train_file", "validation_file")
LAMBDAS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)


class Evidence:
    """The finished cells of one task."""

    def __init__(self, plan: Plan, name: str, content: dict[str, Any]) -> None:
        self.plan, self.name, self.content = plan, name, content
        self.task = plan.tasks[name]
        self.cells = {(c["method"], c["target_sparsity"], c["seed"]): c for c in content["cells"]}
        self.seeds = sorted({seed for *_, seed in self.cells})
        self.short, self.long = direct(self.task)

    def complete(self, target: float, methods: Iterable[str]) -> list[int]:
        """Seeds for which all these methods are finished."""
        return [s for s in self.seeds if all((m, target, s) in self.cells for m in methods)]

    def metric(self, method: str, target: float, seed: int) -> float:
        """A student's metric on the validation set."""
        return self.cells[method, target, seed]["metrics"]["metric"]

    def options(self, target: float) -> dict[float, str]:
        """What one sandwich lets one choose between: the method of each candidate, the student's own size last."""
        return {**self.plan.named(), target: NO_ASSISTANT}

    def tradeoff(self, candidate: float, target: float, seed: int, lam: float) -> float:
        """t_λ of a candidate in the sandwich, on the selection rows."""
        rows = self.cells["minidisc", target, seed]["candidates"]
        return next(row["metric"] for row in rows if row["sparsity"] == candidate) + lam * candidate

    def cpu(self, method: str, target: float, seed: int) -> float:
        """What a cell would cost alone."""
        return self.cells[method, target, seed]["cost"]["cpu_seconds"]


def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Rank correlation; None where all x or all y are equal."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(stats.spearmanr(x, y).statistic)


def finding(evidence: Evidence, target: float) -> dict[str, Any] | None:
    """Correlation, over the candidates, of t_λ with the student's metric; of means, and seed by seed."""
    options = evidence.options(target)
    seeds = evidence.complete(target, ["minidisc", *options.values()])
    if not seeds:
        return None
    students = [[evidence.metric(method, target, s) for method in options.values()] for s in seeds]
    found: dict[str, Any] = {"seeds": len(seeds), "students": [mean_and_error(x) for x in np.transpose(students)]}
    for lam in LAMBDAS:
        tradeoffs = [[evidence.tradeoff(c, target, s, lam) for c in options] for s in seeds]
        each = [spearman(t, m) for t, m in zip(tradeoffs, students, strict=True)]
        found[f"{lam:g}"] = {
            "of_means": spearman(np.mean(tradeoffs, 0), np.mean(students, 0)),
            "by_seed": mean_and_error([rho for rho in each if rho is not None]) if any(each) else None,
        }
    return found


def gains(evidence: Evidence, target: float) -> dict[float, tuple[float, float]] | None:
    """For each λ: the student of the candidate it chooses, less the mean one, and less the best one."""
    options = evidence.options(target)
    seeds = evidence.complete(target, ["minidisc", *options.values()])
    if not seeds:
        return None
    found = {}
    for lam in LAMBDAS:
        differences = []
        for seed in seeds:
            students = [evidence.metric(method, target, seed) for method in options.values()]
            tradeoffs = [evidence.tradeoff(c, target, seed, lam) for c in options]
            chosen = students[largest(tradeoffs, list(options))]
            differences.append((chosen - np.mean(students), chosen - max(students)))
        over_mean, over_best = np.mean(differences, 0)
        found[lam] = float(over_mean), float(over_best)
    return found


def against_all(evidence: Evidence, target: float) -> dict[str, Any] | None:
    """One trial against the search: the students' metrics, and the cost ratios."""
    chains = list(evidence.plan.chains().values())
    seeds = evidence.complete(target, ["minidisc", "maxidisc", *chains])
    rows = []
    for seed in seeds:
        tried = [evidence.metric(method, target, seed) for method in chains]
        one, search = (evidence.cells[m, target, seed]["cost"] for m in ("minidisc", "maxidisc"))
        rows.append(
            {
                "minidisc": evidence.metric("minidisc", target, seed),
                "maxidisc": evidence.metric("maxidisc", target, seed),
                "best": max(tried),
                "mean": float(np.mean(tried)),
                "flops": one["flops"] / search["flops"],
                "cpu_seconds": one["cpu_seconds"] / search["cpu_seconds"],
            }
        )
    return {"seeds": len(rows), **{key: mean_and_error([r[key] for r in rows]) for key in rows[0]}} if rows else None


def sizes(evidence: Evidence) -> dict[str, Any]:
    """Every size of the sandwich against the same size distilled alone with as many steps."""
    plan, found = evidence.plan, {}
    for size in (*plan.assistants, *plan.targets):
        pairs = []
        for seed in evidence.seeds:
            if size in plan.targets:
                methods, at = (SANDWICH, evidence.short), size
                one, alone = (evidence.cells.get((m, at, seed)) for m in methods)
                if one and alone:
                    stage = alone["stages"]["student"]
                    pairs.append((one["metrics"]["metric"], alone["metrics"]["metric"], stage["cpu_seconds"]))
            else:
                methods, at = (plan.named()[size], plan.chains()[size]), plan.targets[0]
                one, alone = (evidence.cells.get((m, at, seed)) for m in methods)
                if one and alone:
                    metrics = [cell["assistants"][0]["metrics"]["metric"] for cell in (one, alone)]
                    pairs.append((*metrics, alone["stages"][f"assistant-{100 * size:g}"]["cpu_seconds"]))
        if pairs:
            sandwich, alone_metric, cpu = np.transpose(pairs)
            found[f"{size:g}"] = {
                "seeds": len(pairs),
                "sandwich": mean_and_error(sandwich),
                "alone": mean_and_error(alone_metric),
                "difference": mean_and_error(sandwich - alone_metric),
                "alone_cpu_seconds": mean_and_error(cpu),
            }
    return found


def against_none(evidence: Evidence, target: float) -> dict[str, Any]:
    """Students with and without an assistant: metrics, and the CPU seconds that each would cost alone."""
    found = {}
    for method in (
        "minidisc",
        STOP,
        SANDWICH,
        NO_ASSISTANT,
        evidence.short,
        evidence.long,
        "direct:flops_of=minidisc",
    ):
        seeds = evidence.complete(target, [method, "minidisc", evidence.long])
        if seeds:
            less = [evidence.metric(method, target, s) - evidence.metric(evidence.long, target, s) for s in seeds]
            found[method] = {
                "seeds": len(seeds),
                "metric": mean_and_error([evidence.metric(method, target, s) for s in seeds]),
                "less_direct": mean_and_error(less),
                "cpu_seconds": mean_and_error([evidence.cpu(method, target, s) for s in seeds]),
            }
    return found


def ablation(evidence: Evidence, target: float) -> dict[str, tuple[float, float]]:
    """For every variant its student's metric and CPU seconds less those of what it varies, means over seeds."""
    found = {}
    for base, variants in ABLATION.items():
        for variant in variants:
            seeds = evidence.complete(target, [base, variant])
            if seeds:
                found[variant] = tuple(
                    float(np.mean([of(variant, target, s) - of(base, target, s) for s in seeds]))
                    for of in (evidence.metric, evidence.cpu)
                )
    return found


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table in Markdown."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)] + [""]


def _pairs(all_tasks: Sequence[Evidence], part: Callable[[Evidence, float], Any]) -> list[tuple[Evidence, float, Any]]:
    found = [(evidence, target, part(evidence, target)) for evidence in all_tasks for target in evidence.plan.targets]
    return [(evidence, target, value) for evidence, target, value in found if value]


def _percent(sparsity: float) -> str:
    return f"{100 * sparsity:g} %"


def page(all_tasks: Sequence[Evidence], figures: dict[str, Any]) -> list[str]:
    """The sections of the page; ``figures`` takes the same numbers."""
    lines = ["## Is a student better whose assistant has a better tradeoff?", ""]
    lines += [
        "The candidates of one sandwich, the student's own size (trained on against the teacher) among them, and a "
        "student through each. Spearman's correlation of the student's metric with its candidate's t_λ: of the means "
        "over seeds, and in brackets the mean ± standard error of each seed's own.",
        "",
    ]
    found = _pairs(all_tasks, finding)
    figures["finding"] = [{"task": e.name, "target": t, **value} for e, t, value in found]
    rows = []
    for evidence, target, value in found:
        shown = []
        for lam in LAMBDAS:
            rho = value[f"{lam:g}"]
            mean = "" if rho["of_means"] is None else f"{rho['of_means']:.2f}"
            shown.append(f"{mean} ({with_error(rho['by_seed'], 2)})" if rho["by_seed"] else mean)
        rows.append([evidence.task.title, _percent(target), str(value["seeds"]), *shown])
    lines += table(["task", "target", "seeds", *(f"λ = {lam:g}" for lam in LAMBDAS)], rows)
    lines += ["The students themselves, by their assistant:", ""]
    if found:
        names = [_percent(a) for a in all_tasks[0].plan.assistants]
        rows = [[e.task.title, _percent(t), *(with_error(x) for x in value["students"])] for e, t, value in found]
        lines += table(["task", "target", *names, "none, trained on"], rows)

    gained = _pairs(all_tasks, gains)
    if gained:
        lines += [
            "What choosing by t_λ gains over choosing blindly, and loses against the best choice there was; means and "
            f"standard errors over {len(gained)} pairs of task and target:",
            "",
        ]
        columns = {lam: np.transpose([value[lam] for *_, value in gained]) for lam in LAMBDAS}
        figures["choice"] = {f"{lam:g}": [mean_and_error(list(c)) for c in pair] for lam, pair in columns.items()}
        rows = [
            [name, *(with_error(figures["choice"][f"{lam:g}"][i], 4) for lam in LAMBDAS)]
            for i, name in enumerate(("over the mean", "over the best"))
        ]
        lines += table(["", *(f"λ = {lam:g}" for lam in LAMBDAS)], rows)

    searched = _pairs(all_tasks, against_all)
    if searched:
        lines += ["## One trial against all", ""]
        lines += [
            "The search's student is the one it picks on the selection rows; the best is so on the validation set.",
            "",
        ]
        figures["against_all"] = [{"task": e.name, "target": t, **value} for e, t, value in searched]
        rows = [
            [
                evidence.task.title,
                _percent(target),
                str(value["seeds"]),
                *(with_error(value[key]) for key in ("minidisc", "maxidisc", "best", "mean")),
                *(with_error(value[key], 2) for key in ("flops", "cpu_seconds")),
            ]
            for evidence, target, value in searched
        ]
        head = ["task", "target", "seeds", "minidisc", "maxidisc", "best of all", "mean of all"]
        lines += table([*head, "FLOPs, one : all", "CPU s, one : all"], rows)

    lines += ["## Every size from one run", ""]
    lines += ["A candidate of the sandwich, and a network of its size distilled alone with as many steps.", ""]
    every = [(evidence, sizes(evidence)) for evidence in all_tasks]
    figures["sizes"] = {evidence.name: value for evidence, value in every}
    lines += table(
        ["task", "size", "seeds", "sandwich", "alone", "difference", "CPU s alone"],
        [
            [
                evidence.task.title,
                _percent(float(size)),
                str(row["seeds"]),
                *(with_error(row[key]) for key in ("sandwich", "alone", "difference")),
                with_error(row["alone_cpu_seconds"], 0),
            ]
            for evidence, value in every
            for size, row in value.items()
        ],
    )

    lines += ["## Against no assistant", ""]
    lines += [
        f"`{SANDWICH}` is the student as the sandwich leaves it, after one stage's steps; `{NO_ASSISTANT}` trains it "
        "on against the teacher for another stage's. The difference is to direct distillation with two stages' steps, "
        "seed by seed. Embeddings are frozen for all.",
        "",
    ]
    compared = _pairs(all_tasks, against_none)
    figures["against_none"] = [{"task": e.name, "target": t, "methods": value} for e, t, value in compared]
    lines += table(
        ["task", "target", "seeds", "method", "metric", "difference", "CPU s"],
        [
            [
                evidence.task.title,
                _percent(target),
                str(row["seeds"]),
                f"`{method}`",
                with_error(row["metric"]),
                with_error(row["less_direct"]),
                with_error(row["cpu_seconds"], 0),
            ]
            for evidence, target, value in compared
            for method, row in value.items()
        ],
    )
    varied = _pairs(all_tasks, ablation)
    if varied:
        lines += ["## Variants", ""]
        lines += [
            "Metric and CPU seconds less those of the method that a variant differs from in one setting: means over "
            "seeds, then mean ± standard error over pairs of task and target.",
            "",
        ]
        figures["ablation"] = [{"task": e.name, "target": t, "variants": value} for e, t, value in varied]
        rows = []
        for base, variants in ABLATION.items():
            for variant in variants:
                differences = [value[variant] for *_, value in varied if variant in value]
                if differences:
                    metric, cpu = (mean_and_error(list(column)) for column in zip(*differences, strict=True))
                    rows.append([f"`{variant}`", f"`{base}`", str(len(differences)), with_error(metric)])
                    rows[-1].append(with_error(cpu, 0))
        lines += table(["variant", "of", "pairs", "metric", "CPU s"], rows)
    return lines


def gather(plan: Plan, work: Path, target: Path) -> list[Evidence]:
    """Cells of ``work``, and those that were committed earlier."""
    earlier = read_json(target.with_suffix(".json"))["tasks"] if target.with_suffix(".json").is_file() else {}
    found = []
    for name in plan.tasks:
        folder = work / name / "comparison"
        contents = [earlier[name]] if name in earlier else []
        if (folder / "compare.json").is_file():
            contents.append(read_comparison(folder).content)
        if contents:
            cells = {
                (c["method"], c["target_sparsity"], c["seed"]): c for content in contents for c in content["cells"]
            }
            kept = {key: contents[-1][key] for key in ("task", "rows", "versions")}
            kept["teacher"] = {key: contents[-1]["teacher"][key] for key in ("metrics", "sizes")}
            kept["settings"] = {key: v for key, v in contents[-1]["settings"].items() if key not in _PLACES}
            found.append(Evidence(plan, name, {**kept, "cells": list(cells.values())}))
    return found


def write(plan: Plan, work: Path, target: Path, command: str) -> None:
    """Write TARGET.json, TARGET.md and TARGET-TASK.svg."""
    all_tasks = gather(plan, work, target)
    figures: dict[str, Any] = {"command": command, "tasks": {e.name: e.content for e in all_tasks}}
    lines = [
        "# Evidence",
        "",
        f"Made by `{command}` (see the script's first lines) and `benchmarks/evidence_report.py`. Teachers are "
        "fine-tuned all-MiniLM-L6-v2; metrics are the benchmark's, in [0, 1], mean ± standard error over seeds.",
        "",
        *page(all_tasks, figures),
        "## Everything",
        "",
    ]
    for evidence in all_tasks:
        content = {**evidence.content, "failures": {}}
        content["task"] = {**content["task"], "name": evidence.task.title}
        content["table"] = summarise(content["cells"], sorted({c["method"] for c in content["cells"]}))
        lines.append(markdown(content).replace("# ", "### ", 1))
        plot(evidence, target.with_name(f"{target.name}-{evidence.name}.svg"))
    with new_file(target.with_suffix(".md")) as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")
    write_json(target.with_suffix(".json"), figures)


def plot(evidence: Evidence, path: Path) -> None:
    """Student's metric over its candidate's t_λ at λ = 0.2, with standard errors, one series a target."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = evidence.name
    figure, axes = pyplot.subplots(figsize=(5.6, 3.9), layout="constrained")
    for target, marker in zip(evidence.plan.targets, "os^", strict=False):
        options = evidence.options(target)
        seeds = evidence.complete(target, ["minidisc", *options.values()])
        if seeds:
            found = [
                [mean_and_error([evidence.tradeoff(c, target, s, 0.2) for s in seeds]) for c in options],
                [mean_and_error([evidence.metric(m, target, s) for s in seeds]) for m in options.values()],
            ]
            (x, dx), (y, dy) = ([*zip(*axis, strict=True)] for axis in found)
            errors = {"xerr": dx, "yerr": dy} if len(seeds) > 1 else {}
            axes.errorbar(x, y, **errors, fmt=marker, capsize=2, label=f"student at {_percent(target)}")
            for candidate, a, b in zip(options, x, y, strict=True):
                axes.annotate(_percent(candidate), (a, b), xytext=(4, 4), textcoords="offset points", fontsize=8)
    axes.set_xlabel("t_λ of the candidate (metric on selection rows + 0.2 · sparsity)")
    axes.set_ylabel("student's metric on the validation set")
    axes.set_title(f"{evidence.task.title}: candidates of one sandwich and their students")
    figure.legend(loc="outside lower center", ncols=2)
    with new_file(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
    pyplot.close(figure)


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--target", type=Path, required=True)
    options = parser.parse_args()
    command = "OMP_NUM_THREADS=1 python benchmarks/evidence.py --data-dir DIR --work runs/evidence"
    write(PLAN, options.work, options.target, command)


if __name__ == "__main__":
    main()
