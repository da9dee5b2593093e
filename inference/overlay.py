"""What a person sees: the manipulated pixels tinted and outlined, and a caption that says so.

Everything is drawn inside the picture, so its size stays. Text stands on dark plates and the
outline is bright on dark, so both can be read on light and on dark pictures; sizes follow the
picture's smaller side. Pictures are uint8 ``[H, W, 3]`` in RGB order.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Optional, Tuple

import numpy as np

from .records import FrameResult, Status, Verdict

Colour = Tuple[int, int, int]

TINT: Colour = (255, 20, 110)
OUTLINE: Colour = (255, 226, 64)
DARK: Colour = (16, 18, 24)
LIGHT: Colour = (245, 246, 250)
MUTED: Colour = (176, 182, 194)
BADGE = {Verdict.FAKE: (214, 34, 70), Verdict.REAL: (22, 128, 84)}
UNKNOWN: Colour = (96, 102, 116)

STRENGTH = 0.36
"""Share of the tint in a manipulated pixel."""


def full_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """The mask at the picture's size, with a smooth border.

    Args:
        mask: uint8 ``[h, w]``, 1 = manipulated.
        height: of the picture.
        width: of the picture.

    Returns:
        uint8 ``[height, width]``, 255 = manipulated, else 0.
    """
    import cv2

    if mask.shape == (height, width):
        return np.asarray(mask * np.uint8(255), np.uint8)
    soft = cv2.resize(mask * np.uint8(255), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.threshold(soft, 127, 255, cv2.THRESH_BINARY)[1], np.uint8)


def draw(result: FrameResult, image: Optional[np.ndarray] = None) -> np.ndarray:
    """The overlay of one result.

    Args:
        result: the frame and what was found out about it.
        image: the picture to draw on; the frame's own if not given. It is not changed.

    Returns:
        uint8 ``[H, W, 3]``, of the picture's size.
    """
    image = result.frame.image if image is None else image
    if image is None:
        raise ValueError("a frame without a picture has a placeholder, not an overlay")
    height, width = image.shape[:2]
    canvas: np.ndarray = image.copy()
    style = _style(height, width)
    share = result.mask_fraction
    if result.mask is not None and share:
        stair = max(height / result.mask.shape[0], width / result.mask.shape[1])
        _mark(canvas, full_mask(result.mask, height, width), stair, style)
    if result.faces and result.frame.image is not None:
        _outline_faces(canvas, result, width / result.frame.image.shape[1], style)
    _caption(canvas, result, style)
    if share is not None:
        _legend(canvas, share, style)
    return canvas


def placeholder(result: FrameResult, height: int, width: int) -> np.ndarray:
    """What stands in a video where a frame could not be decoded.

    Returns:
        uint8 ``[height, width, 3]``.
    """
    canvas = np.empty((height, width, 3), np.uint8)
    canvas[:] = (44, 47, 56)
    style = _style(height, width)
    _caption(canvas, result, style)
    words = "not decoded" if result.status is Status.DECODE_ERROR else "no result"
    text_width, text_height = _measure(words, style)
    _write(canvas, words, (width - text_width) // 2, (height + text_height) // 2, MUTED, style)
    return canvas


def side_by_side(original: np.ndarray, overlay: np.ndarray) -> np.ndarray:
    """The original left of its overlay.

    Returns:
        uint8 ``[H, 2 W, 3]``.
    """
    return np.concatenate([original, overlay], axis=1)


@dataclass(frozen=True)
class _Style:
    """Sizes in pixels for one size of picture."""

    scale: float
    stroke: int
    pad: int
    margin: int
    line: int


def _style(height: int, width: int) -> _Style:
    # 256 pixels: letters 9 high, just readable; 1080: 24, comfortable.
    scale = min(max(0.42 * (min(height, width) / 256.0) ** 0.7, 0.3), 3.0)
    stroke = max(1, round(scale * 1.35))
    unit = scale * 22
    line = max(1, round(min(height, width) / 360))
    return _Style(scale, stroke, max(2, round(unit * 0.28)), max(2, round(unit * 0.35)), line)


def _mark(canvas: np.ndarray, mask: np.ndarray, stair: float, style: _Style) -> None:
    """Tints and outlines the masked pixels of ``canvas`` in place.

    ``stair`` is the size of one pixel of the network's mask; the outline runs straight over such
    stairs, the tint does not.
    """
    import cv2

    x, y, width, height = cv2.boundingRect(mask)
    part = canvas[y : y + height, x : x + width]
    tinted = cv2.LUT(np.ascontiguousarray(part), _mixed(TINT, STRENGTH))
    cv2.copyTo(tinted, mask[y : y + height, x : x + width], part)
    contours = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)[-2]
    if stair > 1.5:
        contours = [cv2.approxPolyDP(line, 0.6 * stair, True) for line in contours]
    border = style.line + 2 * max(1, round(0.6 * style.line))
    cv2.drawContours(canvas, contours, -1, DARK, border, cv2.LINE_AA)
    cv2.drawContours(canvas, contours, -1, OUTLINE, style.line, cv2.LINE_AA)


def _outline_faces(canvas: np.ndarray, result: FrameResult, scale: float, style: _Style) -> None:
    """A frame round each face, in the colour of its verdict, with its number and probability."""
    import cv2

    for part in result.faces:
        assert part.face is not None
        x0, y0, x1, y1 = (round(value * scale) for value in part.face.box)
        verdict, probability = part.verdict, part.fake_probability
        words = f"{part.face.track}"
        if probability is not None:
            words += f"  {100 * probability:.0f}%"
        elif part.status is not Status.OK:
            words += f"  {part.status.value.replace('_', ' ')}"
        colour = UNKNOWN if verdict is None else BADGE[verdict]
        border = 2 * style.line
        cv2.rectangle(canvas, (x0, y0), (x1, y1), DARK, border + 2)
        cv2.rectangle(canvas, (x0, y0), (x1, y1), colour, border)
        small = _smaller(style)
        text_width, text_height = _measure(words, small)
        left = min(max(x0, 0), max(0, canvas.shape[1] - text_width - 2 * small.pad))
        top = y1 + border if y1 + border + text_height + 2 * small.pad < canvas.shape[0] else y0
        right, bottom = left + text_width + 2 * small.pad, top + text_height + 2 * small.pad
        cv2.rectangle(canvas, (left, top), (right, bottom), colour, cv2.FILLED)
        _write(canvas, words, left + small.pad, bottom - small.pad, LIGHT, small)


def _smaller(style: _Style) -> _Style:
    """For what stands beside a face: there may be many."""
    scale = max(0.3, 0.75 * style.scale)
    return replace(style, scale=scale, stroke=max(1, round(scale * 1.35)))


@functools.lru_cache(maxsize=None)
def _mixed(colour: Colour, share: float) -> np.ndarray:
    """uint8 ``[1, 256, 3]``: each value mixed with so much of a colour."""
    values = np.arange(256, dtype=np.float32)[:, None] * np.float32(1 - share)
    mixed = values + np.asarray(colour, np.float32) * np.float32(share)
    table: np.ndarray = np.round(mixed).astype(np.uint8)[None]
    return table


def _caption(canvas: np.ndarray, result: FrameResult, style: _Style) -> None:
    """Verdict and probability at the top left, frame number and time at the top right."""
    verdict, probability = result.verdict, result.fake_probability
    if verdict is None or probability is None:
        words = "NO FACE" if result.status is Status.NO_FACE else "NOT JUDGED"
        colour = UNKNOWN
    else:
        words, colour = f"{verdict.value}  {100 * probability:.1f}% fake", BADGE[verdict]
    right = _plate(canvas, words, LIGHT, colour, 1.0, style, top=True, left=True)
    frame = result.frame
    if frame.time is None:
        return
    number, clock = f"{frame.index}", f"{frame.time:.2f} s"
    room = canvas.shape[1] - right - 2 * style.margin - 2 * style.pad
    for words in (f"frame {number}  {clock}", f"#{number}  {clock}", f"#{number}"):
        if _measure(words, style)[0] <= room:
            _plate(canvas, words, LIGHT, DARK, 0.72, style, top=True, left=False)
            return


def _legend(canvas: np.ndarray, share: float, style: _Style) -> None:
    """What the tint means and how much of the picture has it, at the bottom left."""
    import cv2

    amount = f"{100 * share:.1f}%" if share else "none"
    side = _measure("x", style)[1] + style.pad
    for words in (f"manipulated {amount}", amount):
        if _measure(words, style)[0] + side + 4 * style.pad <= canvas.shape[1]:
            break
    _plate(canvas, words, LIGHT, DARK, 0.72, style, top=False, left=True, indent=side + style.pad)
    bottom = canvas.shape[0] - style.margin
    height = _measure(words, style)[1] + 2 * style.pad
    x0, y0 = style.margin + style.pad, bottom - height + (height - side) // 2
    cv2.rectangle(canvas, (x0, y0), (x0 + side, y0 + side), TINT, cv2.FILLED)
    cv2.rectangle(canvas, (x0, y0), (x0 + side, y0 + side), OUTLINE, style.line)


def _plate(
    canvas: np.ndarray,
    words: str,
    ink: Colour,
    ground: Colour,
    opacity: float,
    style: _Style,
    *,
    top: bool,
    left: bool,
    indent: int = 0,
) -> int:
    """Writes on a plate in one of the corners; returns the plate's right edge."""
    import cv2

    text_width, text_height = _measure(words, style)
    width = text_width + 2 * style.pad + indent
    height = text_height + 2 * style.pad
    rows, columns = canvas.shape[:2]
    x = style.margin if left else columns - style.margin - width
    y = style.margin if top else rows - style.margin - height
    x0, y0 = max(x, 0), max(y, 0)
    x1, y1 = int(min(x + width, columns)), min(y + height, rows)
    part = canvas[y0:y1, x0:x1]
    if part.size:
        part[:] = cv2.LUT(np.ascontiguousarray(part), _mixed(ground, opacity))
    _write(canvas, words, x + style.pad + indent, y + height - style.pad, ink, style)
    return x1


def _measure(words: str, style: _Style) -> Tuple[int, int]:
    import cv2

    (width, _), _ = cv2.getTextSize(words, cv2.FONT_HERSHEY_DUPLEX, style.scale, style.stroke)
    # The height of capitals, the same for every text, so that plates align.
    (_, height), _ = cv2.getTextSize("H", cv2.FONT_HERSHEY_DUPLEX, style.scale, style.stroke)
    return int(width), int(height)


def _write(canvas: np.ndarray, words: str, x: int, y: int, colour: Colour, style: _Style) -> None:
    import cv2

    cv2.putText(
        canvas,
        words,
        (x, y),
        cv2.FONT_HERSHEY_DUPLEX,
        style.scale,
        colour,
        style.stroke,
        cv2.LINE_AA,
    )
