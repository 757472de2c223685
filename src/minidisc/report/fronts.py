"""Metric over size and over latency: teacher, candidates, assistants and student of one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minidisc.report import formats
from minidisc.report.plots import front_plot
from minidisc.selection import tables_of


@dataclass(frozen=True)
class Network:
    """A network of a run: role or sparsity, number of all parameters, metric on the selection rows, times."""

    name: str
    is_candidate: bool
    parameters: int
    metric: float
    times: dict[str, float] | None


def networks_of(results: dict[str, Any], models: Sequence[dict[str, Any]]) -> list[Network]:
    """Teacher, candidates of the first sandwich, assistants, student.

    Args:
        results: of the run.
        models: teacher, assistants and student, as in the results, each with its ``role``.
    """
    latency = results.get("latency")  # none of a very large teacher, or of a run that an older version made
    times = latency["networks"] if latency else {}
    found = [
        Network(m["role"], False, m["sizes"]["all"], m["selection_metrics"]["metric"], times.get(m["role"]))
        for m in models
    ]
    candidates = next(iter(tables_of(results["candidates"])), [])
    names = [formats.percent(row["sparsity"]) for row in candidates]
    found[1:1] = [
        Network(name, True, row["sizes"]["all"], row["metric"], times.get(name))
        for name, row in zip(names, candidates, strict=True)
    ]
    return found


def fronts(networks: Sequence[Network], latency: dict[str, Any] | None, metric: str) -> list[str]:
    """The plots, as SVG: over all parameters, and over time if it was measured.

    Args:
        networks: see `networks_of`.
        latency: of the results.
        metric: name of the metric, with its range.
    """
    plots = [_plot("size", "all parameters, millions", [(n, n.parameters / 1e6) for n in networks], metric)]
    if latency:
        label = f"processor time of {latency['batch_size']} × {latency['length']} tokens, ms"
        timed = [(n, n.times["processor_milliseconds"]) for n in networks if n.times]
        plots.append(_plot("latency", label, timed, metric))
    return plots


def _plot(name: str, label: str, points: Sequence[tuple[Network, float]], metric: str) -> str:
    text = f"{metric} over {label}: " + ", ".join(
        f"{network.name} {formats.score(network.metric)} at {x:.3g}" for network, x in points
    )
    candidates = [(x, network.metric) for network, x in points if network.is_candidate]
    models = [(network.name, x, network.metric) for network, x in points if not network.is_candidate]
    return front_plot(f"front-{name}", candidates, models, label, metric, text)
