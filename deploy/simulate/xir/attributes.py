"""Attributes as the binding reads and writes them: which Python value becomes which kind.

Scripts give no kinds, so a value's Python type decides; on an operator the definition does. What
the binding cannot read comes back as ``None``.
"""

from __future__ import annotations

import struct
from typing import Any, Callable, Dict, Mapping, Optional

import numpy as np

from ....compile.xir.attributes import Attr, AttrKind
from ..abort import XirAbort, abort
from .binding import bound, index, pybind11_object

_LOW, _HIGH = -(2**31), 2**31 - 1

_UNREADABLE = (AttrKind.NONE, AttrKind.BYTES_LIST)
_READABLE_MAPS = (AttrKind.MAP_INT32, AttrKind.MAP_STRING)


def to_python(attr: Attr) -> Any:
    """What ``get_attr`` gives: scalars, lists, bytes, dicts, and ``None`` for the other kinds."""
    kind, value = attr.kind, attr.value
    if kind in _UNREADABLE or (kind.is_map and kind not in _READABLE_MAPS):
        return None
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, dict) else value


def untyped(value: Any) -> Attr:
    """The attribute that ``value`` becomes where nothing says which kind is wanted.

    Raises:
        XirAbort: the type cannot be stored, or a list or dict is empty.
        RuntimeError: an integer beyond 32 bits.
    """
    if isinstance(value, bool):
        return Attr(AttrKind.BOOL, value)
    if isinstance(value, int):
        return Attr(AttrKind.INT32, _int32(value))
    if isinstance(value, float):
        return Attr(AttrKind.DOUBLE, float(value))
    if isinstance(value, str):
        return Attr(AttrKind.STRING, value)
    if isinstance(value, (bytes, np.ndarray)):
        return Attr(AttrKind.BYTES, _memory(value))
    if isinstance(value, list):
        return _untyped_list(value)
    if isinstance(value, dict):
        return _untyped_dict(value)
    raise _unsupported(value)


def typed(value: Any, kind: AttrKind) -> Attr:
    """``value`` cast to ``kind``, as for an attribute that an operator's definition names.

    Raises:
        RuntimeError: it cannot be cast.
    """
    try:
        return Attr(kind, _CASTS[kind](value))
    except (TypeError, ValueError, OverflowError, KeyError):
        raise RuntimeError(
            f"Unable to cast Python instance of type {type(value)} to C++ type "
            f"'{kind.name.lower()}'"
        ) from None


def described(name: str, attrs: Mapping[str, Attr], *parts: str) -> str:
    """The text that ``str`` gives of a handle."""
    values = {key: to_python(attr) for key, attr in sorted(attrs.items())}
    return "{" + ", ".join([f"name: '{name}'", *parts, f"attrs: {values}"]) + "}"


def check_key(name: Any) -> None:
    """Refuses names of attributes that are no text.

    Raises:
        RuntimeError: ``name`` is none.
    """
    if not isinstance(name, str):
        raise RuntimeError(f"Unable to cast {name!r} to C++ type 'std::string'")


class Attributes(pybind11_object):
    """The attribute methods that graphs, operators, subgraphs and tensors share."""

    __slots__ = ("_record",)

    _record: Any

    @bound("has_attr(self: object, name: str) -> bool")
    def has_attr(self, name: str) -> bool:
        """Whether there is an attribute ``name``."""
        return name in self._record.attrs

    @bound("get_attr(self: object, name: str) -> object")
    def get_attr(self, name: str) -> Any:
        """The attribute's value; ``None`` for kinds that the binding does not know.

        Raises:
            XirAbort: there is none.
        """
        if name not in self._record.attrs:
            raise abort(
                "XIR_UNREGISTERED_ATTR",
                "Unregistered attribute!",
                f"Attrs doesn't contain attribute {name}",
            )
        return to_python(self._record.attrs[name])

    @bound("get_attrs(self: object) -> dict")
    def get_attrs(self) -> Dict[str, Any]:
        """A copy of all attributes."""
        return {name: to_python(attr) for name, attr in sorted(self._record.attrs.items())}

    @bound("set_attr(self: object, name: str, value: handle) -> None")
    def set_attr(self, name: str, value: Any) -> None:
        """Stores ``value``, whose type decides the kind.

        Raises:
            XirAbort: no attribute can hold it.
            RuntimeError: it cannot be cast.
        """
        self._record.attrs[name] = self._to_attr(name, value)

    @bound("set_attrs(self: object, attrs: dict) -> None")
    def set_attrs(self, attrs: Dict[str, Any]) -> None:
        """Replaces all attributes.

        Raises:
            XirAbort, RuntimeError: as ``set_attr``; nothing has changed then.
        """
        self._replace_attrs({key: self._to_attr(key, value) for key, value in attrs.items()})

    def _to_attr(self, name: Any, value: Any) -> Attr:
        check_key(name)
        return untyped(value)

    def _replace_attrs(self, attrs: Dict[str, Attr]) -> None:
        self._record.attrs.clear()
        self._record.attrs.update(attrs)


