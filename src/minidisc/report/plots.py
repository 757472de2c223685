"""Plots as SVG text that takes its colours from the page around it.

matplotlib cannot write CSS colours, so it is given placeholders, which are then replaced: text and axes follow the
page's text colour, and every series a CSS variable that the page defines for light and for dark.
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

_INK, _GRID, _SURFACE, _METRIC, _TRADEOFF = (f"#0000{i:02x}" for i in range(1, 6))
_COLOURS = {
    _INK: "currentColor",
    _GRID: "var(--grid)",
    _SURFACE: "var(--surface)",
    _METRIC: "var(--metric)",
    _TRADEOFF: "var(--tradeoff)",
}
_FIRST_SERIES = 0x10
_MARKERS = "osD^vPX"
_WIDTH, _HEIGHT = 5.2, 3.7  # inches; a phone shows this nearly at its own size, so that text stays readable
_MARGIN = 0.08  # of an axis of x, beside the outermost points; a share of the distance between them
_RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "axes.formatter.useoffset": False,
}


def candidates_plot(
    name: str,
    rows: Sequence[dict[str, Any]],
    best: dict[str, Any],
    metric: str,
    lam: float,
    teachers: Sequence[float],
    text: str,
) -> str:
    """Metric, with its interval, and t_λ over sparsity.

    Args:
        name: prefix of the ids in the SVG, unique in the page; the mark of ``best`` is ``NAME-chosen``, the ends of
            the intervals are ``NAME-interval``.
        rows: the candidates of one sandwich, as in ``candidates.json``.
        best: the row with the chosen size.
        metric: name of the metric, with its range.
        lam: λ.
        teachers: the metric of each of the sandwich's teachers on the same rows.
        text: what the plot shows, for who cannot see it.
    """

    def draw(axes: Any) -> None:
        x = [100 * row["sparsity"] for row in rows]
        whose = "its teacher's metric" if len(teachers) == 1 else "its teachers' metrics"
        for number, teacher in enumerate(teachers):
            label = "_" * number + whose  # a legend leaves out what begins with an underscore
            axes.axhline(teacher, color=_INK, linewidth=1, linestyle=(0, (1, 2)), label=label)
        axes.plot(x, [r["metric"] for r in rows], "o-", color=_METRIC, label="metric", gid="metric", zorder=3)
        ends = list(zip(*(row["interval"] for row in rows), strict=True))
        # Not errorbar(), which refuses a metric that lies outside its interval; a bootstrap does not rule that out.
        axes.vlines(x, *ends, color=_METRIC, linewidth=1.4, alpha=0.6, label="its 95 % interval", zorder=2)
        axes.plot([*x, *x], [*ends[0], *ends[1]], "_", color=_METRIC, markersize=8, gid="interval", zorder=2)
        label = f"t_λ = metric + {lam:g} · sparsity"
        axes.plot(x, [r["tradeoff"] for r in rows], "s--", color=_TRADEOFF, label=label, gid="tradeoff", zorder=3)
        style = {"color": _INK, "markerfacecolor": "none", "markersize": 13, "markeredgewidth": 1.8}
        at = 100 * best["sparsity"]
        axes.axvline(at, color=_INK, linewidth=0.8, alpha=0.5)
        axes.plot([at], [best["tradeoff"]], "o", label=f"largest t_λ: {at:g} %", gid="chosen", **style)
        axes.margins(x=_MARGIN, y=0.12)
        labels = _labelled(x, at)
        axes.set_xticks(labels, [f"{value:g}" for value in labels])
        axes.set_xticks([value for value in x if value not in labels], minor=True)
        axes.set_xlabel("sparsity (% of heads and neurons removed)")
        # Above the axis, not beside it: no turned text, and room for long names.
        axes.set_title(f"{metric}, and t_λ", loc="left", fontsize=10)

    return _svg(name, draw, text, columns=2)


def _labelled(x: Sequence[float], chosen: float) -> list[float]:
    """The values that have room for their labels: the chosen one, the ends, and of the others those that are left."""
    # Margins make the axis longer than the values; a character takes 1.6 % of it, and between two labels is one more.
    per_character = 0.016 * (1 + 2 * _MARGIN) * (max(x) - min(x))
    labelled: list[float] = []
    for value in dict.fromkeys((chosen, x[0], x[-1], *x)):
        if all(abs(value - other) >= per_character * (1 + len(f"{value:g}{other:g}") / 2) for other in labelled):
            labelled.append(value)
    return sorted(labelled)


def front_plot(
    name: str,
    candidates: Sequence[tuple[float, float]],
    models: Sequence[tuple[str, float, float]],
    size: str,
    metric: str,
    text: str,
) -> str:
    """Metric over what a network takes.

    Args:
        name: prefix of the ids in the SVG, unique in the page.
        candidates: of each what it takes, and its metric.
        models: of teacher, assistants and student the role, what it takes, and its metric.
        size: label of the axis of what they take, with its unit.
        metric: name of the metric, with its range.
        text: what the plot shows, for who cannot see it.
    """

    def draw(axes: Any) -> None:
        if candidates:
            axes.plot(*zip(*candidates, strict=True), "o-", color=_METRIC, label="candidates", gid="candidates")
        for (role, x, y), marker in zip(models, itertools.cycle("*Ds^vPX<>"), strict=False):
            style = {"color": _INK, "markerfacecolor": "none", "markersize": 11, "markeredgewidth": 1.5}
            # Of labels that begin with an underscore the legend shows none.
            label = role if not role.startswith("_") else f"\N{ZERO WIDTH SPACE}{role}"
            axes.plot([x], [y], marker, linestyle="none", label=label, gid=role.replace(" ", "-"), **style)
        axes.margins(x=_MARGIN, y=0.12)
        axes.set_xlim(left=0)
        axes.set_xlabel(size)
        axes.set_title(metric, loc="left", fontsize=10)

    return _svg(name, draw, text, columns=4)


def curves_plot(
    name: str,
    history: Sequence[dict[str, Any]],
    series: dict[str, int],
    thick: Sequence[str],
    metric: str,
    text: str,
) -> str:
    """Each network's metric over the steps of one stage.

    Args:
        name: prefix of the ids in the SVG, unique in the page.
        history: one entry per evaluation: ``step`` and ``metrics``, network -> metrics.
        series: number of each network's colour, the CSS variable ``--series-NUMBER``.
        thick: networks to draw with a thicker line.
        metric: label of the metric's axis.
        text: what the plot shows, for who cannot see it.
    """
    networks = [network for network in series if any(network in entry["metrics"] for entry in history)]

    def draw(axes: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        for network in networks:
            entries = [entry for entry in history if network in entry["metrics"]]
            axes.plot(
                [entry["step"] for entry in entries],
                [entry["metrics"][network]["metric"] for entry in entries],
                color=f"#0000{_FIRST_SERIES + series[network]:02x}",
                marker=_MARKERS[series[network] % len(_MARKERS)],
                markersize=4,
                linewidth=2.6 if network in thick else 1.4,
                label=network,
            )
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.set_xlabel("optimiser step")
        axes.set_title(metric, loc="left", fontsize=10)

    return _svg(name, draw, text, columns=min(len(networks), 6))


def series_colours(number: int) -> list[tuple[str, str]]:
    """For each of ``number`` ordered series its colour on a light and on a dark page."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    plasma = colormaps["plasma"]
    at = [i / max(1, number - 1) for i in range(number)]
    return [(to_hex(plasma(0.72 * t)), to_hex(plasma(1 - 0.7 * t))) for t in at]


