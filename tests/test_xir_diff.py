"""Comparison of graphs: nothing differs from itself, and every kind of change is named."""

from __future__ import annotations

import copy
import struct
from pathlib import Path
from typing import Callable, Dict, List, Tuple

import pytest

from deepfake_fpga.compile.xir import (
    Attr,
    AttrKind,
    Graph,
    Op,
    Subgraph,
    dump_xmodel,
    float32_tensor,
    parse_xmodel,
    read_xmodel,
)
from deepfake_fpga.compile.xir.attributes import blob, boolean, int32, int32s, string, strings
from deepfake_fpga.compile.xir.diff import Difference, diff_graphs, without_trace_label

LABELS_A = {"conv": "ret_3", "relu": "4490", "twin": "4510", "cat": "ret"}
LABELS_B = {"conv": "input_2", "relu": "148", "twin": "ret_3", "cat": "184"}


def net(labels: Dict[str, str], values: Tuple[float, ...] = (0.5, -0.25)) -> Graph:
    """Conv, two relus of it, concat; with a fix at the end."""
    graph = Graph("Net")
    dims = (1, 4, 4, 2)

    def add(name: str, op_type: str, attrs: Dict[str, Attr], **inputs: Tuple[str, ...]) -> str:
        graph.add(Op(name, op_type, float32_tensor(name, dims), attrs, dict(inputs)))
        return name

    data = struct.pack("<2f", *values)
    shape = {"shape": int32s((2,)), "data_type": string("float32"), "data": blob(data)}
    weights = add("Net__conv_weight", "const", shape)
    source = add("Net__input_0", "data", {"shape": int32s(dims), "data_type": string("float32")})
    conv_attrs = {"kernel": int32s((1, 1)), "stride": int32s((1, 1)), "pad_mode": string("FLOOR")}
    conv = add(
        f"Net__Net_Conv2d_conv__{labels['conv']}",
        "conv2d",
        conv_attrs,
        input=(source,),
        weights=(weights,),
        bias=(),
    )
    relu = add(f"Net__Net_ReLU_relu__{labels['relu']}", "relu", {}, input=(conv,))
    twin = add(f"Net__Net_ReLU_twin__{labels['twin']}", "relu", {}, input=(conv,))
    cat = add(f"Net__Net_{labels['cat']}", "concat", {"axis": int32(3)}, input=(relu, twin))
    fix_attrs = {
        "fix_point": int32(5),
        "bit_width": int32(8),
        "round_mode": string("DPU_ROUND"),
        "if_signed": boolean(True),
    }
    fix = add(cat + "_fix", "fix", fix_attrs, input=(cat,))
    graph.attrs["return_ops"] = strings((fix,))
    graph.root.ops = list(graph.ops)
    return graph


def reordered(graph: Graph) -> Graph:
    """The same graph with the constant added as late as possible."""
    other = Graph(graph.name)
    names = list(graph.ops)
    for name in names[1:2] + names[:1] + names[2:]:
        other.add(graph.ops[name])
    other.attrs, other.root = graph.attrs, copy.deepcopy(graph.root)
    other.root.ops.reverse()
    return other


def test_equal_graphs_have_no_difference_in_any_order() -> None:
    graph = net(LABELS_A)
    assert diff_graphs(graph, reordered(graph)) == []
    assert diff_graphs(graph, reordered(graph), ignore_trace_numbers=True) == []


def test_trace_labels_are_disregarded_only_on_request() -> None:
    left, right = net(LABELS_A), net(LABELS_B)
    assert diff_graphs(left, right, ignore_trace_numbers=True) == []
    strict = diff_graphs(left, right)
    assert Difference("operator Net__Net_ReLU_relu__4490", "missing", "relu", "") in strict


def test_a_label_shared_by_different_operators_does_not_pair_them() -> None:
    """``ret_3`` is the convolution on one side and a relu on the other."""
    left, right = net(LABELS_A), net(LABELS_B)
    right.op("Net__Net_ReLU_twin__ret_3").attrs["extra"] = int32(1)
    assert diff_graphs(left, right, ignore_trace_numbers=True) == [
        Difference("operator Net__Net_ReLU_twin__4510", "attribute extra", "", "INT32 1")
    ]


