"""The table of a comparison: means and standard errors over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minidisc.errors import UserError
from minidisc.files import read_json
from minidisc.foreign_text import in_markdown
from minidisc.quantities import parameters_text

_COSTS = ("steps", "flops", "seconds", "cpu_seconds", "peak_memory")


@dataclass(frozen=True)
class Comparison:
    """A comparison's folder, the content of its ``compare.json``, and the cells that failed, with the reason."""

    output_dir: Path
    content: dict[str, Any]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row for every method at every target."""
        return self.content["table"]

    @property
    def failures(self) -> dict[str, str]:
        """Cells that could not be finished, and why."""
        return self.content["failures"]


def read_comparison(folder: Path) -> Comparison:
    """What a comparison has found so far.

    Raises:
        UserError: the folder holds none.
    """
    if not (folder / "compare.json").is_file():
        raise UserError(f"{folder} holds no comparison; give the --output-dir of 'minidisc compare'.")
    return Comparison(folder, read_json(folder / "compare.json"))


def cell_title(method: str, target: float, seed: int) -> str:
    """How a cell is called where it is begun, or failed."""
    return f"{method} at {100 * target:g} %, seed {seed}"


def of_cells(cells: Iterable[dict[str, Any]], settings: dict[str, Any], methods: Sequence[str]) -> dict[str, Any]:
    """What a comparison says of its cells: their table, they themselves in its order, and what its settings name.

    ``methods`` come in this order, and then those that are in the cells alone.
    """
    cells = list(cells)
    order = list(dict.fromkeys([*methods, *sorted(cell["method"] for cell in cells)]))
    cells.sort(key=lambda cell: (cell["seed"], cell["target_sparsity"], order.index(cell["method"])))
    named = {"methods": order} | {
        name: sorted({*settings[name], *(cell[key] for cell in cells)})
        for name, key in (("seeds", "seed"), ("target_sparsities", "target_sparsity"))
    }
    return {"table": summarise(cells, order), "cells": cells, "settings": {**settings, **named}}


def summarise(cells: Sequence[dict[str, Any]], methods: Sequence[str]) -> list[dict[str, Any]]:
    """A row for every target and method, methods in the given order.

    ``metrics``, ``sizes`` and ``cost`` hold (mean, standard error over seeds or None for one seed);
    ``assistant_metrics`` those of the assistant before the student, over the seeds that have one.
    """
    rows = []
    for target in sorted({cell["target_sparsity"] for cell in cells}):
        for method in methods:
            found = [cell for cell in cells if (cell["method"], cell["target_sparsity"]) == (method, target)]
            if found:
                rows.append(
                    {
                        "method": method,
                        "target_sparsity": target,
                        "seeds": [cell["seed"] for cell in found],
                        **{
                            part: {key: mean_and_error([cell[part][key] for cell in found]) for key in found[0][part]}
                            for part in ("metrics", "selection_metrics", "sizes")
                        },
                        "assistants": [[a["sparsity"] for a in cell["assistants"]] for cell in found],
                        "assistant_metrics": _last_assistants(found),
                        "cost": {key: mean_and_error([cell["cost"][key] for cell in found]) for key in _COSTS},
                    }
                )
    return rows


def _last_assistants(cells: Sequence[dict[str, Any]]) -> dict[str, tuple[float, float | None]]:
    last = [cell["assistants"][-1]["metrics"] for cell in cells if cell["assistants"]]
    return {key: mean_and_error([metrics[key] for metrics in last]) for key in last[0]} if last else {}


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and standard error of the mean; None where there is one value only."""
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return float(np.mean(values)), error


HEADINGS = (
    "assistants",
    "prunable",
    "no embed.",
    "all",
    "steps",
    "FLOPs",
    "seconds",
    "CPU seconds",
    "GiB",
)


def cells_of(row: dict[str, Any], metrics: Sequence[str]) -> list[str]:
    """The texts of a row: method, target, metrics, then what `HEADINGS` name."""
    cost, sizes = row["cost"], row["sizes"]
    chosen = ["+".join(f"{100 * s:g}" for s in seed) or "none" for seed in row["assistants"]]
    return [
        row["method"],
        f"{100 * row['target_sparsity']:g} %",
        str(len(row["seeds"])),
        *(with_error(row["metrics"][metric]) for metric in metrics),
        ", ".join(chosen) if any(row["assistants"]) else "",
        *(parameters_text(sizes[key][0]) for key in ("prunable", "without_embeddings", "all")),
        f"{cost['steps'][0]:.0f}",
        f"{cost['flops'][0]:.2e}",
        with_error(cost["seconds"], 0),
        with_error(cost["cpu_seconds"], 0),
        f"{cost['peak_memory'][0] / 2**30:.1f}",
    ]


def with_error(value: Sequence[float | None], digits: int = 3) -> str:
    """``0.812 ± 0.004``."""
    mean, error = value
    return f"{mean:.{digits}f}" + (f" ± {error:.{digits}f}" if error is not None else "")


def markdown(content: dict[str, Any]) -> str:
    """The comparison as a page."""
    metrics, rows, settings = content["task"]["metrics"], content["rows"], content["settings"]
    teacher = content["teacher"]
    steps = f"{settings['max_steps']} steps" if settings["max_steps"] else f"{settings['epochs']:g} epochs"
    # Settings of older versions do not have it.
    batches = settings.get("gradient_accumulation_steps", 1)
    batch = f"{settings['batch_size']}" + (f" × {batches}" if batches != 1 else "")
    machines = sorted({cell["machine"] for cell in content["cells"]})
    lines = [
        f"# {in_markdown(content['task']['name'])}",
        "",
        f"{rows['train']['count']} training rows, {rows['selection']['count']} for selection; metrics on "
        f"{rows['validation']['count']} rows of {in_markdown(rows['validation']['source'])}, "
        "mean ± standard error over seeds. "
        f"Batch {batch}, learning rate {settings['learning_rate']:g}, {steps} a stage. What cells "
        f"share, such as one sandwich with all targets' sizes, counts for each of them. "
        f"{in_markdown('; '.join(machines))}.",
        "",
        "| method | target | seeds | " + " | ".join((*metrics, *HEADINGS)) + " |",
        "|---" * (3 + len(metrics) + len(HEADINGS)) + "|",
        "| teacher | | | "
        + " | ".join(f"{teacher['metrics'][m]:.3f}" for m in metrics)
        + " | | "
        + " | ".join(parameters_text(teacher["sizes"][k]) for k in ("prunable", "without_embeddings", "all"))
        + " | | | | | |",
    ]
    for row in content["table"]:
        method, *figures = cells_of(row, metrics)
        lines.append("| " + " | ".join((in_markdown(method), *figures)) + " |")
        if row["assistant_metrics"]:
            count = sum(1 for seed in row["assistants"] if seed)
            own = " | ".join(with_error(row["assistant_metrics"][metric]) for metric in metrics)
            lines.append(f"| its assistant | | {count} | {own} |" + " |" * len(HEADINGS))
    # Comparisons of older versions have none.
    if content.get("warnings"):
        lines += ["", "Warnings:", ""] + [f"- {in_markdown(line)}" for line in content["warnings"]]
    if content["failures"]:
        lines += ["", "Failed:", ""] + [
            f"- {in_markdown(f'{cell}: {reason}')}" for cell, reason in content["failures"].items()
        ]
    return "\n".join(lines) + "\n"
