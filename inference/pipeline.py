"""How frames go from sources through a session into sinks: in order, in full batches, and cleanly.

::

    read ──► prepare ──► feed ──► collect ──► render ──► write
    1 thread  workers   1 thread  1 thread    workers   1 thread

``read`` runs the sources' iterators, ``prepare`` decodes and fits, ``feed`` packs full batches
(across files) and submits them, ``collect`` waits for the answers, ``render`` draws and encodes,
``write`` hands everything to the sinks in order. Queues hold the jobs in order, whoever does
them, and are bounded, so nothing runs ahead. A frame that could not be decoded, or that looks
like the one before, takes no slot of a batch but keeps its place in the order. While live
sources are silent a batch goes out as it is. Where faces are looked for, workers find them,
``feed`` follows them from frame to frame, and each takes a slot; a frame's faces may lie in two
batches.

A failure, or Ctrl-C, ends every stage before it at once; the stages behind it have ``grace``
seconds to finish what is under way, so what was done is kept. The pipeline knows nothing of file
formats, networks or the command line.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Deque, Dict, Iterable, List, Optional, Sequence, Tuple

import numpy as np

from ..preprocessing import fit
from .faces.finder import FaceFinder, Located, Look
from .faces.results import for_frame, marked, summed_up, with_mask
from .flow import POLL, Channel, Flow, Job, StoppedError
from .records import Frame, FrameResult, Logits, Status
from .session import Prediction, Session
from .sinks.base import Sink
from .sources.base import Read, Source
from .sources.together import together
from .trace import Trace

GRACE = 0.7
"""Seconds in which the stages behind a failure may finish what is under way."""

CLOSING = 10.0
"""Seconds in which the sinks may bring their files to an end after that."""

CHUNK = 4
"""Frames prepared by one job; a job has a cost of its own."""

STAGES = ("decode", "pre", "device", "post", "write")

READ, PREPARE, FEED, COLLECT, WRITE = range(5)


@dataclass
class Meter:
    """What a run has cost so far; every field may be read while it runs.

    Attributes:
        seconds: busy seconds per stage, summed over threads, so they may exceed the wall clock.
        done: frames written.
        images: frames the device judged.
        batches: batches submitted.
        slots: slots those batches had.
    """

    seconds: Dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    done: int = 0
    images: int = 0
    batches: int = 0
    slots: int = 0

    @property
    def fill(self) -> Optional[float]:
        """Share of batch slots that held a picture; ``None`` before the first batch."""
        return self.images / self.slots if self.slots else None


Progress = Callable[[int, Optional[int]], None]
"""Called with the frames done and the frames expected (``None``: unknown), on the caller's
thread, several times a second."""


def run_pipeline(
    sources: Iterable[Source],
    session: Session,
    sinks: Sequence[Sink],
    *,
    threads: int = 2,
    in_flight: int = 3,
    threshold: float = 0.5,
    meter: Optional[Meter] = None,
    progress: Optional[Progress] = None,
    grace: float = GRACE,
    trace: Optional[Trace] = None,
    faces: Optional[FaceFinder] = None,
) -> Meter:
    """Sends every frame of the sources through the session into the sinks.

    The sinks are opened and closed here, on the thread that writes.

    Args:
        sources: read one after the other; live ones beside the others, each in its order. What is
            no sequence is taken one by one as it is wanted, and holds no live ones.
        session: the model on its device; not closed here.
        sinks: each gets every result, in order.
        threads: workers that decode, fit, draw and encode.
        in_flight: batches given to the device before the first answer is waited for.
        threshold: fake probability from which a frame's verdict is FAKE.
        meter: what to count in; a new one if not given.
        progress: called now and then and once at the end.
        grace: seconds for the stages behind a failure to finish.
        trace: notes what every thread does; costs nothing where it is not given.
        faces: finds the faces to judge; every frame is judged as it is where it is not given.

    Returns:
        The meter.

    Raises:
        Exception: the first failure of any stage, as it was raised there, after all have ended.
        KeyboardInterrupt: after all have ended; a second one at once.
    """
    meter = Meter() if meter is None else meter
    run = _Run(sources, session, sinks, threads, in_flight, threshold, meter, grace, trace)
    run.faces = faces
    lengths = [source.length for source in sources] if isinstance(sources, Sequence) else [None]
    total = None if None in lengths else sum(length or 0 for length in lengths)
    try:
        run.start()
        while not run.ended.wait(0.1) and not run.flow.expired(CLOSING):
            if progress is not None:
                progress(meter.done, total)
        if progress is not None:
            progress(meter.done, total)
    except BaseException as error:  # Ctrl-C, or the callback's own failure: the source ends early
        run.flow.fail(READ, error)
    run.join()
    if run.flow.error is not None:
        raise run.flow.error
    return meter


_Item = Tuple[int, Read, bool]
"""Position of the source, what finishes the frame, whether faces are looked for in it."""

_Answer = Tuple[float, np.ndarray, str, Optional[Logits]]
"""The classifier's output, the mask, the device, and what the network itself gave."""


