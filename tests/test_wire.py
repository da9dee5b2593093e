"""The wire format in plain Python: by the format's own rules, and against the protobuf library."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, Dict

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepfake_fpga.compile.xir.schema import CHOICES, SCHEMA, TABLES
from deepfake_fpga.compile.xir.wire import MAX_DEPTH, UNKNOWN, Schema, WireError

SMALL = Schema(
    {
        "Node": [
            ("name", 1, "string"),
            ("number", 2, "int32"),
            ("dims", 3, "[uint32]"),
            ("child", 4, "Node"),
            ("children", 5, "[Node]"),
            ("sizes", 6, "{int64}"),
            ("choice", 7, "Choice"),
            ("weights", 8, "[float]"),
            ("blob", 16, "bytes"),
        ],
        "Choice": [("flag", 1, "bool"), ("value", 2, "double"), ("node", 3, "Node")],
    },
    ["Choice"],
)
EMPTY: Dict[str, Any] = {
    "name": "", "number": 0, "dims": [], "child": None, "children": [], "sizes": {},
    "choice": None, "weights": [], "blob": b"",
}  # fmt: skip


def node(**fields: Any) -> Dict[str, Any]:
    return {**EMPTY, **fields}


# ---------------------------------------------------------------- by hand


@pytest.mark.parametrize(
    ("fields", "wire"),
    [
        ({}, ""),
        ({"number": 150}, "10 96 01"),
        ({"number": -1}, "10 ff ff ff ff ff ff ff ff ff 01"),
        ({"name": "testing"}, "0a 07 74 65 73 74 69 6e 67"),
        ({"dims": [3, 270, 86942]}, "1a 06 03 8e 02 9e a7 05"),
        ({"child": node()}, "22 00"),
        ({"children": [node(number=1), node()]}, "2a 02 10 01 2a 00"),
        ({"sizes": {"b": 2, "a": -1}},
         "32 0e 0a 01 61 10 ff ff ff ff ff ff ff ff ff 01 32 05 0a 01 62 10 02"),
        ({"choice": {"flag": False}}, "3a 02 08 00"),
        ({"choice": {"value": 1.0}}, "3a 09 11 00 00 00 00 00 00 f0 3f"),
        ({"choice": {}}, "3a 00"),
        ({"weights": [0.5, -2.0]}, "42 08 00 00 00 3f 00 00 00 c0"),
        ({"blob": b"\0"}, "82 01 01 00"),
    ],
)  # fmt: skip
def test_bytes_are_those_of_the_format(fields: Dict[str, Any], wire: str) -> None:
    data = bytes.fromhex(wire.replace(" ", ""))
    assert SMALL.encode("Node", fields) == data
    assert SMALL.decode("Node", data) == node(**fields)


def test_a_list_of_numbers_may_come_unpacked_and_in_parts() -> None:
    data = bytes.fromhex("1803 1a028e02 1805 45 0000003f".replace(" ", ""))
    assert SMALL.decode("Node", data) == node(dims=[3, 270, 5], weights=[0.5])


def test_what_comes_later_replaces_or_is_merged() -> None:
    first = node(name="a", child=node(number=1, dims=[1]), sizes={"k": 1}, choice={"flag": True})
    second = node(name="b", child=node(name="c", dims=[2]), sizes={"k": 2}, choice={"value": 2.0})
    data = SMALL.encode("Node", first) + SMALL.encode("Node", second)
    assert SMALL.decode("Node", data) == node(
        name="b", child=node(name="c", number=1, dims=[1, 2]), sizes={"k": 2}, choice={"value": 2.0}
    )


def test_an_entry_of_a_map_may_lack_its_key_or_value() -> None:
    assert SMALL.decode("Node", bytes.fromhex("3200")) == node(sizes={"": 0})
    empty = bytes.fromhex("5a00 5206 0a0473756267".replace(" ", ""))
    assert SCHEMA.decode("Graph", empty)["graph_attr"] == {"": {}}


@pytest.mark.parametrize(
    "extra",
    [
        "9a06 03 6e6577",  # field 99, three bytes
        "9806 8001",  # a number
        "9d06 00000000",
        "9906 0000000000000000",
        "9b06 0801 9b06 9c06 1201 61 9c06",  # a group with a group in it
        "0801",  # the name, but as a number
        "1500000000",  # the number, but of fixed size
    ],
)
def test_what_is_not_known_is_kept_as_it_came(extra: str) -> None:
    extra_bytes = bytes.fromhex(extra.replace(" ", ""))
    data = extra_bytes + SMALL.encode("Node", node(name="x")) + extra_bytes
    message = SMALL.decode("Node", data)
    assert message == {**node(name="x"), UNKNOWN: extra_bytes * 2}
    assert SMALL.decode("Node", SMALL.encode("Node", message)) == message


def test_an_entry_of_a_map_with_more_in_it_is_kept_whole() -> None:
    data = bytes.fromhex("3207 0a0161 1002 1801 3205 0a0162 1003".replace(" ", ""))
    message = SMALL.decode("Node", data)
    assert message["sizes"] == {"b": 3}
    assert message[UNKNOWN] == data[:9]


@pytest.mark.parametrize(
    ("wire", "said"),
    [
        ("10", "in the middle of a number"),
        ("1096", "in the middle of a number"),
        ("10" + "ff" * 10 + "01", "more than ten bytes"),
        ("0a05 6162", "2 bytes are left"),
        ("0a02 c328", "not UTF-8"),
        ("3204 0a02 c328", "not UTF-8"),
        ("1a01 80", "in the middle of a number"),
        ("42 03 000000", "in the middle of a number"),
        ("00 00", "0 is no field number"),
        ("14", "no known form"),  # the end of a group that was not begun
        ("16", "no known form"),
        ("9b06 0801", "in the middle of a number"),  # a group that does not end
        ("9d06 0000", "in the middle of a field"),
        ("9a06 05 00", "in the middle of a field"),
        ("22 02 22 05", "1 bytes are left|0 bytes are left"),
    ],
)
def test_damaged_bytes_are_refused(wire: str, said: str) -> None:
    with pytest.raises(WireError, match=said):
        SMALL.decode("Node", bytes.fromhex(wire.replace(" ", "")))


def _chain(depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        size = SMALL.encode("Node", {"number": len(data)})[1:] if data else b"\0"
        data = b"\x22" + size + data
    return data


def test_depth_is_limited_also_in_unknown_groups() -> None:
    message = SMALL.decode("Node", _chain(MAX_DEPTH))
    for _ in range(MAX_DEPTH):
        message = message["child"]
    assert message == node()
    with pytest.raises(WireError, match="deep"):
        SMALL.decode("Node", _chain(MAX_DEPTH + 1))
    with pytest.raises(WireError):
        SMALL.decode("Node", b"\x9b\x06" * 5000 + b"\x9c\x06" * 5000)


@pytest.mark.parametrize(
    "fields",
    [
        {"number": 2**31},
        {"number": -(2**31) - 1},
        {"number": 1.0},
        {"number": "1"},
        {"dims": [-1]},
        {"dims": [2**32]},
        {"sizes": {"a": 2**63}},
        {"name": b"bytes"},
        {"name": "\ud800"},
        {"blob": "text"},
        {"weights": ["1"]},
        {"weights": [1e39]},
        {"choice": {"flag": 2}},
    ],
)
def test_values_that_do_not_fit_are_refused(fields: Dict[str, Any]) -> None:
    with pytest.raises(WireError):
        SMALL.encode("Node", fields)


def test_an_inner_message_may_be_given_as_bytes() -> None:
    inner = SMALL.encode("Node", node(number=7))
    whole = {"child": inner, "children": [inner, node(name="x")]}
    assert SMALL.decode("Node", SMALL.encode("Node", whole)) == node(
        child=node(number=7), children=[node(number=7), node(name="x")]
    )


# ---------------------------------------------------------------- against the protobuf library


@pytest.fixture(scope="module")
def google() -> Dict[str, Any]:
    """The genuine library's classes of the same tables."""
    pytest.importorskip("google.protobuf", reason="compares with the protobuf library")
    from .protobuf import messages

    return messages()


