"""Streams and cameras: frames as they come, connections that break and come back, clean ends."""

from __future__ import annotations

import contextlib
import functools
import http.server
import threading
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, ClassVar, Dict, Iterator, List, Optional, Sequence

import cv2
import numpy as np
import pytest

from deepfake_fpga.errors import MissingError, WorkError
from deepfake_fpga.inference.records import Frame, Status
from deepfake_fpga.inference.sources import camera as camera_module
from deepfake_fpga.inference.sources import streams
from deepfake_fpga.inference.sources.camera import device_of, open_camera
from deepfake_fpga.inference.sources.live import Connection, LiveOptions, LiveSource, LostError
from deepfake_fpga.inference.sources.streams import (
    AvConnection,
    CvConnection,
    label_of,
    open_stream,
    scheme_of,
    without_password,
)

from .clips import EITHER, level, write_clip

QUICK = LiveOptions(silence=0.6, timeout=5.0, first_wait=0.01, longest_wait=0.05)


def grey(number: int) -> np.ndarray:
    return np.full((32, 48, 3), level(number), np.uint8)


def numbers(frames: Sequence[Frame]) -> List[Optional[int]]:
    """The number painted into each frame; those up to 50 are told apart by the test's order."""
    found: List[Optional[int]] = []
    for frame in frames:
        if frame.image is None:
            found.append(None)
            continue
        off = [abs(level(number) - float(frame.image.mean())) for number in range(27)]
        found.append(off.index(min(off)))
    return found


