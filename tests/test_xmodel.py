"""Reading and writing .xmodel files: nothing lost, and every mix-up recognised."""

from __future__ import annotations

import io
import json
import math
import os
import struct
import zipfile
from pathlib import Path
from typing import Any, Dict, List

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepfake_fpga.compile.xir import (
    Attr,
    AttrKind,
    DataType,
    Graph,
    Op,
    OpDef,
    Subgraph,
    Tensor,
    dump_xmodel,
    float32_tensor,
    int8_tensor,
    parse_xmodel,
    read_xmodel,
    write_xmodel,
)
from deepfake_fpga.compile.xir.attributes import blob, int32s, string
from deepfake_fpga.compile.xir.opdefs import definitions, op_defs, problems
from deepfake_fpga.compile.xir.schema import SCHEMA
from deepfake_fpga.compile.xir.wire import UNKNOWN, Message
from deepfake_fpga.compile.xir.xmodel import KINDS
from deepfake_fpga.errors import FormatError, MissingError

REJECTED = "rejected_v1.2_u50_sp_net.xmodel"


def genuine_files(shared: Path) -> List[Path]:
    files = sorted(shared.glob("xmodels/*.xmodel")) + sorted(shared.glob("golden/**/*.xmodel"))
    assert len(files) >= 20
    return [file for file in files if file.name != REJECTED]


def data_op(name: str = "x") -> Op:
    attrs = {"shape": int32s((1, 2, 2, 3)), "data_type": string("float32")}
    return Op(name, "data", float32_tensor(name, (1, 2, 2, 3)), attrs)


def small_graph() -> Graph:
    graph = Graph("small")
    graph.add(data_op())
    graph.root.ops = ["x"]
    return graph


def decoded(graph: Graph) -> Message:
    """The graph's file as a message."""
    return SCHEMA.decode("Graph", dump_xmodel(graph))


# ---------------------------------------------------------------- the vendor's files


def test_round_trip_of_every_genuine_file_is_equal_as_a_message(shared: Path) -> None:
    for file in genuine_files(shared):
        original = file.read_bytes()
        ours = dump_xmodel(parse_xmodel(original, file.name))
        assert SCHEMA.decode("Graph", ours) == SCHEMA.decode("Graph", original), file.name
        assert len(ours) == len(original), file.name


def test_the_protobuf_library_finds_them_equal_too(shared: Path) -> None:
    pytest.importorskip("google.protobuf", reason="compares with the protobuf library")
    from .protobuf import messages

    message = messages()["Graph"]
    for file in genuine_files(shared):
        original = file.read_bytes()
        ours = dump_xmodel(parse_xmodel(original, file.name))
        assert message.FromString(ours) == message.FromString(original), file.name


def test_a_flipped_byte_is_seen_by_that_comparison(shared: Path) -> None:
    original = (shared / "xmodels" / "vck5000_8pe_tf2mnist_v2.5.xmodel").read_bytes()
    where = original.index(b"Mylayer")
    changed = original[:where] + b"N" + original[where + 1 :]
    ours = dump_xmodel(parse_xmodel(changed, "changed"))
    assert SCHEMA.decode("Graph", ours) != SCHEMA.decode("Graph", original)
    assert SCHEMA.decode("Graph", ours) == SCHEMA.decode("Graph", changed)


def test_dump_of_the_vendor_library_agrees(shared: Path) -> None:
    """Op names, types, dims, fix points and input wiring, from the library's own listing."""
    graph = read_xmodel(shared / "xmodels" / "vck5000_8pe_pointpillars_v2.5.xmodel")
    listing = (shared / "xmodels" / "dumps" / "vck5000_8pe_pointpillars_v2.5.txt").read_text()
    seen = 0
    order = list(graph.ops)
    op = None
    for line in listing.splitlines():
        if line.startswith("OP "):
            name = line.split('"')[1]
            op = graph.op(name)
            assert f'type="{op.type}"' in line
            assert f"file_index={order.index(name)} " in line
            seen += 1
        elif op is not None and line.startswith("  output_tensor "):
            dims = ",".join(map(str, op.tensor.dims))
            expected = f'"{op.tensor.name}" dims=[{dims}] dtype={op.tensor.dtype.name} '
            assert line.split("output_tensor ")[1].startswith(expected)
        elif op is not None and line.startswith('    attr "fix_point"'):
            assert line.endswith(f"int32 = {op.tensor.fix_point}")
        elif op is not None and line.startswith('  input "'):
            arg, _, names = line.split('"', 2)[1], None, line.split(": ", 1)[1]
            assert names == " ".join(f'"{n}"' for n in op.inputs[arg])
        elif line.startswith("SUBGRAPH"):
            break
    assert seen == len(graph.ops) == 89


