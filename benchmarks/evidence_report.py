"""The tables and plots of `evidence.py`, from whatever cells are finished.

    python benchmarks/evidence_report.py --work runs/evidence --target results/evidence

writes TARGET.md, TARGET.json, which holds every cell, a plot a task, and the fronts. Cells that TARGET.json holds
already and that are in no ``--work`` are kept, so that seeds and tasks can be added on another day. A teacher that
was fine-tuned anew is the same but for rounding. Should another processor's rounding have made another one of it, its
cells are compared with each other alone, seed by seed, and means are over the seeds of both.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from evidence import COMPARISON, COMPARISON_UNLABELLED, PARTS, PLAN, UNLABELLED, Plan
from evidence_figures import Evidence, on_gpu
from evidence_page import page
from evidence_plots import plot_choice, plot_fronts

from minidisc.comparison import markdown, read_comparison
from minidisc.comparison.gathering import check_targets
from minidisc.comparison.methods import read_method
from minidisc.comparison.table import summarise
from minidisc.errors import UserError
from minidisc.files import new_file, read_json, write_json

# Settings that say where things lay, not what was done.
_PLACES = ("teacher", "data_dir", "output_dir", "train_file", "validation_file")


def gather(plan: Plan, works: Sequence[Path], target: Path) -> list[Evidence]:
    """Cells of all ``works``, and those that were committed earlier.

    Raises:
        UserError: seeds of one teacher are of sandwiches for other targets.
    """
    earlier = read_json(target.with_suffix(".json"))["tasks"] if target.with_suffix(".json").is_file() else {}
    found = []
    for name in plan.tasks:
        contents = list(earlier.get(name, []))
        for work in works:
            if (work / name / COMPARISON / "compare.json").is_file():
                contents = _with(contents, _content(work / name))
        for each in contents:
            # What importance goes by is no method's setting, and its cells are compared with the others.
            check_targets({**cell, "method": cell["method"].removesuffix(UNLABELLED)} for cell in each["cells"])
        if contents:
            found.append(Evidence(plan, name, contents))
    return found


def _with(contents: list[dict[str, Any]], content: dict[str, Any]) -> list[dict[str, Any]]:
    """A comparison's cells with those of the same teacher, or else beside those of others."""
    kept = {key: content[key] for key in ("task", "rows", "versions")}
    kept["teacher"] = {key: content["teacher"][key] for key in ("metrics", "sizes")}
    kept["settings"] = {key: v for key, v in content["settings"].items() if key not in _PLACES}
    same = [
        c
        for c in contents
        if on_gpu(c) == on_gpu(content) and _equal(c["teacher"]["metrics"], kept["teacher"]["metrics"])
    ]
    targets = {"targets": sorted(content["settings"]["target_sparsities"])}
    own = [{**targets, **cell} for cell in content["cells"]]
    cells = [*(cell for each in same for cell in each["cells"]), *own]
    last = {(c["method"], c["target_sparsity"], c["seed"]): c for c in cells}
    others = [c for c in contents if c not in same]
    return [*others, {**kept, "cells": list(last.values())}]


def _equal(metrics: dict[str, float], others: dict[str, float]) -> bool:
    """Whether all metrics are the same but for rounding, which changes no row's answer."""
    return all(math.isclose(value, others[name], abs_tol=1e-5) for name, value in metrics.items())


def _content(folder: Path) -> dict[str, Any]:
    """What the comparison of a task holds, with the cells of the one with another importance."""
    content = read_comparison(folder / COMPARISON).content
    if (folder / COMPARISON_UNLABELLED / "compare.json").is_file():
        others = read_comparison(folder / COMPARISON_UNLABELLED).content["cells"]
        content["cells"] += [{**cell, "method": cell["method"] + UNLABELLED} for cell in others]
    return content