def _int32(value: Any) -> int:
    number = index(value)
    if not _LOW <= number <= _HIGH:
        raise RuntimeError(
            f"Unable to cast Python instance of type {type(value)} to C++ type 'int'"
        )
    return number


def _untyped_list(value: Any) -> Attr:
    if not value:
        raise _empty("List")
    if all(isinstance(v, int) for v in value):
        return Attr(AttrKind.INT32S, tuple(_int32(v) for v in value))
    if all(isinstance(v, float) for v in value):
        return Attr(AttrKind.DOUBLES, tuple(float(v) for v in value))
    if all(isinstance(v, str) for v in value):
        return Attr(AttrKind.STRINGS, tuple(value))
    raise _unsupported(value)


def _untyped_dict(value: Any) -> Attr:
    if not value:
        raise _empty("Dict")
    if all(isinstance(k, str) for k in value):
        if all(isinstance(v, int) for v in value.values()):
            return Attr(AttrKind.MAP_INT32, {k: _int32(v) for k, v in value.items()})
        if all(isinstance(v, str) for v in value.values()):
            return Attr(AttrKind.MAP_STRING, dict(value))
        if all(isinstance(v, float) for v in value.values()):
            # Kept in memory there, but neither readable nor written to a file.
            return Attr(AttrKind.NONE, None)
    raise _unsupported(value)


def _unsupported(value: Any) -> XirAbort:
    return abort("PYXIR_INVALID_DATA_TYPE", "Unsupported data type!", str(type(value)))


def _empty(what: str) -> XirAbort:
    return abort("PYXIR_INVALID_DATA_TYPE", "Unsupported data type!", f"Cannot set empty {what}")


def _memory(value: Any) -> bytes:
    """The bytes of ``value``; of an array those that lie behind its first element.

    The binding looks at neither strides nor order. What lies outside the array's own memory is
    undefined there; here such an array is read as it should be.
    """
    if isinstance(value, bytes):
        return value
    if not isinstance(value, np.ndarray):
        raise TypeError(value)
    if value.flags.c_contiguous:
        return value.tobytes()
    reach = value.itemsize + sum((n - 1) * s for n, s in zip(value.shape, value.strides))
    if min(value.strides) <= 0 or reach < value.nbytes:
        return value.tobytes()
    flat = np.lib.stride_tricks.as_strided(value, (value.size,), (value.itemsize,))
    return flat.tobytes()


def _bool(value: Any) -> bool:
    if value is None or hasattr(type(value), "__bool__"):
        return bool(value)
    raise TypeError(value)


def _double(value: Any) -> float:
    if isinstance(value, (str, bytes)):
        raise TypeError(value)
    return float(value)


def _float(value: Any) -> float:
    return float(struct.unpack("<f", struct.pack("<f", _double(value)))[0])


def _text(value: Any) -> str:
    if isinstance(value, (str, bytes)):
        return value.decode() if isinstance(value, bytes) else value
    raise TypeError(value)


def _each(cast: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def many(value: Any) -> Any:
        if not isinstance(value, (list, tuple, np.ndarray)):
            raise TypeError(value)
        return tuple(cast(v) for v in value)

    return many


_CASTS: Dict[Optional[AttrKind], Callable[[Any], Any]] = {
    AttrKind.BOOL: _bool,
    AttrKind.INT32: _int32,
    AttrKind.FLOAT: _float,
    AttrKind.DOUBLE: _double,
    AttrKind.STRING: _text,
    AttrKind.BYTES: _memory,
    AttrKind.INT32S: _each(_int32),
    AttrKind.FLOATS: _each(_float),
    AttrKind.DOUBLES: _each(_double),
    AttrKind.STRINGS: _each(_text),
}
