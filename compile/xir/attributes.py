"""Typed attribute values of XIR: every case of the file's ``AttrValue`` and its Python form.

The kind is kept beside the value because the vendor's tools distinguish ``int32`` from ``uint64``
and ``float`` from ``double``: a file written with another kind is read as "bad any_cast".
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Dict, Iterable, Mapping, Tuple, Union

AttrPython = Union[
    None,
    bool,
    int,
    float,
    str,
    bytes,
    Tuple[Any, ...],
    Dict[str, Any],
]
"""What an attribute's value is in Python: a scalar, a tuple (vectors) or a dict (maps)."""


class AttrKind(enum.Enum):
    """The case of ``AttrValue``; the value is its field number in the file."""

    NONE = 0
    BOOL = 4
    INT32 = 5
    UINT32 = 6
    INT64 = 7
    UINT64 = 8
    FLOAT = 9
    DOUBLE = 10
    STRING = 11
    BYTES = 12
    BOOLS = 13
    INT32S = 14
    UINT32S = 15
    INT64S = 16
    UINT64S = 17
    FLOATS = 18
    DOUBLES = 19
    STRINGS = 20
    BYTES_LIST = 21
    MAP_INT32 = 22
    MAP_UINT32 = 23
    MAP_INT64 = 24
    MAP_UINT64 = 25
    MAP_STRING = 26
    MAP_BYTES = 27
    MAP_INT32S = 28
    MAP_UINT32S = 29
    MAP_INT64S = 30
    MAP_UINT64S = 31
    MAP_STRINGS = 32

    @property
    def is_vector(self) -> bool:
        """Whether the value is a tuple of scalars."""
        return 13 <= self.value <= 21

    @property
    def is_map(self) -> bool:
        """Whether the value is a dict with string keys."""
        return self.value >= 22

    @property
    def is_map_of_vectors(self) -> bool:
        """Whether the value is a dict of string to tuple."""
        return self.value >= 28


@dataclass(frozen=True)
class Attr:
    """One attribute value with its exact kind.

    Vectors are tuples, maps are dicts with string keys, ``NONE`` (a value without a case, which
    the vendor's writer leaves behind for types it cannot store) is ``None``, or the wire bytes
    where the file holds a case unknown to us.
    """

    kind: AttrKind
    value: AttrPython


def boolean(value: bool) -> Attr:
    """A bool."""
    return Attr(AttrKind.BOOL, bool(value))


def int32(value: int) -> Attr:
    """A signed 32-bit integer, the kind of every plain Python int in the vendor's bindings."""
    return Attr(AttrKind.INT32, int(value))


def uint64(value: int) -> Attr:
    """An unsigned 64-bit integer (workloads, fingerprints)."""
    return Attr(AttrKind.UINT64, int(value))


def float32(value: float) -> Attr:
    """A single-precision float."""
    return Attr(AttrKind.FLOAT, float(value))


def string(value: str) -> Attr:
    """A string."""
    return Attr(AttrKind.STRING, str(value))


def blob(value: bytes) -> Attr:
    """Raw bytes."""
    return Attr(AttrKind.BYTES, bytes(value))


def int32s(values: Iterable[int]) -> Attr:
    """A vector of signed 32-bit integers (kernel, stride, pad, shape)."""
    return Attr(AttrKind.INT32S, tuple(int(v) for v in values))


def floats(values: Iterable[float]) -> Attr:
    """A vector of single-precision floats."""
    return Attr(AttrKind.FLOATS, tuple(float(v) for v in values))


def strings(values: Iterable[str]) -> Attr:
    """A vector of strings."""
    return Attr(AttrKind.STRINGS, tuple(str(v) for v in values))


def map_int32(values: Mapping[str, int]) -> Attr:
    """A map of string to int32 (``reg_id_to_size``)."""
    return Attr(AttrKind.MAP_INT32, {str(k): int(v) for k, v in values.items()})


def map_string(values: Mapping[str, str]) -> Attr:
    """A map of string to string (``runner``, ``libs_info``)."""
    return Attr(AttrKind.MAP_STRING, {str(k): str(v) for k, v in values.items()})


def map_bytes(values: Mapping[str, bytes]) -> Attr:
    """A map of string to bytes (``reg_id_to_parameter_value``)."""
    return Attr(AttrKind.MAP_BYTES, {str(k): bytes(v) for k, v in values.items()})
