"""What happens to pictures on their way through the world: compressed, shrunk, blurred, relit.

Every one is a name and a number, such as ``jpeg-50``; with the same name, seed and clip it gives
the same pixels. None moves anything, so masks stay true. OpenCV and PyAV are imported where they
are used.
"""

from __future__ import annotations

import functools
import zlib
from collections import deque
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Callable, Deque, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from ...errors import UsageError
from ...inference.ffmpeg import load_av
from ...inference.records import Frame
from ...inference.sources.base import Read, TimedRead
from ...quantize.camera import through_jpeg

Change = Callable[[np.ndarray, float, np.random.RandomState], np.ndarray]
"""Picture (uint8 ``[H, W, 3]``), strength and source of chance to picture."""

RESIZED_AT_LEAST = 16
"""Pixels a picture keeps on each side."""


def jpeg(image: np.ndarray, strength: float, rng: np.random.RandomState) -> np.ndarray:
    """JPEG of a quality from 1 to 100."""
    return through_jpeg(image, int(strength))


def resize(image: np.ndarray, strength: float, rng: np.random.RandomState) -> np.ndarray:
    """Shrunk to a percentage of its sides, by areas."""
    import cv2

    size = [max(RESIZED_AT_LEAST, round(side * strength / 100)) for side in image.shape[1::-1]]
    return np.asarray(cv2.resize(image, tuple(size), interpolation=cv2.INTER_AREA), np.uint8)


def blur(image: np.ndarray, strength: float, rng: np.random.RandomState) -> np.ndarray:
    """Gaussian; the deviation is in 256ths of the shorter side."""
    import cv2

    sigma = strength * min(image.shape[:2]) / 256
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)


def noise(image: np.ndarray, strength: float, rng: np.random.RandomState) -> np.ndarray:
    """Gaussian noise on every channel; the deviation is in grey levels of 255."""
    return _bytes(image + strength * rng.standard_normal(image.shape))


def gamma(image: np.ndarray, strength: float, rng: np.random.RandomState) -> np.ndarray:
    """Another exposure: values to the power of a hundredth of the number, below 100 brighter."""
    table = 255 * (np.arange(256) / 255) ** (strength / 100)
    return np.asarray(_bytes(table)[image])


def brightness(image: np.ndarray, strength: float, rng: np.random.RandomState) -> np.ndarray:
    """All values times a hundredth of the number."""
    return np.asarray(_bytes(np.arange(256) * (strength / 100))[image])


CHANGES: Dict[str, Tuple[Change, str]] = {
    "jpeg": (jpeg, "JPEG of quality {0}"),
    "resize": (resize, "shrunk to {0} %"),
    "blur": (blur, "blurred, sigma {0}/256 of the side"),
    "noise": (noise, "noise of {0} grey levels"),
    "gamma": (gamma, "gamma {1:g}"),
    "brightness": (brightness, "brightness times {1:g}"),
}
H264 = "h264"

COMMON = (
    "resize-50", "resize-25", "blur-1", "blur-2", "blur-4", "noise-5", "noise-10", "noise-20",
    "gamma-60", "gamma-170", "brightness-60", "brightness-140",
)  # fmt: skip
FOR_CROPS = ("jpeg-90", "jpeg-70", "jpeg-50", "jpeg-30", *COMMON)
FOR_VIDEOS = ("h264-23", "h264-28", "h264-33", "h264-38", *COMMON)
"""What ``--robustness`` goes through."""


@dataclass(frozen=True)
class Perturbation:
    """One of them.

    Attributes:
        kind: a name in ``CHANGES``, or ``H264``.
        strength: its number.
    """

    kind: str
    strength: int

    @property
    def name(self) -> str:
        """As options and files have it."""
        return f"{self.kind}-{self.strength}"

    @property
    def words(self) -> str:
        """For people."""
        if self.kind == H264:
            return f"H.264 of constant rate factor {self.strength}"
        return CHANGES[self.kind][1].format(self.strength, self.strength / 100)

    def applied(self, reads: Iterable[Read], seed: int, clip: str) -> Iterator[Read]:
        """The reads of one clip with their pictures changed.

        Args:
            reads: in order.
            seed: of what is left to chance.
            clip: the clip's name, which gives it chances of its own.
        """
        if self.kind == H264:
            yield from reencoded(reads, self.strength)
            return
        start = zlib.crc32(f"{seed} {self.name} {clip}".encode("utf-8", "surrogateescape"))
        for number, read in enumerate(reads):
            yield after(read, functools.partial(self._changed, read, start, number))

    def _changed(self, read: Read, start: int, number: int) -> Frame:
        frame = read()
        if frame.image is None:
            return frame
        rng = np.random.RandomState([start, number])
        image = CHANGES[self.kind][0](frame.image, float(self.strength), rng)
        return replace(frame, image=np.ascontiguousarray(image))


