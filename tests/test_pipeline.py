"""The pipeline: order, full batches, back-pressure, and an end in every case."""

from __future__ import annotations

import _thread
import random
import threading
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional, Tuple

import numpy as np
import pytest

from deepfake_fpga.inference import pipeline
from deepfake_fpga.inference.pipeline import Meter, run_pipeline
from deepfake_fpga.inference.records import Frame, FrameResult, Status, VideoInfo
from deepfake_fpga.inference.sources import Source

from .fakes import FakeSession, ListSink, PaintedSource

WATCHDOG = 20.0
"""Seconds after which a test that hangs is given up."""


class BoomError(Exception):
    pass


def boom(when: Callable[[Any], bool]) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if when(value):
            raise BoomError

    return check


def guarded(work: Callable[[], Any]) -> Tuple[Any, Optional[BaseException]]:
    """Runs ``work`` on a thread and gives it up after a while, so that no test hangs."""
    outcome: List[Any] = [None, None]

    def target() -> None:
        try:
            outcome[0] = work()
        except BaseException as error:
            outcome[1] = error

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    thread.join(WATCHDOG)
    assert not thread.is_alive(), "the pipeline hangs"
    return outcome[0], outcome[1]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = set(threading.enumerate()) - before
    for thread in left:
        thread.join(5)
    assert not [thread.name for thread in left if thread.is_alive()]


def go(
    sources: List[Source], session: FakeSession, sink: ListSink, **options: Any
) -> Tuple[Meter, Optional[BaseException]]:
    meter = Meter()
    _, error = guarded(
        lambda: run_pipeline(sources, session.as_session(), [sink], meter=meter, **options)
    )
    return meter, error


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_order_is_kept_for_any_number_of_threads(threads: int) -> None:
    source, session, sink = PaintedSource(301, broken={0, 7, 8, 300}), FakeSession(), ListSink()
    pauses = random.Random(threads)
    source.reading = lambda number: time.sleep(pauses.random() * 0.002)
    sink.on_render = lambda result: time.sleep(pauses.random() * 0.002)
    _, error = go([source], session, sink, threads=threads)
    assert error is None
    assert [result.frame.index for result in sink.results] == list(range(301))
    assert sink.rendered == list(range(301))
    for result in sink.results:
        number = result.frame.index
        if number in source.broken:
            assert result.status is Status.DECODE_ERROR
            assert result.to_json()["fake_probability"] is None
            continue
        assert result.real == np.float32(number / 65536)
        assert result.mask is not None
        assert result.mask.sum() == number % 50
        assert result.device == "fake"
    if threads == 5:
        assert len(sink.threads) > 1


def test_batches_are_full_across_files_and_only_the_last_is_short() -> None:
    sources: List[Source] = [
        PaintedSource(3),
        PaintedSource(0),
        PaintedSource(13, first=3, broken={4, 5}),
        PaintedSource(5, first=16),
    ]
    session, sink = FakeSession(), ListSink()
    meter, error = go(sources, session, sink)
    assert error is None
    assert session.sizes == [8, 8, 3]
    assert (meter.images, meter.batches, meter.slots, meter.done) == (19, 3, 24, 21)
    assert meter.fill == 19 / 24
    assert [result.origin for result in sink.results] == [0] * 3 + [2] * 13 + [3] * 5
    assert sink.closed is True


def test_sources_may_be_made_as_they_are_wanted() -> None:
    made: List[int] = []

    def sources() -> Iterator[Source]:
        for number in range(50):
            made.append(number)
            yield PaintedSource(20, first=20 * number)

    session, sink = FakeSession(), ListSink()
    seen: List[int] = []
    sink.on_write = lambda result: seen.append(len(made))
    _, error = guarded(lambda: run_pipeline(sources(), session.as_session(), [sink]))
    assert error is None
    assert [result.frame.index for result in sink.results] == list(range(1000))
    assert [result.origin for result in sink.results] == [n for n in range(50) for _ in range(20)]
    assert session.sizes == [8] * 125  # no batch is short where a source ends
    assert seen[0] < 50


def test_frames_that_cannot_be_decoded_never_reach_the_device() -> None:
    session, sink = FakeSession(), ListSink()
    meter, error = go([PaintedSource(100, broken=range(100))], session, sink)
    assert error is None
    assert session.sizes == []
    assert meter.fill is None
    assert [result.frame.index for result in sink.results] == list(range(100))


def test_no_frame_at_all_is_no_failure() -> None:
    sink = ListSink()
    assert go([PaintedSource(0)], FakeSession(), sink)[1] is None
    assert sink.results == []
    assert sink.closed is True


