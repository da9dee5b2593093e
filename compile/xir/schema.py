"""The protobuf messages of a ``.xmodel`` file, as tables, and the attributes in them."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

from .attributes import Attr, AttrKind
from .wire import UNKNOWN, Message, Schema, WireError

_MESSAGES: Dict[str, List[Tuple[str, int, str]]] = {
    "Graph": [
        ("graph_name", 1, "string"),
        ("op_node", 5, "[OPNode]"),
        ("subg_root", 10, "SubGraph"),
        ("graph_attr", 11, "{AttrValue}"),
        ("op_defs", 101, "[OpDef]"),
    ],
    "OPNode": [
        ("op_name", 1, "string"),
        ("op_type", 2, "string"),
        ("op_attr", 3, "{AttrValue}"),
        ("args", 4, "[OpArg]"),
        ("output_tensor", 5, "Tensor"),
    ],
    "OpArg": [("arg_name", 1, "string"), ("arg_ops", 2, "[string]")],
    "Tensor": [
        ("tensor_name", 1, "string"),
        ("tensor_dim", 2, "[uint32]"),
        ("data_type", 5, "int32"),
        ("tensor_bit_width", 6, "int32"),
        ("tensor_attr", 10, "{AttrValue}"),
    ],
    "SubGraph": [
        ("subgraph_name", 1, "string"),
        ("op_name", 3, "[string]"),
        ("subg_attr", 5, "{AttrValue}"),
        ("subg_child", 10, "[SubGraph]"),
    ],
    "OpDef": [
        ("name", 1, "string"),
        ("input_args", 2, "[OpArgDef]"),
        ("attrs", 3, "[AttrDef]"),
        ("annotation", 4, "string"),
    ],
    "OpArgDef": [
        ("name", 1, "string"),
        ("occur_type", 2, "int32"),
        ("data_type", 3, "int32"),
        ("annotation", 4, "string"),
    ],
    "AttrDef": [
        ("name", 1, "string"),
        ("occur_type", 3, "int32"),
        ("default_value", 4, "AttrValue"),
        ("list_length", 6, "int32"),
        ("annotation", 7, "string"),
    ],
    "Bytes": [("value", 1, "bytes")],
}

# AttrValue: field number -> type of the case. Vectors and maps are wrapped in messages whose one
# field is value = 1; the wrapper messages are derived from these entries.
_CASES: Dict[int, str] = {
    4: "bool",
    5: "int32",
    6: "uint32",
    7: "int64",
    8: "uint64",
    9: "float",
    10: "double",
    11: "string",
    12: "Bytes",
    13: "[bool]",
    14: "[int32]",
    15: "[uint32]",
    16: "[int64]",
    17: "[uint64]",
    18: "[float]",
    19: "[double]",
    20: "[string]",
    21: "[bytes]",
    22: "{int32}",
    23: "{uint32}",
    24: "{int64}",
    25: "{uint64}",
    26: "{string}",
    27: "{Bytes}",
    28: "{int32Vec}",
    29: "{uint32Vec}",
    30: "{int64Vec}",
    31: "{uint64Vec}",
    32: "{stringVec}",
}


def _wrapper(kind: str) -> str:
    """Name of the wrapper message of a vector or map case; a scalar's type as it is."""
    if kind[0] == "[":
        return f"{kind[1:-1]}Vec"
    if kind[0] == "{":
        return f"Map{kind[1:-1]}"
    return kind


def _tables() -> Dict[str, List[Tuple[str, int, str]]]:
    tables = dict(_MESSAGES)
    tables["AttrValue"] = [(AttrKind(n).name, n, _wrapper(kind)) for n, kind in _CASES.items()]
    for kind in _CASES.values():
        if kind[0] in "[{":
            tables[_wrapper(kind)] = [("value", 1, kind)]
    return tables


TABLES = _tables()
CHOICES = ("AttrValue",)
SCHEMA = Schema(TABLES, CHOICES)
"""Reads and writes the messages ``Graph``, ``OPNode``, ``AttrValue``, ``OpDef`` and the others."""


def read_attr(message: Message) -> Attr:
    """The attribute in an ``AttrValue`` message."""
    for case, value in message.items():
        if case != UNKNOWN:
            return Attr(AttrKind[case], _unwrapped(AttrKind[case], value))
    return Attr(AttrKind.NONE, message.get(UNKNOWN))


def encode_attr(attr: Attr) -> bytes:
    """``attr`` as an ``AttrValue`` message.

    Raises:
        WireError: the value does not fit the kind.
    """
    kind, value = attr.kind, attr.value
    if kind is AttrKind.NONE:
        return value if isinstance(value, bytes) else b""
    try:
        return SCHEMA.encode("AttrValue", {kind.name: _wrapped(kind, value)})
    except (AttributeError, TypeError) as error:  # no sequence, or no dict
        raise WireError(str(error)) from error


def _unwrapped(kind: AttrKind, value: Any) -> Any:
    if kind is AttrKind.BYTES:
        return value["value"]
    if kind.is_vector:
        return tuple(value["value"])
    if not kind.is_map:
        return value
    table = value["value"]
    if kind is AttrKind.MAP_BYTES:
        return {key: table[key]["value"] for key in sorted(table)}
    if kind.is_map_of_vectors:
        return {key: tuple(table[key]["value"]) for key in sorted(table)}
    return {key: table[key] for key in sorted(table)}


def _wrapped(kind: AttrKind, value: Any) -> Any:
    if kind is AttrKind.BYTES:
        return {"value": value}
    if kind.is_vector:
        return {"value": list(value)}
    if not kind.is_map:
        return value
    if kind is AttrKind.MAP_BYTES or kind.is_map_of_vectors:
        return {"value": {key: {"value": item} for key, item in value.items()}}
    return {"value": dict(value)}
