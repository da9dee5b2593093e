"""A child process with a model opened on the card: its slots in shared memory, and how it fails."""

from __future__ import annotations

import mmap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from ...errors import DeviceError, MismatchError
from .base import TensorInfo
from .card_failures import explain
from .card_process import CardProcess, ChildEndedError, shared_memory, signal_name
from .card_tensors import match_tensors

SLOTS = 4
"""Jobs the child has at a time: one on the card, others ready, so that it never waits for us."""

INSTEAD = "deepfake-fpga run --device sim, or --fallback sim to go on without the card"

_OPENING, _COMPUTING = "while it opened the model", "while it computed"
_LEAVE_SECONDS = 2.0
_PAGE = 4096


@dataclass(frozen=True)
class Part:
    """One DPU subgraph and its tensors at the session's batch."""

    name: str
    inputs: Tuple[TensorInfo, ...]
    outputs: Tuple[TensorInfo, ...]


@dataclass(frozen=True)
class Opening:
    """What a child is started with.

    Attributes:
        python: the interpreter and its options.
        environment: of the child.
        model: the compiled model's file.
        parts: the DPU subgraphs to open.
        batch: pictures per submission.
        log: where the vendor's libraries print.
        open_seconds: for loading firmware and model.
        wait_seconds: after which the child ends itself when one job does not return.
    """

    python: Tuple[str, ...]
    environment: Mapping[str, str]
    model: Path
    parts: Tuple[Part, ...]
    batch: int
    log: Path
    open_seconds: float
    wait_seconds: int


@dataclass(frozen=True)
class _Place:
    """Where a tensor stands in a slot, and its shape on the card."""

    offset: int
    dims: Tuple[int, ...]


