"""The drawings of a calibration report as SVG: scores, reliability, layers, histograms."""

from __future__ import annotations

import html
import math
from typing import Any, List, Mapping, Optional, Sequence, Tuple

from .timeline import AMBER, GREEN, INK, PALE, RED

GREY, BLUE = "#627d98", "#2b6cb0"


def scatter_svg(points: Sequence[Sequence[Any]], threshold: Optional[float] = None) -> str:
    """INT8 against float fake probability, one mark per picture.

    Args:
        points: ``(float, INT8, "REAL", "FAKE" or None)``.
        threshold: refitted on INT8, a dotted line where it is not one half.
    """
    side, left, top = 300, 44, 10
    span = side - left - 16

    def x(value: float) -> float:
        return left + span * value

    def y(value: float) -> float:
        return top + span * (1 - value)

    parts = [_open(side, side + 14, "INT8 fake probability against float"), _square(x, y)]
    for value, dash in ((0.5, "4 4"), (threshold, "1 3")):
        if value is None or (value == 0.5 and dash == "1 3"):
            continue
        parts.append(_line(x(0), y(value), x(1), y(value), INK, dash))
        if dash == "4 4":
            parts.append(_line(x(value), y(0), x(value), y(1), INK, dash))
    parts.append(_line(x(0), y(0), x(1), y(1), PALE))
    colours = {"FAKE": RED, "REAL": GREEN, None: GREY}
    for exact, quantized, name in points:
        at = f'cx="{x(exact):.1f}" cy="{y(quantized):.1f}"'
        parts.append(f'<circle {at} r="3" fill="{colours[name]}" fill-opacity="0.55"/>')
        if (exact >= 0.5) != (quantized >= 0.5):
            parts.append(f'<circle {at} r="7" fill="none" stroke="{AMBER}" stroke-width="2.5"/>')
    used = [name for name in ("FAKE", "REAL", None) if any(p[2] == name for p in points)]
    parts.append(_axes(x, y, side, "float fake probability", "INT8"))
    for i, name in enumerate(used):
        parts.append(
            f'<circle cx="{left + 8 + 70 * i}" cy="{side + 4}" r="4" fill="{colours[name]}"/>'
            f'<text x="{left + 16 + 70 * i}" y="{side + 8}" fill="{INK}">{name or "no label"}'
            "</text>"
        )
    return "".join(parts) + "</svg>"


def reliability_svg(reliability: Mapping[str, Sequence[Sequence[Any]]]) -> str:
    """What came true against what was said, per tenth of the fake probability, both models."""
    side, left, top = 300, 44, 10
    span = side - left - 16

    def x(value: float) -> float:
        return left + span * value

    def y(value: float) -> float:
        return top + span * (1 - value)

    parts = [_open(side, side + 14, "reliability of the fake probability"), _square(x, y)]
    parts.append(_line(x(0), y(0), x(1), y(1), PALE))
    for place, (name, colour) in enumerate((("float", GREY), ("int8", BLUE))):
        table = [entry for entry in reliability[name] if entry[0]]
        most = max([count for count, _, _ in table] or [1])
        known = [(x(p), y(share), 2 + 5 * math.sqrt(count / most)) for count, p, share in table]
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b, _ in known)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}"/>')
        parts += [
            f'<circle cx="{a:.1f}" cy="{b:.1f}" r="{r:.1f}" fill="{colour}" fill-opacity="0.6"/>'
            for a, b, r in known
        ]
        parts.append(
            f'<circle cx="{left + 8 + 70 * place}" cy="{side + 4}" r="4" fill="{colour}"/>'
            f'<text x="{left + 16 + 70 * place}" y="{side + 8}" fill="{INK}">'
            f"{'INT8' if name == 'int8' else name}</text>"
        )
    parts.append(_axes(x, y, side, "fake probability said", "share of FAKE"))
    return "".join(parts) + "</svg>"