def parse_perturbation(name: str) -> Perturbation:
    """Reads a name such as ``blur-2``.

    Raises:
        UsageError: there is no such perturbation.
    """
    kind, _, number = name.partition("-")
    most = {"jpeg": 100, "resize": 100, H264: 51}.get(kind, 1000)
    known = kind in CHANGES or kind == H264
    if not known or not number.isdigit() or not 0 < int(number) <= most:
        raise UsageError(
            f"There is no perturbation {name!r}",
            f"known are {', '.join([*CHANGES, H264])}, each with a number",
            "write them as jpeg-50,blur-2",
        )
    return Perturbation(kind, int(number))


def perturbations(names: Sequence[str], videos: bool) -> List[Perturbation]:
    """Those named, or the usual ones for crops or for videos."""
    return [parse_perturbation(name) for name in names or (FOR_VIDEOS if videos else FOR_CROPS)]


def reencoded(reads: Iterable[Read], crf: int) -> Iterator[Read]:
    """The frames of one clip through an H.264 encoder and back, as one stream.

    Where the size of the pictures changes a new stream begins. Frames that could not be decoded
    keep their places.
    """
    waiting: Deque[Frame] = deque()
    codec: Optional[_Codec] = None
    for read in reads:
        frame = read()
        if frame.image is None:
            waiting.append(frame)
            continue
        if codec is None or codec.shape != frame.image.shape:
            if codec is not None:
                yield from _paired(waiting, codec.flush())
            codec = _Codec(frame.image.shape, crf)
        waiting.append(frame)
        yield from _paired(waiting, codec.send(frame.image))
    if codec is not None:
        yield from _paired(waiting, codec.flush())
    while waiting:
        yield _finished(waiting.popleft())


def after(read: Read, call: Read) -> Read:
    """A call that takes the place of a read, with its time if that is known beforehand."""
    time = getattr(read, "time", None)
    return call if time is None else TimedRead(call, time)


def _paired(waiting: Deque[Frame], pictures: Iterable[np.ndarray]) -> Iterator[Read]:
    for picture in pictures:
        while waiting[0].image is None:
            yield _finished(waiting.popleft())
        yield _finished(replace(waiting.popleft(), image=picture))


def _finished(frame: Frame) -> Read:
    def call() -> Frame:
        return frame

    return call if frame.time is None else TimedRead(call, frame.time)


class _Codec:
    """An encoder and the decoder behind it; sides are made even by repeating the last pixels."""

    def __init__(self, shape: Tuple[int, ...], crf: int) -> None:
        av = load_av()
        self.shape = shape
        self._av = av
        self._encoder = av.CodecContext.create("libx264", "w")
        self._encoder.width = shape[1] + shape[1] % 2
        self._encoder.height = shape[0] + shape[0] % 2
        self._encoder.pix_fmt = "yuv420p"
        self._encoder.time_base = Fraction(1, 25)
        self._encoder.framerate = Fraction(25, 1)
        # One thread and no frames out of order: the same pixels on every machine.
        options = {"crf": str(crf), "preset": "veryfast", "threads": "1", "bf": "0"}
        self._encoder.options = options
        self._decoder = av.CodecContext.create("h264", "r")
        self._sent = 0

    def send(self, image: np.ndarray) -> List[np.ndarray]:
        """Encodes one picture; returns those that have come out meanwhile."""
        rows, columns = image.shape[0] % 2, image.shape[1] % 2
        even = np.pad(image, ((0, rows), (0, columns), (0, 0)), mode="edge")
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        frame.pts = self._sent
        self._sent += 1
        return self._decoded(self._encoder.encode(frame))

    def flush(self) -> List[np.ndarray]:
        """The pictures that are still inside."""
        late = self._decoded(self._encoder.encode(None))
        return late + self._pictures(self._decoder.decode(None))

    def _decoded(self, packets: Iterable[Any]) -> List[np.ndarray]:
        return [p for packet in packets for p in self._pictures(self._decoder.decode(packet))]

    def _pictures(self, frames: Iterable[Any]) -> List[np.ndarray]:
        height, width = self.shape[:2]
        return [
            np.ascontiguousarray(frame.to_ndarray(format="rgb24")[:height, :width])
            for frame in frames
        ]


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(values + 0.5, 0, 255), np.uint8)
