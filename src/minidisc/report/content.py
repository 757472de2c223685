"""What stands in the report, worked out from the results."""

from __future__ import annotations

import itertools
import math
from typing import Any

from minidisc.confidence import RESAMPLES
from minidisc.contrast import MOST_LABELS
from minidisc.foreign_text import without_secrets
from minidisc.report import formats
from minidisc.report.fronts import fronts, networks_of
from minidisc.report.plots import candidates_plot, curves_plot, series_colours
from minidisc.selection import best_row, lambda_sweeps, range_of, tables_of

_SIZES = (
    ("prunable", "prunable (heads and neurons)"),
    ("without_embeddings", "all without embeddings"),
    ("all", "all"),
)
_METRIC_NAMES = {
    "f1": "F1",
    "matthews": "Matthews correlation",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "entity_f1": "entity F1",
    "next_token_accuracy": "next-token accuracy",
}
_MOST_CONFUSIONS = 20
_CORRELATIONS = {"matthews", "pearson", "spearman"}
_USES = {
    "train": "training: all stages",
    "calibration": "calibration: importance of heads and neurons",
    "selection": "selection: which steps' weights are kept, which assistant is chosen",
    "validation": "validation: final figures",
}


def variables(results: dict[str, Any], examples: bool) -> dict[str, Any]:
    """The variables of the template; with rows of text if there may be ``examples``."""
    settings, rows = results["settings"], results["rows"]
    keys = list(results["task"]["metrics"])
    metrics = [(key, _METRIC_NAMES.get(key, key)) for key in keys]
    if len(keys) > 1 and "next_token_accuracy" not in keys:
        metrics.append(("metric", "mean"))
    models = _models(results)
    networks, colours = networks_of(results, models), _series(results)
    return {
        "task": results["task"],
        "teacher": models[0],
        "student": models[-1],
        "models": models,
        "main_metrics": metrics[: len(keys)],
        "metrics": metrics,
        "sizes": _SIZES,
        "rows": rows,
        "difference_error": _error_of_difference(results),
        "uses": [(_USES.get(name, name), row["source"], row["count"]) for name, row in rows.items()],
        "warnings": [without_secrets(line) for line in results["warnings"]],
        "vocabulary": results.get("vocabulary"),
        "embeddings": results.get("embeddings"),
        "budget": results.get("budget"),
        "selects_on_validation": settings["select_on"] == "validation",
        "assistants": _choice_in_words(results),
        "sandwiches": _sandwiches(results, metrics),
        "latency": results.get("latency"),
        "networks": networks,
        "fronts": fronts(networks, results.get("latency"), _axis(metrics)),
        "lam": settings["tradeoff_lambda"],
        "resamples": RESAMPLES,
        "layers": _layers(models),
        **_contrast(results.get("contrast"), examples),
        "series": series_colours(len(colours)),
        "curves": _curves(results, colours),
        "total": results["cost"]["total"],
        "all_trials": results["cost"].get("all_trials_flops"),
        "trials_count": len({row["sparsity"] for row in results["candidates"]}) - 1,
        "costs": [(_stage_title(results, name), cost) for name, cost in results["cost"]["stages"].items()],
        "settings": sorted(settings.items()),
        "machine": results["machine"],
        "versions": results["versions"],
    }