@dataclass(eq=False)
class _Prepared:
    """A frame on its way to the device: what takes a slot, and which faces that are."""

    frame: Frame
    fitted: List[np.ndarray]
    origin: int
    look: Optional[Look] = None
    faces: Optional[List[Located]] = None
    seen: bool = False


@dataclass(eq=False)
class _Batch:
    """Pictures whose answers come together, and the frames whose last picture is among them."""

    ticket: Optional[int]
    frames: List[_Prepared]
    images: int = 0
    submitted: float = 0.0


@dataclass(eq=False)
class _Rendered:
    """A result with what each sink made of it."""

    result: FrameResult
    parts: List[Any]


class _Run:
    """The threads of one run and the queues between them."""

    def __init__(
        self,
        sources: Iterable[Source],
        session: Session,
        sinks: Sequence[Sink],
        threads: int,
        in_flight: int,
        threshold: float,
        meter: Meter,
        grace: float,
        trace: Optional[Trace] = None,
    ) -> None:
        self.trace = trace
        self.sources, self.session, self.sinks = sources, session, sinks
        self.threshold, self.meter = threshold, meter
        self.preprocessing = session.artifact.preprocessing
        self.keep_images = any(sink.needs_image for sink in sinks)
        self.keep_logits = any(sink.needs_logits for sink in sinks)
        self.renders = any(sink.renders for sink in sinks)
        self.live = isinstance(sources, Sequence) and any(source.live for source in sources)
        # Frames without a slot are held until a batch is full: cheap where they hold no picture.
        self.most = (4 if self.keep_images or self.live else 64) * session.batch
        self.faces: Optional[FaceFinder] = None
        self._latest: Dict[int, FrameResult] = {}
        self._answered: Deque[_Answer] = deque()
        self.flow = Flow(grace)
        self.ended = threading.Event()
        self._meter_lock = threading.Lock()
        ahead = max(2 * threads, -(-2 * session.batch // CHUNK))
        self._work: queue.Queue[Optional[Job[Any]]] = queue.Queue()
        behind = max(2 * threads, session.batch)
        self._prepared: Channel[Job[List[_Prepared]]] = Channel(ahead, self.flow, FEED)
        self._batches: Channel[_Batch] = Channel(in_flight, self.flow, COLLECT)
        self._in_flight = threading.Semaphore(max(1, in_flight))
        self._rendered: Channel[Job[List[_Rendered]]] = Channel(behind, self.flow, WRITE)
        stages = [
            ("read", self._read, READ, None, self._prepared),
            ("feed", self._feed, FEED, self._prepared, self._batches),
            ("collect", self._collect, COLLECT, self._batches, self._rendered),
            ("write", self._write, WRITE, self._rendered, None),
        ]
        self._threads = [
            threading.Thread(target=self._guard, args=stage[1:], name=stage[0], daemon=True)
            for stage in stages
        ]
        self._workers = [
            threading.Thread(target=self._help, name=f"worker-{number}", daemon=True)
            for number in range(max(1, threads))
        ]

    def start(self) -> None:
        for thread in self._threads + self._workers:
            thread.start()

    def join(self) -> None:
        """Waits for the end; after a failure no longer than the grace and the sinks' closing.

        A thread that does not return by then sits in a call that cannot be interrupted (a device
        that hangs); it is left behind and changes nothing any more.
        """
        failed = self.flow.error is not None
        if self._threads[-1].ident is not None:
            self.ended.wait(self.flow.left() + CLOSING if failed else None)
        for _ in self._workers:
            self._work.put(None)
        limit = time.monotonic() + 4 * POLL
        for thread in self._threads + self._workers:
            if thread.ident is None:
                continue  # interrupted before it was started
            thread.join(max(0.0, limit - time.monotonic()) if failed else None)

    def _guard(
        self,
        stage: Callable[[], None],
        number: int,
        source: Optional[Channel[Any]],
        output: Optional[Channel[Any]],
    ) -> None:
        """Runs a stage; whatever happens, its neighbours learn that it has ended."""
        try:
            stage()
        except StoppedError:
            pass
        except BaseException as error:
            self.flow.fail(number, error)
        finally:
            if source is not None:
                source.leave()
            if output is not None:
                output.end()
            else:
                self.ended.set()

    def _help(self) -> None:
        while True:
            job = self._work.get()
            if job is None:
                return
            job.run()

    def _read(self) -> None:
        chunk: List[_Item] = []
        with contextlib.closing(together(self.sources)) as reads:
            while True:
                self.flow.check(READ)
                start = time.perf_counter()
                item = next(reads, _END)
                if not self.live:  # whoever reads live sources mostly waits
                    self._count("decode", start, "read")
                if item is _END:
                    break
                if item is not None:
                    origin, read = item
                    wanted = self.faces is not None and self.faces.wanted(origin, read)
                    chunk.append((origin, read, wanted))
                if chunk and (item is None or len(chunk) == CHUNK):
                    self._send(chunk)
                    chunk = []
                if item is None:
                    self._send([])  # nothing comes for now: the batch need not wait for more
        if chunk:
            self._send(chunk)

    def _send(self, chunk: List[_Item]) -> None:
        job = Job(lambda: [self._prepare(*item) for item in chunk])
        self._work.put(job)
        self._prepared.put(job, READ)

    def _prepare(self, origin: int, read: Read, wanted: bool) -> _Prepared:
        self.flow.check(PREPARE)
        start = time.perf_counter()
        frame = read()
        decoded = time.perf_counter()
        item = _Prepared(frame, [], origin)
        if frame.image is not None:
            if frame.same_as is None:
                item.seen = True
                if self.faces is not None:
                    item.look = self.faces.look(frame, wanted)
                if item.look is None or item.look.whole:
                    item.fitted = [fit(frame.image, self.preprocessing)]
                if item.look is not None and frame.video is None:
                    self._locate(item)  # an image: nothing that came before matters
            if not self.keep_images and item.look is None:
                item.frame = replace(item.frame, image=None)
        ended = time.perf_counter()
        with self._meter_lock:
            self.meter.seconds["decode"] += decoded - start
            self.meter.seconds["pre"] += ended - decoded
        if self.trace is not None:
            about = {"source": frame.source, "frame": frame.index}
            self.trace.span("decode", start, decoded, **about)
            if item.seen:
                self.trace.span("pre", decoded, ended, **about)
        return item

    def _locate(self, item: _Prepared) -> None:
        """Follows the faces of the next frame and cuts them out."""
        assert self.faces is not None
        assert item.look is not None
        item.faces = self.faces.locate(item.origin, item.frame, item.look)
        item.look = None
        item.frame = marked(item.frame, item.faces)
        if item.faces is not None:
            item.fitted = [one.picture for one in item.faces if one.picture is not None]
            # The pictures go into the batch; what is left of a face is where it is.
            item.faces = [one.bare() for one in item.faces]
        elif not item.fitted and item.frame.image is not None:
            item.fitted = [fit(item.frame.image, self.preprocessing)]
        if not self.keep_images:
            item.frame = replace(item.frame, image=None)

    def _feed(self) -> None:
        size = (self.preprocessing.height, self.preprocessing.width, 3)
        frames: List[_Prepared] = []
        images = np.empty((0, *size), np.uint8)
        used = 0
        for job in self._prepared.drain():
            job.wait(self.flow, FEED)
            try:
                chunk = job.value()
            except Exception as error:
                # The frames before the one that failed still go through.
                self.flow.fail(PREPARE, error)
                break
            for item in chunk:
                if item.look is not None:
                    start = time.perf_counter()
                    self._locate(item)
                    about = {"source": item.frame.source, "frame": item.frame.index}
                    self._count("pre", start, "faces", about)
                for place, picture in enumerate(item.fitted):
                    if used == self.session.batch:
                        self._submit(images, frames)
                        frames, used = [], 0
                    if not used:
                        images = np.empty((self.session.batch, *size), np.uint8)
                    images[used] = picture
                    item.fitted[place] = _SLOT
                    used += 1
                frames.append(item)
                if used == self.session.batch or len(frames) >= self.most:
                    self._submit(images[:used], frames)
                    frames, used = [], 0
            if frames and not chunk:
                self._submit(images[:used], frames)
                frames, used = [], 0
        if frames or used:
            self._submit(images[:used], frames)

    def _submit(self, images: np.ndarray, frames: List[_Prepared]) -> None:
        self.flow.check(FEED)
        ticket, start = None, 0.0
        if len(images):
            while not self._in_flight.acquire(timeout=POLL):
                self.flow.check(FEED)
            start = time.perf_counter()
            ticket = self.session.submit(images)
            self.meter.batches += 1
            self.meter.slots += self.session.batch
            if self.trace is not None:
                about = {"batch": self.meter.batches, "images": len(images)}
                self.trace.span("submit", start, time.perf_counter(), **about)
        self._batches.put(_Batch(ticket, frames, len(images), start), FEED)
        self._depths()

    def _collect(self) -> None:
        for batch in self._batches.drain():
            results = self._answers(batch)
            if self.renders:
                for result in results:
                    self._hand_over([result])
            else:
                self._hand_over(results)

    def _answers(self, batch: _Batch) -> List[FrameResult]:
        name = self.session.device_name
        if batch.ticket is not None:
            start = time.perf_counter()
            prediction = self.session.result(batch.ticket)
            name = prediction.device or name
            if self.trace is not None:
                ended, about = time.perf_counter(), {"frames": len(batch.frames)}
                self.trace.span("device wait", start, ended, **about)
                self.trace.under_way("batch", batch.ticket, batch.submitted, ended, **about)
            self._in_flight.release()
            for slot in range(batch.images):
                logits = _logits(prediction, slot) if self.keep_logits else None
                real, mask = float(prediction.real[slot]), prediction.mask[slot]
                self._answered.append((real, mask, name, logits))
        start = time.perf_counter()
        results = []
        for item in batch.frames:
            if item.frame.same_as is not None:
                results.append(self._inherit(item))
                continue
            results.append(self._result(item, name))
            if item.seen:
                if not self.live and item.origin not in self._latest:
                    self._latest.clear()  # the sources before have ended
                self._latest[item.origin] = results[-1]
        self.meter.images += batch.images
        self._count("post", start, "post")
        return results

    def _result(self, item: _Prepared, name: str) -> FrameResult:
        """The result of a frame, from the answers to its pictures."""
        if item.fitted and not item.faces:
            real, mask, name, logits = self._answered.popleft()
            threshold, origin = self.threshold, item.origin
            return FrameResult(item.frame, real, mask, name, threshold, origin, logits)
        unknown = FrameResult(item.frame, None, None, name, self.threshold, item.origin)
        if not item.faces:
            return unknown
        faces = []
        for one in item.faces:
            face = replace(unknown, face=one.face)
            if one.status is Status.OK:
                real, mask, device, logits = self._answered.popleft()
                faces.append(replace(face, real=real, mask=mask, device=device, logits=logits))
            else:
                kept_out = replace(item.frame, status=one.status, reason=one.reason)
                faces.append(replace(face, frame=kept_out))
        return summed_up(item.frame, faces, unknown)

    def _inherit(self, item: _Prepared) -> FrameResult:
        latest = self._latest.get(item.origin)
        if latest is None or latest.frame.key != item.frame.same_as:
            raise LookupError(f"{item.frame.source}: no result to inherit ({item.frame.same_as})")
        return for_frame(latest, item.frame)

    def _hand_over(self, results: List[FrameResult]) -> None:
        job = Job(lambda: [self._render(result) for result in results])
        if self.renders:
            self._work.put(job)
        else:
            job.run()
        self._rendered.put(job, COLLECT)

    def _render(self, result: FrameResult) -> _Rendered:
        start = time.perf_counter()
        if result.faces and self.keep_images:
            result = with_mask(result)
        parts = [sink.render(result) if sink.renders else None for sink in self.sinks]
        if self.renders:
            about = {"source": result.frame.source, "frame": result.frame.index}
            self._count("post", start, "render", about)
        else:
            self._count("post", start)
        return _Rendered(result, parts)

    def _write(self) -> None:
        opened: List[Sink] = []
        try:
            for sink in self.sinks:
                sink.open()
                opened.append(sink)
            for job in self._rendered.drain():
                job.wait(self.flow, WRITE)
                items = job.value()
                start = time.perf_counter()
                for item in items:
                    for sink, part in zip(self.sinks, item.parts):
                        sink.write(item.result, part)
                    self.meter.done += 1
                self._count("write", start, "write", {"frames": len(items)})
                self._depths()
        except StoppedError:
            pass  # after a failure elsewhere: the sinks keep what they have
        except BaseException as error:
            self.flow.fail(WRITE, error)
        start = time.perf_counter()
        for sink in reversed(opened):
            try:
                sink.close(complete=self.flow.error is None)
            except BaseException as error:  # the other sinks are closed all the same
                self.flow.fail(WRITE, error)
        self._count("write", start, "close")

    def _count(
        self, stage: str, start: float, span: str = "", about: Optional[Dict[str, Any]] = None
    ) -> None:
        """Counts what a stage has spent since ``start``; ``span`` is its name in the trace."""
        ended = time.perf_counter()
        with self._meter_lock:
            self.meter.seconds[stage] += ended - start
        if self.trace is not None and span:
            self.trace.span(span, start, ended, **(about or {}))

    def _depths(self) -> None:
        if self.trace is not None:
            self.trace.counter(
                "queues",
                prepared=len(self._prepared),
                submitted=len(self._batches),
                rendered=len(self._rendered),
            )


def _logits(prediction: Prediction, slot: int) -> Optional[Logits]:
    if prediction.score is None:
        return None
    return Logits(prediction.logits[slot], prediction.scale, float(prediction.score[slot]))


_SLOT = np.empty(0, np.uint8)
"""Stands for a fitted picture that has been copied into its batch."""

_END: Any = object()
"""Comes after the last frame."""