def test_reads_weights_of_a_compiled_file(shared: Path) -> None:
    graph = read_xmodel(shared / "xmodels" / "vck5000_8pe_tf2mnist_v2.5.xmodel")
    dpu = graph.subgraphs("DPU")[0]
    assert dpu.attrs["dpu_fingerprint"] == Attr(AttrKind.UINT64, 360569445167665134)
    blobs = dpu.get("reg_id_to_parameter_value")
    assert set(blobs) == {"REG_0"}
    assert len(blobs["REG_0"]) == dpu.get("reg_id_to_size")["REG_0"]
    assert graph.op("input_1").tensor.name == "quant_input_1"
    assert graph.op("input_1").tensor.fix_point == -2


# ---------------------------------------------------------------- hand-made graphs

_NAMES = st.text(min_size=1, max_size=12).filter(lambda name: not name.startswith("__"))


def _float32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


_SCALARS: Dict[str, Any] = {
    "BOOL": st.booleans(),
    "INT32": st.integers(-(2**31), 2**31 - 1),
    "UINT32": st.integers(0, 2**32 - 1),
    "INT64": st.integers(-(2**63), 2**63 - 1),
    "UINT64": st.integers(0, 2**64 - 1),
    "FLOAT": st.floats(width=32, allow_nan=False),
    "DOUBLE": st.floats(allow_nan=False),
    "STRING": st.text(max_size=9),
    "BYTES": st.binary(max_size=9),
}


def _values(kind: AttrKind) -> Any:
    if kind is AttrKind.NONE:
        return st.none()
    if kind.is_map_of_vectors:
        items = st.lists(_SCALARS[kind.name[4:-1]], max_size=3).map(tuple)
        return st.dictionaries(st.text(max_size=5), items, max_size=3)
    if kind.is_map:
        return st.dictionaries(st.text(max_size=5), _SCALARS[kind.name[4:]], max_size=3)
    if kind.is_vector:
        scalar = "BYTES" if kind is AttrKind.BYTES_LIST else kind.name[:-1]
        return st.lists(_SCALARS[scalar], max_size=4).map(tuple)
    return _SCALARS[kind.name]


def _attrs(kind: AttrKind) -> Any:
    names = _NAMES.filter(lambda name: name not in KINDS)  # these have one kind only
    return st.dictionaries(names, _values(kind).map(lambda v: Attr(kind, v)), max_size=2)


@pytest.mark.parametrize("kind", list(AttrKind), ids=lambda kind: kind.name)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(draw=st.data())
def test_every_attribute_kind_survives(kind: AttrKind, draw: st.DataObject) -> None:
    graph = Graph(draw.draw(_NAMES))
    graph.attrs = draw.draw(_attrs(kind))
    first = graph.add(data_op(draw.draw(_NAMES)))
    first.tensor.attrs = draw.draw(_attrs(kind))
    dims = tuple(draw.draw(st.lists(st.integers(-1, 2**31 - 1), max_size=5)))
    custom = Tensor("t / (:.)", dims, DataType.XUINT, 3)
    inputs = {"input": (first.name, first.name), "bias": ()}
    graph.add(Op(first.name + "'", "Some new type", custom, draw.draw(_attrs(kind)), inputs))
    leaf = Subgraph("leaf", draw.draw(_attrs(kind)), [first.name])
    graph.root.children = [leaf, Subgraph("empty", {"device": string("cpu")})]

    back = parse_xmodel(dump_xmodel(graph), "back")

    assert back.name == graph.name
    assert back.attrs == graph.attrs
    assert list(back.ops.items()) == list(graph.ops.items())
    assert back.root == graph.root
    assert dump_xmodel(back) == dump_xmodel(graph)


def test_kinds_are_kept_apart() -> None:
    graph = small_graph()
    graph.attrs = {
        "a": Attr(AttrKind.INT32, 1),
        "b": Attr(AttrKind.UINT64, 1),
        "c": Attr(AttrKind.BOOL, True),
        "d": Attr(AttrKind.DOUBLE, 1.0),
        "e": Attr(AttrKind.BYTES, b""),
        "f": Attr(AttrKind.INT32S, ()),
        "g": Attr(AttrKind.MAP_BYTES, {}),
        "h": Attr(AttrKind.BOOL, False),
    }
    back = parse_xmodel(dump_xmodel(graph), "back")
    assert {key: attr.kind for key, attr in back.attrs.items()} == {
        key: attr.kind for key, attr in graph.attrs.items()
    }
    assert isinstance(back.get("c"), bool)


def test_not_a_number_survives() -> None:
    graph = small_graph()
    graph.attrs["nan"] = Attr(AttrKind.FLOATS, (float("nan"), float("inf")))
    first, second = parse_xmodel(dump_xmodel(graph), "back").get("nan")
    assert math.isnan(first)
    assert second == float("inf")


