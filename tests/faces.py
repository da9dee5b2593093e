"""Small labelled data sets for tests, written by means of their own."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Tuple

import numpy as np


def gif_bytes(mask: np.ndarray, bright: int = 255) -> bytes:
    """A GIF of palette indices 0 and 1 (black, and grey of value ``bright``), by the format's text.

    LZW without compression: a clear code before the code table could grow.
    """
    height, width = mask.shape
    header = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0)
    palette = bytes([0, 0, 0, bright, bright, bright])
    descriptor = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0)
    clear, end = 4, 5  # for a minimum code size of 2; codes are 3 bits wide
    codes = []
    for i, value in enumerate(mask.reshape(-1).tolist()):
        if i % 2 == 0:
            codes.append(clear)
        codes.append(int(value))
    codes.append(end)
    total = 0
    for i, code in enumerate(codes):
        total |= code << (3 * i)
    packed = total.to_bytes((3 * len(codes) + 7) // 8, "little")
    blocks = b"".join(
        bytes([len(packed[i : i + 255])]) + packed[i : i + 255] for i in range(0, len(packed), 255)
    )
    return header + palette + descriptor + bytes([2]) + blocks + b"\0;"


def write_image(path: Path, image: np.ndarray) -> None:
    """Writes an RGB picture in the format of the suffix."""
    import cv2

    ok, raw = cv2.imencode(path.suffix, np.ascontiguousarray(image[..., ::-1]))
    assert ok
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw.tobytes())


def face(seed: int, size: int, fake: bool) -> Tuple[np.ndarray, np.ndarray]:
    """A smooth random picture and a mask; a fake has a bright disc where the mask is 1."""
    rng = np.random.RandomState(seed)
    rows, columns = np.mgrid[0:size, 0:size] / float(size)
    waves = [
        np.sin(rows * rng.uniform(3, 12) + rng.uniform(0, 6)) * np.cos(columns * rng.uniform(3, 12))
        for _ in range(3)
    ]
    image = np.clip(np.stack(waves, axis=2) * 60 + 120 + rng.normal(0, 4, (size, size, 3)), 0, 255)
    mask = np.zeros((size, size), np.uint8)
    if fake:
        centre = rng.uniform(0.35, 0.65, 2)
        mask = ((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < 0.04).astype(np.uint8)
        image[mask == 1] = image[mask == 1] * 0.3 + 170
    return image.astype(np.uint8), mask


def write_dataset(folder: Path, videos: int = 4, crops: int = 2, size: int = 64) -> Path:
    """A labelled data set: every second video is FAKE; REAL ones have no masks."""
    metadata = {}
    for video in range(videos):
        fake = video % 2 == 1
        metadata[f"video{video}.mp4"] = {"label": "FAKE" if fake else "REAL", "split": "test"}
        for crop in range(crops):
            image, mask = face(100 * video + crop, size, fake)
            write_image(folder / "crops" / f"video{video}_{crop}.png", image)
            if fake:
                target = folder / "masks" / f"video{video}_{crop}.gif"
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(gif_bytes(mask))
    (folder / "metadata.json").write_text(json.dumps(metadata))
    return folder
