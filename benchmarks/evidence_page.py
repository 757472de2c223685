"""The sections of the evidence's page; each adds its numbers to ``figures`` too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
from evidence import ABLATION, CHEAPEST, FIFTH, NO_ASSISTANT, SANDWICH, TWICE
from evidence_figures import (
    LAMBDAS,
    Evidence,
    ablation,
    against_all,
    against_none,
    finding,
    finding_alone,
    gains,
    sizes,
    summary,
)

from minidisc.comparison.table import mean_and_error, with_error

Figures = dict[str, Any]


def page(all_tasks: Sequence[Evidence], figures: Figures) -> list[str]:
    """The sections of the page; ``figures`` takes the same numbers."""
    sections = _summary, _correlations, _choice, _search, _sizes, _no_assistant, _variants
    return [line for section in sections for line in section(all_tasks, figures)]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table in Markdown."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)] + [""]


def percent(sparsity: float) -> str:
    """``90 %``."""
    return f"{100 * sparsity:g} %"


def _if_known(value: Sequence[float | None] | None, digits: int) -> str:
    return with_error(value, digits) if value else ""


def _pairs(all_tasks: Sequence[Evidence], part: Callable[[Evidence, float], Any]) -> list[tuple[Evidence, float, Any]]:
    found = [(evidence, target, part(evidence, target)) for evidence in all_tasks for target in evidence.plan.targets]
    return [(evidence, target, value) for evidence, target, value in found if value]


def _over_tasks(pairs: Iterable[tuple[Evidence, float]]) -> tuple[float, float | None]:
    """Mean and standard error over tasks, of each task's mean over its targets, which share teacher and sandwich."""
    means: dict[str, list[float]] = {}
    for evidence, value in pairs:
        means.setdefault(evidence.name, []).append(value)
    return mean_and_error([float(np.mean(values)) for values in means.values()])


def _start(evidence: Evidence, target: float, value: dict[str, Any]) -> list[str]:
    """What a row begins with."""
    return [evidence.task.title, percent(target), str(value["seeds"])]


def _summary(all_tasks: Sequence[Evidence], figures: Figures) -> list[str]:
    found = _pairs(all_tasks, summary)
    figures["summary"] = [{"task": e.name, "target": t, **value} for e, t, value in found]
    rows = []
    for evidence, target, value in found:
        row = [*_start(evidence, target, value), f"{value['teacher']:.3f}"]
        shown = ("minidisc", "cheapest", "direct", "ten_stages", "maxidisc")
        for name in shown:
            own = value.get(name)
            fewer = f" (of {own['seeds']})" if own and own["seeds"] < value["seeds"] else ""
            row.append(with_error(own["metric"]) + fewer if own else "")
        row.append(" : ".join(f"{value[name]['flops'][0] / 1e12:.0f}" if name in value else "–" for name in shown))
        rows.append(row)
    head = ["task", "target", "seeds", "teacher", "minidisc", "minidisc, cheapest", "direct, as many steps"]
    head += ["direct, ten stages' steps", "maxidisc", "FLOPs"]
    return [
        "## In short",
        "",
        f"The cheapest trial is `{CHEAPEST}`: a quarter of all steps, and in each of them the student's size and one "
        "other. FLOPs are 1e12, of the five in this order, with importance and teachers' outputs; not of evaluations.",
        "",
        *table(head, rows),
    ]


def _correlations(all_tasks: Sequence[Evidence], figures: Figures) -> list[str]:
    lines = [
        "## Is a student better whose assistant has a better tradeoff?",
        "",
        "Spearman's correlation of the student's metric with its assistant's t_λ: of the means over seeds, and in "
        "brackets the mean ± standard error of each seed's own, of as many seeds as have one: where no student gained "
        "by training on, all are the sandwich's, and equal.",
        "",
    ]
    for name, part, text in (
        (
            "finding",
            finding,
            "The candidates of one sandwich, the student's own size (trained on against the teacher) among them, and "
            "a student through each:",
        ),
        ("finding_alone", finding_alone, "Assistants that were each distilled alone, and a student through each:"),
    ):
        found = _pairs(all_tasks, part)
        if not found:
            continue
        figures[name] = [{"task": e.name, "target": t, **value} for e, t, value in found]
        rows = [
            [*_start(e, t, value), *(_rho(value[f"{lam:g}"], value["seeds"]) for lam in LAMBDAS)]
            for e, t, value in found
        ]
        lines += [text, ""]
        lines += table(["task", "target", "seeds", *(f"λ = {lam:g}" for lam in LAMBDAS)], rows)
        lines += ["These students' metrics, by their assistant:", ""]
        names = [percent(a) for a in all_tasks[0].plan.assistants] + ["none, trained on"] * (part is finding)
        rows = [[*_start(e, t, value), *(with_error(x) for x in value["students"])] for e, t, value in found]
        lines += table(["task", "target", "seeds", *names], rows)
    return lines


