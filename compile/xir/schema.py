"""The protobuf messages of a ``.xmodel`` file, built when first needed, and their attributes.

The messages are described by tables and built in a descriptor pool of our own, under a package
name of our own: the vendor's library, loaded in the same process, registers its schema in the
default pool, and two owners of one name there end the process. Building at run time rather than
shipping generated code lets one source serve protobuf 3.11 to 7.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Dict, List, Tuple

from .attributes import Attr, AttrKind

PACKAGE = "deepfake_fpga.xmodel"

# Field type numbers of a protobuf descriptor.
_DOUBLE, _FLOAT, _INT64, _UINT64, _INT32 = 1, 2, 3, 4, 5
_BOOL, _STRING, _MESSAGE, _BYTES, _UINT32 = 8, 9, 11, 12, 13
_OPTIONAL, _REPEATED = 1, 3

_SCALARS: Dict[str, int] = {
    "bool": _BOOL,
    "int32": _INT32,
    "uint32": _UINT32,
    "int64": _INT64,
    "uint64": _UINT64,
    "float": _FLOAT,
    "double": _DOUBLE,
    "string": _STRING,
    "bytes": _BYTES,
}

# Message -> (field, number, type); "[T]" is repeated, "{T}" a map from string to T.
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


def case_name(number: int) -> str:
    """Field name of the ``AttrValue`` case with this number."""
    return f"case_{number}"


@lru_cache(maxsize=None)
def messages() -> Dict[str, Any]:
    """Message classes by name: ``Graph``, ``OPNode``, ``AttrValue``, ``OpDef`` and the others."""
    from google.protobuf import descriptor_pool, message_factory

    pool = descriptor_pool.DescriptorPool()
    names = _add_file(pool)
    descriptors = {name: pool.FindMessageTypeByName(f"{PACKAGE}.{name}") for name in names}
    get_class: Any = getattr(message_factory, "GetMessageClass", None)
    if get_class is None:  # protobuf before 4.22
        factory: Any = message_factory.MessageFactory(pool)
        get_class = factory.GetPrototype
    return {name: get_class(descriptor) for name, descriptor in descriptors.items()}


def read_attr(message: Any) -> Attr:
    """The attribute in an ``AttrValue`` message."""
    case = message.WhichOneof("value")
    if case is None:
        return Attr(AttrKind.NONE, message.SerializeToString() or None)
    kind = AttrKind(int(case.rpartition("_")[2]))
    value = getattr(message, case)
    if kind is AttrKind.BYTES:
        return Attr(kind, value.value)
    if kind.is_vector:
        return Attr(kind, tuple(value.value))
    if kind is AttrKind.MAP_BYTES:
        return Attr(kind, {k: value.value[k].value for k in sorted(value.value)})
    if kind.is_map_of_vectors:
        return Attr(kind, {k: tuple(value.value[k].value) for k in sorted(value.value)})
    if kind.is_map:
        return Attr(kind, {k: value.value[k] for k in sorted(value.value)})
    return Attr(kind, value)


def write_attr(attr: Attr, message: Any) -> None:
    """Stores ``attr`` in an ``AttrValue`` message.

    Raises:
        TypeError, ValueError: the value does not fit the kind.
    """
    kind, value = attr.kind, attr.value
    if kind is AttrKind.NONE:
        message.MergeFromString(value if isinstance(value, bytes) else b"")
        return
    field = case_name(kind.value)
    if kind is AttrKind.BYTES or kind.is_vector or kind.is_map:
        wrapper = getattr(message, field)
        wrapper.SetInParent()  # an empty vector is a value, not an absent one
        if kind is AttrKind.BYTES:
            wrapper.value = value
        elif kind.is_vector:
            wrapper.value.extend(value)
        else:
            _write_map(kind, value, wrapper.value)
        return
    setattr(message, field, value)


def _write_map(kind: AttrKind, values: Any, table: Any) -> None:
    for key in sorted(values):
        if kind is AttrKind.MAP_BYTES:
            table[key].value = values[key]
        elif kind.is_map_of_vectors:
            table[key].value.extend(values[key])
        else:
            table[key] = values[key]


def _add_file(pool: Any) -> List[str]:
    """Describes all messages to ``pool``; returns their names."""
    from google.protobuf import descriptor_pb2

    file = descriptor_pb2.FileDescriptorProto(
        name="deepfake_fpga/xmodel.proto", package=PACKAGE, syntax="proto3"
    )
    attr_value = file.message_type.add(name="AttrValue")
    attr_value.oneof_decl.add(name="value")
    for number, kind in _CASES.items():
        if kind[0] in "[{":
            _add_message(file, _wrapper(kind), [("value", 1, kind)])
        _add_field(attr_value, case_name(number), number, _wrapper(kind)).oneof_index = 0
    for name, fields in _MESSAGES.items():
        _add_message(file, name, fields)
    pool.AddSerializedFile(file.SerializeToString())
    return [message.name for message in file.message_type]


def _wrapper(kind: str) -> str:
    """Name of the wrapper message of a vector or map case; a scalar's type as it is."""
    if kind[0] == "[":
        return f"{kind[1:-1]}Vec"
    if kind[0] == "{":
        return f"Map{kind[1:-1]}"
    return kind


def _add_message(file: Any, name: str, fields: List[Tuple[str, int, str]]) -> None:
    message = file.message_type.add(name=name)
    for field_name, number, kind in fields:
        if kind[0] != "{":
            _add_field(message, field_name, number, kind)
            continue
        # A map is a repeated nested entry message named after the field in camel case.
        entry_name = "".join(part.capitalize() for part in field_name.split("_")) + "Entry"
        entry = message.nested_type.add(name=entry_name)
        entry.options.map_entry = True
        _add_field(entry, "key", 1, "string")
        _add_field(entry, "value", 2, kind[1:-1])
        _add_field(message, field_name, number, f"[{name}.{entry_name}]")


def _add_field(message: Any, name: str, number: int, kind: str) -> Any:
    repeated = kind[0] == "["
    kind = kind[1:-1] if repeated else kind
    field = message.field.add(name=name, number=number, label=_REPEATED if repeated else _OPTIONAL)
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type = _MESSAGE
        field.type_name = f".{PACKAGE}.{kind}"
    return field
