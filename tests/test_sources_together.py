"""Several sources at once: order within each, live ones beside files, ends and failures."""

from __future__ import annotations

import threading
from typing import Any, Callable, Dict, Iterator, List

import pytest

from deepfake_fpga.inference.pipeline import run_pipeline
from deepfake_fpga.inference.sources.together import AHEAD, together

from .fakes import FakeSession, ListSink, PaintedSource

WAIT = 20.0


class LiveSource(PaintedSource):
    """A painted source that waits for ``go`` before each frame; ``stop`` ends the waiting."""

    kind = "stream"
    live = True

    def __init__(self, count: int, first: int = 0, free: bool = False, **options: Any) -> None:
        super().__init__(count, first, **options)
        self.length = None
        self.count, self.go = count, threading.Semaphore(count if free else 0)
        self.stopped = threading.Event()
        self.done = threading.Event()

    def reads(self) -> Iterator[Any]:
        try:
            for number in range(self.first, self.first + self.count):
                while not self.go.acquire(timeout=0.01):
                    if self.stopped.is_set():
                        return
                self.before(number)
                yield lambda number=number: self.frame(number)
        finally:
            self.closed = True
            self.done.set()

    def stop(self) -> None:
        self.stopped.set()


def numbers(sources: List[Any]) -> Dict[int, List[int]]:
    found: Dict[int, List[int]] = {origin: [] for origin in range(len(sources))}
    for item in together(sources):
        if item is not None:
            found[item[0]].append(item[1]().index)
    return found


def test_files_come_one_after_the_other_on_the_caller_s_thread() -> None:
    before = threading.active_count()
    sources = [PaintedSource(3), PaintedSource(0), PaintedSource(2, first=3)]
    origins = []
    for item in together(sources):
        assert item is not None
        assert threading.active_count() == before
        origins.append((item[0], item[1]().index))
    assert origins == [(0, 0), (0, 1), (0, 2), (2, 3), (2, 4)]


def test_every_source_keeps_its_order_and_loses_nothing() -> None:
    sources = [
        LiveSource(100, free=True),
        PaintedSource(50, first=100),
        LiveSource(70, first=200, free=True),
        PaintedSource(20, first=300),
    ]
    found = numbers(sources)
    assert [found[n] for n in range(4)] == [
        list(range(100)), list(range(100, 150)), list(range(200, 270)), list(range(300, 320))
    ]  # fmt: skip


def test_a_silent_source_holds_up_no_other() -> None:
    silent, file, other = LiveSource(1), PaintedSource(30), LiveSource(30, free=True)
    reads = together([silent, file, other])
    seen = {1: 0, 2: 0}
    for item in reads:
        if item is None:
            break
        seen[item[0]] += 1
    while (seen[1], seen[2]) != (30, 30):
        item = next(reads)
        if item is not None:
            seen[item[0]] += 1
    assert next(reads) is None  # nothing for now, but not the end
    silent.go.release()
    rest = [item for item in reads if item is not None]
    assert [(origin, read().index) for origin, read in rest] == [(0, 0)]


def test_closing_ends_a_source_that_waits() -> None:
    silent = LiveSource(1)
    reads = together([silent])
    assert next(reads) is None
    reads.close()
    assert silent.done.wait(WAIT)


def test_one_that_cannot_wait_leaves_out_the_oldest_and_says_so() -> None:
    source = LiveSource(100)
    source.realtime = True
    reads = together([source])
    source.go.release()
    first = next(reads)
    while first is None:
        first = next(reads)
    for _ in range(99):
        source.go.release()
    assert source.done.wait(WAIT)  # nobody takes, it goes on all the same
    rest = [item[1]().index for item in reads if item is not None]
    assert rest == list(range(100 - AHEAD, 100))
    assert len(source.notes) == 1
    count = int(source.notes[0].split()[0])
    assert count == 100 - AHEAD - 1


