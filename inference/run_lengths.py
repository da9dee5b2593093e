"""Masks as run lengths in the form of COCO, which pycocotools and its like read.

The pixels are taken column by column. ``counts`` are the lengths of runs of 0 and 1 by turns,
beginning with 0 (so the first is 0 where the first pixel is set). The compressed form writes each
count, from the fourth on as the difference to the one two before, in groups of five bits, lowest
first and signed: bit 5 of a group says that another follows, and 48 is added so that all are
characters from ``0`` to ``o``.
"""

from __future__ import annotations

from typing import List

import numpy as np


def run_lengths(mask: np.ndarray) -> np.ndarray:
    """The uncompressed ``counts`` of a mask.

    Args:
        mask: ``[H, W]``, not empty; what is not zero counts as 1.

    Returns:
        int64 ``[n]``; their sum is ``H * W``.
    """
    pixels = mask if mask.dtype == np.bool_ else mask != 0
    height, width = pixels.shape
    # Runs begin in few places, so these are put in the order of columns, not all the pixels.
    inside = np.flatnonzero(pixels[1:] != pixels[:-1])
    rows, columns = np.divmod(inside, width)
    tops = np.flatnonzero(pixels[0, 1:] != pixels[-1, :-1])
    starts = np.concatenate([columns * height + rows + 1, (tops + 1) * height])
    starts.sort()
    first = [0, 0] if pixels[0, 0] else [0]
    edges = np.concatenate([np.asarray(first, np.int64), starts, [height * width]])
    return np.asarray(np.diff(edges), np.int64)


def compressed(counts: np.ndarray) -> str:
    """The compressed form of ``counts``.

    Args:
        counts: int64 ``[n]``, n at least 1.
    """
    values = counts.astype(np.int64)
    values[3:] -= counts[1:-2]
    size = np.where(values < 0, ~values, values)
    most = int(size.max()).bit_length() // 5 + 1
    places = np.arange(most)
    # A group more for each five bits; the top bit of the last one is the sign.
    last = np.count_nonzero(size[:, None] >> (5 * places + 4), axis=1)[:, None]
    groups = (values[:, None] >> (5 * places)) & 31
    groups += np.where(places < last, 32 + 48, 48)
    return bytes(groups.astype(np.uint8)[places <= last]).decode("ascii")


def area(counts: np.ndarray) -> int:
    """The number of pixels that are set."""
    return int(counts[1::2].sum())


def bounding_box(counts: np.ndarray, height: int) -> List[int]:
    """``[x, y, width, height]`` around the pixels that are set; four zeros where none is."""
    edges = np.cumsum(counts)
    starts, ends = edges[:-1:2], edges[1::2] - 1
    if not len(ends):
        return [0, 0, 0, 0]
    (left, tops), (right, bottoms) = np.divmod(starts, height), np.divmod(ends, height)
    top, bottom = int(tops.min()), int(bottoms.max())
    if (left != right).any():  # a run that goes on in the next column touches both ends
        top, bottom = 0, height - 1
    x = int(left[0])
    return [x, top, int(right[-1]) - x + 1, bottom - top + 1]
