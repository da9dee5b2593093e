"""Watching a run: the page and the window show the latest frame and hold nothing up."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import cv2
import numpy as np
import pytest

from deepfake_fpga.errors import UnsupportedError, UsageError
from deepfake_fpga.inference.overlay import draw
from deepfake_fpga.inference.pipeline import run_pipeline
from deepfake_fpga.inference.records import Frame, FrameResult, Status
from deepfake_fpga.inference.sinks import PageSink, WindowSink, live, page, window

from .fakes import FakeSession, ListSink, PaintedSource

PATIENCE = 10.0


def result(number: int, value: int = 90, size: Tuple[int, int] = (240, 320)) -> FrameResult:
    mask = np.zeros((8, 8), np.uint8)
    mask[2:6, 2:6] = 1
    image = np.full((*size, 3), value, np.uint8)
    return FrameResult(Frame("a.mp4", number, number / 10, image), 0.25, mask, "sim")


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = set(threading.enumerate()) - before
    for thread in left:
        thread.join(PATIENCE)
    assert not [thread.name for thread in left if thread.is_alive()]


@contextlib.contextmanager
def opened(**options: Any) -> Iterator[Tuple[PageSink, int]]:
    """A page on a free port, and its port."""
    said: List[str] = []
    sink = PageSink(announce=said.append, **options)
    with sink:
        assert said[0].startswith("http://127.0.0.1:")
        yield sink, int(said[0].rstrip("/").rsplit(":", 1)[1])


def ask(port: int, path: str) -> Tuple[int, str, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read()


def status(port: int) -> Dict[str, Any]:
    code, kind, body = ask(port, "/status.json")
    assert (code, kind) == (200, "application/json")
    found: Dict[str, Any] = json.loads(body)
    return found


class Stream:
    """One viewer of the stream."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self.connection.request("GET", "/stream")
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200
        kind, _, boundary = self.answer.headers["Content-Type"].partition("; boundary=")
        assert kind == "multipart/x-mixed-replace"
        self.boundary = boundary.encode()

    def part(self) -> Optional[np.ndarray]:
        """The next picture, RGB; ``None`` at the end."""
        line = self.answer.readline().rstrip()
        if line == b"--" + self.boundary + b"--":
            assert self.answer.read() == b""
            return None
        assert line == b"--" + self.boundary
        assert self.answer.readline() == b"Content-Type: image/jpeg\r\n"
        name, length = self.answer.readline().split()
        assert name == b"Content-Length:"
        assert self.answer.readline() == b"\r\n"
        data = self.answer.read(int(length))
        assert self.answer.readline() == b"\r\n"
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        return np.asarray(picture)[..., ::-1]

    def close(self) -> None:
        self.answer.close()
        self.connection.close()


# -- the page -----------------------------------------------------------------------------------


def test_the_page_needs_nothing_from_elsewhere() -> None:
    with opened() as (_, port):
        code, kind, body = ask(port, "/?x=1")
        assert (code, kind) == (200, "text/html; charset=utf-8")
        text = body.decode()
        assert 'src="/stream"' in text
        assert '"/status.json"' in text
        assert "http://" not in text
        assert "https://" not in text
        assert ask(port, "/other")[0] == 404


def test_the_status_counts_and_has_the_latest_record() -> None:
    with opened() as (sink, port):
        assert status(port)["record"] is None
        assert ask(port, "/picture.jpg")[0] == 503
        lost = Frame("a.mp4", 2, 0.2, None, Status.DECODE_ERROR, "broken")
        given = [result(0), result(1), FrameResult(lost, None, None, "sim")]
        for one in given:
            sink.write(one, None)
        found = status(port)
        assert found["record"] == given[-1].to_json()
        assert (found["frames"], found["judged"], found["fake"]) == (3, 2, 2)
        assert found["fake_probability"] == 0.75
        assert found["ended"] is False
        assert ask(port, "/picture.jpg")[:2] == (200, "image/jpeg")


def test_the_rate_is_that_of_the_last_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [50.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: clock[0])
    latest = live.Latest()
    assert latest.status()["frames_per_second"] is None
    for pause in [0.01] * 1000 + [0.1] * 100:  # 100/s, then 10/s
        latest.put(result(0))
        clock[0] += pause
    assert latest.status()["frames_per_second"] == pytest.approx(10, rel=0.1)
    clock[0] += 1000  # it stands still, and that is seen
    assert latest.status()["frames_per_second"] < 0.1


def test_viewers_see_the_overlay_of_the_latest_frame() -> None:
    with opened() as (sink, port):
        sink.write(result(0, 40), None)
        viewers = [Stream(port) for _ in range(3)]
        for value in (40, 200):
            if value == 200:
                sink.write(result(1, 200), None)
            expected = draw(result(0 if value == 40 else 1, value)).astype(int)
            for viewer in viewers:
                shown = viewer.part()
                assert shown is not None
                assert shown.shape == expected.shape
                assert np.abs(shown.astype(int) - expected).mean() < 4
        for viewer in viewers:
            viewer.close()