class Clock:
    """Time that passes only when told to, or when somebody waits."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Scripted(Connection):
    """Gives pictures ``first`` to ``last - 1`` and then breaks, or ends."""

    def __init__(self, clock: Clock, first: int, last: int, **script: Any) -> None:
        self.rate = script.get("rate", Fraction(10))
        self.length = script.get("length")
        self.clock, self.first, self.last, self.script = clock, first, last, script
        self.closed = False

    def pictures(self) -> Iterator[Any]:
        for number in range(self.first, self.last):
            self.clock.now += 0.1
            seconds = self.script.get("base", 0.0) + number / 10
            yield (None if self.script.get("untimed") else seconds), functools.partial(grey, number)
        if self.script.get("breaks", True):
            raise LostError(self.script.get("reason", "cable"))

    def close(self) -> None:
        self.closed = True


def scripted(clock: Clock, script: Sequence[Any], **options: Any) -> LiveSource:
    """A source whose connections are those of the script; a number is a failure so long."""
    left = list(script)

    def connect() -> Connection:
        if not left:
            raise LostError("nobody answers")
        step = left.pop(0)
        if isinstance(step, (int, float)):
            clock.now += step
            raise LostError("nobody answers")
        return step  # type: ignore[no-any-return]

    settings: Dict[str, Any] = {"silence": 30.0, "first_wait": 0.001, "longest_wait": 0.002}
    return LiveSource(
        "x", "stream", "x", connect, LiveOptions(**{**settings, **options}, clock=clock)
    )


def collect(source: LiveSource) -> List[Frame]:
    return list(source)


def test_numbers_and_times_go_on_after_a_break() -> None:
    clock = Clock()
    parts = [Scripted(clock, 0, 4), 5.0, 2.0, Scripted(clock, 4, 7, base=1000.0), 40.0]
    source = scripted(clock, parts)
    frames = collect(source)
    assert [frame.index for frame in frames] == list(range(7))
    assert numbers(frames) == list(range(7))
    # Four frames, then 7 seconds of nothing, then the sender's clock begins somewhere else.
    assert [frame.time for frame in frames] == [0, 0.1, 0.2, 0.3, 7.4, 7.5, 7.6]
    assert all(part.closed for part in parts if isinstance(part, Scripted))
    assert source.notes == [
        "it was gone once, 7.1 s in all, 7.1 s at the longest",
        "given up after 30 s without a frame: nobody answers",
    ]


def test_the_wall_clock_tells_where_the_sender_has_none() -> None:
    clock = Clock()
    frames = collect(scripted(clock, [Scripted(clock, 0, 3, untimed=True), 31.0]))
    assert [frame.time for frame in frames] == [0, 0.1, 0.2]


def test_what_has_a_length_goes_on_behind_what_was_seen() -> None:
    clock = Clock()
    parts = [
        Scripted(clock, 0, 4, length=1.0),
        Scripted(clock, 0, 2, length=1.0),  # breaks before anything new
        Scripted(clock, 0, 10, length=1.0, breaks=False),
    ]
    source = scripted(clock, parts)
    frames = collect(source)
    assert numbers(frames) == list(range(10))
    assert [frame.index for frame in frames] == list(range(10))
    assert [frame.time for frame in frames] == [n / 10 for n in range(10)]
    assert source.length == 10
    assert not source.realtime
    assert len(source.notes) == 1
    assert "gone once" in source.notes[0]


def test_one_without_a_length_that_ends_is_connected_again() -> None:
    clock = Clock()
    source = scripted(clock, [Scripted(clock, 0, 2, breaks=False), Scripted(clock, 2, 4), 99.0])
    assert numbers(collect(source)) == [0, 1, 2, 3]
    assert source.realtime


@pytest.mark.parametrize("untimed", [True, False])
def test_a_duration_ends_it(untimed: bool) -> None:
    clock = Clock()
    source = scripted(clock, [Scripted(clock, 0, 26, untimed=untimed)], duration=1.0)
    assert [frame.index for frame in collect(source)] == list(range(10))
    assert source.notes == []


def test_a_duration_ends_the_waiting_too() -> None:
    clock = Clock()
    source = scripted(clock, [Scripted(clock, 0, 3), 1.0, 1.0, Scripted(clock, 3, 9)], duration=2.0)
    assert numbers(collect(source)) == [0, 1, 2]
    assert not [note for note in source.notes if "given up" in note]


def test_stop_ends_the_waiting() -> None:
    clock = Clock()
    source = scripted(clock, [Scripted(clock, 0, 3)], first_wait=3600.0, silence=7200.0)
    seen: List[Frame] = []
    thread = threading.Thread(target=lambda: seen.extend(collect(source)), daemon=True)
    thread.start()
    source.stop()
    thread.join(10)
    assert not thread.is_alive()


def test_no_rate_is_noted() -> None:
    clock = Clock()
    source = scripted(clock, [Scripted(clock, 0, 1, rate=None), 99.0])
    assert source.info.rate == 25
    assert "states no frame rate" in source.notes[0]


# A server of this machine


class Server:
    """An HTTP server whose answers are functions, one for each request in turn."""

    def __init__(self, answers: Sequence[Callable[[Any], None]]) -> None:
        left, self.requests = list(answers), 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests += 1
                if not left:
                    self.send_error(404)
                    return
                with contextlib.suppress(OSError):  # the reader has gone
                    left.pop(0)(self)

            def log_message(self, *words: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *problem: Any) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


def mjpeg(first: int, last: int) -> Callable[[Any], None]:
    """Sends pictures as cameras do, then hangs up."""

    def answer(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace;boundary=frame")
        handler.end_headers()
        for number in range(first, last):
            data = bytes(cv2.imencode(".jpg", grey(number))[1])
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            handler.wfile.write(head.encode() + data + b"\r\n")
        handler.wfile.write(b"--frame\r\n")

    return answer


def file_of(data: bytes, until: int) -> Callable[[Any], None]:
    """Promises the whole file and sends it as far as ``until``."""

    def answer(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "video/x-msvideo")
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:until])
        handler.wfile.flush()
        handler.connection.close()

    return answer


@pytest.fixture(params=EITHER)
def connection(request: pytest.FixtureRequest) -> Any:
    return AvConnection if request.param == "av" else CvConnection


def stream(url: str, connection: Any, options: LiveOptions = QUICK) -> LiveSource:
    return LiveSource(
        url, "stream", "x", functools.partial(connection, url, options.timeout), options
    )


def test_mjpeg_over_http_is_connected_again(connection: Any) -> None:
    with Server([mjpeg(0, 12), mjpeg(12, 20)]) as server:
        source = stream(server.url, connection)
        frames = collect(source)
        assert server.requests > 2
    found = numbers(frames)
    # The last picture of a connection may stay in the decoder that waits for the next.
    assert found == sorted(set(found), key=lambda number: number or 0)
    assert {*range(11), *range(12, 19)} <= set(found)
    assert [frame.index for frame in frames] == list(range(len(frames)))
    times = [frame.time or 0 for frame in frames]
    assert times == sorted(set(times))
    assert source.realtime
    assert "gone once" in source.notes[-2]
    assert "given up after 0.6 s" in source.notes[-1]


def test_mjpeg_has_no_times_of_its_own(connection: Any) -> None:
    """FFmpeg makes some up: 25 a second, whatever comes when."""
    with Server([mjpeg(0, 12)]) as server:
        opened = connection(server.url, 5.0)
        seconds, make = next(opened.pictures())
        opened.close()
    assert seconds is None
    assert make().shape == (32, 48, 3)


def test_a_file_that_breaks_off_goes_on_where_it_was(connection: Any, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "c.avi", 25, codec="mjpeg", pix_fmt="yuvj420p")
    data = clip.read_bytes()
    cut = len(data) * 3 // 5
    with Server([file_of(data, cut), file_of(data, cut // 2), file_of(data, len(data))]) as server:
        source = stream(f"{server.url}/c.avi", connection)
        frames = [frame for frame in collect(source) if frame.status is Status.OK]
    assert numbers(frames) == list(range(25))
    assert [frame.index for frame in frames] == list(range(25))
    assert [frame.time for frame in frames] == pytest.approx([n / 20 for n in range(25)], abs=1e-3)
    assert source.length == 25
    assert not source.realtime
    assert [note for note in source.notes if "gone" in note]
    assert not [note for note in source.notes if "given up" in note]


def test_a_stream_that_is_not_there_is_named() -> None:
    with Server([]) as server, pytest.raises(WorkError, match="cannot be opened") as caught:
        open_stream(f"{server.url.replace('//', '//me:secret@')}/x", QUICK)
    assert "secret" not in str(caught.value)
    assert "me:***@" in str(caught.value)


def test_names_of_streams() -> None:
    assert scheme_of("rtsp://cam/1") == "rtsp"
    assert scheme_of("clip.mp4") == scheme_of("C:\\x") == ""
    assert without_password("rtsp://u:p%40w@cam:554/s") == "rtsp://u:***@cam:554/s"
    assert without_password("http://cam:8080/s") == "http://cam:8080/s"
    assert label_of("rtsp://u:***@192.168.1.5:554/live/1?token=x") == "192-168-1-5-554-live-1"


# Cameras


class FakeCapture:
    """Stands for ``cv2.VideoCapture``: ``plan`` has the pictures of each opening."""

    plan: ClassVar[List[Any]] = []
    opened: ClassVar[List[Any]] = []

    def __init__(self, device: Any) -> None:
        FakeCapture.opened.append(device)
        self.pictures = FakeCapture.plan.pop(0) if FakeCapture.plan else None

    def isOpened(self) -> bool:  # noqa: N802
        return self.pictures is not None

    def get(self, prop: int) -> float:
        assert prop == cv2.CAP_PROP_FPS
        return 30.0

    def read(self) -> Any:
        if not self.pictures:
            return False, None
        return True, grey(self.pictures.pop(0))

    def release(self) -> None:
        pass


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> Any:
    FakeCapture.plan, FakeCapture.opened = [], []
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)
    monkeypatch.setattr(camera_module.os.path, "exists", lambda path: True)
    monkeypatch.setattr(camera_module.os, "access", lambda path, mode: True)
    return FakeCapture


@pytest.mark.parametrize(
    ("word", "device", "name"),
    [
        ("0", 0, "camera:0"),
        ("camera:2", 2, "camera:2"),
        ("/dev/video1", "/dev/video1", "/dev/video1"),
    ],
)
def test_a_camera_is_read_and_comes_back(word: str, device: Any, name: str, captures: Any) -> None:
    captures.plan = [[0, 1, 2], None, [3, 4]]
    source = open_camera(word, QUICK)
    assert (source.name, source.kind, source.info.rate) == (name, "camera", 30)
    assert source.realtime
    frames = collect(source)
    assert numbers(frames) == [0, 1, 2, 3, 4]
    assert [frame.index for frame in frames] == list(range(5))
    assert {frame.source for frame in frames} == {name}
    assert set(captures.opened) == {device}
    assert "gone once" in source.notes[0]
    assert "given up" in source.notes[1]


def test_a_camera_that_is_in_use_is_named(captures: Any) -> None:
    with pytest.raises(WorkError, match="end the program"):
        open_camera("0", QUICK)


def test_no_camera_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera_module.os.path, "exists", lambda path: False)
    monkeypatch.setattr(camera_module.sys, "platform", "linux")
    with pytest.raises(MissingError, match="no camera"):
        open_camera("7", QUICK)


def test_words_for_cameras() -> None:
    assert (device_of("0"), device_of("camera:12"), device_of("/dev/video3")) == (
        0,
        12,
        "/dev/video3",
    )
    assert device_of("clip.mp4") is device_of("/dev/videos") is device_of("camera:") is None


def test_a_slow_reader_is_not_the_sender_s_silence() -> None:
    clock = Clock()
    source = scripted(clock, [Scripted(clock, 0, 2), 5.0, Scripted(clock, 2, 4), 99.0])
    found = []
    for read in source.reads():
        found.append(read())
        if len(found) < 4:
            clock.now += 500.0  # far more than the patience of 30 seconds
    assert numbers(found) == [0, 1, 2, 3]
    assert "5.1 s in all" in source.notes[0]


def test_waits_grow_up_to_a_limit() -> None:
    clock = Clock()
    waits: List[float] = []

    class Waiting(threading.Event):
        def wait(self, timeout: Optional[float] = None) -> bool:
            assert timeout is not None
            waits.append(timeout)
            clock.now += timeout
            return False

    source = scripted(clock, [Scripted(clock, 0, 1)], silence=40, first_wait=0.5, longest_wait=10)
    source._stopped = Waiting()
    assert numbers(collect(source)) == [0]
    assert waits == pytest.approx([0.5, 1, 2, 4, 8, 10, 10, 4.5])


@pytest.mark.parametrize(("scheme", "tcp"), [("rtsp", True), ("rtsps", True), ("http", False)])
def test_rtsp_comes_by_tcp(scheme: str, tcp: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By UDP, what a busy host misses is lost, and pictures are torn."""
    asked: Dict[str, Any] = {}

    def opened(url: str, **options: Any) -> None:
        asked.update(options)
        raise ValueError("not here")

    error = type("FFmpegError", (Exception,), {})
    fake = SimpleNamespace(open=opened, error=SimpleNamespace(FFmpegError=error))
    monkeypatch.setattr(streams, "load_av", lambda: fake)
    with pytest.raises(WorkError, match="not here"):
        open_stream(f"{scheme}://cam/1", LiveOptions(timeout=3))
    assert asked["options"] == ({"rtsp_transport": "tcp"} if tcp else {})
    assert asked["timeout"] == (3, 3)