def test_several_batches_are_in_flight_but_not_more_than_asked() -> None:
    session, sink = FakeSession(batch=4), ListSink()
    session.on_result = lambda ticket: time.sleep(0.01)
    _, error = go([PaintedSource(80)], session, sink, in_flight=3)
    assert error is None
    assert session.most_open == 3


def test_a_slow_sink_holds_the_source_back() -> None:
    source, session, sink = PaintedSource(1000), FakeSession(), ListSink()
    gate, started = threading.Event(), []
    source.before = started.append
    sink.on_write = lambda result: gate.wait(WATCHDOG) and None
    thread = threading.Thread(target=lambda: go([source], session, sink), daemon=True)
    thread.start()
    last = -1
    while last != len(started) or not started:  # until the source stands still
        last = len(started)
        time.sleep(0.3)
    assert len(started) < 200
    gate.set()
    thread.join(WATCHDOG)
    assert len(sink.results) == 1000


def fail_in(stage: str, source: PaintedSource, session: FakeSession, sink: ListSink) -> None:
    if stage == "source":
        source.before = boom(lambda number: number == 40)
    elif stage == "read":
        source.reading = boom(lambda number: number == 40)
    elif stage == "fit":
        broken = source.frame

        def frame(number: int) -> Any:
            result = broken(number)
            if number == 40:
                object.__setattr__(result, "image", np.zeros((0, 0, 3), np.uint8))
            return result

        source.frame = frame  # type: ignore[method-assign]
    elif stage == "submit":
        session.on_submit = boom(lambda ticket: ticket == 5)
    elif stage == "result":
        session.on_result = boom(lambda ticket: ticket == 5)
    elif stage == "render":
        sink.on_render = boom(lambda result: result.frame.index == 40)
    elif stage == "write":
        sink.on_write = boom(lambda result: result.frame.index == 40)
    elif stage == "close":
        sink.on_close = lambda: boom(lambda _: True)(None)
    elif stage == "open":
        sink.on_open = lambda: boom(lambda _: True)(None)


STAGES = ["source", "read", "fit", "submit", "result", "render", "write", "close", "open"]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("stage", STAGES)
def test_a_failure_of_any_stage_ends_all_and_keeps_what_is_done(stage: str, threads: int) -> None:
    source, session, sink = PaintedSource(5000), FakeSession(), ListSink()
    fail_in(stage, source, session, sink)
    _, error = go([source], session, sink, threads=threads)
    if stage == "fit":
        assert type(error).__name__ == "error"  # OpenCV's
    else:
        assert isinstance(error, BoomError)
    assert source.closed or stage == "open"
    done = [result.frame.index for result in sink.results]
    assert done == list(range(len(done)))
    if stage == "close":
        assert len(done) == 5000
    elif stage == "open":
        assert done == []
    elif stage in ("submit", "result", "render", "write"):
        assert len(done) == 40
        assert sink.closed is False
    else:  # the frames before the failing job went through
        assert 36 <= len(done) <= 40
        assert sink.closed is False


def test_the_other_sinks_are_closed_when_one_fails() -> None:
    first, second = ListSink(), ListSink()
    fail_in("write", PaintedSource(0), FakeSession(), first)
    _, error = guarded(
        lambda: run_pipeline([PaintedSource(99)], FakeSession().as_session(), [first, second])
    )
    assert isinstance(error, BoomError)
    assert (first.closed, second.closed) == (False, False)


def test_a_failing_progress_callback_ends_the_run() -> None:
    source, sink = PaintedSource(100_000), ListSink()
    sink.on_write = lambda result: time.sleep(0.001)
    calls: List[Tuple[int, Optional[int]]] = []

    def progress(done: int, total: Optional[int]) -> None:
        calls.append((done, total))
        if len(calls) == 3:
            raise BoomError

    _, error = go([source], FakeSession(), sink, progress=progress)
    assert isinstance(error, BoomError)
    assert len(calls) == 3
    assert calls[0][1] == 100_000
    assert 0 < len(sink.results) < 100_000


def test_progress_ends_with_the_whole() -> None:
    calls: List[Tuple[int, Optional[int]]] = []
    go([PaintedSource(20)], FakeSession(), ListSink(), progress=lambda *call: calls.append(call))
    assert calls[-1] == (20, 20)