def plain(kind: str, message: Any) -> Dict[str, Any]:
    """A message of the genuine library in our form, without what is unknown."""
    set_case = message.WhichOneof("choice") if kind in CHOICES else None
    found = {}
    for name, _, field in TABLES[kind]:
        if kind in CHOICES and name != set_case:
            continue
        value, inner = getattr(message, name), field.strip("[{}]")
        if inner not in TABLES:
            value = list(value) if field[0] == "[" else dict(value) if field[0] == "{" else value
        elif field[0] == "[":
            value = [plain(inner, item) for item in value]
        elif field[0] == "{":
            value = {key: plain(inner, value[key]) for key in value}
        else:
            value = plain(inner, value) if message.HasField(name) else None
        found[name] = value
    return found


def known(message: Any) -> Any:
    """A message without what is unknown, to be compared: one not-a-number is like another."""
    if isinstance(message, float) and message != message:
        return "nan"
    if isinstance(message, dict):
        return {key: known(value) for key, value in message.items() if key != UNKNOWN}
    return [known(item) for item in message] if isinstance(message, list) else message


def test_every_genuine_file_is_read_and_written_alike(shared: Path, google: Dict[str, Any]) -> None:
    files = sorted(shared.glob("xmodels/*.xmodel")) + sorted(shared.glob("golden/**/*.xmodel"))
    assert len(files) > 20
    for file in files:
        data = file.read_bytes()
        theirs, ours = google["Graph"].FromString(data), SCHEMA.decode("Graph", data)
        assert known(ours) == plain("Graph", theirs), file.name
        assert google["Graph"].FromString(SCHEMA.encode("Graph", ours)) == theirs


