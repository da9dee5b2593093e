"""What a video comes to, drawn: a contact sheet, and the score over time with the worst frames.

Pictures are uint8 ``[H, W, 3]`` in RGB order. OpenCV writes ASCII only, so names of files are not
drawn into them.
"""

from __future__ import annotations

from typing import Callable, List, Sequence, Tuple

import numpy as np

from .gallery import HEIGHT, Shot, decoded
from .records import State, VideoVerdict, track_name
from .scores import Scores
from .timeline import Interval, duration

Colour = Tuple[int, int, int]

INK: Colour = (31, 41, 51)
GREY: Colour = (98, 125, 152)
PALE: Colour = (217, 226, 236)
RED: Colour = (198, 47, 47)
GREEN: Colour = (47, 133, 90)
WASH: Colour = (252, 226, 226)
TRACKS: Tuple[Colour, ...] = ((38, 84, 168), (176, 96, 0), (112, 48, 160), (0, 120, 120))
"""Lines of the tracks, in turn."""

NAMED = 5
"""Tracks whose names stand beside the title; there is no room for more."""

GAP, LABEL = 8, 28
STATES = {State.MANIPULATED: RED, State.AUTHENTIC: GREEN, State.INCONCLUSIVE: GREY}


def contact_sheet(shots: Sequence[Shot], threshold: float = 0.5, columns: int = 4) -> np.ndarray:
    """Kept frames with what was found drawn in, in a grid, each with time and score below.

    Args:
        shots: in the order they are shown; none gives an empty sheet that says so.
        threshold: from which a score is written in red.
        columns: pictures in a row.
    """
    if not shots:
        sheet = _blank(HEIGHT, 2 * HEIGHT)
        _write(sheet, "no frame could be decoded", 20, HEIGHT // 2, GREY)
        return sheet
    tiles = [decoded(shot.overlay) for shot in shots]
    cell_h = max(tile.shape[0] for tile in tiles) + LABEL
    cell_w = max(max(tile.shape[1] for tile in tiles), 190)
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    sheet = _blank(rows * (cell_h + GAP) + GAP, columns * (cell_w + GAP) + GAP)
    for slot, (shot, tile) in enumerate(zip(shots, tiles)):
        top = GAP + slot // columns * (cell_h + GAP)
        left = GAP + slot % columns * (cell_w + GAP)
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
        score = shot.fake_probability
        colour = GREY if score is None else RED if score >= threshold else GREEN
        _write(sheet, caption(shot), left + 2, top + tile.shape[0] + 20, colour)
    return sheet


def timeline_picture(
    scores: Scores,
    verdict: VideoVerdict,
    intervals: Sequence[Interval],
    worst: Sequence[Shot],
    threshold: float = 0.5,
    width: int = 1200,
) -> np.ndarray:
    """The fake probability over time, the intervals shaded, and the worst frames with their masks.

    Args:
        scores: of the video.
        verdict: what they come to.
        intervals: from ``find_intervals``.
        worst: the most suspicious frames, shown below in order of time and numbered in the curve.
        threshold: the dashed line.
        width: pixels.
    """
    shots = sorted(worst, key=lambda shot: shot.frame)
    strip = _strip(shots, threshold, width)
    left, right, top, bottom = 60, width - 20, 60, 320
    sheet = _blank(370, width)
    end = max(duration(scores), 1e-6)

    def x(time: float) -> int:
        return round(left + (right - left) * min(max(time / end, 0.0), 1.0))

    def y(value: float) -> int:
        return round(bottom - (bottom - top) * value)

    _title(sheet, verdict)
    for interval in intervals:
        sheet[top:bottom, x(interval.start) : max(x(interval.end), x(interval.start) + 1)] = WASH
    for value in (0.0, 0.5, 1.0):
        sheet[y(value), left:right] = PALE
        _write(sheet, f"{value:.1f}", 18, y(value) + 5, INK)
    for start in range(left, right, 12):
        sheet[y(threshold), start : min(start + 6, right)] = INK
    for tick in _ticks(end):
        _write(sheet, f"{tick:g} s", x(tick) - 10, bottom + 24, INK)
    tracks = scores.tracks
    for position, track in enumerate(tracks):
        colour = TRACKS[position % len(TRACKS)]
        _curve(sheet, scores, track, colour, x, y)
        if 1 < len(tracks) <= NAMED:
            _write(sheet, track_name(track), right - 80 * (len(tracks) - position), 32, colour)
    if not np.isfinite(scores.probabilities).any():
        _write(sheet, "no frame could be judged", (left + right) // 2 - 110, 190, GREY)
    for number, shot in enumerate(shots, 1):
        if shot.time is not None and shot.fake_probability is not None:
            place = (x(shot.time), max(y(shot.fake_probability) - 10, top - 6))
            _write(sheet, str(number), place[0] - 4, place[1], RED)
    return np.concatenate([sheet, strip]) if len(strip) else sheet


def caption(shot: Shot) -> str:
    """Time or number of a frame, and its score."""
    place = f"frame {shot.frame}" if shot.time is None else f"{shot.time:.2f} s"
    score = shot.fake_probability
    return f"{place}: " + (shot.status if score is None else f"fake {score:.2f}")


def _title(sheet: np.ndarray, verdict: VideoVerdict) -> None:
    words = verdict.state.value.upper()
    if verdict.probability is not None:
        words += f"  fake probability {in_two_digits(verdict.probability)}"
    words += f"  ({100 * verdict.coverage:.0f} % of {verdict.frames} frames judged)"
    _write(sheet, words, 18, 32, STATES[verdict.state], 0.7)


def _strip(shots: Sequence[Shot], threshold: float, width: int) -> np.ndarray:
    """The frames side by side, scaled to fit; empty where there are none."""
    import cv2

    if not shots:
        return np.zeros((0, width, 3), np.uint8)
    room = (width - GAP) // len(shots) - GAP
    tiles: List[np.ndarray] = []
    for shot in shots:
        tile = decoded(shot.overlay)
        scale = min(1.0, room / tile.shape[1])
        size = (max(1, int(tile.shape[1] * scale)), max(1, int(tile.shape[0] * scale)))
        tiles.append(np.asarray(cv2.resize(tile, size, interpolation=cv2.INTER_AREA), np.uint8))
    height = max(tile.shape[0] for tile in tiles)
    strip = _blank(height + LABEL + 2 * GAP, width)
    for slot, (shot, tile) in enumerate(zip(shots, tiles)):
        left = GAP + slot * (room + GAP)
        strip[GAP : GAP + tile.shape[0], left : left + tile.shape[1]] = tile
        score = shot.fake_probability
        colour = RED if score is not None and score >= threshold else GREEN
        _write(strip, f"{slot + 1}: {caption(shot)}", left, GAP + height + 20, colour, 0.42)
    return strip


def _curve(
    sheet: np.ndarray,
    scores: Scores,
    track: int,
    colour: Colour,
    x: Callable[[float], int],
    y: Callable[[float], int],
) -> None:
    """The line of one track, broken where frames were not judged."""
    own = scores.track_numbers == track
    times, values = scores.times[own], scores.probabilities[own]
    line: List[Tuple[int, int]] = []
    for time, value in zip(times, values):
        if np.isnan(time) or np.isnan(value):
            _polyline(sheet, line, colour)
            line = []
        else:
            line.append((x(float(time)), y(float(value))))
    _polyline(sheet, line, colour)


def _polyline(sheet: np.ndarray, line: Sequence[Tuple[int, int]], colour: Colour) -> None:
    import cv2

    if len(line) == 1:
        cv2.circle(sheet, line[0], 2, colour, cv2.FILLED, cv2.LINE_AA)
    elif line:
        cv2.polylines(sheet, [np.array(line, np.int32)], False, colour, 2, cv2.LINE_AA)


def _ticks(end: float) -> List[float]:
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)
    step = next((step for step in steps if end / step <= 10), 7200)
    return [round(i * step, 6) for i in range(int(end / step) + 1)]


def _blank(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 255, np.uint8)


def _write(
    sheet: np.ndarray, words: str, x: int, y: int, colour: Colour, scale: float = 0.5
) -> None:
    import cv2

    face = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(sheet, words, (x, y), face, scale, colour, 1, cv2.LINE_AA)


def in_two_digits(probability: float) -> str:
    """A video's probability on a picture; never 0 or 1, since nothing is ever sure."""
    if probability > 0.99:
        return "above 0.99"
    return "below 0.01" if probability < 0.01 else f"{probability:.2f}"
