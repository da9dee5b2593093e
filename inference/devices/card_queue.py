"""A model on the card: which jobs wait, which are under way, and what happens when the card fails.

One child serves all DPU subgraphs of a model, because the card has one compute unit and gives it to
one process. If the child ends by itself or hangs, the jobs it had not answered are run again by a
new one, oldest first and alone until it has answered one: a job that ends every child is found out
that way. Two children in a row that answer nothing are the end.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Deque, Dict, List, Mapping, Optional, Sequence

import numpy as np

from ...compile.xir.graph import Graph, Subgraph
from ...errors import DeviceError, MismatchError, ToolkitError
from .base import Batch
from .boundary import boundary_tensors
from .card_process import InterruptedWaitError
from .card_runner import INSTEAD, SLOTS, CardRunner, Opening, Part, SharedMemory

MAX_RESTARTS = 5
"""In one session; a card that needs more is not well."""

_IDLE_SECONDS = 1.0


@dataclass(frozen=True)
class CardOptions:
    """How the card is used.

    Attributes:
        timeout: seconds without an answer after which the card counts as hung; its own limit is
            15 seconds.
        max_celsius: temperature at which the run stops.
        warn_celsius: temperature at which it warns.
        open_seconds: seconds for loading firmware and model.
        close_seconds: seconds the child has to release the card.
        watch_seconds: time from one reading of the temperature to the next.
        python: interpreter of the child; empty to have it found.
        environment: variables of the child besides this process's own.
    """

    timeout: float = 30.0
    max_celsius: float = 95.0
    warn_celsius: float = 85.0
    open_seconds: float = 180.0
    close_seconds: float = 5.0
    watch_seconds: float = 5.0
    python: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    def child_environment(self) -> Dict[str, str]:
        """The variables of this process and ``environment``."""
        return {**os.environ, **self.environment}


@dataclass(eq=False)
class Job:
    """One run of one subgraph on the card; ``inputs`` stay until it is answered."""

    number: int
    part: int
    inputs: Dict[str, np.ndarray]
    slot: int = -1
    sent: float = 0.0
    tries: int = 0
    outputs: Optional[Dict[str, np.ndarray]] = None
    error: Optional[ToolkitError] = None


class Card:
    """A model on the card.

    Args:
        model: the compiled model's file.
        graph: its content.
        subgraphs: its DPU subgraphs.
        batch: pictures per submission.
        python: the child's interpreter.
        options: how the card is used.

    Attributes:
        parts: the subgraphs, in the order given.
        notes: what a person may want to know of how the model was loaded.
        incidents: what went wrong since and was mended.
        seconds: during which jobs were with the card.

    Raises:
        DeviceError: the vendor's runtime refuses the model or the card.
        MismatchError: the runner's tensors are not the model's.
    """

    def __init__(
        self,
        model: Path,
        graph: Graph,
        subgraphs: Sequence[Subgraph],
        batch: int,
        python: str,
        options: CardOptions,
    ) -> None:
        self.parts = tuple(
            Part(subgraph.name, *boundary_tensors(graph, subgraph, batch)) for subgraph in subgraphs
        )
        self.incidents: List[str] = []
        self.seconds = 0.0
        self._options, self._batch = options, batch
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting: Deque[Job] = deque()
        self._running: Dict[int, Job] = {}
        self._free: List[int] = []
        self._numbers = self._restarts = self._fruitless = 0
        self._last_answer = self._busy_since = 0.0
        self._error: Optional[ToolkitError] = None
        self._keep_log = False
        self._memory = SharedMemory(self.parts, batch)
        descriptor, log = tempfile.mkstemp(prefix="deepfake-fpga-card-", suffix=".log")
        os.close(descriptor)
        self._wake_read, self._wake_write = os.pipe()
        self._opening = Opening(
            (python,),
            options.child_environment(),
            model,
            self.parts,
            batch,
            Path(log),
            options.open_seconds,
            math.ceil(options.timeout) + 10,
        )
        self._runner: Optional[CardRunner] = None
        try:
            first = self._runner = CardRunner(self._opening, self._memory, self._wake_read)
        except BaseException:
            self._keep_log = True
            self._release()
            raise
        self._engines = first.engines
        self.notes = tuple(first.notes)
        self._free = list(range(SLOTS))
        self._keeper = threading.Thread(target=self._keep, name="card", daemon=True)
        self._keeper.start()

    @property
    def pid(self) -> Optional[int]:
        """Process number of the child; ``None`` while there is none."""
        runner = self._runner
        return None if runner is None else runner.pid

    def submit(self, part: int, batch: Batch) -> List[Job]:
        """Queues one batch as the jobs it takes: one where the card has as many engines.

        Raises:
            DeviceError: the card has failed or is closed.
        """
        step = self._engines
        with self._lock:
            if self._error is not None:
                raise _copied(self._error)
            jobs = []
            for start in range(0, self._batch, step):
                inputs = {
                    n: _filled(array[start : start + step], step) for n, array in batch.items()
                }
                self._numbers += 1
                jobs.append(Job(self._numbers, part, inputs))
            self._waiting.extend(jobs)
            self._pump()
        return jobs

    def result(self, jobs: Sequence[Job]) -> Dict[str, np.ndarray]:
        """Blocks until all jobs of a batch are answered; outputs by the model's tensor names.

        Raises:
            DeviceError: the card failed; no later than its time limit allows.
        """
        with self._changed:
            while any(job.outputs is None and job.error is None for job in jobs):
                self._changed.wait()
        answers = []
        for job in jobs:
            if job.outputs is None:
                assert job.error is not None
                raise _copied(job.error)
            answers.append(job.outputs)
        if len(answers) == 1 and self._engines == self._batch:
            return answers[0]
        return {
            name: np.concatenate([answer[name] for answer in answers])[: self._batch]
            for name in answers[0]
        }

    def stop(self, error: ToolkitError) -> None:
        """Ends every job that is not answered with ``error``, and the child."""
        with self._lock:
            self._fail(error)
            if self._wake_write >= 0:
                os.write(self._wake_write, b".")

    def close(self) -> None:
        """Releases the card; safe to call twice, and bounded in time."""
        self.stop(DeviceError("Device card is closed"))
        self._keeper.join()

    # -- with the lock held ---------------------------------------------------------------------

    def _pump(self) -> None:
        """Gives the child as many jobs as there are slots; one while it is on trial."""
        while self._waiting and self._free and self._runner is not None:
            if self._restarts and self._running and not self._runner.answers:
                return
            job = self._waiting.popleft()
            job.slot = self._free.pop()
            for name, array in job.inputs.items():
                self._runner.array(job.part, job.slot, name)[...] = array
            self._send(job, self._runner)

    def _send(self, job: Job, runner: CardRunner) -> None:
        job.sent = time.monotonic()
        if not self._running:
            self._busy_since = job.sent
        self._running[job.number] = job
        job.tries += 1
        runner.run(job.number, job.part, job.slot)

    def _done(self, runner: CardRunner, number: int, status: int) -> None:
        """Takes the answer to one job out of its slot; a job is answered once."""
        job = self._running.pop(number, None)
        if job is None:
            return
        now = self._last_answer = time.monotonic()
        self.seconds += now - self._busy_since
        self._busy_since = now
        if status != 0 and job.tries < 2:
            self.incidents.append(
                f"job {number} ended with status {status} on the card and was run again"
            )
            self._send(job, runner)
            return
        if status != 0:
            job.error = DeviceError(
                "The card ended a job with an error, twice",
                f"job {number}, status {status}; {runner.words()}",
                INSTEAD,
            )
        else:
            job.outputs = {
                info.name: np.array(runner.array(job.part, job.slot, info.name))
                for info in self.parts[job.part].outputs
            }
        self._free.append(job.slot)
        self._pump()
        self._changed.notify_all()

    def _fail(self, error: ToolkitError) -> None:
        """Ends every open job; the first error is the one that stays."""
        if self._error is None:
            self._error = error
        for job in [*self._running.values(), *self._waiting]:
            job.error = self._error
        self._running.clear()
        self._waiting.clear()
        self._changed.notify_all()

    # -- the keeper: the one thread that reads answers and minds the child ------------------------

    def _keep(self) -> None:
        try:
            while self._error is None:
                runner = self._runner
                assert runner is not None
                try:
                    done = runner.receive(self._patience())
                    if done is None and not self._patience():
                        raise runner.hang(self._options.timeout)
                except DeviceError as error:
                    self._lost(runner, error)
                    continue
                if done is not None:
                    with self._lock:
                        self._done(runner, *done)
        except InterruptedWaitError:
            pass  # somebody else has said why
        except ToolkitError as error:
            self._give_up(error)
        except BaseException as error:
            self._give_up(DeviceError("Device card failed", f"{type(error).__name__}: {error}"))
        finally:
            self._release()

    def _patience(self) -> float:
        """Seconds until the jobs under way have been without any answer for too long."""
        with self._lock:
            if not self._running:
                return _IDLE_SECONDS
            oldest = min(job.sent for job in self._running.values())
            limit = max(oldest, self._last_answer) + self._options.timeout
            return max(0.0, limit - time.monotonic())

    def _give_up(self, error: ToolkitError) -> None:
        with self._lock:
            self._keep_log = True
            self._fail(error)

    def _lost(self, runner: CardRunner, error: DeviceError) -> None:
        """Runs what a lost child had not answered on a new one, or gives up.

        Raises:
            DeviceError: the child is not to be replaced, or cannot be.
        """
        runner.end(self._options.close_seconds)
        with self._lock:
            self._runner, self._keep_log = None, True
            self._free = []  # nothing is sent before the new child is ready
            again = sorted(self._running.values(), key=lambda job: job.number)
            self._fruitless = 0 if runner.answers else self._fruitless + 1
            if self._fruitless == 2 or self._restarts == MAX_RESTARTS:
                raise error
            self._running.clear()
            self._waiting.extendleft(reversed(again))
            for job in again:
                job.tries = 0
        self._restarts += 1
        try:
            fresh = CardRunner(self._opening, self._memory, self._wake_read)
        except ToolkitError as second:
            raise DeviceError(
                f"{error.cause}, and the card could not be opened again",
                f"{error.evidence}; then: {second.cause}: {second.evidence}",
                second.next_step or error.next_step,
            ) from second
        if fresh.engines != self._engines:
            fresh.end(self._options.close_seconds)
            raise MismatchError(
                "The card has another number of engines since it was opened again",
                f"{fresh.engines}, before {self._engines}",
            )
        numbers = ", ".join(str(job.number) for job in again) or "none"
        self.incidents.append(
            f"{error.cause} ({error.evidence}): opened again, jobs run again: {numbers}"
        )
        with self._lock:
            self._runner, self._free = fresh, list(range(SLOTS))
            self._pump()

    def _release(self) -> None:
        """Ends the child and drops everything, once."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.end(self._options.close_seconds)
        with self._lock:
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._wake_write = -1
        self._memory.close()
        with contextlib.suppress(OSError):
            if not self._keep_log or not self._opening.log.stat().st_size:
                self._opening.log.unlink()


def _filled(array: np.ndarray, count: int) -> np.ndarray:
    """``array`` with zeros appended to ``count`` pictures; itself where it has them."""
    if len(array) == count:
        return array
    whole = np.zeros((count, *array.shape[1:]), array.dtype)
    whole[: len(array)] = array
    return whole


def _copied(error: ToolkitError) -> ToolkitError:
    """The error again: one that is raised on several threads would gather their tracebacks."""
    return type(error)(error.cause, error.evidence, error.next_step)
