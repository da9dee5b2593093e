"""Graphs built through the drop-in ``xir``: attributes, definitions, wiring, inferred shapes."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np
import pytest

from deepfake_fpga.compile.xir import AttrKind, read_xmodel
from deepfake_fpga.compile.xir.schema import SCHEMA
from deepfake_fpga.deploy import simulate
from deepfake_fpga.deploy.simulate import SimulateOptions, XirAbort
from deepfake_fpga.deploy.simulate.xir.inside import graph_of

FIX = {"fix_point": 4, "bit_width": 8, "round_mode": "DPU_ROUND", "if_signed": True}


@pytest.fixture
def xir() -> Iterator[ModuleType]:
    simulate.install()
    import xir as module

    yield module
    simulate.uninstall()


@pytest.fixture
def graph(xir: ModuleType) -> Any:
    return xir.Graph("g")


def aborts(call: Callable[[], Any]) -> str:
    """The identifier of the abort that ``call`` ends in."""
    with pytest.raises(XirAbort) as failure:
        call()
    return failure.value.identifier


def data(graph: Any, name: str, shape: Sequence[int], kind: str = "float32") -> Any:
    return graph.create_op(name, "data", {"shape": list(shape), "data_type": kind})


# ---------------------------------------------------------------- attributes


@pytest.mark.parametrize(
    ("value", "read", "kind"),
    [
        (True, True, AttrKind.BOOL),
        (7, 7, AttrKind.INT32),
        (-(2**31), -(2**31), AttrKind.INT32),
        (0.1, 0.1, AttrKind.DOUBLE),
        (np.float64(0.1), 0.1, AttrKind.DOUBLE),
        ("DPU", "DPU", AttrKind.STRING),
        (b"\0\xff", b"\0\xff", AttrKind.BYTES),
        (b"", b"", AttrKind.BYTES),
        (np.arange(3, dtype="<i2"), b"\0\0\1\0\2\0", AttrKind.BYTES),
        ([1, 2], [1, 2], AttrKind.INT32S),
        ([True, False], [1, 0], AttrKind.INT32S),
        ([0.1, 2.0], [0.1, 2.0], AttrKind.DOUBLES),
        (["a", "b"], ["a", "b"], AttrKind.STRINGS),
        ({"run": "a.so"}, {"run": "a.so"}, AttrKind.MAP_STRING),
        ({"REG_0": 16}, {"REG_0": 16}, AttrKind.MAP_INT32),
        ({"a": 0.5}, None, AttrKind.NONE),
    ],
)
def test_what_becomes_of_a_value(
    graph: Any, tmp_path: Path, value: Any, read: Any, kind: AttrKind
) -> None:
    op = data(graph, "d", (1, 4))
    for handle in (graph, op, op.get_output_tensor(), graph.get_root_subgraph()):
        assert handle.set_attr("mine", value) is None
        assert handle.has_attr("mine")
        found = handle.get_attr("mine")
        assert found == read
        assert type(found) is type(read)
        assert handle.get_attrs()["mine"] == read
    file = tmp_path / "g.xmodel"
    graph.serialize(str(file))
    back = read_xmodel(file)
    assert [o.attrs["mine"].kind for o in (back, back.op("d"), back.op("d").tensor)] == [kind] * 3
    again = type(graph).deserialize(str(file))
    assert again.get_attr("mine") == read


@pytest.mark.parametrize(
    "value",
    [
        (1, 2),
        None,
        np.int32(3),
        np.int64(3),
        np.uint8(3),
        np.float32(0.5),
        bytearray(b"x"),
        [1.5, 2],
        [1, 2.5],
        ["a", 1],
        [[1], [2]],
        [None],
        [np.int64(1)],
        [],
        {},
        {"a": {"b": 1}},
        {"a": [1]},
        {1: 2},
        {"a": b"x"},
        {"a": 1, "b": "c"},
        object(),
    ],
    ids=lambda value: "object" if type(value) is object else repr(value),
)
def test_values_that_no_attribute_can_hold(graph: Any, value: Any) -> None:
    assert aborts(lambda: graph.set_attr("mine", value)) == "PYXIR_INVALID_DATA_TYPE"
    assert not graph.has_attr("mine")


def test_the_words_for_values_that_cannot_be_held(
    graph: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    for value, words in (
        (None, "Unsupported data type!"),
        ([], "Cannot set empty List"),
        ({}, "Cannot set empty Dict"),
    ):
        assert aborts(lambda value=value: graph.set_attr("mine", value))
        assert words in capfd.readouterr().err


def test_integers_beyond_32_bits_are_a_runtime_error(graph: Any) -> None:
    for value in (2**31, -(2**31) - 1, [1, 2**40], {"a": 2**31}):
        with pytest.raises(RuntimeError, match="Unable to cast"):
            graph.set_attr("mine", value)
    assert graph.get_attrs() == {}


def test_an_absent_attribute_aborts(graph: Any, capfd: pytest.CaptureFixture[str]) -> None:
    op = data(graph, "d", (1, 4))
    for handle in (graph, op, op.get_output_tensor(), graph.get_root_subgraph()):
        assert not handle.has_attr("mine")
        assert aborts(lambda handle=handle: handle.get_attr("mine")) == "XIR_UNREGISTERED_ATTR"
        assert "Attrs doesn't contain attribute mine" in capfd.readouterr().err


def test_set_attrs_replaces_all(graph: Any) -> None:
    graph.set_attrs({"a": 1, "b": 2})
    graph.set_attrs({"b": 3})
    assert graph.get_attrs() == {"b": 3}
    assert aborts(lambda: graph.set_attrs({"c": 1, "d": None})) == "PYXIR_INVALID_DATA_TYPE"
    assert graph.get_attrs() == {"b": 3}
    copy = graph.get_attrs()
    copy["e"] = 1
    assert not graph.has_attr("e")


def test_set_attrs_of_an_operator_needs_the_required_ones(graph: Any) -> None:
    op = graph.create_op("f", "fix", FIX, {"input": [data(graph, "d", (1, 4))]})
    assert aborts(lambda: op.set_attrs({"fix_point": 1})) == "XIR_INVALID_ATTR_OCCUR"
    assert op.get_attrs() == FIX
    op.set_attrs({**FIX, "fix_point": 1, "extra": "kept"})
    assert op.get_attrs() == {**FIX, "fix_point": 1, "extra": "kept"}


def test_private_attributes_are_not_written(xir: ModuleType, graph: Any, tmp_path: Path) -> None:
    data(graph, "d", (1, 4)).set_attr("__batch__", 8)
    graph.set_attr("__device_id__", 1)
    graph.set_attr("_kept", 1)
    graph.serialize(str(tmp_path / "g.xmodel"))
    back = xir.Graph.deserialize(str(tmp_path / "g.xmodel"))
    assert back.get_attrs() == {"_kept": 1}
    assert not back.get_op("d").has_attr("__batch__")
    assert graph.get_attr("__device_id__") == 1


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"axis": np.int64(-1)}, -1),
        ({"axis": True}, 1),
        ({"axis": 2.0}, RuntimeError),
        ({"axis": "1"}, RuntimeError),
        ({"axis": 2**31}, RuntimeError),
        ({"axis": None}, RuntimeError),
        ({"axis": [1]}, RuntimeError),
    ],
    ids=repr,
)
def test_a_defined_integer_is_cast(graph: Any, given: Dict[str, Any], read: Any) -> None:
    def make() -> Any:
        return graph.create_op("s", "softmax", given, {"input": [data(graph, "d", (1, 4, 5))]})

    if read is RuntimeError:
        with pytest.raises(RuntimeError, match="Unable to cast"):
            make()
        assert graph.get_op("s") is None
    else:
        assert make().get_attr("axis") == read


def test_other_defined_attributes_are_cast(graph: Any) -> None:
    source = data(graph, "d", (1, 6, 8, 3))
    pool = graph.create_op(
        "p",
        "maxpool2d",
        {"kernel": (2, 2), "stride": np.array([2, 1]), "pad_mode": "FLOOR", "global": 0, "x": 0.5},
        {"input": [source]},
    )
    assert pool.get_attr("kernel") == [2, 2]
    assert pool.get_attr("stride") == [2, 1]
    assert pool.get_attr("global") is False
    assert pool.get_attr("pad") == [0, 0, 0, 0]
    assert pool.get_attr("x") == 0.5
    pool.set_attr("stride", (1, 2))
    assert pool.get_attr("stride") == [1, 2]
    with pytest.raises(RuntimeError):
        pool.set_attr("stride", [1.0, 2])
    leaky = graph.create_op("l", "leaky-relu", {"alpha": 0.1}, {"input": [source]})
    assert leaky.get_attr("alpha") == float(np.float32(0.1))
    with pytest.raises(RuntimeError):
        leaky.set_attr("alpha", "0.1")
    squeeze = graph.create_op("q", "squeeze", {"axis": []}, {"input": [source]})
    assert squeeze.get_attr("axis") == []
    assert aborts(lambda: squeeze.set_attr("other", (1, 2))) == "PYXIR_INVALID_DATA_TYPE"


def test_an_array_s_memory_is_taken_as_it_lies(graph: Any) -> None:
    square = np.arange(6, dtype=np.uint8).reshape(2, 3)
    graph.set_attr("fortran", np.asfortranarray(square))
    assert graph.get_attr("fortran") == bytes([0, 3, 1, 4, 2, 5])
    graph.set_attr("strided", np.arange(10, dtype=np.uint8)[::2])
    assert graph.get_attr("strided") == bytes([0, 1, 2, 3, 4])


# ---------------------------------------------------------------- operators


def test_operators_get_optional_attributes_and_keep_unknown_ones(graph: Any) -> None:
    image = data(graph, "x", (1, 9, 9, 3))
    weights = graph.create_const_op("w", np.zeros((8, 3, 3, 3), np.float32))
    conv = graph.create_op(
        "c",
        "conv2d",
        {"kernel": [3, 3], "stride": [1, 1], "pad_mode": "FLOOR", "bias_term": False},
        {"input": [image], "weights": [weights]},
    )
    assert conv.get_attrs() == {
        "kernel": [3, 3],
        "stride": [1, 1],
        "dilation": [1, 1],
        "pad_mode": "FLOOR",
        "pad": [0, 0, 0, 0],
        "group": 1,
        "bias_term": False,
    }
    assert (conv.get_input_num(), conv.get_input_num("weights")) == (2, 1)
    assert (conv.get_input_num("bias"), conv.get_input_num(name="no")) == (0, 0)
    assert conv.get_input_ops_by_name("bias") == []
    assert conv.get_input_op("weights") is weights
    assert conv.get_input_tensor("input", 0) is image.get_output_tensor()
    assert conv.get_input_tensors() == [o.get_output_tensor() for o in (image, weights)]
    assert conv.get_input_tensors_by_name("weights") == [weights.get_output_tensor()]
    assert aborts(lambda: conv.get_input_op("bias"))
    assert aborts(lambda: conv.get_input_op("weights", 1))
    assert aborts(lambda: conv.get_input_tensor("no"))


def test_what_a_definition_refuses(graph: Any) -> None:
    x, y = data(graph, "x", (1, 4)), data(graph, "y", (1, 4))
    other = data(type(graph)("other"), "x", (1, 4))
    relu = ("relu", None)
    for (kind, attrs), inputs, identifier in (
        (("fix", {**FIX, "fix_point": None}), {"input": [x]}, RuntimeError),
        (("fix", {"fix_point": 3}), {"input": [x]}, "XIR_INVALID_ATTR_OCCUR"),
        (relu, None, "XIR_INVALID_ARG_OCCUR"),
        (relu, {"input": []}, "XIR_INVALID_ARG_OCCUR"),
        (relu, {"input": [x, y]}, "XIR_INVALID_ARG_OCCUR"),
        (relu, {"input": [x], "weights": [y]}, "XIR_UNREGISTERED_ARG"),
        (relu, {"in": [x]}, "XIR_INVALID_ARG_OCCUR"),
        (relu, {"input": x}, RuntimeError),
        (relu, {"input": ["x"]}, RuntimeError),
        (relu, [x], "PYXIR_INVALID_DATA_TYPE"),
        (("relu", [("a", 1)]), {"input": [x]}, "PYXIR_INVALID_DATA_TYPE"),
        (relu, {"input": [other]}, "XIR_UNDEFINED_OP"),
        (("MyLayer", None), {"input": [x]}, "XIR_INVALID_ATTR_OCCUR"),
        (("data", {"shape": [1], "data_type": "floating"}), None, "XIR_INVALID_DATA_TYPE"),
        (("data", {"shape": [1], "data_type": "Float32"}), None, "XIR_INVALID_DATA_TYPE"),
    ):

        def make(kind: Any = kind, attrs: Any = attrs, inputs: Any = inputs) -> Any:
            return graph.create_op("new", kind, attrs, inputs)

        if identifier is RuntimeError:
            with pytest.raises(RuntimeError):
                make()
        else:
            assert aborts(make) == identifier, (kind, inputs)
        assert graph.get_op_num() == 2
        assert graph.get_root_subgraph().get_op_num() == 2
    assert aborts(lambda: data(graph, "x", (1, 4))) == "XIR_MULTI_DEFINED_OP"
    x.get_output_tensor().name = "x_fix"
    assert aborts(lambda: data(graph, "x_fix", (1, 4))) == "XIR_MULTI_DEFINED_TENSOR"


def test_unknown_types_are_custom_operators(xir: ModuleType, graph: Any, tmp_path: Path) -> None:
    attrs = {"shape": [1, 5], "data_type": "XINT8", "note": "mine"}
    sources = [data(graph, "x", (1, 4)), data(graph, "y", (1, 4))]
    op = graph.create_op("m", "MyLayer", attrs, {"input": sources})
    assert (op.get_output_tensor().dims, op.get_output_tensor().dtype) == ([1, 5], "xint8")
    assert op.get_input_num("input") == 2
    assert aborts(lambda: graph.create_op("n", "MyLayer", attrs, {"in": []})) == (
        "XIR_UNREGISTERED_ARG"
    )
    file = tmp_path / "g.xmodel"
    graph.serialize(str(file))
    stored = [d for d in read_xmodel(file).op_defs if d.name == "MyLayer"]
    assert len(stored) == 1
    assert xir.Graph.deserialize(str(file)).get_op("m").get_attrs() == attrs


def test_releases_before_3_know_custom_operators_from_files_only(
    xir: ModuleType, graph: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attrs = {"shape": [1, 5], "data_type": "XINT8"}
    empty = xir.Graph("empty")
    empty.serialize(str(tmp_path / "empty.xmodel"))
    message = SCHEMA.decode("Graph", (tmp_path / "empty.xmodel").read_bytes())
    message["op_defs"].append({"name": "FromAFile"})
    (tmp_path / "defines.xmodel").write_bytes(SCHEMA.encode("Graph", message))
    for variable, value in SimulateOptions(release="2.5").to_environment().items():
        monkeypatch.setenv(variable, value)
    assert aborts(lambda: graph.create_op("m", "FromAFile", attrs)) == "XIR_UNREGISTERED_OP"
    xir.Graph.deserialize(str(tmp_path / "defines.xmodel"))
    assert graph.create_op("m", "FromAFile", attrs).get_type() == "FromAFile"


def test_constants(graph: Any) -> None:
    for name in (
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float32", "float64"),
    ):
        array = np.arange(6).reshape(2, 3).astype(name)
        op = graph.create_const_op(f"c_{name}", array)
        assert (op.get_type(), op.get_attr("data_type")) == ("const", name)
        assert (op.get_attr("data"), op.get_attr("shape")) == (array.tobytes(), [2, 3])
        tensor = op.get_output_tensor()
        assert (tensor.dims, tensor.dtype, tensor.get_data_size()) == ([2, 3], name, array.nbytes)
    transposed = graph.create_const_op("t", np.arange(6, dtype=np.int8).reshape(2, 3).T)
    assert transposed.get_attr("data") == bytes([0, 3, 1, 4, 2, 5])
    for name in ("float16", "bool", "complex64"):
        assert aborts(lambda name=name: graph.create_const_op("n", np.zeros(2, name)))
    with pytest.raises(RuntimeError):
        graph.create_const_op("n", 3.0)
    assert graph.get_op("n") is None


def test_wiring_is_changed(xir: ModuleType, graph: Any, tmp_path: Path) -> None:
    x, y = data(graph, "x", (1, 4)), data(graph, "y", (1, 5))
    relu = graph.create_op("r", "relu", None, {"input": [x]})
    assert aborts(lambda: graph.remove_op(x)) == "XIR_REMOVE_OP_FAIL"
    relu.replace_input_ops(y, x)
    assert relu.get_input_ops() == {"input": [x]}
    relu.replace_input_ops(x, y)
    assert relu.get_input_ops() == {"input": [y]}
    assert (x.get_fanout_num(), y.get_fanout_ops()) == (0, [relu])
    assert relu.get_output_tensor().dims == [1, 4]
    relu.infer_shape()
    assert relu.get_output_tensor().dims == [1, 5]
    graph.remove_op(x)
    assert graph.get_ops() == {y, relu} == graph.get_root_subgraph().get_ops()
    assert aborts(lambda: relu.set_input_ops("weights", [y])) == "XIR_UNREGISTERED_ARG"
    assert aborts(lambda: relu.set_input_ops("input", [])) == "XIR_INVALID_ARG_OCCUR"
    # What is read may come later than what reads it; the file is in order all the same.
    late = data(graph, "late", (1, 6))
    assert relu.set_input_ops("input", [late]) is relu
    graph.infer_shape()
    assert [op.get_name() for op in graph.toposort()] == ["late", "r", "y"]
    assert graph.get_tail_ops() == {y, relu}
    graph.serialize(str(tmp_path / "g.xmodel"))
    assert xir.Graph.deserialize(str(tmp_path / "g.xmodel")).get_tensor("r").dims == [1, 6]


def test_operators_go_to_the_subgraph_that_is_named(graph: Any) -> None:
    root = graph.get_root_subgraph()
    x = data(graph, "x", (1, 4))
    root.create_child_subgraph()
    leaf = root.find_child_subgraph_by_op(x)
    graph.create_op("r", "relu", None, {"input": [x]}, leaf)
    assert {op.get_name() for op in leaf.get_ops()} == {"x", "r"}
    assert aborts(lambda: graph.create_op("n", "relu", None, {"input": [x]}, root))
    loose = graph.create_op("s", "relu", None, {"input": [x]})
    assert root.get_op_num() == 3
    assert graph.get_leaf_subgraph(loose).get_name() == "subgraph_s"
    graph.remove_op(loose)
    assert root.get_children() == {leaf}


def test_a_cycle_has_no_order(graph: Any) -> None:
    x = data(graph, "x", (1, 4))
    first = graph.create_op("a", "relu", None, {"input": [x]})
    second = graph.create_op("b", "relu", None, {"input": [first]})
    first.set_input_ops("input", [second])
    assert aborts(graph.toposort)


def test_tensors_are_renamed(graph: Any) -> None:
    op, other = data(graph, "x", (1, 4)), data(graph, "y", (1, 4))
    tensor = op.get_output_tensor()
    tensor.name = "x_fix"
    assert (op.get_name(), tensor.name) == ("x", "x_fix")
    assert graph.get_tensor("x_fix") is tensor
    assert graph.get_tensor("x") is None

    def clash() -> None:
        other.get_output_tensor().name = "x_fix"

    assert aborts(clash) == "XIR_MULTI_DEFINED_TENSOR"
    with pytest.raises(TypeError):
        tensor.name = 3


def test_sizes_of_tensors(graph: Any) -> None:
    for shape, kind, elements, size in (
        ([3, 3], "xint4", 9, 5),
        ([2, 5], "float32", 10, 40),
        ([7], "xint8", 7, 7),
        ([], "float32", 0, 0),
    ):
        tensor = data(graph, f"d{kind}{len(shape)}", shape, kind).get_output_tensor()
        assert (tensor.get_element_num(), tensor.get_data_size()) == (elements, size)
        assert tensor.ndim == len(shape)


# ---------------------------------------------------------------- shapes


WIDE = ("workload", "workload_on_arch")
"""Attributes that a script cannot set: they do not fit 32 bits."""


def recreated(xir: ModuleType, original: Any, flip: Optional[str] = None) -> Tuple[Any, List[str]]:
    """``original`` built anew, operator by operator, and the operators whose tensor differs.

    Args:
        flip: an NCHW source whose height and width are exchanged.
    """
    graph, wrong = xir.Graph(original.get_name()), []
    for name in graph_of(original).ops:
        op = original.get_op(name)
        attrs = {k: v for k, v in op.get_attrs().items() if k not in WIDE}
        if name == flip:
            n, c, h, w = attrs["shape"]
            attrs["shape"] = [n, c, w, h]
        inputs = {
            arg: [graph.get_op(source.get_name()) for source in sources]
            for arg, sources in op.get_input_ops().items()
        }
        made = graph.create_op(name, op.get_type(), attrs, inputs).get_output_tensor()
        stored = op.get_output_tensor()
        info = [t.get_attrs().get("shape_info") for t in (made, stored)]
        if (made.dims, made.dtype) != (stored.dims, stored.dtype) or info[0] != info[1]:
            wrong.append(op.get_type())
    return graph, wrong


def test_genuine_graphs_built_anew_have_the_stored_shapes(xir: ModuleType, shared: Path) -> None:
    types = set()
    files = sorted(shared.glob("xmodels/*.xmodel")) + sorted(shared.glob("golden/**/*.xmodel"))
    for file in files:
        if file.name.startswith("rejected"):
            continue
        original = xir.Graph.deserialize(str(file))
        graph, wrong = recreated(xir, original)
        assert wrong == [], file
        assert graph.get_op_num() == original.get_op_num()
        order = [[op.get_name() for op in g.toposort()] for g in (graph, original)]
        assert order[0] == order[1]
        types |= {op.get_type() for op in graph.get_ops()}
    assert len(files) > 20
    assert len(types) >= 30


def test_a_flipped_shape_is_noticed(xir: ModuleType, shared: Path) -> None:
    file = shared / "xmodels" / "quantized_voxelnet.xmodel"
    scatter = next(
        op.get_name()
        for op in xir.Graph.deserialize(str(file)).get_ops()
        if op.get_type() == "PPScatterV2"
    )
    _, wrong = recreated(xir, xir.Graph.deserialize(str(file)), flip=scatter)
    assert {"conv2d", "transposed-conv2d", "concat", "transpose", "relu", "fix"} <= set(wrong)


WINDOW = {"kernel": [5, 3], "stride": [2, 1], "dilation": [1, 2], "pad": [2, 1, 1, 0]}
POOL = {"kernel": [3, 2], "stride": [2, 3], "pad_mode": "FLOOR"}
UP = {"kernel": [4, 2], "stride": [2, 3], "pad": [1, 2, 0, 1], "pad_mode": "FLOOR"}
NEAREST = {"mode": "NEAREST"}
IMAGE = (1, 17, 23, 3)


@pytest.mark.parametrize(
    ("kind", "attrs", "inputs", "expected"),
    [
        # Width (23+3-5)//2+1 = 11, height (17+1-5)/1+1 = 14.
        ("conv2d", {**WINDOW, "pad_mode": "FLOOR"}, [IMAGE, (8, 3, 5, 3)], (1, 14, 11, 8)),
        ("conv2d-fix", WINDOW, [IMAGE, (8, 3, 5, 3)], (1, 14, 11, 8)),
        ("conv2d", {**WINDOW, "pad_mode": "SAME"}, [IMAGE, (8, 3, 5, 3)], (1, 17, 12, 8)),
        ("conv2d", {**WINDOW, "pad_mode": "VALID"}, [IMAGE, (8, 3, 5, 3)], (1, 13, 10, 8)),
        (
            "conv2d",
            {"kernel": [1, 1], "stride": [1, 1], "pad_mode": "FLOOR", "group": 3},
            [(1, 4, 5, 6), (9, 1, 1, 2)],
            (1, 4, 5, 9),
        ),
        (
            "depthwise-conv2d",
            {**WINDOW, "pad_mode": "FLOOR"},
            [IMAGE, (2, 3, 5, 3)],
            (1, 14, 11, 6),
        ),
        # Width (8-1)*2+4-3 = 15, height (5-1)*3+2-1 = 13.
        ("transposed-conv2d", UP, [(1, 5, 8, 4), (6, 2, 4, 4)], (1, 13, 15, 6)),
        (
            "transposed-conv2d",
            {**UP, "pad_mode": "SAME"},
            [(1, 5, 8, 4), (6, 2, 4, 4)],
            (1, 15, 16, 6),
        ),
        (
            "transposed-conv2d",
            {**UP, "pad_mode": "VALID"},
            [(1, 5, 8, 4), (6, 2, 4, 4)],
            (1, 14, 18, 6),
        ),
        # Width (8-3)/2 = 2.5, height (9-2)/3 = 2.3.
        ("maxpool2d", POOL, [(1, 9, 8, 3)], (1, 3, 3, 3)),
        ("maxpool2d", {**POOL, "pad_mode": "CEIL"}, [(1, 9, 8, 3)], (1, 4, 4, 3)),
        ("avgpool2d", {**POOL, "global": True}, [(1, 9, 8, 3)], (1, 1, 1, 3)),
        ("pool-fix", {**POOL, "type": "MAX", "pad": [1, 0, 0, 2]}, [(1, 9, 8, 3)], (1, 4, 4, 3)),
        ("concat", {"axis": -1}, [[(1, 4, 5, 2), (1, 4, 5, 3)]], (1, 4, 5, 5)),
        ("concat-fix", {"axis": 1}, [[(1, 4, 5), (1, 2, 5), (1, 1, 5)]], (1, 7, 5)),
        ("stack", {"axis": 1}, [[(4, 5), (4, 5), (4, 5)]], (4, 3, 5)),
        ("stack", {"axis": -1}, [[(4, 5), (4, 5)]], (4, 5, 2)),
        ("reshape", {"shape": [0, -1, 6]}, [(2, 3, 4, 5)], (2, 10, 6)),
        ("reshape-fix", {"shape": [1, 120]}, [(1, 4, 5, 6)], (1, 120)),
        ("flatten", {"start_axis": 1, "end_axis": -1}, [(2, 3, 4, 5)], (2, 60)),
        ("flatten", {"start_axis": 1, "end_axis": 2}, [(2, 3, 4, 5)], (2, 12, 5)),
        ("squeeze", {"axis": [1, -1]}, [(1, 1, 4, 1)], (1, 4)),
        ("squeeze", {}, [(1, 3, 1, 1)], (3,)),
        ("transpose", {"order": [0, 3, 1, 2]}, [(1, 4, 5, 6)], (1, 6, 4, 5)),
        (
            "strided_slice",
            {"begin": [0, 1, -3, 0], "end": [1, 2**31 - 1, 5, 6], "strides": [1, 2, 1, 4]},
            [(1, 8, 5, 6)],
            (1, 4, 3, 2),
        ),
        ("pad", {"paddings": [0, 0, 1, 2, 3, 4, 0, 0], "mode": "CONSTANT"}, [(1, 4, 5, 6)],
         (1, 7, 12, 6)),
        ("resize", {**NEAREST, "scale": [3.0, 2.0]}, [(1, 4, 5, 6)], (1, 8, 15, 6)),
        ("upsample-fix", {**NEAREST, "scale": [2.0, 4.0]}, [(1, 4, 5, 6)], (1, 16, 10, 6)),
        ("downsample-fix", {**NEAREST, "scale": [2.0, 4.0]}, [(1, 8, 6, 3)], (1, 2, 3, 3)),
        ("reduction_mean", {"axis": [1, 2], "keep_dims": True}, [(2, 4, 5, 6)], (2, 1, 1, 6)),
        ("reduction_sum", {"axis": [-1], "keep_dims": False}, [(2, 4, 5, 6)], (2, 4, 5)),
        ("argmax", {"axis": 3}, [(1, 4, 5, 2)], (1, 4, 5)),
        ("matmul", {"transpose_a": False, "transpose_b": False}, [[(2, 3), (3, 7)]], (2, 7)),
        ("matmul", {"transpose_a": True, "transpose_b": True}, [[(5, 3, 2), (7, 3)]], (5, 2, 7)),
        ("inner-product", {"axis": 1}, [(2, 3, 4), (7, 12)], (2, 7)),
        ("add", {}, [[(2, 1, 5), (3, 1)]], (2, 3, 5)),
        ("eltwise-fix", {}, [[(1, 4, 5, 6), (1, 4, 5, 6)]], (1, 4, 5, 6)),
        ("pixel-shuffle", {"scale": 2, "upscale": True}, [(1, 3, 4, 8)], (1, 6, 8, 2)),
        ("pixel-shuffle", {"scale": 2, "upscale": False}, [(1, 6, 8, 2)], (1, 3, 4, 8)),
        ("tile-fix", {"stride": 2, "reverse": True}, [(1, 3, 4, 8)], (1, 6, 8, 2)),
        ("softmax", {"axis": 1}, [(1, 10)], (1, 10)),
        ("shape", {}, [(1, 4, 5, 6)], (4,)),
    ],
)  # fmt: skip
def test_shapes_that_no_genuine_file_here_has(
    graph: Any, kind: str, attrs: Dict[str, Any], inputs: List[Any], expected: Tuple[int, ...]
) -> None:
    given: Dict[str, List[Any]] = {}
    for arg, shapes in zip(("input", "weights"), inputs):
        several = shapes if isinstance(shapes, list) else [shapes]
        given[arg] = [data(graph, f"{arg}{i}", shape) for i, shape in enumerate(several)]
    op = graph.create_op("op", kind, attrs, given)
    assert tuple(op.get_output_tensor().dims) == expected


def test_element_types(graph: Any) -> None:
    real = data(graph, "f", (1, 4))
    fixed = data(graph, "x", (1, 4), "XINT8")
    for kind, attrs, source, expected in (
        ("fix", FIX, real, "float32"),
        ("float2fix", FIX, real, "xint8"),
        ("float2fix", {**FIX, "bit_width": 16, "if_signed": False}, real, "xuint16"),
        ("fix2float", FIX, fixed, "float32"),
        ("upload", {}, fixed, "xint8"),
        ("cast", {"data_type": "INT32"}, real, "int32"),
    ):
        name = f"{kind}_{expected}"
        made = graph.create_op(name, kind, attrs, {"input": [source]}).get_output_tensor()
        assert (made.dtype, made.dims) == (expected, [1, 4]), kind


def test_a_reshape_may_read_its_shape(graph: Any) -> None:
    numbers = [graph.create_const_op(f"n{v}", np.array([v], np.float32)) for v in (2, -1)]
    shape = graph.create_op("s", "stack", {"axis": 0}, {"input": numbers})
    assert shape.get_output_tensor().get_attr("shape_info") == [2, -1]
    source = data(graph, "d", (4, 6))
    op = graph.create_op("r", "reshape", None, {"input": [source], "shape": [shape]})
    assert op.get_output_tensor().dims == [2, 12]
    unknown = data(graph, "u", (2,))
    assert aborts(
        lambda: graph.create_op("q", "reshape", None, {"input": [source], "shape": [unknown]})
    )


@pytest.mark.parametrize(
    ("kind", "attrs", "inputs"),
    [
        ("conv2d", {**WINDOW, "pad_mode": "FLOOR"}, [IMAGE, (8, 5, 3, 3)]),
        ("conv2d", {**WINDOW, "pad_mode": "FLOOR"}, [IMAGE, (8, 3, 5, 4)]),
        ("conv2d", {**WINDOW, "pad_mode": "FULL"}, [IMAGE, (8, 3, 5, 3)]),
        ("conv2d", {**WINDOW, "pad_mode": "FLOOR", "kernel": [3]}, [IMAGE, (8, 3, 5, 3)]),
        ("maxpool2d", POOL, [(1, 1, 8, 3)]),
        ("maxpool2d", {**POOL, "stride": [0, 1]}, [(1, 9, 8, 3)]),
        ("concat", {"axis": 1}, [[(1, 4), (2, 4)]]),
        ("concat", {"axis": 2}, [[(1, 4), (1, 4)]]),
        ("reshape", {"shape": [3, 5]}, [(4, 4)]),
        ("reshape", {"shape": [3, -1]}, [(4, 4)]),
        ("transpose", {"order": [0, 0]}, [(4, 4)]),
        ("squeeze", {"axis": [0]}, [(4, 4)]),
        ("add", {}, [[(1, 4), (1, 3)]]),
        ("matmul", {"transpose_a": False, "transpose_b": False}, [[(2, 3), (2, 3)]]),
        ("argmax", {"axis": 4}, [(1, 4)]),
        ("resize", NEAREST, [(1, 4, 4, 1)]),
    ],
)
def test_shapes_that_do_not_go_together_abort(
    graph: Any, kind: str, attrs: Dict[str, Any], inputs: List[Any]
) -> None:
    given: Dict[str, List[Any]] = {}
    for arg, shapes in zip(("input", "weights"), inputs):
        several = shapes if isinstance(shapes, list) else [shapes]
        given[arg] = [data(graph, f"{arg}{i}", shape) for i, shape in enumerate(several)]
    count = graph.get_op_num()
    assert aborts(lambda: graph.create_op("op", kind, attrs, given))
    assert graph.get_op_num() == count


def test_shapes_are_inferred_anew(graph: Any) -> None:
    x = data(graph, "x", (1, 8, 8, 3))
    pool = {"kernel": [2, 2], "stride": [2, 2], "pad_mode": "FLOOR"}
    small = graph.create_op("p", "maxpool2d", pool, {"input": [x]})
    last = graph.create_op("r", "relu", None, {"input": [small]})
    x.set_attr("shape", [1, 12, 16, 3])
    assert x.get_output_tensor().dims == [1, 8, 8, 3]
    graph.infer_shape()
    assert last.get_output_tensor().dims == [1, 6, 8, 3]


# ---------------------------------------------------------------- pictures


def test_a_drawing_names_operators_and_edges(graph: Any, tmp_path: Path) -> None:
    x = data(graph, 'x "1"', (1, 4))
    graph.create_op("r", "relu", None, {"input": [x]})
    root = graph.get_root_subgraph()
    graph.save_as_dot(str(tmp_path / "g.dot"))
    text = (tmp_path / "g.dot").read_text()
    assert text.startswith('digraph "g" {')
    assert '"x \\"1\\"" -> "r";' in text
    assert "relu" in text
    root.create_child_subgraph()
    root.find_child_subgraph_by_op(x).save_as_dot(str(tmp_path / "s.dot"))
    part = (tmp_path / "s.dot").read_text()
    assert "->" not in part
    assert "relu" not in part
    assert aborts(lambda: graph.save_as_dot(str(tmp_path / "no" / "g.dot")))


def test_an_image_needs_dot(graph: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data(graph, "x", (1, 4))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert aborts(lambda: graph.save_as_image(str(tmp_path / "g.png"), "png"))
    program = tmp_path / "dot"
    program.write_text('#!/bin/sh\n[ "$1" = -Tpng ] || exit 1\nread -r line; echo "$line" > "$3"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    graph.save_as_image(str(tmp_path / "g.png"), "png")
    assert (tmp_path / "g.png").read_text() == f'digraph "g" {{{os.linesep}'
    assert aborts(lambda: graph.save_as_image(str(tmp_path / "g.svg"), "svg"))