def rows_svg(
    labels: Sequence[str],
    pairs: Sequence[Tuple[Optional[float], Optional[float]]],
    unit: str,
    powers: bool = False,
) -> str:
    """One row per label with a hollow and a filled mark, joined by a line.

    Args:
        labels: of the rows.
        pairs: ``(hollow, filled)``; ``None`` draws nothing.
        unit: of the axis.
        powers: values are logarithms to the base 2 and the axis shows their powers.
    """
    values = [v for pair in pairs for v in pair if v is not None]
    low, high = (math.floor(min(values)), math.ceil(max(values))) if values else (0, 1)
    step = next((s for s in (1, 2, 5, 10, 20, 50) if (high - low) / s <= 10), 100)
    low, high = step * math.floor(low / step), step * math.ceil((high + 1e-9) / step)
    width, top, row = 780, 22, 17
    left = 24 + 6.9 * max(map(len, labels), default=0)  # of letters at this size, about
    height = top + row * len(labels) + 8

    def x(value: float) -> float:
        return left + (width - left - 20) * (value - low) / max(high - low, 1)

    parts = [_open(width, height, "one row per layer")]
    for tick in range(low, high + 1, step):
        shown = _power(tick) if powers else f"{tick}"
        parts.append(_line(x(tick), top - 4, x(tick), height - 4, PALE))
        parts.append(
            f'<text x="{x(tick):.1f}" y="12" text-anchor="middle" fill="{INK}">{shown}'
            f"{f' {unit}' if unit and tick == high else ''}</text>"
        )
    for i, (name, (hollow, filled)) in enumerate(zip(labels, pairs)):
        y = top + row * i + row / 2
        parts.append(
            f'<text x="{left - 10}" y="{y + 4:.1f}" text-anchor="end" fill="{INK}">'
            f"{html.escape(name)}</text>"
        )
        if hollow is not None and filled is not None:
            parts.append(_line(x(hollow), y, x(filled), y, PALE, width=3))
        if hollow is not None:
            parts.append(
                f'<circle cx="{x(hollow):.1f}" cy="{y:.1f}" r="4" fill="#fff" stroke="{BLUE}" '
                'stroke-width="1.5"/>'
            )
        if filled is not None:
            parts.append(f'<circle cx="{x(filled):.1f}" cy="{y:.1f}" r="4" fill="{BLUE}"/>')
    return "".join(parts) + "</svg>"


def histogram_svg(counts: Sequence[int], clipped: bool) -> str:
    """How often each of the 256 codes occurs, logarithmic; red ends where values were clipped."""
    width, height = 128, 26
    most = math.log1p(max(counts))
    bars: List[str] = []
    for i in range(0, 256, 2):
        count = max(counts[i], counts[i + 1])
        if count and most:
            tall = max(1.0, (height - 1) * math.log1p(count) / most)
            bars.append(f"M{i / 2:g} {height}v{-tall:.1f}h1V{height}z")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="histogram of codes">',
        f'<path d="{"".join(bars)}" fill="{GREY}"/>',
        _line(0, height - 0.5, width, height - 0.5, PALE),
        _line(64, 0, 64, height, PALE, "2 2"),
    ]
    for code, place in ((0, 0), (255, width - 2)):
        if clipped and counts[code]:
            parts.append(f'<rect x="{place}" y="0" width="2" height="{height}" fill="{RED}"/>')
    return "".join(parts) + "</svg>"


def _open(width: int, height: int, text: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="{html.escape(text, quote=True)}" '
        'font-family="system-ui, sans-serif" font-size="12">'
    )


def _line(
    x0: float, y0: float, x1: float, y1: float, colour: str, dash: str = "", width: float = 1
) -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="{colour}" '
        f'stroke-width="{width:g}"{dashed}/>'
    )


def _square(x: Any, y: Any) -> str:
    return (
        f'<rect x="{x(0):.1f}" y="{y(1):.1f}" width="{x(1) - x(0):.1f}" '
        f'height="{y(0) - y(1):.1f}" fill="none" stroke="{PALE}"/>'
    )


def _axes(x: Any, y: Any, side: int, across: str, up: str) -> str:
    parts = []
    for value in (0.0, 0.5, 1.0):
        parts.append(
            f'<text x="{x(value):.1f}" y="{y(0) + 15:.1f}" text-anchor="middle" fill="{INK}">'
            f'{value:g}</text><text x="{x(0) - 6:.1f}" y="{y(value) + 4:.1f}" text-anchor="end" '
            f'fill="{INK}">{value:g}</text>'
        )
    parts.append(
        f'<text x="{x(0.5):.1f}" y="{y(0) + 32:.1f}" text-anchor="middle" fill="{INK}">{across}'
        f'</text><text x="12" y="{y(0.5):.1f}" text-anchor="middle" fill="{INK}" '
        f'transform="rotate(-90 12 {y(0.5):.1f})">{up}</text>'
    )
    return "".join(parts)


def _power(exponent: int) -> str:
    return f"{2**exponent}" if exponent >= 0 else f"1/{2**-exponent}"
