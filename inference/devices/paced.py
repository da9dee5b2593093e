"""A device that answers no sooner than the card would: for measuring the host around it."""

from __future__ import annotations

import threading
from typing import Dict, List

import numpy as np

from ...errors import DeviceError
from .base import Answer, Batch, Busy, Device
from .pace import PaceClock


class PacedDevice(Device):
    """Another device, held back to the card's pace.

    Args:
        device: what computes; closed with this one.
        clock: the card's queue; the subgraphs of one model share it.
        batch_seconds: what one batch takes on the card.
    """

    def __init__(self, device: Device, clock: PaceClock, batch_seconds: float) -> None:
        self.name, self.inputs, self.outputs = device.name, device.inputs, device.outputs
        self.notes = (
            *device.notes,
            f"paced like the card: {1000 * batch_seconds:.2f} ms for a batch of {device.batch}",
        )
        self._device, self._clock, self._batch_seconds = device, clock, batch_seconds
        self._done: Dict[int, float] = {}
        self._lock = threading.Lock()

    def submit(self, batch: Batch) -> int:
        """Starts the batch and queues it at the card's pace."""
        ticket = self._device.submit(batch)
        done = self._clock.reserve(self._batch_seconds)
        with self._lock:
            self._done[ticket] = done
        return ticket

    def wait(self, ticket: int) -> Dict[str, np.ndarray]:
        """See ``answer``."""
        return self.answer(ticket).outputs

    def answer(self, ticket: int) -> Answer:
        """The device's own answer, when both it and the card would have it."""
        with self._lock:
            done = self._done.pop(ticket, None)
        if done is None:
            raise DeviceError(
                f"Device {self.name} has no batch under ticket {ticket}",
                "each ticket can be waited for once",
            )
        try:
            answer = self._device.answer(ticket)
        finally:
            self.seconds = self._device.seconds
        self._clock.wait_until(done)
        return answer

    def observe(self, busy: Busy) -> None:
        """The device's own computations, not what the card would have been busy for."""
        self._device.observe(busy)

    def incidents(self) -> List[str]:
        """Those of the device."""
        return self._device.incidents()

    def close(self) -> None:
        """Closes the device."""
        self._device.close()
