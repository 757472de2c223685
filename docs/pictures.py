"""The pictures of the page on the method: schematic, drawn from the method's own rules.

``python docs/pictures.py`` writes them to ``docs/images``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

IMAGES = Path(__file__).parent / "images"
INK, FAINT, TEACHER, ASSISTANT, STUDENT = "#333", "#bbb", "#3f51b5", "#00897b", "#e65100"


def path() -> str:
    """From teacher to student."""
    steps = (
        ("teacher", "fine-tuned", TEACHER),
        ("importance", "of heads, neurons", INK),
        ("order", "weights permuted", INK),
        ("sandwich", "all sizes at once", INK),
        ("table", "metric of each size", INK),
        ("assistant", "largest m + λ · s", ASSISTANT),
        ("student", "distilled from it", STUDENT),
    )
    parts = []
    for i, (title, note, color) in enumerate(steps):
        x = 8 + i * 128
        parts += [
            _box(x, 20, 108, 54, color),
            _text(x + 54, 44, title, color, bold=True),
            _text(x + 54, 62, note, size=11),
        ]
        if i:
            parts.append(_arrow(x - 19, 47, x - 3, 47))
    return _svg(900, 94, parts)


def prefixes() -> str:
    """Ordered by importance, every smaller network is a prefix of every larger one."""
    # Heads of four layers, most important first, and how many the global ranking leaves at each sparsity.
    kept = {"0 %": (8, 8, 8, 8), "50 %": (3, 4, 6, 3), "90 %": (1, 0, 2, 0)}
    parts = []
    for number, (sparsity, counts) in enumerate(kept.items()):
        left = 60 + number * 280
        parts.append(_text(left + 100, 24, f"{sparsity} removed", INK, bold=True))
        for layer, count in enumerate(counts):
            y = 44 + layer * 34
            if number == 0:
                parts.append(_text(28, y + 17, f"layer {layer + 1}", size=11))
            if count:
                parts += [_box(left + i * 25, y, 21, 24, TEACHER if i < count else FAINT, i < count) for i in range(8)]
            else:
                parts += [
                    _text(left + 100, y + 10, "passes through", size=11),
                    _arrow(left, y + 16, left + 196, y + 16),
                ]
    parts.append(_text(430, 198, "one head a square, the most important one at the left; neurons likewise", size=12))
    return _svg(860, 212, parts)


def sandwich() -> str:
    """A training step: the teacher once, then the largest, a random and the smallest sub-network."""
    widths = ((0.5, "largest, 50 %"), (0.7, "one at random, 70 %"), (0.9, "smallest, 90 %"))
    parts = [_box(20, 88, 90, 44, INK), _text(65, 114, "batch", INK, bold=True)]
    parts += [_box(250, 10, 240, 44, TEACHER), _text(370, 36, "teacher, frozen", TEACHER, bold=True)]
    parts.append(_arrow(112, 98, 244, 34))
    parts += [
        _text(640, 28, "logits and", size=12),
        _text(640, 44, "hidden states", size=12),
        _arrow(494, 32, 590, 32),
    ]
    for i, (sparsity, name) in enumerate(widths):
        y = 76 + i * 54
        parts.append(_box(250, y, 240, 40, FAINT))
        parts.append(_box(250, y, 240 * (1 - sparsity), 40, STUDENT, True, 0.25))
        parts += [_text(370, y + 25, name), _arrow(112, 112 + i * 6, 244, y + 20), _arrow(494, y + 20, 590, y + 20)]
        parts.append(_text(640, y + 25, f"loss {i + 1}", size=12))
    parts += [_text(760, 124, "their mean:", size=12), _text(760, 142, "one step", INK, bold=True)]
    parts += [_arrow(672, 96 + i * 54, 712, 122 + i * 8) for i in range(3)]
    return _svg(820, 244, parts)


def tradeoff() -> str:
    """Metric and tradeoff over sparsity; the assistant has the largest tradeoff."""
    weight, grid = 0.2, (0.5, 0.6, 0.7, 0.8, 0.9)
    metrics = [0.92 - 2 * (s - 0.45) ** 4 - 0.35 * max(0.0, s - 0.7) for s in grid]
    totals = [m + weight * s for m, s in zip(metrics, grid, strict=True)]
    best = max(range(len(grid)), key=totals.__getitem__)

    def point(s: float, value: float) -> tuple[float, float]:
        return 90 + (s - 0.45) * 900, 210 - (value - 0.7) * 420

    bottom, right = 210.0, 540.0
    parts = [_line([(90, 20), (90, bottom), (right, bottom)], INK)]
    for values, color, name in ((totals, ASSISTANT, "t = m + λ · s"), (metrics, TEACHER, "metric m")):
        points = [point(s, v) for s, v in zip(grid, values, strict=True)]
        parts.append(_line(points, color))
        parts += [_dot(x, y, color) for x, y in points]
        parts.append(_text(right + 10, points[-1][1] + 4, name, color, anchor="start"))
    x, y = point(grid[best], totals[best])
    parts += [f'<circle cx="{x:g}" cy="{y:g}" r="9" fill="none" stroke="{ASSISTANT}" stroke-width="2"/>']
    parts.append(_text(x, y - 16, "assistant", ASSISTANT, bold=True))
    parts += [_text(point(s, 0)[0], bottom + 20, f"{100 * s:g} %", size=12) for s in grid]
    parts.append(_text(point(grid[-1], 0)[0], bottom + 36, "student's size", STUDENT, size=12))
    parts.append(_text(300, bottom + 54, "sparsity s: fraction of heads and neurons removed (schematic)", size=12))
    return _svg(680, 274, parts)


PICTURES = {"path": path, "prefixes": prefixes, "sandwich": sandwich, "tradeoff": tradeoff}


def _svg(width: int, height: int, parts: Sequence[str]) -> str:
    # A ground of its own: the page's may be dark.
    ground = f'<rect width="{width}" height="{height}" rx="6" fill="#fff"/>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">'
    marker = (
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="{INK}"/></marker></defs>'
    )
    return "\n".join([head, marker, ground, *parts, "</svg>"]) + "\n"


def _box(x: float, y: float, width: float, height: float, color: str, full: bool = False, opacity: float = 1) -> str:
    fill = color if full else "none"
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="3" stroke="{color}" fill="{fill}" '
        f'fill-opacity="{opacity:g}"/>'
    )


def _text(
    x: float, y: float, text: str, color: str = INK, size: int = 13, bold: bool = False, anchor: str = "middle"
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:g}" y="{y:g}" fill="{color}" font-size="{size}" text-anchor="{anchor}"{weight}>{text}</text>'


def _arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{INK}" marker-end="url(#tip)"/>'


def _line(points: Sequence[tuple[float, float]], color: str) -> str:
    text = " ".join(f"{x:g},{y:g}" for x, y in points)
    return f'<polyline points="{text}" fill="none" stroke="{color}" stroke-width="1.5"/>'


def _dot(x: float, y: float, color: str) -> str:
    return f'<circle cx="{x:g}" cy="{y:g}" r="4" fill="{color}"/>'


if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (IMAGES / f"{name}.svg").write_text(draw(), encoding="utf-8")
