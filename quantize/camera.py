"""The camera every synthetic picture goes through, authentic or manipulated: lens, sensor, codec.

Because both go through the same, compression, blur or noise alone say nothing about a picture.
OpenCV and PyAV are imported where they are used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import List, Sequence, Tuple

import numpy as np

from ..preprocessing import Image


@dataclass(frozen=True)
class Camera:
    """What every picture goes through, authentic or not.

    Attributes:
        shrink: the picture is made smaller by this factor and large again.
        blur: sigma in pixels, 0 for none.
        grain: deviation of the sensor's noise.
        balance: factor of each channel.
        gamma: exponent.
        shadow: strength of a soft shadow's edge across the picture, 0 for none.
        shadow_line: where the shadow's edge is: angle, distance from the middle, width.
        quality: JPEG quality, 0 for none.
        crf: H.264 constant rate factor, 0 for none.
    """

    shrink: float = 1.0
    blur: float = 0.0
    grain: float = 0.0
    balance: Tuple[float, ...] = (1.0, 1.0, 1.0)
    gamma: float = 1.0
    shadow: float = 0.0
    shadow_line: Tuple[float, float, float] = (0.0, 0.0, 0.2)
    quality: int = 0
    crf: int = 0

    @classmethod
    def sample(cls, rng: np.random.RandomState) -> Camera:
        """A random camera with a random codec: H.264, JPEG or none."""
        codec = rng.choice(["h264", "jpeg", "none"], p=[0.55, 0.3, 0.15])
        return cls(
            shrink=rng.uniform(0.6, 1.0) if rng.uniform() < 0.4 else 1.0,
            blur=rng.uniform(0.3, 1.2) if rng.uniform() < 0.4 else 0.0,
            grain=rng.uniform(0.0, 5.0),
            balance=tuple(rng.uniform(0.92, 1.08, 3)),
            gamma=rng.uniform(0.85, 1.2),
            shadow=rng.uniform(0.1, 0.35) if rng.uniform() < 0.25 else 0.0,
            shadow_line=(
                rng.uniform(0, 2 * math.pi),
                rng.uniform(-0.2, 0.2),
                rng.uniform(0.04, 0.4),
            ),
            quality=int(rng.randint(40, 96)) if codec == "jpeg" else 0,
            crf=int(rng.randint(17, 31)) if codec == "h264" else 0,
        )

    def shoot(self, picture: Image, rng: np.random.RandomState) -> Image:
        """One picture through lens and sensor, without the codec."""
        import cv2

        size = picture.shape[0]
        if self.shrink < 1.0:
            small = max(8, int(size * self.shrink))
            picture = cv2.resize(picture, (small, small), interpolation=cv2.INTER_AREA)
            picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_LINEAR)
        if self.blur > 0:
            picture = cv2.GaussianBlur(picture, (0, 0), self.blur)
        levels = np.arange(256, dtype=np.float32) / 255
        tables = 255 * levels[:, None] ** self.gamma * np.asarray(self.balance, np.float32)
        shot = np.stack([cv2.LUT(picture[..., c], tables[:, c]) for c in range(3)], axis=2)
        if self.shadow > 0:
            angle, distance, width = self.shadow_line
            span = np.linspace(-0.5, 0.5, size, dtype=np.float32)
            along = span[None, :] * math.cos(angle) + span[:, None] * math.sin(angle)
            edge = 0.5 + 0.5 * np.tanh((along - distance) * (3 / width))
            shot = shot * (1 - self.shadow * edge)[..., None]
        if self.grain > 0:
            quick = np.random.default_rng(int(rng.randint(2**31 - 1)))
            grain = quick.standard_normal(shot.shape, np.float32)
            shot = shot + grain * np.float32(self.grain)
        return to_bytes(shot)

    def film(self, pictures: Sequence[Image], rng: np.random.RandomState) -> List[Image]:
        """Pictures of one video through lens, sensor and codec."""
        shots = [self.shoot(picture, rng) for picture in pictures]
        if self.crf:
            return through_h264(shots, self.crf)
        if self.quality:
            return [through_jpeg(shot, self.quality) for shot in shots]
        return shots


def through_jpeg(picture: Image, quality: int) -> Image:
    """The picture after JPEG compression (quality 1..100)."""
    import cv2

    _, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    return np.ascontiguousarray(decoded[..., ::-1])


def through_h264(pictures: Sequence[Image], crf: int) -> List[Image]:
    """The pictures after H.264 compression, as consecutive frames of one stream."""
    import av

    size = pictures[0].shape[0]
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width = encoder.height = size
    encoder.pix_fmt = "yuv420p"
    encoder.time_base = Fraction(1, 25)
    encoder.framerate = Fraction(25, 1)
    encoder.options = {"crf": str(crf), "preset": "veryfast", "threads": "1", "bf": "0"}
    packets = []
    for number, picture in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts = number
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    decoder = av.CodecContext.create("h264", "r")
    frames = [frame for packet in packets for frame in decoder.decode(packet)]
    frames += decoder.decode(None)
    return [frame.to_ndarray(format="rgb24") for frame in frames]


def to_bytes(picture: np.ndarray) -> Image:
    """Rounds a float picture in 0..255 to uint8, saturating."""
    return np.asarray(np.clip(picture + 0.5, 0, 255), np.uint8)
