"""``xir.DataType``: an element type and its width in bits, by name or by number."""

from __future__ import annotations

import enum
import re
import sys
from typing import Any, Tuple

from ....compile.xir import graph as records
from ..abort import abort
from .binding import exported, index, pybind11_object


class Kind(enum.Enum):
    """Kind of number; XINT and XUINT are fixed point."""

    INT = 0
    UINT = 1
    XINT = 2
    XUINT = 3
    FLOAT = 4
    BFLOAT = 5
    UNKNOWN = 6

    def __int__(self) -> int:
        return int(self.value)

    def __index__(self) -> int:
        return int(self.value)


def parse_type(name: str) -> Tuple[records.DataType, int]:
    """The type and bits in a name such as ``XINT8`` or ``float32``.

    A prefix that is none, or is neither all upper nor all lower case, is ``UNKNOWN`` with a
    warning.

    Raises:
        XirAbort: there are no letters followed by digits.
    """
    found = re.match(r"^([A-Za-z]+)([0-9]+)$", name)
    if found is None:
        raise abort("XIR_INVALID_DATA_TYPE", "Invalid data type!", f"{name} is not a data type")
    prefix, bits = found.groups()
    if prefix.upper() in records.DataType.__members__ and prefix in (
        prefix.upper(),
        prefix.lower(),
    ):
        return records.DataType[prefix.upper()], int(bits)
    print(f"[UNILOG][WARNING] {name} is no known data type", file=sys.stderr)
    return records.DataType.UNKNOWN, int(bits)


def checked_type(name: str) -> Tuple[records.DataType, int]:
    """What ``parse_type`` gives, for a tensor.

    Raises:
        XirAbort: no tensor can be of that type.
    """
    dtype, bits = parse_type(name)
    if dtype is records.DataType.UNKNOWN or bits <= 0:
        raise abort("XIR_INVALID_DATA_TYPE", "Invalid data type!", f"{name} of a tensor")
    return dtype, bits


@exported
class DataType(pybind11_object):
    """An element type: ``DataType()``, ``DataType("xint8")`` or ``DataType(DataType.XINT, 8)``."""

    __slots__ = ("_bits", "_type")

    Type = Kind
    INT = Kind.INT
    UINT = Kind.UINT
    XINT = Kind.XINT
    XUINT = Kind.XUINT
    FLOAT = Kind.FLOAT
    UNKNOWN = Kind.UNKNOWN

    def __init__(self, *args: Any) -> None:
        self._type, self._bits = Kind.UNKNOWN, 0
        if len(args) == 1 and isinstance(args[0], str):
            dtype, self._bits = parse_type(args[0])
            self._type = Kind[dtype.name]
        elif len(args) == 2 and isinstance(args[0], Kind):
            self._type, self._bits = args[0], index(args[1])
        elif args:
            raise TypeError(
                "__init__(): incompatible constructor arguments. The following argument types are "
                "supported:\n    1. xir.DataType()\n    2. xir.DataType(arg0: str)\n"
                "    3. xir.DataType(arg0: xir::DataType::Type, arg1: int)"
            )

    def _get_type(self) -> Kind:
        """Kind of number."""
        return self._type

    def _set_type(self, value: Kind) -> None:
        if not isinstance(value, Kind):
            raise TypeError(f"{value!r} is no xir.DataType.Type")
        self._type = value

    type = property(_get_type, _set_type)

    @property
    def bit_width(self) -> int:
        """Bits of one element."""
        return self._bits

    @bit_width.setter
    def bit_width(self, value: int) -> None:
        self._bits = index(value)

    def __str__(self) -> str:
        return f"'{self._type.name.lower()}{self._bits}'"

    def __repr__(self) -> str:
        return f"<xir.DataType {self}>"


Kind.__module__ = "xir"
Kind.__name__ = "Type"
Kind.__qualname__ = "DataType.Type"
