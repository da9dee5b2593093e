"""The one interface of every device: describe tensors, submit a batch, wait, close.

A device runs one DPU subgraph of a compiled model (or, for ``float``, the checkpoint) on a fixed
batch. It knows nothing of pictures, files or verdicts; operators outside the DPU subgraph are run
by the session on numpy.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple

import numpy as np

from ...errors import DeviceError

Batch = Mapping[str, np.ndarray]
"""Tensor name to array, one entry per input."""

Busy = Callable[[float, float], None]
"""Called with the beginning and the end of a computation, by ``time.perf_counter``."""


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of a device.

    Attributes:
        name: the tensor's name in the model; tensors are matched by it, never by position.
        shape: NHWC, the device's batch first.
        fix_point: fraction bits of int8 codes; ``None`` means float32 values.
    """

    name: str
    shape: Tuple[int, ...]
    fix_point: Optional[int]

    @property
    def dtype(self) -> np.dtype:
        """int8 for fixed point, float32 otherwise."""
        return np.dtype(np.float32 if self.fix_point is None else np.int8)


class Answer(NamedTuple):
    """What a batch came to and which device it was that computed it."""

    outputs: Dict[str, np.ndarray]
    device: str


class Device(abc.ABC):
    """A device with one model loaded.

    Attributes:
        name: the name by which ``--device`` selects it.
        inputs: what ``submit`` takes, every batch complete.
        outputs: what ``wait`` returns.
        seconds: time spent on batches so far.
        notes: what a person may want to know of how the model was loaded.
    """

    name: str
    seconds: float = 0.0
    notes: Tuple[str, ...] = ()
    inputs: Tuple[TensorInfo, ...]
    outputs: Tuple[TensorInfo, ...]

    @property
    def batch(self) -> int:
        """Pictures per submission; a short batch is the session's to pad."""
        return self.inputs[0].shape[0]

    @abc.abstractmethod
    def submit(self, batch: Batch) -> int:
        """Starts one batch and returns its ticket; several may be under way.

        Raises:
            DeviceError: an array has the wrong name, shape or dtype, or the device failed.
        """

    @abc.abstractmethod
    def wait(self, ticket: int) -> Dict[str, np.ndarray]:
        """Blocks until the batch of ``ticket`` is done and returns its outputs by name.

        Each ticket can be waited for once.

        Raises:
            DeviceError: the ticket is unknown, or the device failed.
        """

    def answer(self, ticket: int) -> Answer:
        """``wait``, and the name of the device that computed; each ticket once, by either."""
        return Answer(self.wait(ticket), self.name)

    def observe(self, busy: Busy) -> None:
        """Has every computation told as it ends, on the thread that did it.

        A device that does not know when it computes tells nothing.
        """
        return

    def incidents(self) -> List[str]:
        """What went wrong since the opening and was mended, oldest first."""
        return []

    @abc.abstractmethod
    def close(self) -> None:
        """Releases the device; safe to call twice."""

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def check(self, batch: Batch) -> None:
        """Refuses a batch that is not exactly what ``inputs`` describes.

        Raises:
            DeviceError: naming the tensor and what it should be.
        """
        wanted = {info.name for info in self.inputs}
        if set(batch) != wanted:
            raise DeviceError(
                f"Device {self.name} got the wrong input tensors",
                f"got {sorted(batch)}, wants {sorted(wanted)}",
            )
        for info in self.inputs:
            array = batch[info.name]
            if array.shape != info.shape or array.dtype != info.dtype:
                raise DeviceError(
                    f"Input {info.name!r} of device {self.name} has the wrong form",
                    f"got {array.dtype} {list(array.shape)}, wants {info.dtype} {list(info.shape)}",
                )
