"""A recorded device played back: it answers the recorded inputs, in order, and refuses others."""

from __future__ import annotations

import threading
from typing import Dict, Optional, Sequence

import numpy as np

from ...compile.xir.graph import Graph, Subgraph
from ...errors import DeviceError, MismatchError
from .base import Batch, Device, TensorInfo
from .boundary import boundary_tensors
from .recording import Recording

_RECORD = "record this run: deepfake-fpga run --record FILE"


class ReplayDevice(Device):
    """Batch *k* submitted must be batch *k* of the recording, and gets its recorded answer.

    Args:
        recording: stays open as long as the device is used; it is not closed here.
        graph: the compiled model.
        subgraph: its DPU subgraph.
        batch: pictures per submission.
        taps: tensors returned as well; they must have been recorded.

    Raises:
        MismatchError: the recording is of other tensors.
    """

    name = "replay"

    def __init__(
        self,
        recording: Recording,
        graph: Graph,
        subgraph: Subgraph,
        batch: int,
        taps: Sequence[str] = (),
    ) -> None:
        part = recording.part(subgraph.name)
        if part is None:
            raise MismatchError(
                f"The recording {recording.path} has no DPU subgraph {subgraph.name!r}",
                f"it is of {recording.model}: {[part.name for part in recording.parts]}",
                _RECORD,
            )
        inputs, outputs = boundary_tensors(graph, subgraph, batch, taps)
        recorded = recording.parts[part]
        _match(recording, inputs, recorded.inputs)
        _match(recording, outputs, recorded.outputs)
        self.inputs, self.outputs = inputs, outputs
        self.notes = (f"recorded on {recording.device}: {recording.path}",)
        self._recording, self._part = recording, part
        self._lock = threading.Lock()
        self._open: Dict[int, int] = {}
        self._submitted = 0
        self._closed = False

    def submit(self, batch: Batch) -> int:
        """Compares the batch with the recorded one and hands out a ticket.

        Raises:
            MismatchError: they differ; the message names the batch and the tensor.
            DeviceError: the recording has no further batch.
        """
        self.check(batch)
        with self._lock:
            if self._closed:
                raise DeviceError("Device replay is closed")
            number = self._submitted
            self._submitted += 1
        if number >= len(self._recording.images):
            raise DeviceError(
                f"The recording {self._recording.path} ends before batch {number}",
                f"it holds {len(self._recording.images)} batches",
                _RECORD,
            )
        for name, array in self._recording.read(number, self._part, "in").items():
            wrong = int(np.count_nonzero(array != batch[name]))
            if wrong:
                raise MismatchError(
                    f"Batch {number} is not the one that was recorded",
                    f"input {name!r}: {wrong} of {array.size} values differ",
                    f"give the pictures of the recording, in its order, or {_RECORD}",
                )
        with self._lock:
            self._open[number + 1] = number
        return number + 1

    def wait(self, ticket: int) -> Dict[str, np.ndarray]:
        """The recorded answer; its arrays are read-only."""
        with self._lock:
            number = self._open.pop(ticket, None)
        if number is None:
            raise DeviceError(
                f"Device replay has no batch under ticket {ticket}",
                "each ticket can be waited for once",
            )
        answer = self._recording.read(number, self._part, "out")
        return {info.name: answer[info.name] for info in self.outputs}

    def close(self) -> None:
        """Drops open tickets."""
        with self._lock:
            self._closed = True
            self._open.clear()


def _match(
    recording: Recording, wanted: Sequence[TensorInfo], recorded: Sequence[TensorInfo]
) -> None:
    by_name = {info.name: info for info in recorded}
    for info in wanted:
        found: Optional[TensorInfo] = by_name.get(info.name)
        if found != info:
            seen = (
                "is not in it" if found is None else f"is {list(found.shape)} at {found.fix_point}"
            )
            raise MismatchError(
                f"The recording {recording.path} is of other tensors than the model's",
                f"{info.name!r} {seen}, the model has {list(info.shape)} at {info.fix_point}",
                _RECORD,
            )