def _models(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Teacher, assistants, student, each with its role and short name."""
    assistants = results["assistants"]
    numbers = range(1, len(assistants) + 1)
    roles = ["teacher", *(formats.assistant_name(i, len(assistants)) for i in numbers), "student"]
    models = zip(roles, [results["teacher"], *assistants, results["student"]], strict=True)
    return [
        {**model, "role": role, "name": model["path"].rstrip("/").rsplit("/")[-1] or model["path"]}
        for role, model in models
    ]


def _sandwiches(results: dict[str, Any], metrics: list[tuple[str, str]]) -> list[dict[str, Any]]:
    lam, assistants = results["settings"]["tradeoff_lambda"], results["assistants"]
    student = results["student"]["sparsity"]
    found = []
    rows = results["candidates"]
    for number, (table, sweep) in enumerate(zip(tables_of(rows), lambda_sweeps(rows), strict=True), start=1):
        best = best_row(table)
        text = (
            f"Metric and t_λ of {len(table)} candidates over sparsity; "
            f"t_λ is largest at {formats.percent(best['sparsity'])}. The table holds the same numbers."
        )
        marks = [
            formats.assistant_name(number, len(assistants))
            if row["chosen"]
            else "student's size" * (row["sparsity"] == student)
            for row in table
        ]
        found.append(
            {
                "number": number,
                "rows": list(zip(table, marks, strict=True)),
                "best": best,
                "sweep": sweep,
                "here": range_of(sweep, lam),
                "plot": candidates_plot(
                    f"candidates-{number}",
                    table,
                    best,
                    _axis(metrics),
                    lam,
                    [teacher["selection_metrics"]["metric"] for _, teacher in _teachers_behind(results, number - 1)],
                    text,
                ),
            }
        )
    return found


def _teachers_behind(results: dict[str, Any], number: int) -> list[tuple[str, dict[str, Any]]]:
    """Who teaches the stage behind so many assistants, each with its role (see `Job.teachers_with`)."""
    assistants, teacher = results["assistants"], ("teacher", results["teacher"])
    if not number:
        return [teacher]
    assistant = formats.assistant_name(number, len(assistants)), assistants[number - 1]
    teachers = {"assistant": [assistant], "teacher": [teacher], "both": [assistant, teacher]}
    return teachers[results["settings"].get("second_teacher", "assistant")]


def _choice_in_words(results: dict[str, Any]) -> list[str]:
    """Why there is this assistant, or none: one sentence, or one for each of several choices."""
    settings, assistants = results["settings"], results["assistants"]
    if settings["schedule"] == "direct":
        return ["None: with the schedule “direct” the student is distilled from the teacher in one stage."]
    if settings["schedule"] == "finetune":
        return ["None: with the schedule “finetune” the student learns from the labels, in one stage."]
    sizes = ", then ".join(formats.percent(model["sparsity"]) for model in assistants)
    if settings["assistants"]:
        return [f"As it was given: {sizes} sparsity."]
    if settings["schedule"] == "maxidisc":
        best = formats.score(results["student"]["selection_metrics"]["metric"])
        return [
            f"The size with {sizes} sparsity, since of {len(results['trials'])} trials, each through another size, "
            f"this one ended with the best student: {best} on the selection rows."
        ]
    if settings["stages"] == 1:
        return ["None: with one stage the student is taken from the sandwich as it is."]
    return _sandwiches_in_words(results)


def _sandwiches_in_words(results: dict[str, Any]) -> list[str]:
    """For each sandwich which size was chosen, by how much, and how much chance there is in it."""
    rows, lam = results["candidates"], results["settings"]["tradeoff_lambda"]
    tables = tables_of(rows)
    sentences = []
    for number, (table, sweep) in enumerate(zip(tables, lambda_sweeps(rows), strict=True), start=1):
        best = best_row(table)
        assumed = results["settings"].get("no_gap") == "assume" and not best["chosen"]
        where = f"Sandwich {number}: the" if len(tables) > 1 else "The"
        text = (
            f"{where} size with {formats.percent(best['sparsity'])} sparsity, since of {len(table)} candidates it has "
            f"the largest t_λ = metric + λ · sparsity = {formats.score(best['metric'])} + {lam:g} · "
            f"{best['sparsity']:g} = {formats.score(best['tradeoff'])}"
        )
        others = [row for row in table if row is not best]
        if len(table) == 1:
            text = f"{where} size with {formats.percent(best['sparsity'])} sparsity was the only candidate"
        if assumed:
            text += "; no assistant is put between all the same (--no-gap assume), and the student comes from here"
        elif not best["chosen"]:
            text += "; that is the student's own size, so no assistant is put between, and the student comes from here"
        text += "."
        if others:
            text += _margin(results, best, others)
            start, end, _ = range_of(sweep, lam)
            text += f" Every λ from {formats.lam(start)} to {formats.lam(end)} would choose the same."
        sentences.append(text)
    return sentences


def _margin(results: dict[str, Any], best: dict[str, Any], others: list[dict[str, Any]]) -> str:
    second = max(others, key=lambda row: row["tradeoff"])
    rival = max(others, key=lambda row: row["probability"])
    count = formats.count(results["rows"]["selection"]["count"])
    text = f" The next is {formats.percent(second['sparsity'])} with "
    text += (
        f"{formats.score(best['tradeoff'] - second['tradeoff'])} less. On {count} other rows like the selection rows "
    )
    text += f"it would be chosen with probability {best['probability']:.2f}, and {formats.percent(rival['sparsity'])} "
    return text + f"with {rival['probability']:.2f}."


def _error_of_difference(results: dict[str, Any]) -> float | None:
    """Standard error of the student's accuracy less the teacher's, on the same rows; None for other metrics.

    A row is worth 1 where the student alone is right, -1 where the teacher alone is, else 0.
    """
    found = results.get("contrast") or {}
    only = found.get("only_right")  # not there if an older version made the run
    if list(results["task"]["metrics"]) != ["accuracy"] or only is None:
        return None
    rows, differ, less = found["rows"], only["teacher"] + only["student"], only["teacher"] - only["student"]
    return math.sqrt(differ - less**2 / rows) / rows or None


def _layers(models: list[dict[str, Any]]) -> dict[str, Any]:
    """Heads and neurons that assistants and student keep in each layer, beside the teacher's."""
    teacher, *narrow = models
    return {
        "models": narrow,
        # A student of whole layers has fewer than the teacher; a decoder's layer has two attentions and one FFN.
        "count": max(len(model["heads"]) for model in narrow),
        "encoder_decoder": len(teacher["heads"]) != len(teacher["neurons"]),
        "largest": {part: max(teacher[part]) for part in ("heads", "neurons")},
    }


def _contrast(found: dict[str, Any] | None, examples: bool) -> dict[str, Any]:
    """What `minidisc.contrast` has found; the most frequent confusions, where a matrix would be too large to read."""
    if found is None:  # an older version made the run
        return {"contrast": None}
    contrast = {**found, "examples": found["examples"] if examples else []}
    if "edges" in found:
        edges = [f"{edge:.3g}" for edge in found["edges"]]
        names = [
            f"below {edges[0]}",
            *(f"{a} to {b}" for a, b in itertools.pairwise(edges)),
            f"{edges[-1]} or more",
        ]
        return {"contrast": contrast, "errors": list(zip(names, found["teacher"], found["student"], strict=True))}
    labels = found["labels"]
    first, second = (_counts(found[role], len(labels)) for role in ("teacher", "student"))
    pairs = [
        (labels[i], labels[j], first.get((i, j), 0), second.get((i, j), 0))
        for i, j in sorted({*first, *second})
        if i != j
    ]
    confusions = sorted(pairs, key=lambda pair: -max(pair[2:]))[:_MOST_CONFUSIONS]
    return {"contrast": contrast, "confusions": confusions, "most_labels": MOST_LABELS}


def _counts(matrix: list[list[int]], labels: int) -> dict[tuple[int, int], int]:
    """The counts that are not 0, by label and prediction, of either form that `minidisc.contrast.contrast` gives."""
    if len(matrix[0]) != labels:
        return {(i, j): count for i, j, count in matrix}
    # An older version made the run, if labels are many.
    return {(i, j): count for i, row in enumerate(matrix) for j, count in enumerate(row) if count}


def _series(results: dict[str, Any]) -> dict[str, int]:
    """Number of each network's colour, the same in all plots, in order of sparsity."""
    networks = {n for entries in results["history"].values() for entry in entries for n in entry["metrics"]}
    return {network: i for i, network in enumerate(sorted(networks, key=lambda n: (_leading_number(n), n)))}


def _leading_number(network: str) -> float:
    try:
        return float(network.split()[0])
    except (ValueError, IndexError):
        return math.inf


def _curves(results: dict[str, Any], series: dict[str, int]) -> list[dict[str, str]]:
    metrics = [(key, _METRIC_NAMES.get(key, key)) for key in results["task"]["metrics"]]
    kept = [*results["assistants"], results["student"]]
    thick = {formats.percent(model["sparsity"]) for model in kept}
    found = []
    for number, (stage, entries) in enumerate(results["history"].items(), start=1):
        if not entries:
            continue
        title = _stage_title(results, stage)
        last = entries[-1]
        text = f"{title}: metric on selection rows at {len(entries)} evaluations up to step {last['step']}; last " + (
            ", ".join(f"{network}: {formats.score(m['metric'])}" for network, m in last["metrics"].items())
        )
        plot = curves_plot(f"curves-{number}", entries, series, sorted(thick), _axis(metrics), text)
        found.append({"title": title, "plot": plot})
    return found


def _axis(metrics: list[tuple[str, str]]) -> str:
    """Label of an axis of the metric that selection goes by, with its range."""
    # Perplexity is told, but nothing is chosen by it.
    keys, names = zip(*(pair for pair in metrics if pair[0] not in ("metric", "perplexity")), strict=True)
    bounds = "−1 to 1" if _CORRELATIONS & set(keys) else "0 to 1"
    label = names[0] if len(names) == 1 else f"mean of {' and '.join(names)}"
    return f"{label} ({bounds})"


def _stage_title(results: dict[str, Any], name: str) -> str:
    if name == "importance":
        return "Importance"
    if name.startswith("sandwich-"):
        return f"Sandwich {name.removeprefix('sandwich-')}"
    if name == "student":
        teachers = _teachers_behind(results, len(results["assistants"]))
        return f"Student from {' and '.join(role for role, _ in teachers)}"
    return name[0].upper() + name[1:]
