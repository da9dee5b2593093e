"""What the engine and the pipeline are held against: the same work with nothing around it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, List, Tuple

from ...compile.xir.graph import Op
from ...inference.devices.onnx_graph import Piece
from ...inference.devices.sim import SimDevice
from ...inference.ffmpeg import load_av
from ...inference.sinks.mp4 import ENCODER, QUALITY


class PlainPiece(Piece):
    """The translation to ONNX without what makes it exact."""

    def activated(self, value: str, op: Op, fo: int) -> str:
        """Nothing after the rounding."""
        return value

    def output_scale(self, cut: int) -> float:
        """The power of two itself."""
        return 2.0**cut


class PlainDevice(SimDevice):
    """ONNX Runtime on the same graph: it rounds half to even and clips nothing."""

    piece_type = PlainPiece


def decode_clip(path: Path) -> int:
    """Runs FFmpeg's decoder over a clip, on as many threads as it likes; returns the frames."""
    count = 0
    with load_av().open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for _ in container.decode(stream):
            count += 1
    return count


def transcode_clip(path: Path, output: Path) -> int:
    """Decodes a clip and encodes it with the settings of an overlay video; returns the frames."""
    av = load_av()
    count = 0
    with av.open(str(path)) as source, av.open(str(output), "w", format="mp4") as container:
        stream = source.streams.video[0]
        stream.thread_type = "AUTO"
        encoder: Any = container.add_stream(ENCODER, rate=stream.average_rate, options=QUALITY)
        encoder.height, encoder.width = stream.height, stream.width
        encoder.pix_fmt = "yuv420p"
        encoder.time_base = stream.time_base
        for frame in source.decode(stream):
            frame.pict_type = 0  # the encoder chooses, not the clip
            container.mux(encoder.encode(frame))
            count += 1
        container.mux(encoder.encode(None))
    return count


def decode_pictures(paths: List[Path], size: Tuple[int, int], threads: int) -> None:
    """Decodes and resizes picture files on threads, without order, batches or records."""
    import cv2
    import numpy as np

    def work(own: List[Path]) -> None:
        for path in own:
            image: Any = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
            cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
            cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)

    workers = [
        threading.Thread(target=work, args=(paths[start::threads],)) for start in range(threads)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
