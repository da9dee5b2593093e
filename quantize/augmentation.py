"""The same picture seen otherwise: mirrored, moved, recoloured, through a worse camera.

Both kinds of pictures, authentic and manipulated, go through the same, so nothing here tells them
apart. OpenCV is imported where it is used.
"""

from __future__ import annotations

from typing import Tuple

import numpy as np

from ..preprocessing import Image
from .camera import through_jpeg, to_bytes


def augment(
    image: np.ndarray, mask: np.ndarray, rng: np.random.RandomState
) -> Tuple[np.ndarray, np.ndarray]:
    """The same face seen otherwise: mirrored, moved, zoomed, recoloured.

    Args:
        image: uint8 ``[H, W, 3]``, RGB.
        mask: uint8 ``[H, W]``.
        rng: source of randomness.

    Returns:
        New arrays of the same shapes and types.
    """
    import cv2

    if rng.uniform() < 0.5:
        image, mask = image[:, ::-1], mask[:, ::-1]
    height, width = mask.shape
    if rng.uniform() < 0.5:
        zoom = rng.uniform(0.85, 1.25)
        shift = rng.uniform(-0.08, 0.08, 2) * (width, height)
        middle = np.array([width / 2.0, height / 2.0])
        move = np.column_stack([np.eye(2) * zoom, middle * (1 - zoom) + shift])
        image = cv2.warpAffine(
            np.ascontiguousarray(image),
            move,
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        mask = cv2.warpAffine(
            np.ascontiguousarray(mask),
            move,
            (width, height),
            flags=cv2.INTER_NEAREST,
            borderMode=cv2.BORDER_REPLICATE,
        )
    gain, offset = rng.uniform(0.85, 1.15, 3), rng.uniform(-12, 12)
    table = np.clip(np.arange(256)[:, None] * gain + offset + 0.5, 0, 255).astype(np.uint8)
    recoloured = np.stack([cv2.LUT(image[..., c], table[:, c]) for c in range(3)], axis=2)
    return recoloured, np.ascontiguousarray(mask)


def degrade(image: Image, rng: np.random.RandomState) -> Image:
    """The picture through a worse camera: smaller, blurred, noisy, compressed, each now and then.

    Args:
        image: uint8 ``[H, W, 3]``, RGB.
        rng: source of randomness.

    Returns:
        A picture of the same shape; half of them are as they were.
    """
    import cv2

    if rng.uniform() < 0.5:
        return image
    height, width = image.shape[:2]
    if rng.uniform() < 0.3:
        share = rng.uniform(0.6, 0.95)
        small = (int(width * share), int(height * share))
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    if rng.uniform() < 0.25:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 0.9))
    if rng.uniform() < 0.35:
        quick = np.random.default_rng(int(rng.randint(2**31 - 1)))
        grain = quick.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(0.5, 4.0))
        image = to_bytes(image + grain)
    if rng.uniform() < 0.5:
        image = through_jpeg(image, int(rng.randint(45, 96)))
    return np.asarray(image, np.uint8)