def test_a_device_that_hangs_does_not_keep_a_failure_from_ending_the_run() -> None:
    session, sink = FakeSession(), ListSink()
    gate = threading.Event()
    session.on_result = lambda ticket: gate.wait(WATCHDOG) and None
    source = PaintedSource(5000)
    source.before = boom(lambda number: number == 30)
    try:
        _, error = go([source], session, sink)
        assert isinstance(error, BoomError)
        assert sink.closed is False
        assert not gate.is_set()
    finally:
        gate.set()


def test_ctrl_c_ends_the_run_and_keeps_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    source, session, sink = PaintedSource(100_000), FakeSession(), ListSink()

    def interrupt(result: FrameResult) -> None:
        if result.frame.index == 50:
            _thread.interrupt_main()
        if result.frame.index >= 50:  # or a starved main thread hears of it too late
            time.sleep(0.001)

    sink.on_write = interrupt
    monkeypatch.setattr(pipeline, "CLOSING", 5.0)
    with pytest.raises(KeyboardInterrupt):
        run_pipeline([source], session.as_session(), [sink])
    done = [result.frame.index for result in sink.results]
    assert 50 < len(done) < 100_000
    assert done == list(range(len(done)))
    assert sink.closed is False
    assert source.closed


def test_images_are_dropped_early_unless_a_sink_wants_them() -> None:
    for wanted in (False, True):
        sink = ListSink()
        sink.needs_image = wanted
        go([PaintedSource(5)], FakeSession(), sink)
        assert [result.frame.image is not None for result in sink.results] == [wanted] * 5


def test_a_value_that_is_no_number_is_no_verdict() -> None:
    session, sink = FakeSession(), ListSink()
    session.reals = lambda images: np.full(len(images), np.nan, np.float32)
    go([PaintedSource(3)], session, sink)
    for result in sink.results:
        record = result.to_json()
        assert record["status"] == "no_result"
        assert record["verdict"] is record["fake_probability"] is record["mask_fraction"] is None
        assert "nan" in record["reason"]


def test_seconds_are_counted_per_stage() -> None:
    source, session, sink = PaintedSource(16), FakeSession(), ListSink()
    source.reading = lambda number: time.sleep(0.002)
    sink.on_render = lambda result: time.sleep(0.002)
    sink.on_write = lambda result: time.sleep(0.002)
    meter, _ = go([source], session, sink)
    for stage in ("decode", "post", "write"):
        assert meter.seconds[stage] >= 16 * 0.002
    assert meter.seconds["device"] == 0


class StillSource(PaintedSource):
    """Frames of which only those in ``changed`` are to be judged."""

    def __init__(self, count: int, changed: Any, **options: Any) -> None:
        super().__init__(count, **options)
        self.changed = sorted(changed)

    def frame(self, number: int) -> Frame:
        frame = replace(super().frame(number), video=CLIP)
        if frame.image is None or number in self.changed:
            return frame
        return replace(frame, same_as=max(n for n in self.changed if n < number))


CLIP = VideoInfo(Path("x.mp4"), Fraction(10), Fraction(1, 10), Fraction(0), None)


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("wanted", [True, False])
def test_unchanged_frames_inherit_across_batches_and_take_no_slot(
    threads: int, wanted: bool
) -> None:
    changed = {0, 1, 5, 64, 65, 66, 130, 299, *range(200, 260, 3)}
    source, session, sink = StillSource(400, changed, broken={7, 131}), FakeSession(), ListSink()
    other = PaintedSource(30, first=1000)
    sink.needs_image, sink.needs_logits = wanted, False
    source.reading = lambda number: time.sleep(0.002 * (number % 5 == 0))
    meter, error = go([source, other], session, sink, threads=threads)
    assert error is None
    assert [r.frame.index for r in sink.results[:400]] == list(range(400))
    assert meter.images == sum(session.sizes) == len(changed) + 30
    for result in sink.results[:400]:
        number = result.frame.index
        if number in source.broken:
            assert result.real is None
            continue
        judged = max(n for n in changed if n <= number)
        assert result.real == np.float32(judged / 65536)
        assert result.mask is not None
        assert result.mask.sum() == judged % 50
        assert result.to_json()["inherited_from"] == (None if judged == number else judged)
        assert (result.frame.image is not None) == wanted
        assert (result.device, result.origin) == ("fake", 0)
    assert [r.frame.index for r in sink.results[400:]] == list(range(1000, 1030))


def test_nothing_is_inherited_from_another_source() -> None:
    first, second = StillSource(3, {0}), StillSource(3, {0})
    second.frame = lambda number: replace(first.frame(number), same_as=0)  # type: ignore[method-assign]
    _, error = go([first, second], FakeSession(), ListSink())
    assert isinstance(error, LookupError)
