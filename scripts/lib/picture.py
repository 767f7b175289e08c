"""Draws a terminal session as an SVG that needs nothing but itself: no font, no script, no network.

The lines appear one after the other, at the moment when they did (long waits shortened), and then stay. A viewer that
does not animate shows all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_COLUMN, _ROW, _MARGIN = 7.8, 18, 16  # pixels
_COLOURS = {
    "note": "#8b949e",
    "typed": "#f0f6fc",
    "output": "#c9d1d9",
    "added": "#7ee787",
    "removed": "#ffa198",
    "result": "#79c0ff",
}
_LONGEST_WAIT = 1.2  # seconds


@dataclass(frozen=True, slots=True)
class Line:
    """`at`: seconds since the session began."""

    at: float
    kind: str
    text: str


def draw(lines: Sequence[Line]) -> str:
    """The SVG's text."""
    columns = max(len(line.text) for line in lines)
    width, height = int(columns * _COLUMN) + 2 * _MARGIN, len(lines) * _ROW + 2 * _MARGIN
    rows = [
        f'<text x="{_MARGIN}" y="{_MARGIN + (number + 0.75) * _ROW:.0f}" fill="{_COLOURS[line.kind]}"'
        f'{_weight(line)} style="animation-delay:{at:.2f}s">{escape(line.text)}</text>'
        for number, (line, at) in enumerate(zip(lines, _moments(lines), strict=True))
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
            f' viewBox="0 0 {width} {height}" xml:space="preserve">',
            "<style>text{font:13px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;white-space:pre;"
            "animation:show .01s both}@keyframes show{from{opacity:0}to{opacity:1}}"
            "@media(prefers-reduced-motion:reduce){text{animation:none}}</style>",
            f'<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>',
            *rows,
            "</svg>\n",
        ]
    )


def _weight(line: Line) -> str:
    return ' font-weight="bold"' if line.kind in ("typed", "result") else ""


def _moments(lines: Sequence[Line]) -> list[float]:
    moment, last, moments = 0.3, 0.0, []
    for line in lines:
        moment += min(line.at - last, _LONGEST_WAIT)
        last = line.at
        moments.append(moment)
    return moments
