"""An MP4 file being written: H.264 pictures with their own timestamps, and the sound beside them.

Knows PyAV and nothing of overlays.
"""

from __future__ import annotations

import contextlib
from fractions import Fraction
from pathlib import Path
from typing import Any, Iterator, List, Optional, Tuple, cast

import numpy as np

from ...errors import UnsupportedError
from ..ffmpeg import from_rgb, load_av
from ..records import VideoInfo
from .writer import VideoWriter, padded

ENCODER = "libx264"
QUALITY = {
    "preset": "superfast",
    "crf": "20",
    "x264-params": "colorprim=bt709:transfer=bt709:colormatrix=bt709",
}

MP4_SOUND = frozenset({"aac", "mp3", "mp3float", "ac3", "eac3", "alac", "opus", "libopus"})
"""Decoders of the codecs that players expect in an MP4; others are encoded to AAC."""

AAC_RATES = frozenset(
    {96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350}
)


class Mp4Writer(VideoWriter):
    """One video file, as ``VideoWriter`` says; times and sound are those of the video.

    Raises:
        UnsupportedError: this FFmpeg has no H.264 encoder.
    """

    def __init__(self, path: Path, info: VideoInfo, height: int, width: int) -> None:
        super().__init__(path, info, height, width)
        av = load_av()
        if ENCODER not in av.codecs_available:
            raise UnsupportedError(
                "The overlay video cannot be encoded",
                f"this FFmpeg has no {ENCODER}",
                "install PyAV from its wheel, or use --no-overlay",
            )
        self._last = -1
        self._container = av.open(
            str(self.partial), "w", format="mp4", options={"movflags": "+faststart"}
        )
        try:
            self._stream = cast(Any, self._container).add_stream(
                ENCODER, rate=info.rate, options=QUALITY
            )
            self._stream.height, self._stream.width = height, width
            self._stream.pix_fmt = "yuv420p"
            self._stream.time_base = info.time_base
            self._stream.codec_context.time_base = info.time_base
            self._sound = _Sound(info, self._container, self.notes)
        except BaseException:
            self._container.close()
            self._remove()
            raise

    @staticmethod
    def encodable(image: np.ndarray) -> Any:
        """An ``av.VideoFrame`` in yuv420p (BT.709), without a timestamp."""
        return from_rgb(padded(image))

    @staticmethod
    def size(frame: Any) -> Tuple[int, int]:
        """Height and width."""
        return frame.height, frame.width

    def write(self, frame: Any, pts: Optional[int]) -> None:
        """Appends a picture at its time."""
        if self.size(frame) != (self.height, self.width):
            frame = frame.reformat(self.width, self.height)
        # A muxer refuses times that stand still or go back.
        pts = self._last + 1 if pts is None else max(pts, self._last + 1)
        self._last = pts
        frame.pts, frame.time_base = pts, self.info.time_base
        with contextlib.suppress(AttributeError):  # older PyAV: no duration, the muxer guesses
            frame.duration = max(1, round(1 / self.info.rate / self.info.time_base))
        self._container.mux(self._stream.encode(frame))
        self._sound.copy_until(pts * self.info.time_base)

    def close(self, complete: bool) -> None:
        """Ends the file and gives it its name."""
        try:
            self._container.mux(self._stream.encode(None))
            self._sound.finish(complete)
        finally:
            self._container.close()
        self._publish()

    def abandon(self) -> None:
        """Drops the file."""
        self._sound.close()
        with contextlib.suppress(Exception):  # what cannot be ended is removed all the same
            self._container.close()
        self._remove()


class _Sound:
    """The first sound stream of a video, carried into another file in step with the pictures.

    Whatever is wrong with the sound is noted and ends it; the pictures go on.
    """

    def __init__(self, info: VideoInfo, output: Any, notes: List[str]) -> None:
        self._notes = notes
        self._output = output
        self._input: Any = None
        self._packets: Optional[Iterator[Any]] = None
        self._next: Any = None
        self._time = Fraction(-1)
        self._info = info
        with self._noting("the sound cannot be opened"):
            self._open(output)

    def _open(self, output: Any) -> None:
        if not self._info.has_file:
            return
        av = load_av()
        self._input = av.open(str(self._info.path))
        if not self._input.streams.audio:
            self.close()
            return
        source = self._input.streams.audio[0]
        codec = source.codec_context.name
        self._copies = codec in MP4_SOUND
        if self._copies:
            if hasattr(output, "add_stream_from_template"):
                self._stream = output.add_stream_from_template(source)
            else:
                self._stream = output.add_stream(template=source)
        else:
            rate = source.rate if source.rate in AAC_RATES else 48000
            self._stream = output.add_stream("aac", rate=rate)
            layout = "mono" if source.channels == 1 else "stereo"
            self._stream.codec_context.layout = layout
            self._notes.append(f"the sound ({codec}) was encoded to AAC to fit MP4")
        self._offset = round(self._info.start / source.time_base)
        self._packets = self._input.demux(source)

    def copy_until(self, time: Fraction) -> None:
        """Carries over what begins by ``time``, in seconds from the start of the video."""
        while self._packets is not None and self._time <= time:
            with self._noting("the sound ends early"):
                self._step()

    def finish(self, complete: bool) -> None:
        """Carries over the rest if ``complete``, and ends the stream."""
        try:
            while complete and self._packets is not None:
                with self._noting("the sound ends early"):
                    self._step()
            if self._packets is not None or self._input is not None:
                self._flush()
        finally:
            self.close()

    def close(self) -> None:
        """Closes the file read from."""
        self._packets = None
        if self._input is not None:
            self._input.close()
            self._input = None

    def _step(self) -> None:
        packet = next(self._packets, None) if self._packets is not None else None
        if packet is None:
            self._packets = None
            return
        if packet.pts is not None:
            self._time = Fraction(packet.pts - self._offset) * packet.time_base
            end = self._info.end
            if self._time < 0 and self._info.begin is not None:
                return  # before the selection
            if end is not None and self._time + self._info.start >= end:
                self._packets = None
                return
        if not self._copies:
            for frame in packet.decode():
                if frame.pts is not None:
                    frame.pts -= self._offset
                self._output.mux(self._stream.encode(frame))
        elif packet.dts is not None:
            packet.pts -= self._offset
            packet.dts -= self._offset
            packet.stream = self._stream
            self._output.mux(packet)

    def _flush(self) -> None:
        if not self._copies:
            with self._noting("the sound ends early"):
                self._output.mux(self._stream.encode(None))

    @contextlib.contextmanager
    def _noting(self, what: str) -> Iterator[None]:
        av = load_av()
        try:
            yield
        except (av.error.FFmpegError, ValueError, OSError) as error:
            self._packets = None
            self._notes.append(f"{what}: {error}")
