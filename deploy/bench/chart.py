"""The bar chart "frames per second against inference node", as an SVG document.

Measured bars are filled; published ones are hollow with a broken outline and say what they are.
The device ``null`` computes nothing: its bar would make all others vanish, so the scale is that of
the others and a longer bar is cut, with a mark, its figure beside it.
"""

from __future__ import annotations

import html
from typing import List, Tuple

from ..timeline import INK, PALE
from .published import PUBLISHED
from .record import Bench

_WIDTH, _LEFT, _RIGHT, _TOP, _ROW = 860, 290, 120, 64, 30
_SOLID, _HOLLOW = "#2b6cb0", "#627d98"
LABEL = "published, not measured here"


def chart(bench: Bench) -> str:
    """The chart of a run.

    Returns:
        An SVG document.
    """
    bars: List[Tuple[str, float, float, bool]] = []
    for device in bench.devices:
        series = device.end_to_end
        bars.append((device.label, series.median, series.spread, False))
    for one in PUBLISHED:
        bars.append((one.label, one.frames, 0.0, True))
    scale = max([rate for label, rate, _, _ in bars if label != "null"] + [1e-9])
    height = _TOP + _ROW * len(bars) + 54
    span = _WIDTH - _LEFT - _RIGHT
    title = "FPS against inference node"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{title}" '
        'font-family="DejaVu Sans, Arial, sans-serif" font-size="12">',
        f"<title>{title}</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(16, 24, title, size=16),
        _text(
            16, 44, f"frames/s end to end, {bench.machine.processor}, {bench.machine.cores} cores"
        ),
    ]
    for step in range(5):
        x = _LEFT + span * step / 4
        parts.append(
            f'<line x1="{x:.1f}" y1="{_TOP - 6}" x2="{x:.1f}" y2="{_TOP + _ROW * len(bars)}" '
            f'stroke="{PALE}"/>'
        )
        words = f"{scale * step / 4:.0f}" if scale >= 20 else f"{scale * step / 4:.2g}"
        parts.append(_text(x, _TOP + _ROW * len(bars) + 16, words, anchor="middle"))
    for at, (label, rate, spread, published) in enumerate(bars):
        parts += _bar(label, rate, spread, published, _TOP + _ROW * at, span * rate / scale, span)
    foot = height - 14
    parts.append(f'<rect x="16" y="{foot - 10}" width="22" height="11" fill="{_SOLID}"/>')
    parts.append(_text(44, foot, "measured, median and middle half of the rounds"))
    parts.append(
        f'<rect x="372" y="{foot - 10}" width="22" height="11" fill="none" stroke="{_HOLLOW}" '
        'stroke-width="1.5" stroke-dasharray="4 3"/>'
    )
    parts.append(_text(400, foot, LABEL))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _bar(
    label: str, rate: float, spread: float, published: bool, top: float, length: float, span: float
) -> List[str]:
    middle, high = top + _ROW / 2, _ROW - 12
    cut = length > span
    length = min(length, span)
    style = f'fill="{_SOLID}"'
    if published:
        style = f'fill="none" stroke="{_HOLLOW}" stroke-width="1.5" stroke-dasharray="4 3"'
    kind = "published" if published else "measured"
    parts = [
        _text(_LEFT - 8, middle + 4, label, anchor="end"),
        f'<rect class="{kind}" x="{_LEFT}" y="{top + 6:.1f}" width="{max(length, 0.5):.1f}" '
        f'height="{high}" {style}><title>{html.escape(label)}: {rate:.1f} frames/s, {kind}</title>'
        "</rect>",
    ]
    if cut:
        x = _LEFT + span - 24
        parts.append(
            f'<path d="M{x} {top + 3:.1f} l-6 {high + 6} m8 0 l6 -{high + 6}" stroke="#ffffff" '
            'stroke-width="3" fill="none"/>'
        )
    end = length
    if spread and not cut:
        start, end = (max(0.0, min(length * (1 + s * spread / 2), span + 16)) for s in (-1, 1))
        parts.append(
            f'<line x1="{_LEFT + start:.1f}" y1="{middle:.1f}" x2="{_LEFT + end:.1f}" '
            f'y2="{middle:.1f}" stroke="{INK}" stroke-width="2"/>'
        )
    words = f"{rate:.1f}" if rate < 1000 else f"{rate:.0f}"
    parts.append(_text(_LEFT + end + 8, middle + 4, words))
    return parts


def _text(x: float, y: float, words: str, anchor: str = "start", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{INK}">'
        f"{html.escape(words)}</text>"
    )