def _rho(rho: dict[str, Any], seeds: int) -> str:
    mean = "" if rho["of_means"] is None else f"{rho['of_means']:.2f}"
    fewer = f", of {rho['seeds_of_rho']}" if rho["seeds_of_rho"] < seeds else ""
    return f"{mean} ({with_error(rho['by_seed'], 2)}{fewer})" if rho["by_seed"] else mean


def _choice(all_tasks: Sequence[Evidence], figures: Figures) -> list[str]:
    gained = _pairs(all_tasks, gains)
    if not gained:
        return []
    columns = {lam: np.transpose([value[lam] for *_, value in gained]) for lam in LAMBDAS}
    figures["choice"] = {f"{lam:g}": [mean_and_error(list(c)) for c in pair] for lam, pair in columns.items()}
    rows = [
        [name, *(with_error(figures["choice"][f"{lam:g}"][i], 4) for lam in LAMBDAS)]
        for i, name in enumerate(("over the mean", "over the best"))
    ]
    return [
        "What choosing by t_λ gains over choosing blindly, and loses against the best choice there was; means and "
        f"standard errors over {len(gained)} pairs of task and target:",
        "",
        *table(["", *(f"λ = {lam:g}" for lam in LAMBDAS)], rows),
    ]


def _search(all_tasks: Sequence[Evidence], figures: Figures) -> list[str]:
    trials = ("minidisc", CHEAPEST, FIFTH, TWICE)
    found = {trial: _pairs(all_tasks, partial(against_all, trial=trial)) for trial in trials}
    lines = [
        "## One trial against all",
        "",
        "The search's student (maxidisc) is the one it picks on the selection rows; the best of all is so on the "
        "validation set, which nobody can know beforehand. Differences are taken seed by seed. Trials that cost ever "
        f"less, and `{TWICE}`, which has no assistant.",
        "",
    ]
    figures["against_all"], figures["within_one_error"] = {}, {}
    for trial, searched in found.items():
        figures["against_all"][trial] = [{"task": e.name, "target": t, **value} for e, t, value in searched]
        if searched:
            lines += _searched(trial, searched, figures["within_one_error"])
    return [*lines, *_picked(found["minidisc"], figures)] if any(found.values()) else []


def _picked(searched: Sequence[tuple[Evidence, float, Any]], figures: Figures) -> list[str]:
    """What the search gains over a blind choice among its own students, and loses against the best one."""
    known = [value for *_, value in searched if value["seeds_of_all"]]
    if not known:
        return []
    gained = {key: mean_and_error([value[f"pick_{key}"][0] for value in known]) for key in ("over_mean", "over_best")}
    figures["search_picks"] = gained
    mean, best = (with_error(gained[key], 4) for key in gained)
    return [
        f"What the search picks is {mean} over the mean of all that it has tried, and {best} over the best of it "
        f"({len(known)} pairs).",
        "",
    ]


def _searched(trial: str, searched: Sequence[tuple[Evidence, float, Any]], figures: Figures) -> list[str]:
    """One kind of trial against the search."""
    rows = []
    for evidence, target, value in searched:
        known, all_known = value["seeds"], value["seeds_of_all"]
        fewer = f" (of {all_known})" if 0 < all_known < known else ""
        best, mean, less_best = (_if_known(value[key], 3) + fewer for key in ("best", "mean", "less_best"))
        own, picked, less = (with_error(value[key]) for key in ("trial", "maxidisc", "less_maxidisc"))
        costs = [_if_known(value[key], 2) for key in ("flops", "cpu_seconds")]
        rows.append([*_start(evidence, target, value), own, picked, best, mean, less, less_best, *costs])
    head = ["task", "target", "seeds", "the trial", "maxidisc", "best of all", "mean of all"]
    head += ["less maxidisc", "less best", "FLOPs, one : all", "CPU s, one : all"]
    differences = {key: [v[key] for *_, v in searched if v[key]] for key in ("less_maxidisc", "less_best")}
    within = {key: sum(mean + (error or 0) >= 0 for mean, error in pairs) for key, pairs in differences.items()}
    means = {key: mean_and_error([mean for mean, _ in pairs]) for key, pairs in differences.items() if pairs}
    cheap = sum(value["flops"][0] <= 1 / 5 for *_, value in searched)
    over_tasks = _over_tasks((e, value["less_maxidisc"][0]) for e, _, value in searched)
    figures[trial] = {
        **within,
        "less_maxidisc_over_tasks": over_tasks,
        "at_a_fifth": cheap,
        "of": {key: len(pairs) for key, pairs in differences.items()},
        "mean": means,
    }
    shown = {key: with_error(mean, 4) for key, mean in means.items()}
    against_best = f", less the best of all's {shown['less_best']}" if "less_best" in shown else ""
    return [
        f"`{trial}`:",
        "",
        *table(head, rows),
        f"Not worse by more than one standard error of the difference than the search's pick on "
        f"{within['less_maxidisc']} of {len(searched)} pairs, than the best of all on {within['less_best']} of "
        f"{len(differences['less_best'])}; at a fifth of the search's FLOPs or less on {cheap}. Its metric less the "
        f"search's is {shown['less_maxidisc']} in the mean over pairs{against_best}; {with_error(over_tasks, 4)} in "
        "that over tasks, each with the mean of its targets.",
        "",
    ]


