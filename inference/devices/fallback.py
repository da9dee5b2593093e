"""Two devices as one: the second takes over what the first did not answer when the first fails.

Nothing is lost: every batch is kept until it is answered. Nothing is doubled: a batch belongs to
one device at a time, and its answer names that device.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Callable, Dict, List, Optional

import numpy as np

from ...errors import DeviceError, MismatchError, ToolkitError
from .base import Answer, Batch, Device


@dataclass(eq=False)
class _Entry:
    """A batch, and where it is under which ticket."""

    batch: Batch
    device: Device
    ticket: int


class FallbackDevice(Device):
    """A device that goes on with another one when it fails.

    Args:
        first: opened already.
        open_second: opens the one to go on with; called at most once.
        on_switch: called with the first one's error, once.
    """

    def __init__(
        self,
        first: Device,
        open_second: Callable[[], Device],
        on_switch: Callable[[ToolkitError], None] = lambda error: None,
    ) -> None:
        self.name, self.notes = first.name, first.notes
        self.inputs, self.outputs = first.inputs, first.outputs
        self._first = first
        self._second: Optional[Device] = None
        self._open_second, self._on_switch = open_second, on_switch
        self._lock = threading.Lock()
        self._entries: Dict[int, _Entry] = {}
        self._last = 0
        self._error: Optional[ToolkitError] = None
        self._end: Optional[ToolkitError] = None
        self._closed = False

    def submit(self, batch: Batch) -> int:
        """Starts one batch on the device in use; its arrays must not change until its answer."""
        self.check(batch)
        with self._lock:
            if self._closed:
                raise DeviceError(f"Device {self.name} is closed")
            entry = self._placed(batch)
            self._last += 1
            self._entries[self._last] = entry
            return self._last

    def wait(self, ticket: int) -> Dict[str, np.ndarray]:
        """See ``answer``."""
        return self.answer(ticket).outputs

    def answer(self, ticket: int) -> Answer:
        """The answer of one of the two devices.

        Raises:
            DeviceError: the second device failed as well, or the ticket is unknown.
        """
        with self._lock:
            entry = self._entries.pop(ticket, None)
        if entry is None:
            raise DeviceError(
                f"Device {self.name} has no batch under ticket {ticket}",
                "each ticket can be waited for once",
            )
        try:
            answer = entry.device.answer(entry.ticket)
        except ToolkitError as error:
            if entry.device is not self._first:
                raise
            with self._lock:
                if self._closed:
                    raise
                # This batch is the oldest, so it goes first; then those still open, in order.
                entry = self._resubmitted(entry.batch, error)
            answer = entry.device.answer(entry.ticket)
        finally:
            self.seconds = self._first.seconds
            self.seconds += 0.0 if self._second is None else self._second.seconds
        return answer

    def incidents(self) -> List[str]:
        """Those of both devices, and the change between them."""
        found = self._first.incidents()
        if self._error is not None:
            found.append(f"device {self._first.name} was given up: {self._error}")
        return found + ([] if self._second is None else self._second.incidents())

    def close(self) -> None:
        """Closes both."""
        with self._lock:
            self._closed = True
            self._entries.clear()
        self._first.close()
        if self._second is not None:
            self._second.close()

    # -- with the lock held ---------------------------------------------------------------------

    def _placed(self, batch: Batch) -> _Entry:
        """The batch on the device in use."""
        if self._second is not None:
            return _Entry(batch, self._second, self._second.submit(batch))
        try:
            return _Entry(batch, self._first, self._first.submit(batch))
        except ToolkitError as error:
            self._switch(error)
            return self._placed(batch)

    def _resubmitted(self, batch: Batch, error: ToolkitError) -> _Entry:
        if self._second is not None:
            return _Entry(batch, self._second, self._second.submit(batch))
        second = self._opened(error)
        entry = _Entry(batch, second, second.submit(batch))
        self._move(second)
        return entry

    def _switch(self, error: ToolkitError) -> None:
        self._move(self._opened(error))

    def _opened(self, error: ToolkitError) -> Device:
        """The second device, now in use.

        Raises:
            DeviceError: it cannot be opened either.
        """
        if self._end is not None:
            raise DeviceError(self._end.cause, self._end.evidence, self._end.next_step)
        try:
            second = self._open_second()
        except ToolkitError as other:
            self._end = DeviceError(
                f"{error.cause}, and there is nothing to go on with",
                f"{error.evidence}; {other.cause}: {other.evidence}",
                other.next_step or error.next_step,
            )
            raise self._end from error
        ours = {info.name: info for info in self.inputs + self.outputs}
        theirs = {info.name: info for info in second.inputs + second.outputs}
        if ours != theirs:
            second.close()
            raise MismatchError(
                f"Device {second.name} cannot go on for {self._first.name}: other tensors",
                f"{sorted(ours)}; {sorted(theirs)}",
            )
        self._error = error
        self._on_switch(error)
        return second

    def _move(self, second: Device) -> None:
        """Gives every open batch to the second device, oldest first."""
        for entry in self._entries.values():
            entry.device, entry.ticket = second, second.submit(entry.batch)
        self._second = second
