"""The drawings of an evaluation as SVG: ROC, reliability, confusion, robustness."""

from __future__ import annotations

import html
from typing import Any, List, Mapping, Optional, Sequence, Tuple

from ..timeline import AMBER, GREEN, INK, PALE, RED

COLOURS = ("#2b6cb0", "#b7791f", "#6b46c1", "#2f855a", "#c62f2f", "#627d98")
"""One per device."""
GREY = "#627d98"
TOLD = 380
"""Pixels of a square plot."""


class Square:
    """A plot of 0 to 1 against 0 to 1."""

    def __init__(self, title: str, across: str, up: str, names: Sequence[str]) -> None:
        self._left, self._top, self._span = 54, 12, TOLD - 54 - 14
        height = self._top + self._span + 44 + 18 * len(names)
        self.parts = [svg_open(TOLD, height, title)]
        for at in (0.0, 0.25, 0.5, 0.75, 1.0):
            self.line(at, 0, at, 1, PALE)
            self.line(0, at, 1, at, PALE)
            self.text(at, -0.055, f"{100 * at:g} %", "middle")
            self.text(-0.02, at - 0.012, f"{100 * at:g} %", "end")
        self.text(0.5, -0.115, across, "middle")
        x, y = 12.0, self._y(0.5)
        self.parts.append(
            f'<text x="{x:g}" y="{y:.1f}" text-anchor="middle" fill="{INK}" '
            f'transform="rotate(-90 {x:g} {y:.1f})">{html.escape(up)}</text>'
        )
        for i, name in enumerate(names):
            below = self._top + self._span + 52 + 18 * i
            colour = COLOURS[i % len(COLOURS)]
            self.parts.append(
                f'<rect x="{self._left}" y="{below - 9}" width="12" height="12" fill="{colour}"/>'
                f'<text x="{self._left + 18}" y="{below + 2}" fill="{INK}">{html.escape(name)}'
                "</text>"
            )

    def _x(self, value: float) -> float:
        return self._left + self._span * value

    def _y(self, value: float) -> float:
        return self._top + self._span * (1 - value)

    def line(self, x0: float, y0: float, x1: float, y1: float, colour: str, dash: str = "") -> None:
        """A thin line."""
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(
            f'<line x1="{self._x(x0):.1f}" y1="{self._y(y0):.1f}" x2="{self._x(x1):.1f}" '
            f'y2="{self._y(y1):.1f}" stroke="{colour}"{dashed}/>'
        )

    def curve(self, points: Sequence[Sequence[float]], colour: str) -> None:
        """A thick line through points."""
        path = " ".join(f"{self._x(x):.1f},{self._y(y):.1f}" for x, y in points)
        self.parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )

    def mark(self, x: float, y: float, colour: str, radius: float, text: str) -> None:
        """A disc that says what it is when it is pointed at."""
        self.parts.append(
            f'<circle cx="{self._x(x):.1f}" cy="{self._y(y):.1f}" r="{radius:.1f}" '
            f'fill="{colour}" fill-opacity="0.65"><title>{html.escape(text)}</title></circle>'
        )

    def text(self, x: float, y: float, words: str, anchor: str) -> None:
        """Words at a place of the plot."""
        self.parts.append(
            f'<text x="{self._x(x):.1f}" y="{self._y(y):.1f}" text-anchor="{anchor}" '
            f'fill="{INK}">{html.escape(words)}</text>'
        )

    def __str__(self) -> str:
        return "".join(self.parts) + "</svg>"


def roc_svg(
    curves: Mapping[str, Optional[Sequence[Sequence[float]]]],
    chosen: Mapping[str, Tuple[float, float]],
) -> str:
    """Manipulated found against false alarms, for every threshold.

    Args:
        curves: points ``(false, true)`` by device; ``None`` draws nothing.
        chosen: the point of a chosen threshold by device, marked.
    """
    plot = Square(
        "ROC curve", "false alarms among authentic", "found among manipulated", list(curves)
    )
    plot.line(0, 0, 1, 1, GREY, "4 4")
    for i, (name, points) in enumerate(curves.items()):
        colour = COLOURS[i % len(COLOURS)]
        if points:
            plot.curve(points, colour)
        if name in chosen:
            false, true = chosen[name]
            words = f"{name}: finds {100 * true:.1f} % at {100 * false:.1f} % false alarms"
            plot.mark(false, true, colour, 6, words)
    return str(plot)