def _sizes(all_tasks: Sequence[Evidence], figures: Figures) -> list[str]:
    every = [(evidence, sizes(evidence)) for evidence in all_tasks]
    figures["sizes"] = {evidence.name: value for evidence, value in every}
    rows = [
        [
            evidence.task.title,
            percent(float(size)),
            str(row["seeds"]),
            *(with_error(row[key]) for key in ("sandwich", "alone", "difference")),
            _if_known(row["alone_cpu_seconds"], 0),
        ]
        for evidence, value in every
        for size, row in value.items()
    ]
    return [
        "## Every size from one run",
        "",
        "A candidate of the sandwich, and a network of its size distilled alone with as many steps.",
        "",
        *table(["task", "size", "seeds", "sandwich", "alone", "difference", "CPU s alone"], rows),
    ]


def _no_assistant(all_tasks: Sequence[Evidence], figures: Figures) -> list[str]:
    compared = _pairs(all_tasks, against_none)
    figures["against_none"] = [{"task": e.name, "target": t, "methods": value} for e, t, value in compared]
    rows = [
        [
            *_start(evidence, target, row),
            f"`{method}`",
            with_error(row["metric"]),
            with_error(row["less_direct"]),
            f"{row['steps'][0]:.0f}",
            f"{row['flops'][0]:.1e}",
            _if_known(row["cpu_seconds"], 0),
        ]
        for evidence, target, value in compared
        for method, row in value.items()
    ]
    gained = [(e, value["minidisc"]["less_direct"][0]) for e, _, value in compared if "minidisc" in value]
    mean = []
    if gained:
        figures["mean_less_direct"] = mean_and_error([value for _, value in gained])
        figures["less_direct_over_tasks"] = _over_tasks(gained)
        over_pairs, over_tasks = (
            with_error(figures[key], 4) for key in ("mean_less_direct", "less_direct_over_tasks")
        )
        mean = [
            f"In the mean over {len(gained)} pairs the difference of `minidisc` is {over_pairs}; in that over tasks, "
            f"each with the mean of its targets, {over_tasks}.",
            "",
        ]
    return [
        "## Against no assistant",
        "",
        f"`{SANDWICH}` is the student as the sandwich leaves it, after one stage's steps; `{NO_ASSISTANT}` trains it "
        "on against the teacher for another stage's. The difference is to direct distillation with two stages' steps, "
        "seed by seed. Embeddings are frozen for all.",
        "",
        *table(["task", "target", "seeds", "method", "metric", "difference", "steps", "FLOPs", "CPU s"], rows),
        *mean,
    ]


def _variants(all_tasks: Sequence[Evidence], figures: Figures) -> list[str]:
    varied = _pairs(all_tasks, ablation)
    if not varied:
        return []
    figures["ablation"] = [{"task": e.name, "target": t, "variants": value} for e, t, value in varied]
    rows = []
    for base, variants in ABLATION.items():
        for variant in variants:
            differences = [value[variant] for *_, value in varied if variant in value]
            if differences:
                metric, flops = (mean_and_error(list(column)) for column in zip(*differences, strict=True))
                rows.append([f"`{variant}`", f"`{base}`", str(len(differences)), with_error(metric)])
                rows[-1].append(with_error(flops, 2))
    return [
        "## Variants",
        "",
        "Metric less, and FLOPs over, those of the method that a variant differs from in one setting (or two): means "
        "over seeds, then mean ± standard error over pairs of task and target.",
        "",
        *table(["variant", "of", "pairs", "metric", "FLOPs"], rows),
    ]