def test_names_are_compared_apart_from_the_label() -> None:
    left, right = net(LABELS_A), net(LABELS_B)
    renamed = parse_xmodel(
        dump_xmodel(right).replace(b"Net__Net_ReLU_relu__148", b"Net__Net_ReLU_rely__148"), "f"
    )
    found = diff_graphs(left, renamed, ignore_trace_numbers=True)
    assert {(d.where, d.what) for d in found} == {
        ("operator Net__Net_ReLU_relu__4490", "name"),
        ("operator Net__Net_ReLU_relu__4490", "tensor name"),
    }


@pytest.mark.parametrize(
    ("name", "bare"),
    [
        ("Net__Net_Conv2d_0__ret_3", "Net__Net_Conv2d_0__#"),
        ("Net__Net_ReLU_2__4490_fix", "Net__Net_ReLU_2__#_fix"),
        ("Net__Net_4810_fix_", "Net__Net_#_fix_"),
        ("Net__Net_input", "Net__Net_#"),
        ("Net__Net_ret_43_shape_attr_0_", "Net__Net_#_shape_attr_#_"),
        ("Net__up1_conv_double_conv_0_weight_fix", "Net__up1_conv_double_conv_0_weight_fix"),
        ("Net__linear_1_bias", "Net__linear_1_bias"),
    ],
)
def test_where_the_label_is(name: str, bare: str) -> None:
    assert without_trace_label(name) == bare


def _dims(graph: Graph) -> None:
    graph.op("Net__Net_Conv2d_conv__ret_3").tensor.dims = (1, 4, 4, -1)


def _kind(graph: Graph) -> None:
    graph.op("Net__Net_ret").attrs["axis"] = Attr(AttrKind.INT64, 3)


def _pad(graph: Graph) -> None:
    graph.op("Net__Net_Conv2d_conv__ret_3").attrs["stride"] = int32s((2, 1))


def _swap(graph: Graph) -> None:
    op = graph.op("Net__Net_ret")
    op.inputs["input"] = tuple(reversed(op.inputs["input"]))


def _fix_point(graph: Graph) -> None:
    graph.op("Net__input_0").tensor.attrs["fix_point"] = int32(7)


def _output_order(graph: Graph) -> None:
    graph.attrs["return_ops"] = strings(("Net__Net_ret",))


def _name(graph: Graph) -> None:
    graph.name = "Other"


def _type(graph: Graph) -> None:
    graph.op("Net__Net_ret_fix").type = "float2fix"


def _bits(graph: Graph) -> None:
    graph.op("Net__input_0").tensor.bits = 16


CHANGES: List[Tuple[Callable[[Graph], None], str, str, str, str]] = [
    (_dims, "operator Net__Net_Conv2d_conv__ret_3", "shape", "1x4x4x2", "1x4x4x?"),
    (_kind, "operator Net__Net_ret", "attribute axis", "INT32 3", "INT64 3"),
    (
        _pad,
        "operator Net__Net_Conv2d_conv__ret_3",
        "attribute stride",
        "INT32S [1, 1]",
        "INT32S [2, 1]",
    ),
    (
        _swap,
        "operator Net__Net_ret",
        "input input",
        "Net__Net_ReLU_relu__4490, Net__Net_ReLU_twin__4510",
        "Net__Net_ReLU_twin__4510, Net__Net_ReLU_relu__4490",
    ),
    (_fix_point, "operator Net__input_0", "tensor attribute fix_point", "", "INT32 7"),
    (
        _output_order,
        "graph",
        "attribute return_ops",
        "STRINGS ['Net__Net_ret_fix']",
        "STRINGS ['Net__Net_ret']",
    ),
    (_name, "graph", "name", "Net", "Other"),
    (_type, "operator Net__Net_ret_fix", "type", "fix", "float2fix"),
    (_bits, "operator Net__input_0", "element type", "FLOAT32", "FLOAT16"),
]


@pytest.mark.parametrize(
    ("change", "where", "what", "left", "right"), CHANGES, ids=[c[0].__name__ for c in CHANGES]
)
@pytest.mark.parametrize("loose", [False, True])
def test_every_change_is_named(
    change: Callable[[Graph], None], where: str, what: str, left: str, right: str, loose: bool
) -> None:
    changed = net(LABELS_A)
    change(changed)
    found = diff_graphs(net(LABELS_A), changed, ignore_trace_numbers=loose)
    expected = Difference(where, what, left, right)
    if loose and what == "type":  # no operator of that wiring is left: one less, one more
        assert {d.what for d in found} == {"missing"}
        return
    assert found == [expected]


