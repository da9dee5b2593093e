"""Small videos made for tests: the brightness of a frame tells its number; with sound or not.

Where PyAV is missing, plain ones are written with OpenCV, and tests that need more are skipped.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import cv2
import numpy as np
import pytest

from .needs import needs_av

try:
    import av
except ImportError:
    av = None

EITHER = [pytest.param("av", marks=needs_av), "cv"]
"""The two decoders and encoders of videos, for ``parametrize``."""

_OPENCV_CODECS = {"libx264": "mp4v", "mpeg4": "mp4v", "mjpeg": "MJPG"}


def _need_av() -> None:
    if av is None:
        pytest.skip("needs PyAV")


def level(number: int) -> int:
    """The grey of frame ``number``; far enough apart to survive a lossy codec."""
    return 30 + (number * 37) % 200


def picture(number: int, height: int, width: int) -> np.ndarray:
    """uint8 ``[H, W, 3]`` of one grey."""
    return np.full((height, width, 3), level(number), np.uint8)


def write_clip(
    path: Path,
    frames: int = 12,
    *,
    height: int = 64,
    width: int = 64,
    rate: Fraction = Fraction(20),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    times: Optional[Sequence[int]] = None,
    time_base: Optional[Fraction] = None,
    sound: str = "",
    options: Optional[Dict[str, str]] = None,
    pictures: Optional[Sequence[np.ndarray]] = None,
) -> Path:
    """Writes a clip.

    Args:
        times: presentation times in units of ``time_base``; even spacing if not given.
        sound: an audio encoder (``aac``, ``pcm_s16le``, ``flac``); none if empty.
        pictures: uint8 RGB pictures; those of ``picture`` if not given.
    """
    images = [
        picture(number, height, width) if pictures is None else pictures[number]
        for number in range(frames)
    ]
    if av is None:
        if times or sound or options or codec not in _OPENCV_CODECS:
            pytest.skip("needs PyAV")
        return _write_plain(path, images, rate, _OPENCV_CODECS[codec])
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width, stream.pix_fmt = height, width, pix_fmt
        if time_base is not None:
            stream.time_base = time_base
            stream.codec_context.time_base = time_base
        tone: Any = None
        if sound:
            tone = container.add_stream(sound, rate=48000)
            tone.codec_context.layout = "mono"
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = number if times is None else times[number]
            frame.time_base = time_base or 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound:
            seconds = frames / rate
            _write_tone(container, tone, float(seconds))
    return path


def _write_plain(path: Path, images: Sequence[np.ndarray], rate: Fraction, codec: str) -> Path:
    height, width = images[0].shape[:2]
    code = int.from_bytes(codec.encode(), "little")
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, float(rate), (width, height))
    assert writer.isOpened()
    for image in images:
        writer.write(np.ascontiguousarray(image[..., ::-1]))
    writer.release()
    return path


def _write_tone(container: Any, stream: Any, seconds: float) -> None:
    total = int(48000 * seconds)
    wave = (8000 * np.sin(np.arange(total) * 2 * np.pi * 440 / 48000)).astype(np.int16)
    for start in range(0, total, 1024):
        frame = av.AudioFrame.from_ndarray(
            wave[None, start : start + 1024], format="s16", layout="mono"
        )
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def frame_times(path: Path) -> List[Fraction]:
    """The presentation times of a video's frames in seconds, exact."""
    _need_av()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [frame.pts * Fraction(stream.time_base) for frame in container.decode(stream)]


def sound_packets(path: Path) -> List[bytes]:
    """The packets of a file's first sound stream."""
    _need_av()
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        return [bytes(packet) for packet in container.demux(stream) if packet.size]


def spoil_frame(path: Path, number: int) -> None:
    """Overwrites the coded bytes of one frame of a file, whose size and index stay."""
    _need_av()
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(container.streams.video[0]) if p.size]
        coded = bytes(sorted(packets, key=lambda p: p.pts)[number])
    data = bytearray(path.read_bytes())
    at = data.find(coded)
    assert at > 0
    data[at : at + len(coded)] = b"\xff" * len(coded)
    path.write_bytes(bytes(data))
