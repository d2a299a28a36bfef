"""Bar charts as SVG: as much of it as the results page needs, so that no plotting library has to be installed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

COLOURS = ("#777777", "#d1495b", "#30638e", "#edae49", "#66a182", "#8d6a9f", "#003d5b")
BAR, GAP, LEFT, RIGHT, TOP = 13, 12, 330, 80, 56
WIDTH = 980


def bar_chart(title: str, unit: str, groups: Sequence[tuple[str, Sequence[tuple[str, float]]]]) -> str:
    """Horizontal bars on a logarithmic axis: groups of (label, value), one colour for each label.

    Shorter is better or worse as the title says; the value is written at the end of each bar.
    """
    labels = list(dict.fromkeys(label for _, bars in groups for label, _ in bars))
    colours = {label: COLOURS[number % len(COLOURS)] for number, label in enumerate(labels)}
    values = [value for _, bars in groups for _, value in bars if value > 0] or [1.0]
    low, high = _decades(min(values), max(values))
    height = TOP + sum(len(bars) * BAR + GAP for _, bars in groups) + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        'font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="12" y="18" font-size="14" font-weight="bold">{escape(title)}</text>',
        *_legend(labels, colours),
        *_axis(low, high, height, unit),
    ]
    top = TOP
    for name, bars in groups:
        middle = top + len(bars) * BAR / 2 + 4
        parts.append(f'<text x="{LEFT - 8}" y="{middle:.0f}" text-anchor="end">{escape(name)}</text>')
        for label, value in bars:
            end = _place(value, low, high)
            parts.append(
                f'<rect x="{LEFT}" y="{top}" width="{max(end - LEFT, 1):.1f}" height="{BAR - 2}" '
                f'fill="{colours[label]}">'
                f"<title>{escape(label)}: {value:.3g} {escape(unit)}</title></rect>"
                f'<text x="{max(end, LEFT) + 4:.1f}" y="{top + BAR - 4}" font-size="9">{value:.3g}</text>'
            )
            top += BAR
        top += GAP
    return "\n".join([*parts, "</svg>", ""])


def _decades(low: float, high: float) -> tuple[float, float]:
    """The powers of ten around all values, which are the ends of the axis."""
    first = math.floor(math.log10(low))
    return 10.0**first, 10.0 ** max(math.ceil(math.log10(high)), first + 1)


def _place(value: float, low: float, high: float) -> float:
    """The x of a value."""
    part = math.log(max(value, low) / low) / math.log(high / low)
    return LEFT + part * (WIDTH - LEFT - RIGHT)


def _legend(labels: Sequence[str], colours: dict[str, str]) -> list[str]:
    parts, x = [], 12.0
    for label in labels:
        parts.append(f'<rect x="{x:.0f}" y="28" width="10" height="10" fill="{colours[label]}"/>')
        parts.append(f'<text x="{x + 14:.0f}" y="37">{escape(label)}</text>')
        x += 30 + 6.5 * len(label)
    return parts


def _axis(low: float, high: float, height: int, unit: str) -> list[str]:
    parts, mark = [], low
    while mark <= high * 1.001:
        x = _place(mark, low, high)
        parts.append(f'<line x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{height - 20}" stroke="#dddddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 6}" text-anchor="middle" fill="#555555">{mark:g}</text>')
        mark *= 10
    parts.append(f'<text x="12" y="{height - 6}" fill="#555555">{escape(unit)}, logarithmic</text>')
    return parts