def test_an_operator_more_does_not_run_through_the_rest() -> None:
    left, right = net(LABELS_A), net(LABELS_B)
    conv = "Net__Net_Conv2d_conv__input_2"
    more = Graph("Net")
    for op in right.ops.values():
        inputs = {
            arg: tuple("extra" if n == conv else n for n in names)
            for arg, names in op.inputs.items()
        }
        more.add(Op(op.name, op.type, op.tensor, op.attrs, inputs))
        if op.name == conv:
            more.add(
                Op("extra", "relu6", float32_tensor("extra", (1, 4, 4, 2)), {}, {"input": (conv,)})
            )
    more.attrs = right.attrs
    more.root.ops = list(more.ops)
    found = diff_graphs(left, more, ignore_trace_numbers=True)
    assert {(d.where, d.what) for d in found} == {
        ("operator extra", "missing"),
        ("operator Net__Net_ReLU_relu__4490", "input input"),
        ("operator Net__Net_ReLU_twin__4510", "input input"),
    }


def test_subgraph_trees_are_compared() -> None:
    def split(at: int, device: str) -> Graph:
        graph = net(LABELS_A)
        names, graph.root.ops = list(graph.ops), []
        graph.root.children = [
            Subgraph("subgraph_a", {"device": string("DPU")}, names[:at]),
            Subgraph("subgraph_b", {"device": string(device)}, names[at:]),
        ]
        return graph

    assert diff_graphs(split(3, "CPU"), split(3, "CPU")) == []
    (found,) = diff_graphs(split(3, "CPU"), split(3, "USER"))
    assert (found.where, found.left) == ("subgraph subgraph_b", "STRING CPU")
    moved = diff_graphs(split(3, "CPU"), split(4, "CPU"))
    assert {(d.where, d.what) for d in moved} == {
        ("subgraph subgraph_a", "member"),
        ("subgraph subgraph_b", "member"),
    }
    missing = diff_graphs(net(LABELS_A), split(3, "CPU"))
    assert Difference("subgraph subgraph_b", "missing", "", "in root") in missing


@pytest.mark.parametrize("loose", [False, True])
def test_a_flipped_byte_of_a_constant_names_its_operator(loose: bool) -> None:
    left = net(LABELS_A, (0.5, -0.25))
    (found,) = diff_graphs(left, net(LABELS_A, (0.5, -0.28125)), ignore_trace_numbers=loose)
    assert found.where == "operator Net__conv_weight"
    assert found.left == "element 1 is -0.25"
    assert found.right.startswith("-0.28125 (1 of 8 bytes differ")


def test_a_flipped_byte_of_a_genuine_file_names_its_operator(shared: Path) -> None:
    folder = shared / "golden" / "micro_c_convt_concat" / "quantize_result"
    data = (folder / "UpConcat_int.xmodel").read_bytes()
    graph = parse_xmodel(data, "genuine")
    weights = graph.op("UpConcat__conv_weight").get("data")
    place = data.index(weights) + 401
    mutated = data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]
    (found,) = diff_graphs(graph, parse_xmodel(mutated, "mutated"), ignore_trace_numbers=True)
    assert (found.where, found.what) == ("operator UpConcat__conv_weight", "attribute data")
    assert found.left.startswith("element 100 ")


def test_releases_of_the_quantizer_differ_where_they_are_known_to(shared: Path) -> None:
    """Other trace labels throughout, the output list only in the older one."""
    folder = shared / "golden"
    old = read_xmodel(folder / "release_1.4.1" / "micro_c_convt_concat" / "UpConcat_int.xmodel")
    new = read_xmodel(folder / "micro_c_convt_concat" / "quantize_result" / "UpConcat_int.xmodel")
    (found,) = diff_graphs(old, new, ignore_trace_numbers=True)
    assert (found.where, found.what, found.right) == ("graph", "attribute return_ops", "")
    assert len(diff_graphs(old, new)) > 10


def test_a_compiled_file_equals_itself_and_not_its_other_target(shared: Path) -> None:
    folder = shared / "xmodels"
    eight = read_xmodel(folder / "vck5000_8pe_pointpillars_v2.5.xmodel")
    six = read_xmodel(folder / "vck5000_6pedwc_pointpillars_v2.5.xmodel")
    assert diff_graphs(eight, eight, ignore_trace_numbers=True) == []
    aspects = {d.what for d in diff_graphs(eight, six)}
    assert {"attribute dpu_fingerprint", "attribute dpu_name"} <= aspects