def write(plan: Plan, works: Sequence[Path], target: Path, command: str, inference: Path | None = None) -> None:
    """Write TARGET.json, TARGET.md, TARGET-TASK.svg and TARGET-fronts.svg.

    ``inference`` holds the figures of ``benchmarks/inference.py``, if these are to say how fast each size is.
    """
    latencies = single_row_latencies(read_json(inference)) if inference else {}
    over_time = f", and over the milliseconds of {inference.name}" if inference else ""
    all_tasks = gather(plan, works, target)
    figures: dict[str, Any] = {"command": command, "tasks": {e.name: e.contents for e in all_tasks}}
    lines = [
        "# Evidence",
        "",
        f"Made by `{command}`, as far as it has been run (the numbers of seeds say how far), and "
        "`benchmarks/evidence_report.py`. Teachers are "
        "fine-tuned all-MiniLM-L6-v2; metrics are the benchmark's, in [0, 1], mean ± standard error over seeds. Where "
        "a task has two teachers, they were rounded otherwise, and the cells of a seed are compared with those of the "
        "same teacher. Compare FLOPs: CPU seconds are of several machines, which each task names at the end. On a GPU "
        "rows are padded to multiples of 16 tokens, and its FLOPs are of padded rows, as they were "
        "counted then. All targets of a task (`--targets`) share one "
        f"sandwich, which trains each of their sizes at every step: {shared_targets(all_tasks)}. `minidisc compress` "
        "trains one target alone: at 90 % its sandwich's step has 0.92 of the FLOPs of one for three targets, 0.95 of "
        f"one for two. Methods with `{UNLABELLED}` are those without it, in a comparison with "
        "`--importance-on teacher`.",
        "",
        *page(all_tasks, figures),
        "## Plots",
        "",
        *(f"- {e.task.title}: [students over their candidates' t_λ]({target.name}-{e.name}.svg)" for e in all_tasks),
        f"- [Fronts]({target.name}-fronts.svg): every size from one run, and alone, over parameters{over_time}",
        "",
        "## Everything",
        "",
    ]
    for evidence in all_tasks:
        for title, each in by_teacher(evidence):
            content = {**each, "task": {**each["task"], "name": title}, "failures": {}}
            content["table"] = summarise(content["cells"], sorted({c["method"] for c in content["cells"]}))
            lines.append(markdown(content).replace("# ", "### ", 1))
        plot_choice(evidence, target.with_name(f"{target.name}-{evidence.name}.svg"))
    plot_fronts(all_tasks, latencies, target.with_name(f"{target.name}-fronts.svg"))
    with new_file(target.with_suffix(".md")) as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")
    write_json(target.with_suffix(".json"), figures)


def by_teacher(evidence: Evidence) -> Iterator[tuple[str, dict[str, Any]]]:
    """A task's comparisons, and what each is called: by its teacher's number too, if there are several."""
    for number, content in enumerate(evidence.contents, start=1):
        yield evidence.task.title + f" (teacher {number})" * (len(evidence.contents) > 1), content


def shared_targets(all_tasks: Sequence[Evidence]) -> str:
    """For which targets the sandwiches of each task are."""
    tasks: dict[tuple[float, ...], dict[str, None]] = {}
    for evidence in all_tasks:
        for title, content in by_teacher(evidence):
            for cell in content["cells"]:
                if read_method(cell["method"].removesuffix(UNLABELLED)).shares_targets:
                    tasks.setdefault(tuple(cell["targets"]), {})[title] = None
    found = (f"{', '.join(f'{100 * t:g}' for t in targets)} % on {', '.join(on)}" for targets, on in tasks.items())
    return "; ".join(found)


def single_row_latencies(inference: dict[str, Any]) -> dict[str, float]:
    """Milliseconds of a row of 16 tokens through each network, in PyTorch on one thread."""
    wanted = {"engine": "PyTorch", "threads": 1, "rows": 1, "length": 16}
    cell = next(c for c in inference["cells"] if wanted.items() <= c.items())
    return {name: own["milliseconds"]["wall"]["median"] for name, own in cell["models"].items()}


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, nargs="+")
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--inference", type=Path, help="figures of benchmarks/inference.py, for the fronts over time")
    options = parser.parse_args()
    parts = " ".join(PARTS)
    command = f"OMP_NUM_THREADS=1 python benchmarks/evidence.py --data-dir DIR --work runs/evidence --parts {parts}"
    on_a_gpu = "python benchmarks/gpu/evidence.py run --carry carry --work OUT --targets 0.9 0.95 --parts trial search"
    command = f"{command}; {on_a_gpu} cheapest"
    try:
        write(PLAN, options.work, options.target, command, options.inference)
    except UserError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