def test_process_private_attributes_are_not_written() -> None:
    graph = small_graph()
    graph.attrs["__device_id__"] = string("0")
    assert parse_xmodel(dump_xmodel(graph), "back").attrs == {}


def test_fields_of_a_later_format_survive() -> None:
    message = decoded(small_graph())
    later = bytes([0x9A, 0x06, 3]) + b"new"  # field 99, three bytes
    op = message["op_node"][0]
    for part in (op, op["output_tensor"], message["subg_root"], message):
        part[UNKNOWN] = later
    message["graph_attr"]["k"] = {UNKNOWN: later}
    graph = parse_xmodel(SCHEMA.encode("Graph", message), "later")
    assert graph.unknown == later
    assert graph.attrs["k"] == Attr(AttrKind.NONE, later)
    assert decoded(graph) == message


def test_op_definitions_are_kept_as_they_came() -> None:
    graph = small_graph()
    wire = SCHEMA.encode("OpDef", {"name": "Mine", "annotation": "a"})
    graph.op_defs = [OpDef("Mine", wire)]
    assert parse_xmodel(dump_xmodel(graph), "back").op_defs == graph.op_defs


def test_a_value_of_the_wrong_kind_is_named(tmp_path: Path) -> None:
    graph = small_graph()
    graph.op("x").attrs["stride"] = Attr(AttrKind.INT32S, (2**40,))
    with pytest.raises(FormatError, match="'stride' of operator 'x'"):
        write_xmodel(graph, tmp_path / "f.xmodel")
    assert list(tmp_path.iterdir()) == []


def test_writing_replaces_whole_files(tmp_path: Path) -> None:
    target = tmp_path / "f.xmodel"
    target.write_bytes(b"old")
    write_xmodel(small_graph(), target)
    assert read_xmodel(target).ops == small_graph().ops
    assert os.listdir(str(tmp_path)) == ["f.xmodel"]
    with pytest.raises(MissingError, match="cannot be written"):
        write_xmodel(small_graph(), target / "f.xmodel")


# ---------------------------------------------------------------- refusals


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", b"1")
    return file.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
ONNX = b"\x08\x08\x12\x07pytorch\x1a\x032.0:\x05\x0a\x03abcB\x04\x0a\x00\x10\x0d"


@pytest.mark.parametrize(
    ("data", "cause", "next_step"),
    [
        (b"", "is empty", "again"),
        (LFS, "Git-LFS pointer", "git lfs pull"),
        (b"\n\n<!DOCTYPE html><html><body>404</body></html>", "HTML", "raw file"),
        (b'<?xml version="1.0"?><a/>', "XML", "raw file"),
        (json.dumps({"target": "DPUCVDX8H_ISA1_F2W2_8PE"}).encode(), "JSON", ".xmodel"),
        (b"a few words\nof text\n", "text file", ".xmodel"),
        (ONNX, "ONNX", ".xmodel"),
        (_zip(), "PyTorch checkpoint", ".xmodel"),
        (b"\x7fELF\x02\x01\x01\x00", "ELF", ".xmodel"),
        (b"xclbin2\x00\xff\xff\xff", "xclbin", ".xmodel"),
    ],
    ids=["empty", "lfs", "html", "xml", "json", "text", "onnx", "zip", "elf", "xclbin"],
)
def test_foreign_files_are_named(tmp_path: Path, data: bytes, cause: str, next_step: str) -> None:
    file = tmp_path / "UYNet_int.xmodel"
    file.write_bytes(data)
    with pytest.raises(FormatError) as caught:
        read_xmodel(file)
    assert cause in caught.value.cause
    assert str(file) in caught.value.cause
    assert caught.value.evidence
    assert next_step in caught.value.next_step


def test_truncation_at_any_place_is_refused() -> None:
    graph = small_graph()
    graph.add(Op("y", "relu", float32_tensor("y", (1, 2, 2, 3)), {}, {"input": ("x",)}))
    graph.root.ops = ["x", "y"]
    data = dump_xmodel(graph)
    # The definitions at the end are not looked at by any reader: a cut between two is harmless.
    message = {**SCHEMA.decode("Graph", data), "op_defs": []}
    for length in range(len(SCHEMA.encode("Graph", message))):
        with pytest.raises(FormatError):
            parse_xmodel(data[:length], "cut")


def test_truncation_inside_a_message_says_so() -> None:
    graph = small_graph()
    graph.add(
        Op(
            "w",
            "const",
            float32_tensor("w", (64,)),
            {"shape": int32s((64,)), "data_type": string("float32"), "data": blob(b"\1" * 256)},
        )
    )
    data = dump_xmodel(graph)
    with pytest.raises(FormatError, match="truncated"):
        parse_xmodel(data[: data.index(b"\1" * 256) + 9], "cut")


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no file"):
        read_xmodel(tmp_path / "absent.xmodel")
    with pytest.raises(MissingError, match="folder"):
        read_xmodel(tmp_path)


