"""What is measured with: pictures, clips and models made on the spot, always the same ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterator, List, Optional

import numpy as np

from ...compile.workload import set_workloads
from ...compile.xir.attributes import int32
from ...compile.xir.graph import Graph
from ...compile.xir.xmodel import write_xmodel
from ...files import replacing
from ...inference.devices.handmade import uynet
from ...inference.ffmpeg import load_av
from ...inference.sources import Read, Source

PICTURE = 256
"""Side of a generated crop."""


def noise(height: int, width: int, number: int) -> np.ndarray:
    """A picture as hard to decode as a photograph: soft noise with grain, moving with ``number``.

    Returns:
        uint8 ``[height, width, 3]``.
    """
    import cv2

    random = np.random.default_rng(number % 8)
    small = random.integers(0, 255, (height // 16, width // 16, 3), np.uint8)
    soft = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    grain = random.integers(0, 4, (height, width, 3), np.uint8)
    return np.asarray(cv2.add(np.roll(soft, number, axis=1), grain))


def make_pictures(folder: Path, count: int) -> Path:
    """A folder of ``count`` PNG crops."""
    import cv2

    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        cv2.imwrite(str(folder / f"crop_{number:05d}.png"), noise(PICTURE, PICTURE, number))
    return folder


def make_clip(path: Path, frames: int, height: int, width: int) -> Path:
    """An H.264 clip of 25 frames/s.

    Raises:
        UnsupportedError: PyAV is not installed.
    """
    av = load_av()
    with replacing(path) as temporary, av.open(str(temporary), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(noise(height, width, number), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def make_model(path: Path, width: int, size: int = 224) -> Path:
    """A compiled U-YNet with random parameters."""
    write_xmodel(compiled(width, size), path)
    return path


def compiled(width: int, size: int = 224) -> Graph:
    """A U-YNet with random parameters and the workloads that the compiler would write."""
    graph = uynet(width, size)
    # The kernel rows of the first layer are packed into its channels, as the compiler does.
    graph.op("inc_0").attrs["channel_augmentation"] = int32(1)
    set_workloads(graph)
    return graph


class Head(Source):
    """The first frames of another source.

    Args:
        source: read from its beginning.
        count: frames at most.
    """

    def __init__(self, source: Source, count: int) -> None:
        self._source = source
        self.name, self.kind, self.notes = source.name, source.kind, source.notes
        self.live, self.realtime = source.live, source.realtime
        known: Optional[int] = source.length
        self.length = count if known is None else min(known, count)
        self._count = count

    def reads(self) -> Iterator[Read]:
        """The first reads of the source."""
        left = self._count
        for read in self._source.reads():
            if not left:
                return
            left -= 1
            yield read


def first_pictures(source: Source, count: int) -> List[np.ndarray]:
    """At most ``count`` pictures of a source, the first that can be decoded."""
    found: List[np.ndarray] = []
    for frame in source:
        if frame.image is not None:
            found.append(frame.image)
        if len(found) >= count:
            break
    return found