def _float32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


_SCALARS: Dict[str, Any] = {
    "bool": st.booleans(),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "uint32": st.integers(0, 2**32 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "uint64": st.integers(0, 2**64 - 1),
    "float": st.floats(width=32, allow_nan=False),
    "double": st.floats(allow_nan=False),
    "string": st.text(max_size=5),
    "bytes": st.binary(max_size=5),
}


def values(kind: str, depth: int = 0) -> Any:
    """Any value of a field of this type."""
    if kind[0] == "[":
        return st.lists(values(kind[1:-1], depth), max_size=3)
    if kind[0] == "{":
        return st.dictionaries(st.text(max_size=4), values(kind[1:-1], depth), max_size=2)
    if kind in _SCALARS:
        return _SCALARS[kind]
    if kind in CHOICES:
        cases = [st.fixed_dictionaries({n: values(k, depth + 1)}) for n, _, k in TABLES[kind]]
        return st.one_of(st.just({}), *cases)
    if depth > 2:
        return st.just(SCHEMA.decode(kind, b""))
    fields = {}
    for name, _, field in TABLES[kind]:
        value = values(field, depth + 1)
        fields[name] = st.none() | value if field in TABLES else value
    return st.fixed_dictionaries(fields)


@pytest.mark.parametrize("kind", ["AttrValue", "Tensor", "OPNode", "SubGraph", "AttrDef", "OpDef"])
def test_any_message_passes_through_the_library(kind: str, google: Dict[str, Any]) -> None:
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(message=values(kind))
    def check(message: Dict[str, Any]) -> None:
        data = SCHEMA.encode(kind, message)
        theirs = google[kind].FromString(data)
        assert plain(kind, theirs) == message
        assert SCHEMA.decode(kind, theirs.SerializeToString()) == message
        assert SCHEMA.decode(kind, data) == message

    check()


def damaged(data: bytes, random: np.random.Generator) -> bytes:
    """One of the ways in which a file is damaged."""
    changed = bytearray(data)
    for _ in range(int(random.integers(1, 4))):
        at, kind = int(random.integers(0, len(changed))), int(random.integers(0, 5))
        if kind == 0:
            del changed[at:]
        elif kind == 1:
            changed[at] ^= 1 << int(random.integers(0, 8))
        elif kind == 2:
            changed[at] = int(random.integers(0, 256))
        elif kind == 3:
            changed[at:at] = random.integers(0, 256, 3, np.uint8).tobytes()
        else:
            del changed[at : at + int(random.integers(1, 20))]
        if not changed:
            break
    return bytes(changed)


def test_damaged_bytes_are_read_or_refused_alike(google: Dict[str, Any]) -> None:
    from google.protobuf.message import DecodeError

    random = np.random.default_rng(4)
    whole = SCHEMA.encode("Graph", _small_graph())
    outcomes: Dict[str, int] = {"read": 0, "refused": 0}
    for _ in range(4000):
        data = damaged(whole, random)
        try:
            theirs = google["Graph"].FromString(data)
        except (DecodeError, UnicodeDecodeError):
            with pytest.raises(WireError):
                SCHEMA.decode("Graph", data)
            outcomes["refused"] += 1
            continue
        try:
            ours = SCHEMA.decode("Graph", data)
        except WireError as error:
            # Releases before 5 let some keys through and hand them out as bytes.
            if "UTF-8" not in str(error):
                raise
            outcomes["refused"] += 1
            continue
        assert known(ours) == known(plain("Graph", theirs))
        outcomes["read"] += 1
    assert min(outcomes.values()) > 300


def _small_graph() -> Dict[str, Any]:
    attrs = {
        "flag": {"BOOL": True},
        "kernel": {"INT32S": {"value": [3, 3, -1]}},
        "scale": {"FLOATS": {"value": [1.5, 2.5]}},
        "names": {"STRINGS": {"value": ["a", "bc"]}},
        "sizes": {"MAP_INT64": {"value": {"x": 2**40}}},
        "lists": {"MAP_INT32S": {"value": {"x": {"value": [1, 2]}}}},
    }
    tensor = {
        "tensor_name": "t", "tensor_dim": [1, 224, 224, 3], "data_type": 3,
        "tensor_bit_width": 32, "tensor_attr": {"fix_point": {"INT32": -3}},
    }  # fmt: skip
    return {
        "graph_name": "small",
        "op_node": [
            {"op_name": "a", "op_type": "data", "op_attr": attrs, "output_tensor": tensor},
            {"op_name": "b", "op_type": "relu", "args": [{"arg_name": "input", "arg_ops": ["a"]}]},
        ],
        "subg_root": {"subgraph_name": "root", "subg_child": [{"op_name": ["a", "b"]}]},
        "op_defs": [{"name": "data", "attrs": [{"name": "shape", "default_value": attrs["flag"]}]}],
    }