def reliability_svg(tables: Mapping[str, Sequence[Sequence[Any]]]) -> str:
    """What came true against what was said, per tenth of the probability.

    Args:
        tables: ``(count, mean probability, share)`` of every interval, by device.
    """
    plot = Square("reliability", "probability that was said", "share that is FAKE", list(tables))
    plot.line(0, 0, 1, 1, GREY, "4 4")
    for i, (name, bins) in enumerate(tables.items()):
        colour = COLOURS[i % len(COLOURS)]
        known = [entry for entry in bins if entry[0]]
        most = max((entry[0] for entry in known), default=1)
        plot.curve([(said, came) for _, said, came in known], colour)
        for count, said, came in known:
            words = f"{name}: said {100 * said:.0f} %, true {100 * came:.0f} % of {count}"
            plot.mark(said, came, colour, 3 + 7 * (count / most) ** 0.5, words)
    return str(plot)


def confusion_svg(confusion: Mapping[str, Mapping[str, int]]) -> str:
    """How many of each truth got each verdict.

    Args:
        confusion: counts by truth (``FAKE``, ``REAL``) and verdict.
    """
    right = {("FAKE", "manipulated"), ("REAL", "authentic"), ("FAKE", "FAKE"), ("REAL", "REAL")}
    columns = list(next(iter(confusion.values())))
    width, row, left, top = 150, 62, 130, 28
    size = left + width * len(columns), top + row * len(confusion)
    parts = [svg_open(size[0], size[1], "confusion table")]
    for j, column in enumerate(columns):
        parts.append(_words(left + width * (j + 0.5), 18, f"said: {column.replace('_', ' ')}"))
    for i, (truth, counts) in enumerate(confusion.items()):
        y, total = top + row * i, sum(counts.values())
        parts.append(_words(left - 10, y + row / 2 + 4, f"truly {truth}", "end"))
        for j, column in enumerate(columns):
            share = counts[column] / total if total else 0.0
            colour = RED if column in ("manipulated", "authentic", "FAKE", "REAL") else AMBER
            colour = GREEN if (truth, column) in right else colour
            x = left + width * j
            parts.append(
                f'<rect x="{x + 2}" y="{y + 2}" width="{width - 4}" height="{row - 4}" rx="4" '
                f'fill="{colour}" fill-opacity="{0.06 + 0.7 * share:.2f}" stroke="{PALE}"/>'
            )
            parts.append(_words(x + width / 2, y + 28, str(counts[column]), size=18))
            parts.append(_words(x + width / 2, y + 46, f"{100 * share:.1f} %" if total else "-"))
    return "".join(parts) + "</svg>"


def intervals_svg(
    rows: Sequence[Tuple[str, Optional[float], Optional[float], Optional[float]]],
    title: str,
    base: Optional[float] = None,
) -> str:
    """One bar of confidence per row, on a scale from the least to the largest.

    Args:
        rows: name, value, low and high.
        title: what is drawn.
        base: a value to compare with, a dashed line.
    """
    ends = [v for _, *own in rows for v in own if v is not None] + ([base] if base else [])
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    low, high = (low - 0.02, high + 0.02) if high - low < 0.02 else (low, high)
    left, width, row, top = 190, 760, 20, 24

    def x(value: float) -> float:
        return left + (width - left - 70) * (value - low) / (high - low)

    parts = [svg_open(width, top + row * len(rows) + 6, title)]
    for at in (low, (low + high) / 2, high):
        parts.append(_words(x(at), 14, f"{at:.3f}"))
        parts.append(_line(x(at), top - 4, x(at), top + row * len(rows), PALE))
    if base is not None:
        parts.append(_line(x(base), top - 4, x(base), top + row * len(rows), GREY, "4 4"))
    for i, (name, value, least, most) in enumerate(rows):
        y = top + row * (i + 0.5)
        parts.append(_words(left - 10, y + 4, name, "end"))
        if value is None:
            parts.append(_words(left, y + 4, "not defined", "start"))
            continue
        if least is not None and most is not None:
            parts.append(_line(x(least), y, x(most), y, COLOURS[0], width=3))
        parts.append(f'<circle cx="{x(value):.1f}" cy="{y:.1f}" r="4.5" fill="{COLOURS[0]}"/>')
    return "".join(parts) + "</svg>"


def svg_open(width: float, height: float, title: str) -> str:
    """The opening tag of a drawing."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" role="img" '
        f'aria-label="{html.escape(title, quote=True)}" font-family="system-ui, sans-serif" '
        'font-size="12">'
    )


def side_by_side(drawings: List[str]) -> str:
    """Several drawings in a row that wraps."""
    return f'<div style="display:flex;flex-wrap:wrap;gap:1rem">{"".join(drawings)}</div>'


def _words(x: float, y: float, text: str, anchor: str = "middle", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{INK}">'
        f"{html.escape(text)}</text>"
    )


def _line(
    x0: float, y0: float, x1: float, y1: float, colour: str, dash: str = "", width: float = 1
) -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="{colour}" '
        f'stroke-width="{width:g}"{dashed}/>'
    )
