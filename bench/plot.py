"""Plots as SVG, written by hand: bars on a logarithmic scale, and lines."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from html import escape

OURS, THEIRS = "#1f6feb", "#9aa4b1"
COLOURS = ("#1f6feb", "#8250df", "#1a7f37", "#9aa4b1")
LEFT, WIDTH, ROW = 250, 760, 22
STYLE = "<style>text{font:12px sans-serif;fill:#57606a}.title{font-weight:bold}</style>"


def svg(height: int, parts: Iterator[str]) -> str:
    """Put the parts into a picture with a white ground, readable on dark pages too."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">'
    return "\n".join([head, STYLE, '<rect width="100%" height="100%" fill="#ffffff"/>', *parts, "</svg>", ""])


def text(x: float, y: float, words: str, anchor: str = "start", kind: str = "") -> str:
    kind = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{escape(words)}</text>'


def bars(title: str, unit: str, values: Mapping[str, float]) -> str:
    """Draw one bar for each contestant, the least first; Unbroken's are coloured."""
    ordered = sorted(values.items(), key=lambda item: item[1])
    low = 10 ** math.floor(math.log10(max(ordered[0][1], 1e-3))) / 2
    scale = (WIDTH - LEFT - 90) / math.log10(max(ordered[-1][1] / low, 10))

    def parts() -> Iterator[str]:
        yield text(10, 20, f"{title} ({unit}, logarithmic)", kind="title")
        for row, (name, value) in enumerate(ordered):
            y = 34 + row * ROW
            length = max(1.0, math.log10(max(value, low) / low) * scale)
            colour = OURS if "unbroken" in name else THEIRS
            yield text(LEFT - 8, y + 14, name, "end")
            yield f'<rect x="{LEFT}" y="{y + 2}" width="{length:.1f}" height="{ROW - 6}" fill="{colour}"/>'
            yield text(LEFT + length + 6, y + 14, number(value))

    return svg(44 + ROW * len(ordered), parts())


def lines(title: str, x_unit: str, y_unit: str, series: Mapping[str, Mapping[float, float]]) -> str:
    """Draw one line for each contestant through its points, both axes from zero."""
    left, top, width, height = 60, 40, WIDTH - 80, 260
    most_x = max(x for points in series.values() for x in points)
    most_y = max(y for points in series.values() for y in points.values())

    def place(x: float, y: float) -> tuple[float, float]:
        return left + x / most_x * width, top + height - y / most_y * height

    def parts() -> Iterator[str]:
        yield text(10, 20, title, kind="title")
        yield f'<path d="M{left},{top}V{top + height}H{left + width}" fill="none" stroke="#57606a"/>'
        yield text(left + width, top + height + 18, f"{number(most_x)} {x_unit}", "end")
        yield text(left - 6, top + height + 18, "0", "end")
        yield text(left + 6, top + 4, f"{number(most_y)} {y_unit}")
        for row, (name, points) in enumerate(series.items()):
            colour = COLOURS[row % len(COLOURS)]
            placed = [place(x, y) for x, y in sorted(points.items())]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
            yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
            yield from (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in placed)
            y = top + height + 40 + row * 18
            yield f'<rect x="{left}" y="{y - 10}" width="12" height="12" fill="{colour}"/>' + text(left + 18, y, name)

    return svg(top + height + 50 + 18 * len(series), parts())


def number(value: float) -> str:
    """Write a value with three digits that say something."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"
