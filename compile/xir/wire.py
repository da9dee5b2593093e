"""The protobuf wire format: messages described by tables, to dicts and back, in plain Python.

A message is a dict of its fields by name: a list where the field repeats, a dict where it is a
map, another such dict where it is a message (``None`` where absent), else the value or its default.
Of a choice (``oneof``) only the case that is set is there. What the table does not describe is
kept as it came, under ``UNKNOWN``.

A model holds few fields and large blobs, so plain Python reads it in milliseconds, and the package
needs no protobuf library: the vendor's tools bring their own into the same process.
"""

from __future__ import annotations

import operator
import struct
from typing import Any, Dict, List, Mapping, NamedTuple, Sequence, Tuple

UNKNOWN = "unknown fields"
"""Key of the bytes that belong to no field of the table."""

MAX_DEPTH = 100
"""Messages inside messages; the limit of the usual protobuf libraries."""

Message = Dict[str, Any]
Fields = Sequence[Tuple[str, int, str]]
"""Name, number and type of each field: ``[T]`` repeats, ``{T}`` is a map from string to T."""

_VARINT, _FIXED64, _LENGTH, _GROUP, _END, _FIXED32 = range(6)
_BITS = {"int32": 32, "uint32": 32, "int64": 64, "uint64": 64}
_FLOATS = {"float": struct.Struct("<f"), "double": struct.Struct("<d")}
_WIRES = {"string": _LENGTH, "bytes": _LENGTH, "float": _FIXED32, "double": _FIXED64}
_DEFAULTS: Dict[str, Any] = {
    **dict.fromkeys(_BITS, 0),
    **dict.fromkeys(_FLOATS, 0.0),
    "bool": False,
    "string": "",
    "bytes": b"",
}


class WireError(ValueError):
    """Bytes that are no message of their kind, or a value that its field cannot hold."""


class _Field(NamedTuple):
    name: str
    number: int
    kind: str  # of a scalar or a message; of a map the kind of its entries
    many: str  # "[" repeated, "{" a map, "" neither
    wire: int


class Schema:
    """Messages by their tables.

    Args:
        tables: the fields of every message, by the message's name.
        choices: names of the messages whose fields exclude each other.
    """

    def __init__(self, tables: Mapping[str, Fields], choices: Sequence[str] = ()) -> None:
        self._choices = frozenset(choices)
        self._kinds: Dict[str, Dict[int, _Field]] = {}
        for name, fields in tables.items():
            self._add(name, fields)

    def _add(self, name: str, fields: Fields) -> None:
        table: Dict[int, _Field] = {}
        for label, number, kind in sorted(fields, key=lambda field: field[1]):
            many = kind[0] if kind[0] in "[{" else ""
            if many == "{":
                # On the wire a map is a repeated message of keys and values.
                self._add(kind, [("key", 1, "string"), ("value", 2, kind[1:-1])])
            elif many:
                kind = kind[1:-1]
            wire = _WIRES.get(kind, _VARINT if kind in _DEFAULTS else _LENGTH)
            table[number] = _Field(label, number, kind, many, wire)
        self._kinds[name] = table

    def decode(self, kind: str, data: bytes) -> Message:
        """The message of this kind serialized in ``data``.

        Raises:
            WireError: ``data`` is none.
        """
        message = self._new(kind)
        self._read(kind, message, data, 0, len(data), 0)
        return message

    def encode(self, kind: str, message: Message) -> bytes:
        """``message`` serialized; equal messages give equal bytes.

        Raises:
            WireError: a value does not fit its field.
        """
        return b"".join(self.pieces(kind, message))

    def pieces(self, kind: str, message: Message) -> List[bytes]:
        """As ``encode``, in pieces, so that blobs are not copied at every level.

        An inner message may be given as bytes, already encoded.
        """
        out: List[bytes] = []
        self._write(kind, message, out)
        return out

    def _new(self, kind: str) -> Message:
        if kind in self._choices:
            return {}
        empty: Dict[str, Any] = {"[": list, "{": dict}
        return {
            field.name: empty[field.many]() if field.many else _DEFAULTS.get(field.kind)
            for field in self._kinds[kind].values()
        }

    def _read(
        self, kind: str, message: Message, data: bytes, at: int, end: int, depth: int
    ) -> None:
        """Merges ``data[at:end]`` into ``message``: what stands later replaces or is appended."""
        if depth > MAX_DEPTH:
            raise WireError(f"messages are nested more than {MAX_DEPTH} deep")
        fields, choice = self._kinds[kind], kind in self._choices
        unknown: List[bytes] = []
        while at < end:
            start = at
            tag, at = _read_varint(data, at, end)
            wire, field = tag & 7, fields.get(tag >> 3)
            packed = field is not None and field.many != "" and wire == _LENGTH != field.wire
            if field is None or not (wire == field.wire or packed):
                at = _skip(data, tag, at, end, depth)
                unknown.append(data[start:at])
                continue
            stop = end
            if wire == _LENGTH:
                length, at = _read_varint(data, at, end)
                stop = at + length
                if stop > end:
                    raise WireError(f"a field of {length} bytes, {end - at} bytes are left")
            if choice and field.name not in message:
                for other in [key for key in message if key != UNKNOWN]:
                    del message[other]
            if packed:
                values = message[field.name]
                while at < stop:
                    value, at = _read_scalar(field.kind, data, at, stop)
                    values.append(value)
            elif field.kind in _DEFAULTS:
                value, at = _read_scalar(field.kind, data, at, stop)
                if field.many:
                    message[field.name].append(value)
                else:
                    message[field.name] = value
            else:
                inner = None if field.many else message.get(field.name)
                inner = self._new(field.kind) if inner is None else inner
                self._read(field.kind, inner, data, at, stop, depth + 1)
                at = stop
                if field.many == "{" and UNKNOWN in inner:
                    unknown.append(data[start:at])  # lest the rest of the entry be lost
                elif field.many == "{":
                    value = inner["value"]
                    if value is None:
                        value = self._new(self._kinds[field.kind][2].kind)
                    message[field.name][inner["key"]] = value
                elif field.many:
                    message[field.name].append(inner)
                else:
                    message[field.name] = inner
        if unknown:
            message[UNKNOWN] = message.get(UNKNOWN, b"") + b"".join(unknown)

    def _write(self, kind: str, message: Message, out: List[bytes]) -> int:
        """Appends the pieces of ``message`` to ``out``; returns their size in bytes."""
        size = 0
        explicit = kind in self._choices or kind[0] == "{"  # also what equals the default
        for field in self._kinds[kind].values():
            value = message.get(field.name)
            if field.many == "{":
                table = value or {}
                for key in sorted(table):
                    size += self._write_field(field, {"key": key, "value": table[key]}, out)
            elif field.many and field.wire != _LENGTH:
                if value:
                    packed = b"".join(_scalar(field.kind, item) for item in value)
                    size += _append(out, _tag(field.number, _LENGTH), _varint(len(packed)), packed)
            elif field.many:
                for item in value or ():
                    size += self._write_field(field, item, out)
            elif value is not None and (explicit or value != _DEFAULTS.get(field.kind)):
                size += self._write_field(field, value, out)
        return size + _append(out, message.get(UNKNOWN, b""))

    def _write_field(self, field: _Field, value: Any, out: List[bytes]) -> int:
        tag = _tag(field.number, field.wire)
        if field.kind not in _DEFAULTS and not isinstance(value, bytes):
            at = len(out)
            out.append(b"")
            length = self._write(field.kind, value, out)
            out[at] = tag + _varint(length)
            return len(out[at]) + length
        data = value if field.kind not in _DEFAULTS else _scalar(field.kind, value)
        if field.wire == _LENGTH:
            tag += _varint(len(data))
        return _append(out, tag, data)