def test_frames_that_refer_to_each_other_are_left_out_together() -> None:
    """Else a frame could inherit from one that never came."""
    source = LiveSource(100)
    source.realtime = source.chained = True
    forgotten: List[int] = []
    source.forget = lambda: forgotten.append(1)  # type: ignore[method-assign]
    reads = together([source])
    source.go.release()
    first = next(reads)
    while first is None:
        first = next(reads)
    for _ in range(99):
        source.go.release()
    assert source.done.wait(WAIT)
    rest = [item[1]().index for item in reads if item is not None]
    times, left = divmod(99, AHEAD + 1)
    assert rest == list(range(100 - left, 100))
    assert len(forgotten) == times
    assert source.notes[0].startswith(f"{99 - left} frames came faster")


def test_one_that_can_wait_is_held_back() -> None:
    source, seen = LiveSource(1000, free=True), []
    source.before = seen.append
    reads = together([source])
    first = next(reads)
    while first is None:
        first = next(reads)
    source.done.wait(0.3)
    assert len(seen) <= AHEAD + 3
    assert 1 + sum(item is not None for item in reads) == 1000


def boom(number: int) -> None:
    if number == 5:
        raise ZeroDivisionError


def test_a_failure_comes_after_what_was_read_before_it() -> None:
    source = LiveSource(10, free=True)
    source.before = boom
    seen: List[int] = []

    def read() -> None:
        for item in together([source]):
            if item is not None:
                seen.append(item[1]().index)

    with pytest.raises(ZeroDivisionError):
        read()
    assert seen == list(range(5))


def finish(work: Callable[[], Any]) -> None:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(WAIT)
    assert not thread.is_alive()


def test_a_live_frame_does_not_wait_for_a_full_batch() -> None:
    """Frame 2 is only sent when the results of 0 and 1 are there."""
    source, session, sink = LiveSource(3), FakeSession(), ListSink()
    there = threading.Event()
    sink.on_write = lambda result: there.set() if result.frame.index == 1 else None
    for _ in range(2):
        source.go.release()

    def release() -> None:
        assert there.wait(WAIT)
        source.go.release()

    helper = threading.Thread(target=release, daemon=True)
    helper.start()
    finish(lambda: run_pipeline([source], session.as_session(), [sink]))
    assert [result.frame.index for result in sink.results] == [0, 1, 2]
    assert sum(session.sizes) == 3
    assert len(session.sizes) >= 2


def test_a_failure_ends_a_run_whose_source_is_silent() -> None:
    source, sink = LiveSource(9), ListSink()
    source.go.release()

    def fail(result: Any) -> None:
        raise ZeroDivisionError

    sink.on_write = fail
    errors: List[BaseException] = []

    def work() -> None:
        try:
            run_pipeline([source], FakeSession().as_session(), [sink])
        except ZeroDivisionError as error:
            errors.append(error)

    finish(work)
    assert len(errors) == 1
    assert source.done.wait(WAIT)


def test_results_of_several_sources_share_batches() -> None:
    sources = [LiveSource(20, free=True), PaintedSource(21, first=500)]
    session, sink = FakeSession(), ListSink()
    finish(lambda: run_pipeline(sources, session.as_session(), [sink], threads=3))
    for origin, first, count in ((0, 0, 20), (1, 500, 21)):
        results = [result for result in sink.results if result.origin == origin]
        assert [r.frame.index for r in results] == list(range(first, first + count))
        for result in results:
            assert result.real == pytest.approx(result.frame.index / 65536)
    assert sum(session.sizes) == 41


def test_sources_that_all_have_frames_take_turns() -> None:
    sources = [LiveSource(100, free=True), LiveSource(100, free=True)]
    held: List[List[int]] = [[], []]
    for source, seen in zip(sources, held):
        source.before = seen.append
    reads = together(sources)
    origins = [item[0] for item in [next(reads)] if item is not None]
    while min(map(len, held)) <= AHEAD:  # both queues are full, and both threads wait
        threading.Event().wait(0.01)
    for _ in range(10):
        item = next(reads)
        assert item is not None
        origins.append(item[0])
    reads.close()
    assert origins[1:] in ([0, 1] * 5, [1, 0] * 5)