def _svg(name: str, draw: Callable[[Any], None], text: str, columns: int) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    out = io.StringIO()
    with matplotlib.rc_context():
        # Whatever matplotlibrc the user has: the same results give the same file.
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**_RC, "svg.hashsalt": name})
        figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
        draw(figure.add_subplot())
        figure.legend(loc="outside lower center", ncols=columns, columnspacing=1.4, handletextpad=0.5)
        figure.savefig(out, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return _inline(out.getvalue(), name, text)


def _inline(svg: str, name: str, text: str) -> str:
    """Fit a file of matplotlib's into a page: no header, no name spaces, ids of its own, the page's colours."""
    body = svg[svg.index(">", svg.index("<svg ")) + 1 :]
    body = re.sub(r"<style\b.*?</style>", "", body, flags=re.DOTALL)
    body = body.replace("xlink:href", "href")
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", body)
    body = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", body)
    body = re.sub(r"#0000[0-9a-f]{2}\b", lambda match: _colour(match[0]), body)
    size = re.search(r'viewBox="[^"]+"', svg)
    assert size is not None
    return f'<svg {size[0]} role="img" aria-label="{escape(text)}">{body.strip()}'


def _colour(placeholder: str) -> str:
    if placeholder in _COLOURS:
        return _COLOURS[placeholder]
    series = int(placeholder[-2:], 16) - _FIRST_SERIES
    return f"var(--series-{series})" if series >= 0 else placeholder
