"""What stands on the page that compares several runs, worked out from their results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minidisc.report import formats
from minidisc.report.plots import front_plot
from minidisc.results import REST_OF

_Cell = tuple[float, str] | str | None
_SIZES = (("prunable", "prunable"), ("without_embeddings", "without embeddings"), ("all", "all"))


def variables(runs: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """The variables of the template.

    Args:
        runs: the name of each, and its results.
    """
    results = [content for _, content in runs]
    differences, not_timed = _differences(results), _why_not_timed(results)
    return {
        "names": [name for name, _ in runs],
        "series": [],
        "differences": differences,
        # Points of different rows have no place in one plot.
        "fronts": [] if differences else _fronts(runs, timed=not_timed is None),
        "not_timed": not_timed,
        "latency": results[0].get("latency"),
        "busy": any(content["latency"]["busy"] for content in results if content.get("latency")),
        "tables": [table for table in _tables(results) if table["rows"]],
    }


def _why_not_timed(results: Sequence[dict[str, Any]]) -> str | None:
    """Why the runs' times have no place in one plot; None if they do."""
    latencies = [content.get("latency") for content in results]
    found = [latency for latency in latencies if latency]
    if len(found) < len(results):
        return "not every run was timed"
    if len({(latency["batch_size"], latency["length"]) for latency in found}) > 1:
        return "the runs timed passes of other numbers of rows or tokens"
    if len({content["machine"] for content in results}) > 1:
        return "the runs were not on the same machine, or not in the same way (see Cost)"
    return None


def _fronts(runs: Sequence[tuple[str, dict[str, Any]]], timed: bool) -> list[str]:
    """The teacher's and the students' metric on the validation rows over all parameters, and over latency if timed."""
    first = runs[0][1]
    models = [("teacher", first["teacher"]), *((name, content["student"]) for name, content in runs)]
    metrics = [model["metrics"]["metric"] for _, model in models]

    def points(values: Sequence[float]) -> list[tuple[str, float, float]]:
        return [(name, x, y) for (name, _), x, y in zip(models, values, metrics, strict=True)]

    sizes = [model["sizes"]["all"] / 1e6 for _, model in models]
    plots = [_front("size", "all parameters, millions", points(sizes))]
    if timed:
        latency = first["latency"]
        teacher = latency["networks"]["teacher"]["processor_milliseconds"]
        # Runs were at other times, when the machine was faster or slower; only ratios were measured side by side.
        speedups = [content["latency"]["networks"]["student"]["speedup"] for _, content in runs]
        label = f"processor time of {latency['batch_size']} × {latency['length']} tokens, ms"
        plots.append(_front("latency", label, points([teacher, *(teacher / speedup for speedup in speedups)])))
    return plots


def _front(name: str, label: str, points: Sequence[tuple[str, float, float]]) -> str:
    text = f"metric over {label}: " + ", ".join(f"{who} {formats.score(y)} at {x:.3g}" for who, x, y in points)
    return front_plot(f"front-{name}", [], points, label, "metric on the validation rows", text)


def _differences(results: Sequence[dict[str, Any]]) -> list[str]:
    """Why the runs' figures are not of the same thing."""
    found = []
    # Which part of a split they are, the seed says.
    parts = [content for content in results if content["rows"]["validation"]["source"].startswith(REST_OF)]
    seeds = {content["settings"].get("seed") for content in parts}
    prints = [content.get("fingerprints", {}) for content in results]
    first = results[0]
    if (
        len(seeds) > 1
        or any((c["task"], c["rows"]["validation"]) != (first["task"], first["rows"]["validation"]) for c in results)
        or any(p.get("rows") != prints[0].get("rows") for p in prints)
    ):
        found.append("the runs do not have the same rows or the same task, so their metrics cannot be compared.")
    if any(p.get("teacher_weights") != prints[0].get("teacher_weights") for p in prints):
        found.append("the runs do not have the same teacher.")
    return found


def _tables(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    metrics = list(dict.fromkeys(name for content in results for name in content["task"]["metrics"]))

    def row(
        label: str, value: Callable[[dict[str, Any]], Any], shown: Callable[[Any], str]
    ) -> tuple[str, list[_Cell]]:
        values = [value(content) for content in results]
        return label, [None if v is None else v if isinstance(v, str) else (v, shown(v)) for v in values]

    def of(role: str, field: str, key: str) -> Callable[[dict[str, Any]], Any]:
        return lambda content: content[role][field].get(key)

    def lost(name: str) -> Callable[[dict[str, Any]], Any]:
        return lambda c: (
            c["student"]["metrics"][name] - c["teacher"]["metrics"][name] if name in c["task"]["metrics"] else None
        )

    def cost(key: str) -> Callable[[dict[str, Any]], Any]:
        return lambda content: content["cost"]["total"][key]

    def candidate(sparsity: float) -> Callable[[dict[str, Any]], Any]:
        return lambda content: next(
            (c["metric"] for c in content["candidates"] if c["sparsity"] == sparsity and c["stage"] == 1), None
        )

    def setting(name: str) -> Callable[[dict[str, Any]], str]:
        return lambda content: formats.setting(content["settings"].get(name))

    summary = [
        row("task", lambda c: c["task"]["name"], str),
        row("teacher", lambda c: c["teacher"]["path"], str),
        row("budget", lambda c: (c.get("budget") or {}).get("asked", "none"), str),
        row("student's sparsity", lambda c: c["student"]["sparsity"], formats.percent),
        row(
            "through",
            lambda c: ", ".join(formats.percent(a["sparsity"]) for a in c["assistants"]) or "no assistant",
            str,
        ),
    ]
    for name in metrics:
        summary.append(row(f"{name}, teacher", of("teacher", "metrics", name), formats.score))
        summary.append(row(f"{name}, student", of("student", "metrics", name), formats.score))
        summary.append(row(f"{name}, difference", lost(name), formats.signed))
    summary.append(row("validation rows", lambda c: c["rows"]["validation"]["count"], formats.count))
    sizes = [row(label, of("student", "sizes", key), formats.parameters) for key, label in _SIZES]
    costs = [
        row("steps", cost("steps"), formats.count),
        row("FLOPs", cost("flops"), formats.flops),
        row("wall time", cost("seconds"), formats.duration),
        row("CPU time", cost("cpu_seconds"), formats.duration),
        row("peak memory", cost("peak_memory"), formats.size),
        row("machine", lambda c: c["machine"], str),
    ]
    sparsities = sorted({c["sparsity"] for content in results for c in content["candidates"] if c["stage"] == 1})
    names = sorted({name for content in results for name in content["settings"]} - {"output_dir"})
    settings = [row(name, setting(name), str) for name in names]
    return [
        {"id": "runs", "title": "Teacher and student", "note": "Metrics on the validation rows.", "rows": summary},
        {"id": "sizes", "title": "The student's parameters", "note": "", "rows": sizes},
        {
            "id": "candidates",
            "title": "Candidates of the first sandwich",
            "note": "Metric on the selection rows, by sparsity.",
            "rows": [row(formats.percent(s), candidate(s), formats.score) for s in sparsities],
        },
        {"id": "cost", "title": "Cost", "note": "", "rows": costs},
        {
            "id": "settings",
            "title": "Settings that differ",
            "note": "",
            "rows": [(label, cells) for label, cells in settings if len(set(cells)) > 1],
        },
    ]
