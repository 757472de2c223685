"""The evidence's plots, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from evidence_figures import Evidence, sizes
from evidence_page import percent

from minidisc.comparison.table import mean_and_error
from minidisc.files import new_file

matplotlib.use("svg")
from matplotlib import pyplot


def plot_choice(evidence: Evidence, path: Path) -> None:
    """Student's metric over its candidate's t_λ at λ = 0.2, with standard errors, one series a target."""
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
            axes.errorbar(x, y, **errors, fmt=marker, capsize=2, label=f"student at {percent(target)}")
            for candidate, a, b in zip(options, x, y, strict=True):
                axes.annotate(percent(candidate), (a, b), xytext=(4, 4), textcoords="offset points", fontsize=8)
    axes.set_xlabel("t_λ of the candidate (metric on selection rows + 0.2 · sparsity)")
    axes.set_ylabel("student's metric on the validation set")
    axes.set_title(f"{evidence.task.title}: candidates and their students")
    if axes.containers:
        figure.legend(loc="outside lower center", ncols=2)
    _save(figure, path)


def plot_fronts(all_tasks: Sequence[Evidence], latencies: Mapping[str, float], path: Path) -> None:
    """Metric over parameters and over milliseconds: the sizes of one sandwich, and each distilled alone.

    Args:
        all_tasks: those with seeds for which both are there.
        latencies: milliseconds of each network, by its name; the second column is left out where there are none.
        path: of the SVG.
    """
    fronts = [(evidence, found) for evidence in all_tasks if (found := sizes(evidence))]
    if not fronts:
        return
    matplotlib.rcParams["svg.hashsalt"] = "fronts"
    columns = 1 + bool(latencies)
    figure, grid = pyplot.subplots(
        len(fronts), columns, figsize=(4.6 * columns, 2.6 * len(fronts)), layout="constrained", squeeze=False
    )
    for (evidence, found), row in zip(fronts, grid, strict=True):
        teacher = evidence.contents[-1]["teacher"]
        millions = evidence.sizes_in_millions()
        places = [millions, {size: latencies.get(percent(size)) for size in millions}][:columns]
        ends = [teacher["sizes"]["without_embeddings"] / 1e6, latencies.get("teacher")]
        for axes, place, end in zip(row, places, ends, strict=False):
            shown = [size for size in map(float, found) if place.get(size) is not None]
            for kind, label, marker in (("sandwich", "all from one run", "o-"), ("alone", "each alone", "s--")):
                values = [found[f"{size:g}"][kind] for size in shown]
                errors = [error or 0 for _, error in values]
                x, y = [place[size] for size in shown], [mean for mean, _ in values]
                axes.errorbar(x, y, errors, fmt=marker, capsize=2, label=label)
            axes.plot([end], [teacher["metrics"]["metric"]], "k*", label="teacher")
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter("{x:g}")
            axes.tick_params(axis="x", which="both", labelsize=7)
            axes.set_title(evidence.task.title, fontsize=10)
            axes.set_ylabel("metric")
    for axes, label in zip(
        grid[-1], ("parameters without embeddings, millions", "ms, one row of 16 tokens, one thread"), strict=False
    ):
        axes.set_xlabel(label)
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    with new_file(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
    pyplot.close(figure)
