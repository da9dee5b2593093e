"""The score of a video over time, as an SVG curve.

It knows records (``records.jsonl`` as dictionaries), nothing of devices or models.
"""

from __future__ import annotations

from typing import Any, List, Mapping, Optional, Sequence, Tuple

Record = Mapping[str, Any]
Interval = Tuple[float, float]

INK, PALE, RED, GREEN, AMBER = "#1f2933", "#d9e2ec", "#c62f2f", "#2f855a", "#f0b429"


def judged(records: Sequence[Record]) -> List[Tuple[float, float]]:
    """``(time in seconds, fake probability)`` of the frames that were judged, in order.

    A record without a time (a picture) is placed by its position.
    """
    points = []
    for position, record in enumerate(records):
        if record.get("status") == "ok" and record.get("fake_probability") is not None:
            time = record.get("time")
            points.append((float(position if time is None else time), record["fake_probability"]))
    return points


def curve_svg(
    records: Sequence[Record],
    threshold: float = 0.5,
    truth: Optional[Sequence[Interval]] = None,
    size: Tuple[int, int] = (760, 220),
) -> str:
    """The fake probability over time.

    Args:
        records: the lines of ``records.jsonl``.
        threshold: the dashed line.
        truth: intervals in seconds known to be manipulated (a generated clip), shaded.
        size: width and height in pixels.

    Returns:
        An ``<svg>`` element to put into a page.
    """
    width, height = size
    left, right, top, bottom = 46, 12, 12, 34
    points = judged(records)
    end = max([t for t, _ in points] + [b for _, b in truth or []] + [1e-9])

    def x(time: float) -> float:
        return left + (width - left - right) * time / end

    def y(value: float) -> float:
        return top + (height - top - bottom) * (1.0 - value)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-label="fake probability over time" '
        'font-family="system-ui, sans-serif" font-size="12">'
    ]
    for start, stop in truth or []:
        parts.append(
            f'<rect x="{x(start):.1f}" y="{top}" width="{x(stop) - x(start):.1f}" '
            f'height="{height - top - bottom}" fill="{AMBER}" fill-opacity="0.25"/>'
        )
    for value in (0.0, 0.5, 1.0):
        parts.append(
            f'<line x1="{left}" y1="{y(value):.1f}" x2="{width - right}" y2="{y(value):.1f}" '
            f'stroke="{PALE}"/><text x="{left - 8}" y="{y(value) + 4:.1f}" text-anchor="end" '
            f'fill="{INK}">{value:g}</text>'
        )
    parts.append(
        f'<line x1="{left}" y1="{y(threshold):.1f}" x2="{width - right}" y2="{y(threshold):.1f}" '
        f'stroke="{INK}" stroke-dasharray="4 4"/>'
    )
    for tick in _ticks(end):
        parts.append(
            f'<text x="{x(tick):.1f}" y="{height - 12}" text-anchor="middle" fill="{INK}">'
            f"{tick:g} s</text>"
        )
    for (t0, v0), (t1, v1) in zip(points, points[1:]):
        colour = RED if (v0 + v1) / 2 >= threshold else GREEN
        parts.append(
            f'<line x1="{x(t0):.1f}" y1="{y(v0):.1f}" x2="{x(t1):.1f}" y2="{y(v1):.1f}" '
            f'stroke="{colour}" stroke-width="2" stroke-linecap="round"/>'
        )
    if not points:
        parts.append(
            f'<text x="{width / 2}" y="{height / 2}" text-anchor="middle" fill="{INK}">'
            "no frame could be judged</text>"
        )
    parts.append("</svg>")
    return "".join(parts)


def _ticks(end: float) -> List[float]:
    step = next((s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60) if end / s <= 10), 300)
    return [round(i * step, 6) for i in range(int(end / step) + 1)]