def test_over_two_gibibytes_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "big.xmodel"
    with file.open("wb") as handle:
        handle.truncate(2**31)  # sparse
    with pytest.raises(FormatError, match="over 2 GiB"):
        read_xmodel(file)


def test_operators_without_tensors_are_the_old_format() -> None:
    message = decoded(small_graph())
    message["op_node"][0]["output_tensor"] = None
    with pytest.raises(FormatError, match=r"release 1\.2"):
        parse_xmodel(SCHEMA.encode("Graph", message), "v1")


def test_a_genuine_file_of_the_old_format_is_refused(shared: Path) -> None:
    with pytest.raises(FormatError, match=r"release 1\.2") as caught:
        read_xmodel(shared / "xmodels" / REJECTED)
    assert "'shape'" in caught.value.evidence
    assert "compile the model again" in caught.value.next_step


@pytest.mark.parametrize(
    ("op_type", "attrs", "inputs", "fault"),
    [
        ("data", {"data_type": string("x")}, {}, "'shape' is missing"),
        ("concat", {"axis": Attr(AttrKind.INT64, 3)}, {"input": ("x",)}, "INT64, not INT32"),
        ("relu", {}, {}, "input 'input' is missing"),
        ("relu", {}, {"input": ("x", "x")}, "given 2 times"),
        ("relu", {}, {"input": ("x",), "size": ()}, "no input 'size'"),
    ],
)
def test_operators_the_vendor_would_abort_at_are_not_written(
    op_type: str, attrs: Dict[str, Attr], inputs: Dict[str, Any], fault: str
) -> None:
    graph = small_graph()
    graph.add(Op("y", op_type, float32_tensor("y", (1,)), attrs, inputs))
    with pytest.raises(FormatError) as caught:
        dump_xmodel(graph)
    assert fault in caught.value.evidence


def _bare(wire: bytes) -> Any:
    """An operator definition without its prose."""
    message = SCHEMA.decode("OpDef", wire)
    for part in [message, *message["input_args"], *message["attrs"]]:
        del part["annotation"]
    return message


def test_operator_definitions_equal_the_genuine_ones(shared: Path) -> None:
    file = shared / "golden" / "uynet_w8" / "quantize_result" / "UYNet_int.xmodel"
    genuine = {d.name: _bare(d.wire) for d in read_xmodel(file).op_defs}
    ours = {d.name: _bare(d.wire) for d in op_defs(definitions())}
    assert set(ours) == set(genuine)
    for name, definition in ours.items():
        assert definition == genuine[name], name


def test_every_known_operator_of_the_genuine_files_is_sound(shared: Path) -> None:
    checked = set()
    for file in genuine_files(shared):
        for op in read_xmodel(file).ops.values():
            assert problems(op) == [], (file.name, op.name)
            checked.add(op.type)
    assert {"conv2d", "conv2d-fix", "transposed-conv2d-fix", "fix", "upload"} <= checked


def test_our_files_carry_the_definitions_of_their_operators() -> None:
    back = parse_xmodel(dump_xmodel(small_graph()), "back")
    assert [d.name for d in back.op_defs] == ["data"]


@pytest.mark.parametrize("absent", ["op_node", "subg_root"])
def test_incomplete_messages_are_refused(absent: str) -> None:
    message = decoded(small_graph())
    del message[absent]
    with pytest.raises(FormatError, match=r"operators|subgraph tree"):
        parse_xmodel(SCHEMA.encode("Graph", message), "f")


def test_broken_subgraph_trees_are_refused() -> None:
    for ops, child_ops, match in [
        (["x", "x"], None, "second time"),
        (["z"], None, "'z', which is no operator"),
        (["x"], ["x"], "operators and children"),
    ]:
        message = decoded(small_graph())
        message["subg_root"]["op_name"] = ops
        if child_ops:
            message["subg_root"]["subg_child"] = [{"op_name": child_ops}]
        with pytest.raises(FormatError) as caught:
            parse_xmodel(SCHEMA.encode("Graph", message), "f")
        assert match in caught.value.evidence


def test_inputs_that_do_not_come_first_are_refused() -> None:
    message = decoded(small_graph())
    message["op_node"][0]["args"] = [{"arg_name": "input", "arg_ops": ["later"]}]
    with pytest.raises(FormatError, match="'later'"):
        parse_xmodel(SCHEMA.encode("Graph", message), "f")


def test_unknown_element_type_is_refused() -> None:
    tensor = int8_tensor("t", (1,), 3)
    tensor.bits = 0
    graph = Graph("g")
    graph.add(Op("t", "custom", tensor))
    with pytest.raises(FormatError, match="element type"):
        parse_xmodel(dump_xmodel(graph), "f")
