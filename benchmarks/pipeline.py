"""How much of the bare cost of reading the whole pipeline keeps, with a device that costs nothing.

Type: python benchmarks/pipeline.py [--images N] [--frames N] [--threads N] [--rounds N]

Each ratio compares two things measured in turn in this one run. Where others share the machine,
the second column (processor time over all threads) is the one to trust:

* images: ``run`` without pictures against two threads that decode and resize the same files;
* video: ``run`` without pictures against FFmpeg's decoder alone, and with conversion to RGB;
* pictures: ``run`` with masks and overlays, or with an overlay video, against ``run`` without.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import numpy as np

from deepfake_fpga.inference.artifact import artifact_of
from deepfake_fpga.inference.devices.handmade import uynet
from deepfake_fpga.inference.run import RunOptions, run
from deepfake_fpga.inference.session import Session
from deepfake_fpga.inference.sources import Source, open_images, open_video


def noise(height: int, width: int, number: int) -> np.ndarray:
    """A picture as hard to decode as a photograph: soft noise, moving with ``number``."""
    import cv2

    random = np.random.default_rng(number % 8)
    small = random.integers(0, 255, (height // 16, width // 16, 3), np.uint8)
    soft = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    grain = random.integers(0, 4, (height, width, 3), np.uint8)
    return np.asarray(cv2.add(np.roll(soft, number, axis=1), grain))


def make_images(folder: Path, count: int) -> List[Path]:
    """PNG crops of 256x256."""
    import cv2

    folder.mkdir()
    paths = [folder / f"clip_{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        cv2.imwrite(str(path), noise(256, 256, number))
    return paths


def make_clip(path: Path, frames: int, height: int, width: int) -> Path:
    """An H.264 clip."""
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(noise(height, width, number), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def bare_images(paths: List[Path], threads: int) -> None:
    """Decodes and resizes on threads, without order, batches or records."""
    import cv2

    def work(own: List[Path]) -> None:
        for path in own:
            image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
            cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
            cv2.resize(image, (224, 224), interpolation=cv2.INTER_LINEAR)

    workers = [
        threading.Thread(target=work, args=(paths[start::threads],)) for start in range(threads)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def bare_video(path: Path, rgb: bool) -> None:
    """Decodes, and converts to RGB if asked."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for frame in container.decode(stream):
            if rgb:
                frame.to_ndarray(format="rgb24")


Cost = Tuple[float, float]
"""Seconds of the wall clock, and seconds of processor time over all threads."""


def measure(name: str, work: Callable[[], object], costs: Dict[str, List[Cost]]) -> None:
    """Runs ``work`` once and notes what it cost."""
    wall, busy = time.perf_counter(), time.process_time()
    work()
    cost = (time.perf_counter() - wall, time.process_time() - busy)
    costs.setdefault(name, []).append(cost)


def main() -> None:
    """Measures everything in turn, several rounds, and prints medians and ratios."""
    parser = argparse.ArgumentParser(description="The pipeline around a device that costs nothing.")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clip", type=Path, action="append", default=[], help="a video of yours")
    wanted = parser.parse_args()
    costs: Dict[str, List[Cost]] = {}
    model = artifact_of(uynet(4), Path("handmade.xmodel"))
    with tempfile.TemporaryDirectory() as name, Session(model, "null") as session:
        folder = Path(name)
        paths = make_images(folder / "images", wanted.images)
        clips = {
            "256x256": make_clip(folder / "small.mp4", wanted.frames, 256, 256),
            "1280x720": make_clip(folder / "large.mp4", wanted.frames // 5, 720, 1280),
            **{path.name: path for path in wanted.clip},
        }
        counts = {"images": wanted.images}
        counts.update({size: len(list(open_video(str(clip)))) for size, clip in clips.items()})

        def whole(source: Source, pictures: bool) -> None:
            options = RunOptions(threads=wanted.threads, pictures=pictures)
            run([source], session, folder / "out", options)

        images = str(paths[0].parent)
        for _ in range(wanted.rounds):
            measure("images bare", lambda: bare_images(paths, wanted.threads), costs)
            measure("images run", lambda: whole(open_images(images), False), costs)
            measure("images pictures", lambda: whole(open_images(images), True), costs)
            for size, clip in clips.items():
                text = str(clip)
                measure(f"{size} decode", lambda c=clip: bare_video(c, False), costs)
                measure(f"{size} decode+rgb", lambda c=clip: bare_video(c, True), costs)
                measure(f"{size} run", lambda t=text: whole(open_video(t), False), costs)
                measure(f"{size} overlay", lambda t=text: whole(open_video(t), True), costs)
    middle = {key: np.median(np.array(cost), axis=0) for key, cost in costs.items()}
    print(f"{'':<34}{'per second':>12}{'per busy core second':>24}")
    for key, cost in middle.items():
        rate, busy = counts[key.rpartition(" ")[0]] / cost
        print(f"{key:<34}{rate:>12.0f}{busy:>24.0f}")
    print()
    for key, base in [
        ("images run", "images bare"),
        ("images pictures", "images run"),
        *((f"{size} run", f"{size} {base}") for size in clips for base in ("decode", "decode+rgb")),
        *((f"{size} overlay", f"{size} run") for size in clips),
    ]:
        rate, busy = middle[base] / middle[key]
        print(f"{key + ' / ' + base.rpartition(' ')[2]:<34}{rate:>12.2f}{busy:>24.2f}")


if __name__ == "__main__":
    main()