def _read_varint(data: bytes, at: int, end: int) -> Tuple[int, int]:
    """An unsigned number of 64 bits, seven bits to the byte, and where it ends."""
    value = shift = 0
    while at < end:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (2**64 - 1), at
        shift += 7
        if shift == 70:
            raise WireError("a number of more than ten bytes")
    raise WireError("it ends in the middle of a number")


def _read_scalar(kind: str, data: bytes, at: int, end: int) -> Tuple[Any, int]:
    if kind == "bytes":
        return data[at:end], end
    if kind == "string":
        try:
            return data[at:end].decode("utf-8"), end
        except UnicodeDecodeError as error:
            raise WireError(f"a text is not UTF-8: {data[at:end][:40]!r}") from error
    if kind in _FLOATS:
        form = _FLOATS[kind]
        if at + form.size > end:
            raise WireError("it ends in the middle of a number")
        return form.unpack_from(data, at)[0], at + form.size
    value, at = _read_varint(data, at, end)
    if kind == "bool":
        return value != 0, at
    bits = _BITS[kind]
    value &= (1 << bits) - 1
    if kind[0] == "i" and value >> (bits - 1):
        value -= 1 << bits
    return value, at


def _skip(data: bytes, tag: int, at: int, end: int, depth: int) -> int:
    """Where the value of an unknown field ends."""
    number, wire = tag >> 3, tag & 7
    if not 0 < number < 2**29:
        raise WireError(f"{number} is no field number")
    if wire == _VARINT:
        return _read_varint(data, at, end)[1]
    if wire == _GROUP and depth < MAX_DEPTH:
        while True:
            inner, at = _read_varint(data, at, end)
            if inner == number << 3 | _END:
                return at
            at = _skip(data, inner, at, end, depth + 1)
    if wire == _LENGTH:
        length, at = _read_varint(data, at, end)
        at += length
    elif wire in (_FIXED32, _FIXED64):
        at += 4 if wire == _FIXED32 else 8
    else:
        raise WireError(f"a field of no known form ({wire})")
    if at > end:
        raise WireError("it ends in the middle of a field")
    return at


def _tag(number: int, wire: int) -> bytes:
    return _varint(number << 3 | wire)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _scalar(kind: str, value: Any) -> bytes:
    """A value's bytes, without the length that texts and blobs have in front."""
    if kind in _BITS or kind == "bool":
        number = _whole(kind, value)
        return _varint(number & (2**64 - 1))
    if kind in _FLOATS:
        try:
            return _FLOATS[kind].pack(value)
        except (struct.error, OverflowError, TypeError) as error:
            raise WireError(f"{value!r:.60} is no {kind}: {error}") from error
    wanted = str if kind == "string" else bytes
    if not isinstance(value, wanted):
        raise WireError(f"{value!r:.60} is no {wanted.__name__}")
    if isinstance(value, str):
        try:
            return value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise WireError(f"{value!r:.60} cannot be stored as text: {error.reason}") from error
    return bytes(value)


def _whole(kind: str, value: Any) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    bits = _BITS.get(kind, 1)
    low, high = (-(1 << (bits - 1)), 1 << (bits - 1)) if kind[0] == "i" else (0, 1 << bits)
    if number is None or not low <= number < high:
        raise WireError(f"{value!r:.60} is no {kind}")
    return number


def _append(out: List[bytes], *pieces: bytes) -> int:
    out.extend(pieces)
    return sum(map(len, pieces))
