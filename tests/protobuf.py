"""The messages of an ``.xmodel`` as classes of the genuine protobuf library, from our tables."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Dict, List, Tuple

import pytest

from deepfake_fpga.compile.xir.schema import CHOICES, TABLES

pytest.importorskip("google.protobuf", reason="compares with the protobuf library")

PACKAGE = "deepfake_fpga.xmodel"

# Field type numbers of a protobuf descriptor.
_TYPES = {
    "bool": 8,
    "int32": 5,
    "uint32": 13,
    "int64": 3,
    "uint64": 4,
    "float": 2,
    "double": 1,
    "string": 9,
    "bytes": 12,
}
_MESSAGE = 11
_OPTIONAL, _REPEATED = 1, 3


@lru_cache(maxsize=None)
def messages() -> Dict[str, Any]:
    """Message classes by name, in a descriptor pool of their own."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(
        name="deepfake_fpga/xmodel.proto", package=PACKAGE, syntax="proto3"
    )
    for name, fields in TABLES.items():
        _add_message(file, name, fields)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    get_class: Any = getattr(message_factory, "GetMessageClass", None)
    if get_class is None:  # protobuf before 4.22
        factory: Any = message_factory.MessageFactory(pool)
        get_class = factory.GetPrototype
    return {name: get_class(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in TABLES}


def _add_message(file: Any, name: str, fields: List[Tuple[str, int, str]]) -> None:
    message = file.message_type.add(name=name)
    if name in CHOICES:
        message.oneof_decl.add(name="choice")
    for field_name, number, kind in fields:
        if kind[0] != "{":
            field = _add_field(message, field_name, number, kind)
            if name in CHOICES:
                field.oneof_index = 0
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
    field.type = _TYPES.get(kind, _MESSAGE)
    if field.type == _MESSAGE:
        field.type_name = f".{PACKAGE}.{kind}"
    return field
