"""Resizing of float feature maps as the float framework does it, nearest and bilinear.

The DPUs of this card have no upsampling, so a compiled model does it on the host between two DPU
subgraphs. The positions and the two-step interpolation are those of torch's CPU kernel, each step
rounded once to float32. With aligned corners torch itself has several kernels that differ in the
last place, so there the result is equal to within that.
"""

from __future__ import annotations

from typing import Tuple

import numpy as np


def resize(
    values: np.ndarray,
    size: Tuple[int, int],
    mode: str,
    align_corners: bool = False,
    half_pixel_centers: bool = False,
) -> np.ndarray:
    """Resizes the two middle axes.

    Args:
        values: float32 ``[N, H, W, C]``.
        size: height and width of the result.
        mode: ``NEAREST`` or ``BILINEAR``.
        align_corners: the corner pixels keep their places.
        half_pixel_centers: pixels are areas, not points; only without ``align_corners``.

    Returns:
        float32 ``[N, height, width, C]``.

    Raises:
        ValueError: another mode.
    """
    height, width = size
    if mode == "NEAREST":
        rows = _nearest(values.shape[1], height)
        return np.ascontiguousarray(values[:, rows][:, :, _nearest(values.shape[2], width)])
    if mode != "BILINEAR":
        raise ValueError(f"no such mode: {mode}")
    left, right, along = _neighbours(values.shape[2], width, align_corners, half_pixel_centers)
    upper, lower, down = _neighbours(values.shape[1], height, align_corners, half_pixel_centers)
    lines = _between(values[:, :, left], values[:, :, right], along[:, None])
    return _between(lines[:, upper], lines[:, lower], down[:, None, None])


def _nearest(size_in: int, size_out: int) -> np.ndarray:
    scale = np.float32(size_in) / np.float32(size_out)
    positions = np.floor(np.arange(size_out, dtype=np.float32) * scale).astype(np.int64)
    return np.asarray(np.minimum(positions, size_in - 1))


def _neighbours(
    size_in: int, size_out: int, align_corners: bool, half_pixel_centers: bool
) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Index before, index after, and the float32 weight of the latter, for every output place."""
    places = np.arange(size_out, dtype=np.float32)
    if align_corners:
        step = np.float32(size_in - 1) / np.float32(size_out - 1) if size_out > 1 else 0
        positions = places * np.float32(step)
    else:
        step = np.float32(size_in) / np.float32(size_out)
        half = np.float32(0.5)
        positions = (places + half) * step - half if half_pixel_centers else places * step
        positions = np.maximum(positions, np.float32(0))
    before = np.minimum(positions.astype(np.int64), size_in - 1)
    after = np.minimum(before + 1, size_in - 1)
    return before, after, (positions - before.astype(np.float32)).astype(np.float32)


def _between(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """``first * (1 - w) + second * w``: the second product rounded, the sum fused, as torch's."""
    rest = (np.float32(1) - weight).astype(np.float64)
    product = (second * weight).astype(np.float64)
    return np.asarray(first.astype(np.float64) * rest + product, np.float32)
