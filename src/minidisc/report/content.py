"""What stands in the report, worked out from the results."""

from __future__ import annotations

import math
from typing import Any

from minidisc.report import formats
from minidisc.report.plots import candidates_plot, curves_plot, series_colours

_SIZES = (
    ("prunable", "prunable (heads and neurons)"),
    ("without_embeddings", "all without embeddings"),
    ("all", "all"),
)
_METRIC_NAMES = {"f1": "F1", "matthews": "Matthews correlation", "pearson": "Pearson", "spearman": "Spearman"}
_CORRELATIONS = {"matthews", "pearson", "spearman"}
_USES = {
    "train": "training: all stages",
    "calibration": "calibration: importance of heads and neurons",
    "selection": "selection: which steps' weights are kept, which assistant is chosen",
    "validation": "validation: final figures",
}


def variables(results: dict[str, Any]) -> dict[str, Any]:
    """The variables of the template."""
    settings, rows = results["settings"], results["rows"]
    keys = list(results["task"]["metrics"])
    metrics = [(key, _METRIC_NAMES.get(key, key)) for key in keys]
    if len(keys) > 1:
        metrics.append(("metric", "mean"))
    models = _models(results)
    colours = _series(results)
    return {
        "task": results["task"],
        "teacher": models[0],
        "student": models[-1],
        "models": models,
        "main_metrics": metrics[: len(keys)],
        "metrics": metrics,
        "sizes": _SIZES,
        "rows": rows,
        "validation_error": _standard_error(results, results["student"]["metrics"]["metric"], "validation"),
        "uses": [(_USES.get(name, name), row["source"], row["count"]) for name, row in rows.items()],
        "warnings": results["warnings"],
        "selects_on_validation": settings["select_on"] == "validation",
        "assistants": _no_assistant(results) or _sandwiches_in_words(results),
        "sandwiches": _sandwiches(results, metrics),
        "lam": settings["tradeoff_lambda"],
        "layers": _layers(models),
        "series": series_colours(len(colours)),
        "curves": _curves(results, colours),
        "total": results["cost"]["total"],
        "costs": [(_stage_title(results, name), cost) for name, cost in results["cost"]["stages"].items()],
        "settings": sorted(settings.items()),
        "machine": results["machine"],
        "versions": results["versions"],
    }


