"""Host memory as the genuine runner takes it: raw, from its first byte, whatever its shape says.

Three element types are known, by the buffer's own format letter: int8 (``b``) and int16 (``h``)
are copied byte by byte, float32 (``f``) is scaled by the tensor's fix point. Where the genuine
runner would read or write beyond the buffer, this one aborts and says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, List, Sequence, Tuple

import numpy as np

from ...inference.cpu_operators import fix2float, float2fix
from ...inference.devices.base import TensorInfo
from .abort import abort

INVALID = ("VART_TENSOR_BUFFER_INVALID", "invalid tensorbuffer input or output")
"""Identifier and description of most complaints about buffers."""

_ITEM_BYTES = {"b": 1, "h": 2, "f": 4}
_KIND_NAMES = {"b": "int8", "h": "int16", "f": "float32"}


@dataclass(frozen=True, eq=False)
class HostBuffer:
    """Memory that a client gave.

    Attributes:
        array: a view of it, with the client's shape and strides.
        kind: the format letter.
    """

    array: np.ndarray
    kind: str

    @property
    def following_bytes(self) -> int:
        """Bytes from the first element to the end of what belongs to the buffer."""
        if self.array.size == 0:
            return 0
        steps = ((n - 1) * stride for n, stride in zip(self.array.shape, self.array.strides))
        return int(self.array.itemsize + sum(step for step in steps if step > 0))


def host_buffer(given: Any) -> HostBuffer:
    """The memory behind a writable buffer object.

    Raises:
        TypeError: it is no buffer.
        ValueError, BufferError: it cannot be written to; inputs must be writable too.
        XirAbort: its elements are of a type that the runner does not know.
    """
    view = memoryview(given)
    if view.readonly:
        if isinstance(given, np.ndarray):
            raise ValueError("buffer source array is read-only")
        raise BufferError("Object is not writable.")
    if view.format not in _ITEM_BYTES:
        raise abort("", "", f"unsupported data type: elements of format {view.format!r}")
    return HostBuffer(np.asarray(view), view.format)


class BoundBuffer:
    """A client's buffer at the place of one tensor of a runner.

    Args:
        buffer: the client's memory.
        info: the runner's tensor.
        dynamic: take the batch from the buffer's own shape.
        strict: refuse what the genuine runner would misread without a word.

    Attributes:
        images: how many of the batch are copied.

    Raises:
        XirAbort: the buffer is too small or, where that is looked at, of another shape.
    """

    def __init__(
        self, buffer: HostBuffer, info: TensorInfo, dynamic: bool = False, strict: bool = False
    ) -> None:
        self.info, self.kind = info, buffer.kind
        self.images = info.shape[0]
        shape = buffer.array.shape
        if info.fix_point is None and buffer.kind != "f":
            raise abort(
                *INVALID, f"tensor {info.name} is float32, its buffer {_KIND_NAMES[buffer.kind]}"
            )
        if dynamic:
            if len(shape) != len(info.shape) or shape[1:] != info.shape[1:] or shape[0] < 1:
                raise abort(
                    *INVALID,
                    f"tensor {info.name} is {list(info.shape)}, its buffer {list(shape)}:"
                    " only the first dimension may differ",
                )
            self.images = min(shape[0], info.shape[0])
        if strict:
            _refuse_misread(buffer, info, dynamic)
        itemsize = _ITEM_BYTES[buffer.kind]
        self._pixels = int(np.prod(info.shape[1:], dtype=np.int64))
        elements = self.images * self._pixels
        if buffer.following_bytes < elements * itemsize:
            raise abort(
                *INVALID,
                f"the buffer of tensor {info.name} {list(info.shape)} is too small:"
                f" {buffer.following_bytes} bytes of {elements * itemsize}"
                f" ({_KIND_NAMES[buffer.kind]} {list(shape)});"
                " the genuine runner goes beyond its end",
            )
        self._flat = np.lib.stride_tricks.as_strided(buffer.array, (elements,), (itemsize,))

    def read(self, rounding: str = "truncate") -> np.ndarray:
        """The tensor's values: a copy of ``info.shape``, zeros after ``images``.

        Args:
            rounding: how float32 becomes codes: ``truncate`` toward zero, wrapping in 8 bits, as
                the genuine runner does on x86; ``round`` with ties up, saturating.
        """
        whole = np.zeros(self.info.shape, self.info.dtype)
        rows = whole.reshape(self.info.shape[0], -1)[: self.images]
        if self.kind == "f" and self.info.fix_point is not None:
            convert = float2fix if rounding == "round" else truncated
            rows[:] = convert(self._flat, self.info.fix_point).reshape(rows.shape)
        else:
            rows[:] = self._rows()
        return whole

    def write(self, values: np.ndarray) -> None:
        """Puts the tensor's values into the client's memory, as many pictures as it takes.

        Args:
            values: of ``info.shape`` and ``info.dtype``.
        """
        rows = values.reshape(self.info.shape[0], -1)[: self.images]
        if self.kind == "f" and self.info.fix_point is not None:
            self._flat[:] = fix2float(rows.reshape(-1), self.info.fix_point)
        else:
            self._rows()[:] = rows

    def _rows(self) -> np.ndarray:
        """The memory that belongs to each picture.

        The runner steps by elements of the buffer and copies bytes of the tensor, so of int16 it
        meets only the first half of each picture.
        """
        if self.kind == "h":
            return self._flat.view(np.int8).reshape(self.images, -1)[:, : self._pixels]
        return self._flat.reshape(self.images, -1)


def bind(
    given: Sequence[HostBuffer],
    infos: Sequence[TensorInfo],
    what: str,
    dynamic: bool = False,
    strict: bool = False,
) -> List[BoundBuffer]:
    """Gives each buffer to the tensor at its position.

    Args:
        given: the client's.
        infos: the runner's, in the order in which it lists them.
        what: ``input`` or ``output``; outputs may be left out from the end.
        dynamic: take the batch from the buffers' own shapes.
        strict: refuse what the genuine runner would misread without a word.

    Raises:
        XirAbort: a wrong number, or a buffer that does not fit.
    """
    if len(given) > len(infos) or not given:
        raise abort(
            *INVALID,
            f"{len(given)} {what} buffers for {len(infos)} tensors: the genuine runner goes beyond"
            " its list; give one array per tensor, in a list",
        )
    if len(given) < len(infos) and (strict or what == "input"):
        raise abort(*INVALID, f"{len(given)} {what} buffers for {len(infos)} tensors")
    return [BoundBuffer(one, info, dynamic, strict) for one, info in zip(given, infos)]


def truncated(values: np.ndarray, fix_point: int) -> np.ndarray:
    """``(int8_t)(x * 2^fix_point)`` as compiled for x86: toward zero, then the lowest 8 bits.

    What a 32-bit integer cannot hold, and not-a-number, give 0.
    """
    # Infinities come from scaling; they are among what is replaced below.
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = values.astype(np.float32) * np.float32(2.0**fix_point)
        holds = np.abs(scaled) < np.float32(2.0**31)
    kept: np.ndarray = np.where(holds, scaled, np.float32(0))
    return kept.astype(np.int32).astype(np.int8)


def _refuse_misread(buffer: HostBuffer, info: TensorInfo, dynamic: bool) -> None:
    problem = ""
    shape: Tuple[int, ...] = buffer.array.shape
    if not buffer.array.flags.c_contiguous:
        problem = "is not C-contiguous"
    elif buffer.kind == "h":
        problem = "is int16, of which the raw bytes are taken"
    elif shape != info.shape and not (dynamic and shape[0] <= info.shape[0]):
        problem = f"is {list(shape)}"
    if problem:
        raise abort(
            *INVALID, f"strict: the buffer of tensor {info.name} {list(info.shape)} {problem}"
        )