def test_a_viewer_misses_what_it_is_too_slow_for_and_sees_the_last() -> None:
    with opened() as (sink, port):
        sink.write(result(0, 0), None)
        viewer = Stream(port)
        assert viewer.part() is not None
        for number in range(1, 1000):
            sink.write(result(number, number * 255 // 999), None)
        seen = []
        closing = threading.Thread(target=sink.close, args=(True,))
        closing.start()
        while True:
            shown = viewer.part()
            if shown is None:
                break
            seen.append(int(shown[-3:, -3:].mean()))
        closing.join(PATIENCE)
        assert not closing.is_alive()
        assert seen == sorted(seen)
        assert seen[-1] > 250
        assert len(seen) < 100
        viewer.close()


def test_viewers_that_stand_still_or_are_gone_do_not_slow_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One never reads, one hangs up in the middle; no buffer holds what is sent to them."""
    monkeypatch.setattr(page._Viewer, "timeout", None)  # nothing but the run's end frees them
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (1000, 1000, 3)).astype(np.uint8)
    noise = FrameResult(Frame("a", 0, 0.0, image), 0.25, np.zeros((2, 2), np.uint8), "sim")
    said: List[str] = []
    sink = PageSink(announce=said.append)
    sink.open()
    port = int(said[0].rstrip("/").rsplit(":", 1)[1])
    still = socket.create_connection(("127.0.0.1", port))
    still.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    still.sendall(b"GET /stream HTTP/1.0\r\n\r\n")
    gone = Stream(port)
    sink.write(noise, None)
    assert gone.part() is not None
    gone.close()

    def rest() -> None:
        for _ in range(50):
            sink.write(noise, None)
            time.sleep(0.01)
        sink.close(complete=True)

    thread = threading.Thread(target=rest, daemon=True)
    thread.start()
    thread.join(2 * PATIENCE)
    assert not thread.is_alive(), "the run waits for its viewers"
    still.close()
    assert list(sink.notes) == []


def test_a_frame_that_was_not_decoded_has_a_placeholder() -> None:
    with opened() as (sink, port):
        lost = Frame("a", 0, 0.0, None, Status.DECODE_ERROR, "broken")
        sink.write(FrameResult(lost, None, None, "sim"), None)
        viewer = Stream(port)
        shown = viewer.part()
        viewer.close()
    assert shown is not None
    assert shown.shape == (360, 640, 3)


def test_large_pictures_are_shown_smaller_and_beside_their_originals() -> None:
    shown = live.picture(result(0, 90, (2160, 3840)), beside=False)
    assert shown.shape == (720, 1280, 3)
    both = live.picture(result(0, 90, (40, 60)), beside=True)
    assert both.shape == (40, 120, 3)
    assert (both[:, :60] == 90).all()
    red = live.picture(result(0, 90, (400, 400)), beside=False)[200, 200]
    assert red[2] > red[1] + 30  # OpenCV's order


def test_no_more_streams_than_the_machine_can_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "VIEWERS", 2)
    with opened() as (sink, port):
        sink.write(result(0), None)
        viewers = [Stream(port), Stream(port)]
        assert [viewer.part() is not None for viewer in viewers] == [True, True]
        assert ask(port, "/stream")[0] == 503
        for viewer in viewers:
            viewer.close()


def test_a_fault_of_the_page_is_noted_and_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> bytes:
        raise RuntimeError("no ink")

    monkeypatch.setattr(page, "_jpeg", fail)
    with opened() as (sink, port):
        sink.write(result(0), None)
        with pytest.raises((http.client.HTTPException, OSError)):
            ask(port, "/picture.jpg")
        assert status(port)["frames"] == 1
    assert sink.notes == ["the page could not answer: RuntimeError('no ink')"]


def test_a_port_that_is_taken_is_named_before_anything_is_written() -> None:
    with opened() as (_, port):
        sink = PageSink(port=port)
        listing = ListSink()
        with pytest.raises(UsageError, match=f"127.0.0.1:{port}.*--serve 0"):
            run_pipeline([PaintedSource(5)], FakeSession().as_session(), [sink, listing])
        assert listing.results == []


def test_the_page_lives_as_long_as_the_run() -> None:
    said: List[str] = []
    seen: List[Dict[str, Any]] = []
    sink, listing = PageSink(announce=said.append), ListSink()

    def look(one: FrameResult) -> None:
        if one.frame.index == 30:
            port = int(said[0].rstrip("/").rsplit(":", 1)[1])
            seen.append(status(port))

    listing.on_write = look
    run_pipeline([PaintedSource(60)], FakeSession().as_session(), [sink, listing])
    assert seen[0]["frames"] == 31
    assert seen[0]["record"]["frame"] == 30
    with pytest.raises(OSError, match="refused"):
        status(int(said[0].rstrip("/").rsplit(":", 1)[1]))


def test_an_address_of_the_newer_kind() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    said: List[str] = []
    sink = PageSink("::1", announce=said.append)
    try:
        sink.open()
    except UsageError:
        pytest.skip("no IPv6 here")
    sink.close(complete=True)
    assert said[0].startswith("http://[::1]:")


# -- the window ---------------------------------------------------------------------------------


class Screen:
    """Stands for OpenCV's windows."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls: List[str] = []
        self.shown: List[np.ndarray] = []
        self.threads: set[int] = set()
        self.key, self.visible = -1, 1.0
        self.drawn = threading.Event()
        patch.setattr(window, "refuse_without_window", lambda: None)
        for name in ("namedWindow", "imshow", "waitKey", "getWindowProperty", "destroyAllWindows"):
            patch.setattr(cv2, name, getattr(self, name))

    def namedWindow(self, title: str, flags: int) -> None:  # noqa: N802
        self._called("open")

    def imshow(self, title: str, picture: np.ndarray) -> None:
        self._called("show")
        self.shown.append(picture)
        self.drawn.set()

    def waitKey(self, milliseconds: int) -> int:  # noqa: N802
        time.sleep(0.001)
        return self.key

    def getWindowProperty(self, title: str, kind: int) -> float:  # noqa: N802
        return self.visible

    def destroyAllWindows(self) -> None:  # noqa: N802
        self._called("close")

    def _called(self, name: str) -> None:
        self.calls.append(name)
        self.threads.add(threading.get_ident())


def test_the_window_shows_the_overlay_and_closes_with_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = Screen(monkeypatch)
    with WindowSink() as sink:
        sink.write(result(0), None)
        assert screen.drawn.wait(PATIENCE)
    assert screen.calls[0] == "open"
    assert screen.calls[-1] == "close"
    np.testing.assert_array_equal(screen.shown[0], draw(result(0))[..., ::-1])
    assert len(screen.threads) == 1
    assert threading.get_ident() not in screen.threads


@pytest.mark.parametrize("how", ["q", "escape", "button"])
def test_a_window_that_is_closed_leaves_the_run_alone(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Screen(monkeypatch)
    with WindowSink() as sink:
        sink.write(result(0), None)
        assert screen.drawn.wait(PATIENCE)
        screen.key = {"q": ord("q"), "escape": 27, "button": -1}[how]
        screen.visible = 0.0 if how == "button" else 1.0
        end = time.monotonic() + PATIENCE
        while screen.calls[-1] != "close" and time.monotonic() < end:
            time.sleep(0.01)
        count = len(screen.shown)
        sink.write(result(1), None)
        time.sleep(0.05)
        assert len(screen.shown) == count
    assert list(sink.notes) == []


def test_a_window_that_is_lost_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(monkeypatch)

    def lost(*_: Any) -> None:
        screen.drawn.set()
        raise cv2.error("the display\n is gone")

    monkeypatch.setattr(cv2, "imshow", lost)
    with WindowSink() as sink:
        sink.write(result(0), None)
        assert screen.drawn.wait(PATIENCE)
    assert sink.notes == ["the window was lost: the display is gone"]


HEADLESS = "  Video I/O:\n  GUI:                           NONE\n\n"
WITH_QT = "  GUI:                           QT5\n    QT:          YES\n"


@pytest.mark.parametrize(
    ("built", "screen", "said"),
    [
        (HEADLESS, ":0", "built without windows (opencv-python-headless)"),
        (WITH_QT, "", "neither DISPLAY nor WAYLAND_DISPLAY is set"),
        (WITH_QT, ":97", "a window does not open here: qt.qpa.xcb: could not connect"),
    ],
)
def test_where_no_window_can_be_the_reason_and_the_way_out_are_said(
    built: str, screen: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: built)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("DISPLAY", screen)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(
        window, "_PROBE", "import os; print('qt.qpa.xcb: could not connect'); os.abort()"
    )
    with pytest.raises(UnsupportedError) as caught:
        WindowSink()
    assert said in str(caught.value)
    assert "--serve 8080" in caught.value.next_step


def test_a_window_that_opens_is_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: WITH_QT)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(window, "_PROBE", "pass")
    WindowSink()

    def slow(*words: Any, **options: Any) -> None:
        raise subprocess.TimeoutExpired("python", 20)

    monkeypatch.setattr(window.subprocess, "run", slow)
    with pytest.raises(UnsupportedError, match="did not open within 20 s"):
        WindowSink()