def _models(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Teacher, assistants, student, each with its role and short name."""
    assistants = results["assistants"]
    roles = ["teacher", *(_assistant_name(i, len(assistants)) for i in range(1, len(assistants) + 1)), "student"]
    models = zip(roles, [results["teacher"], *assistants, results["student"]], strict=True)
    return [
        {**model, "role": role, "name": model["path"].rstrip("/").rsplit("/")[-1] or model["path"]}
        for role, model in models
    ]


def _assistant_name(number: int, of: int) -> str:
    return "assistant" if of == 1 else f"assistant {number}"


def _tables(results: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The candidates of each sandwich."""
    stages = sorted({row["stage"] for row in results["candidates"]})
    return [[row for row in results["candidates"] if row["stage"] == stage] for stage in stages]


def _best(table: list[dict[str, Any]]) -> dict[str, Any]:
    """The chosen row, or where none was chosen (the student's own size won) the one with the largest t_λ."""
    chosen = [row for row in table if row["chosen"]]
    return chosen[0] if chosen else max(table, key=lambda row: (row["tradeoff"], row["sparsity"]))


def _sandwiches(results: dict[str, Any], metrics: list[tuple[str, str]]) -> list[dict[str, Any]]:
    lam, assistants = results["settings"]["tradeoff_lambda"], results["assistants"]
    student = results["student"]["sparsity"]
    teachers = [results["teacher"], *assistants]
    found = []
    for number, table in enumerate(_tables(results), start=1):
        best = _best(table)
        text = (
            f"Metric and t_λ of {len(table)} candidates over sparsity; "
            f"t_λ is largest at {formats.percent(best['sparsity'])}. The table holds the same numbers."
        )
        marks = [
            _assistant_name(number, len(assistants))
            if row["chosen"]
            else "student's size" * (row["sparsity"] == student)
            for row in table
        ]
        found.append(
            {
                "number": number,
                "rows": list(zip(table, marks, strict=True)),
                "best": best,
                "plot": candidates_plot(
                    f"candidates-{number}",
                    table,
                    best,
                    _axis(metrics),
                    lam,
                    teachers[number - 1]["selection_metrics"]["metric"],
                    text,
                ),
            }
        )
    return found


def _no_assistant(results: dict[str, Any]) -> list[str]:
    """Why there is no assistant, in one sentence; nothing if there is one."""
    settings = results["settings"]
    if results["assistants"]:
        return []
    if settings["schedule"] == "direct":
        return ["None: with the schedule “direct” the student is distilled from the teacher in one stage."]
    if settings["stages"] == 1:
        return ["None: with one stage the student is taken from the sandwich as it is."]
    return _sandwiches_in_words(results)


def _sandwiches_in_words(results: dict[str, Any]) -> list[str]:
    """For each sandwich which size was chosen, by how much, and how much chance there is in it."""
    tables, lam = _tables(results), results["settings"]["tradeoff_lambda"]
    sentences = []
    for number, table in enumerate(tables, start=1):
        best = _best(table)
        where = f"Sandwich {number}: the" if len(tables) > 1 else "The"
        text = (
            f"{where} size with {formats.percent(best['sparsity'])} sparsity, since of {len(table)} candidates it has "
            f"the largest t_λ = metric + λ · sparsity = {formats.score(best['metric'])} + {lam:g} · "
            f"{best['sparsity']:g} = {formats.score(best['tradeoff'])}"
        )
        others = [row for row in table if row is not best]
        if len(table) == 1:
            text = f"{where} size with {formats.percent(best['sparsity'])} sparsity was the only candidate"
        if not best["chosen"]:
            text += "; that is the student's own size, so no assistant is put between, and the student comes from here"
        text += "."
        if others:
            text += _margin(results, best, max(others, key=lambda row: row["tradeoff"]))
        sentences.append(text)
    return sentences


def _margin(results: dict[str, Any], best: dict[str, Any], second: dict[str, Any]) -> str:
    margin = best["tradeoff"] - second["tradeoff"]
    text = f" The next is {formats.percent(second['sparsity'])} with {formats.score(margin)} less."
    error = _standard_error(results, best["metric"], "selection")
    if error is not None:
        count = formats.count(results["rows"]["selection"]["count"])
        text += f" On {count} selection rows the standard error of an accuracy of {formats.score(best['metric'])} is "
        text += formats.score(error)
        text += ": other rows might have led to another choice." if margin < error else "."
    return text


def _standard_error(results: dict[str, Any], accuracy: float, rows: str) -> float | None:
    """Of an accuracy, as of a share of independent rows; None for other metrics, and where it says nothing."""
    if list(results["task"]["metrics"]) != ["accuracy"] or not 0 < accuracy < 1:
        return None
    return math.sqrt(accuracy * (1 - accuracy) / results["rows"][rows]["count"])


def _layers(models: list[dict[str, Any]]) -> dict[str, Any]:
    """Heads and neurons that assistants and student keep in each layer, beside the teacher's."""
    teacher, *narrow = models
    return {
        "models": narrow,
        "count": len(teacher["heads"]),
        "largest": {part: max(teacher[part]) for part in ("heads", "neurons")},
    }


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
    keys = [key for key, _ in metrics if key != "metric"]
    names = [name for key, name in metrics if key != "metric"]
    bounds = "−1 to 1" if _CORRELATIONS & set(keys) else "0 to 1"
    label = names[0] if len(names) == 1 else f"mean of {' and '.join(names)}"
    return f"{label} ({bounds})"


def _stage_title(results: dict[str, Any], name: str) -> str:
    if name == "importance":
        return "Importance"
    if name.startswith("sandwich-"):
        return f"Sandwich {name.removeprefix('sandwich-')}"
    if name == "student":
        count = len(results["assistants"])
        return f"Student from {_assistant_name(count, count) if count else 'teacher'}"
    return name