class SharedMemory:
    """The slots, in a file that both processes map.

    Args:
        parts: the subgraphs whose tensors it is for.
        batch: of these tensors.

    Raises:
        DeviceError: there is no room.
    """

    def __init__(self, parts: Sequence[Part], batch: int) -> None:
        need = max(
            sum(_paged(_size(info.shape)) for info in part.inputs + part.outputs) for part in parts
        )
        # The card's engines may be more than those of the model's target; eight are the most.
        self.size = SLOTS * need * -(-8 // batch)
        try:
            self.file: IO[bytes] = shared_memory(self.size)
        except OSError as error:
            raise DeviceError(
                "There is no room for the memory shared with the card's process",
                f"{self.size} bytes: {error.strerror}",
                "make room in the temporary folder, or name another: TMPDIR=/path",
            ) from error
        self.codes = np.frombuffer(mmap.mmap(self.file.fileno(), self.size), np.int8)

    def close(self) -> None:
        """Gives the memory back when no array of it is left."""
        self.codes = np.empty(0, np.int8)
        self.file.close()


class CardRunner:
    """One child, ready for jobs.

    Args:
        opening: what it is started with.
        memory: the slots.
        wake: file descriptor; whatever waits here ends as soon as it can be read.

    Attributes:
        engines: pictures the card computes at once, by its own registers.
        notes: what a person may want to know of the tensors.
        answers: jobs answered so far.

    Raises:
        DeviceError: the vendor's runtime refuses the model or the card, or does not answer.
        MismatchError: the runner's tensors are not the model's.
        InterruptedWaitError: ``wake`` can be read.
    """

    def __init__(self, opening: Opening, memory: SharedMemory, wake: int) -> None:
        self._opening, self._memory, self._wake = opening, memory, wake
        self.answers = 0
        self.notes: List[str] = []
        descriptor = memory.file.fileno()
        self._limit = time.monotonic() + opening.open_seconds
        self._process = CardProcess(opening.python, opening.environment, descriptor, opening.log)
        try:
            self._process.send(
                open=str(opening.model.absolute()),
                subgraphs=[part.name for part in opening.parts],
                memory=descriptor,
                limit=opening.wait_seconds,
            )
            self._lay_out(self._expect("opened"))
            self._process.send(map=memory.size, slots=self._slots, tensors=self._offsets)
            self._expect("mapped")
        except BaseException:
            self._process.end(_LEAVE_SECONDS)
            raise

    @property
    def pid(self) -> int:
        """Process number of the child."""
        return self._process.pid

    def run(self, number: int, part: int, slot: int) -> None:
        """Starts the job whose inputs are in ``slot``."""
        self._process.send(run=number, part=part, slot=slot)

    def array(self, part: int, slot: int, tensor: str) -> np.ndarray:
        """The place of a tensor in a slot: int8, the card's batch first."""
        place = self._places[part][tensor]
        start = self._slots[slot] + place.offset
        return self._memory.codes[start : start + _size(place.dims)].reshape(place.dims)

    def receive(self, seconds: float) -> Optional[Tuple[int, int]]:
        """Number and status of the next job that is done; ``None`` if none is within ``seconds``.

        Raises:
            DeviceError: the child ended, or reported an error.
            InterruptedWaitError: ``wake`` can be read.
        """
        try:
            message = self._process.receive(seconds, self._wake)
        except ChildEndedError:
            raise self._death(_COMPUTING) from None
        if message is None:
            return None
        if "done" not in message:
            raise self._exception(message, _COMPUTING)
        self.answers += 1
        return int(message["done"]), int(message["status"])

    def hang(self, seconds: float, when: str = _COMPUTING) -> DeviceError:
        """Kills the child, which has not answered for so long; the error to say so."""
        self._process.kill()
        failure = explain(self._process.tail())
        return DeviceError(
            f"The card hangs: no answer for {seconds:g} seconds {when}",
            f"its process was killed; {failure.words}{self._log()}",
            failure.next_step or "xbutil examine, then xbutil reset -d <bdf>",
        )

    def words(self) -> str:
        """What the vendor's libraries said last."""
        return explain(self._process.tail()).words

    def end(self, seconds: float) -> None:
        """Lets the child release the card in order, for ``seconds``; then kills it."""
        self._process.end(seconds)

    def _log(self) -> str:
        """Where the log is, if anything is in it."""
        return f"; log {self._opening.log}" if self._process.tail() else ""

    def _expect(self, key: str) -> Any:
        """The content of the next message, which must be the one called ``key``."""
        try:
            message = self._process.receive(max(0.0, self._limit - time.monotonic()), self._wake)
        except ChildEndedError:
            raise self._death(_OPENING) from None
        if message is None:
            raise self.hang(self._opening.open_seconds, _OPENING)
        if key not in message:
            raise self._exception(message, _OPENING)
        return message[key]

    def _lay_out(self, described: Sequence[Mapping[str, Any]]) -> None:
        """Finds each of the model's tensors among the runner's and gives it a place in a slot."""
        opening = self._opening
        self._places: List[Dict[str, _Place]] = []
        self._offsets: List[Dict[str, int]] = []
        engines, slot_size = set(), 0
        for part, said in zip(opening.parts, described):
            places: Dict[str, _Place] = {}
            offsets: Dict[str, int] = {}
            used = 0
            for infos, key in ((part.inputs, "inputs"), (part.outputs, "outputs")):
                found, notes = match_tensors(infos, said[key], part.name)
                self.notes.extend(notes)
                for name, record in found.items():
                    dims = tuple(int(size) for size in record["dims"])
                    places[name] = _Place(used, dims)
                    offsets[str(record["name"])] = used
                    used += _paged(_size(dims))
                    engines.add(dims[0])
            self._places.append(places)
            self._offsets.append(offsets)
            slot_size = max(slot_size, used)
        if len(engines) != 1 or min(engines) < 1:
            raise MismatchError(
                "The card's tensors have no common batch", f"first dimensions {sorted(engines)}"
            )
        self.engines = engines.pop()
        if self.engines != opening.batch:
            self.notes.append(
                f"the card computes {self.engines} pictures at once, the model's target "
                f"{opening.batch}: batches are split and padded"
            )
        if slot_size * SLOTS > self._memory.size:
            raise DeviceError(
                "The card's tensors are larger than the model says",
                f"{slot_size} bytes a job; there is room for {self._memory.size // SLOTS}",
                "deepfake-fpga inspect shows the model's tensors",
            )
        self._slots = [slot * slot_size for slot in range(SLOTS)]

    def _death(self, when: str) -> DeviceError:
        """The error for a child that is gone."""
        status = self._process.fate()
        failure = explain(self._process.tail())
        return DeviceError(
            f"The card's process ended {when}",
            f"{signal_name(status)}; {failure.words}{self._log()}",
            failure.next_step or INSTEAD,
        )

    def _exception(self, message: Mapping[str, Any], when: str) -> DeviceError:
        """The error for a child that reported a Python exception."""
        kind, text = str(message.get("failed", "answer")), str(message.get("text", message))
        if kind in ("ImportError", "ModuleNotFoundError", "AttributeError"):
            return DeviceError(
                "The vendor's Python modules cannot be used",
                f"{self._opening.python[0]}: {kind}: {text}",
                "name the container's Python: export DEEPFAKE_FPGA_CARD_PYTHON=/usr/bin/python3",
            )
        failure = explain([text])
        explained = f" ({failure.explanation})" if failure.explanation else ""
        return DeviceError(
            f"The vendor's runtime failed {when}",
            f"{kind}: {text}{explained}{self._log()}",
            failure.next_step or INSTEAD,
        )


def _size(dims: Sequence[int]) -> int:
    return int(np.prod(dims, dtype=np.int64))


def _paged(size: int) -> int:
    return -(-size // _PAGE) * _PAGE
