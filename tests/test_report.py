"""Inspection: the report agrees with the vendor library's listing, the picture with the graph."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Dict, List, Tuple

import pytest

from deepfake_fpga.compile.report import inspect_graph, svg, text
from deepfake_fpga.compile.xir import (
    Graph,
    Op,
    Subgraph,
    float32_tensor,
    int8_tensor,
    read_xmodel,
)
from deepfake_fpga.compile.xir.attributes import (
    Attr,
    AttrKind,
    blob,
    int32,
    int32s,
    map_int32,
    map_string,
    string,
    strings,
    uint64,
)

NAMESPACE = "{http://www.w3.org/2000/svg}"


def compiled() -> Graph:
    """Input, convolution on the DPU, then on the CPU: a conversion, a sigmoid, a custom op."""
    graph = Graph("Net")

    def add(op: Op) -> str:
        return graph.add(op).name

    dims = (1, 8, 8, 3)
    shape = {"shape": int32s(dims), "data_type": string("XINT8")}
    source = add(Op("in", "data-fix", int8_tensor("in_fix", dims, 6), shape))
    const = {"shape": int32s((4, 1, 1, 3)), "data_type": string("XINT8"), "data": blob(b"")}
    weights = add(Op("w", "const-fix", int8_tensor("w_fix", (4, 1, 1, 3), 7), const))
    conv = add(
        Op(
            "conv",
            "conv2d-fix",
            int8_tensor("conv_fix", (1, 8, 8, 4), 5),
            {"kernel": int32s((3, 1)), "stride": int32s((2, 2)), "nonlinear": string("RELU")},
            {"input": (source,), "weights": (weights,)},
        )
    )
    out = (1, 8, 8, 4)
    first = add(Op("f", "fix2float", float32_tensor("f", out), {}, {"input": (conv,)}))
    second = add(Op("s", "sigmoid", float32_tensor("s", out), {}, {"input": (first,)}))
    third = add(Op("z", "Zed", float32_tensor("z", out), {}, {"input": (second,)}))
    pool_attrs = {"kernel": int32s((9, 5)), "stride": int32s((1, 1)), "type": string("MAX")}
    fourth = add(Op("p", "pool-fix", int8_tensor("p", out, 5), pool_attrs, {"input": (conv,)}))
    reason = {"cpu_reason": string("a reason of the compiler")}
    fifth = add(Op("t", "tanh", float32_tensor("t", out), reason, {"input": (fourth,)}))
    dpu = {
        "device": string("DPU"),
        "dpu_name": string("DPUCVDX8H_ISA1_F2W4_6PE_aieDWC"),
        "dpu_fingerprint": uint64(0x501000000160C2F),
        "workload": uint64(100),
        "workload_on_arch": uint64(400),
        "reg_id_to_size": map_int32({"REG_0": 384}),
        "reg_id_to_context_type_v2": map_string({"REG_0": "CONST"}),
        "mc_code": blob(b"12345"),
    }
    graph.root.children = [
        Subgraph("u", {"device": string("USER")}, [source]),
        Subgraph("d", dpu, [weights, conv]),
        Subgraph("c", {"device": string("CPU")}, [first, second, third, fourth, fifth]),
    ]
    graph.attrs["return_ops"] = strings(["t", "z"])
    return graph


# ---------------------------------------------------------------- report


def test_report_of_a_small_compiled_graph() -> None:
    report = inspect_graph(compiled())
    assert report.kind == "compiled"
    assert report.target is not None
    assert (report.target.engines, report.target.fingerprint) == (6, "0x501000000160c2f")
    assert report.operators["const-fix"] == 1
    assert report.parameters == 12
    assert [t.tensor for t in report.inputs] == ["in_fix"]
    assert [t.tensor for t in report.outputs] == ["t", "z"]
    dpu = report.subgraphs[1]
    assert (dpu.utilisation, dpu.registers, dpu.register_kinds) == (
        0.25,
        {"REG_0": 384},
        {"REG_0": "CONST"},
    )
    assert dpu.instruction_bytes == 5
    assert [(t.tensor, t.shape, t.dtype, t.fix_point) for t in dpu.outputs] == [
        ("conv_fix", (1, 8, 8, 4), "XINT8", 5)
    ]
    reasons = {op.name: op.reason for op in report.cpu_ops}
    assert set(reasons) == {"f", "s", "z", "p", "t"}
    assert "to float" in reasons["f"]
    assert reasons["s"] == "the DPU has no sigmoid"
    assert "custom operator" in reasons["z"]
    assert "kernel 5x9" in reasons["p"]  # height first
    assert reasons["t"] == "a reason of the compiler"
    assert report.notes == ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.kind = "other"  # type: ignore[misc]


def test_notes_warn_of_what_goes_wrong_in_use() -> None:
    graph = compiled()
    graph.attrs["return_ops"] = strings(["t", "gone"])
    graph.root.children[1].attrs["dpu_fingerprint"] = uint64(1)
    extra = Subgraph("d2", dict(graph.root.children[1].attrs), ["p", "t"])
    extra.attrs["dpu_name"] = string("DPUCVDX8H_ISA1_F2W2_8PE")
    graph.root.children[2].ops = ["f", "s", "z"]
    graph.root.children.append(extra)
    notes = "\n".join(inspect_graph(graph).notes)
    assert "2 DPU subgraphs" in notes
    assert "different targets" in notes
    assert "0x501000000160c2f, not 0x1" in notes
    assert "'gone'" in notes


def test_unknown_targets_and_absent_attributes_are_no_error() -> None:
    graph = compiled()
    attrs = graph.root.children[1].attrs
    attrs["dpu_name"] = string("DPUCAFFE_ISA9_12PE")
    for key in ("workload_on_arch", "reg_id_to_size", "mc_code", "dpu_fingerprint"):
        del attrs[key]
    report = inspect_graph(graph)
    assert report.target is not None
    assert report.target.engines == 12
    assert report.subgraphs[1].utilisation is None
    assert "DPUCAFFE_ISA9_12PE, 12 engines" in text(report)
    graph.op("conv").attrs["stride"] = int32(2)  # a custom operator may have it so
    graph.op("conv").tensor.dims = (-1, 8, 8, 4)
    assert "?x8x8x4" in svg(graph)


def test_json_has_every_attribute(shared: Path) -> None:
    file = shared / "xmodels" / "vck5000_8pe_pointpillars_v2.5.xmodel"
    report = inspect_graph(read_xmodel(file), file)
    record = json.loads(report.to_json())
    assert set(record) == {f.name for f in dataclasses.fields(report)}
    assert record["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert record["target"]["engines"] == 8


def _listed_subgraphs(listing: str) -> List[Tuple[str, str, int, List[str], List[str]]]:
    """Name, device, operators, inputs, outputs of the root's children in the library's listing."""
    tree = listing[listing.index("SUBGRAPH TREE") :]
    found = []
    for block in re.split(r"\n(?=  SUBGRAPH)", tree)[1:]:
        head = block.splitlines()[0]
        name = head.split('"')[1]
        device = head.split('device=string = "')[1].rstrip('"')
        count = int(head.split("op_num=")[1].split()[0])
        sides = []
        for side in ("inputs", "outputs"):
            line = next(x for x in block.splitlines() if x.startswith(f"    {side}(sorted):"))
            sides.append(re.findall(r'"([^"]*)"', line))
        found.append((name, device, count, *sides))
    return sorted(found)


@pytest.mark.parametrize("name", ["vck5000_8pe_tf2mnist_v2.5", "vck5000_8pe_pointpillars_v2.5"])
def test_subgraphs_agree_with_the_vendor_library(shared: Path, name: str) -> None:
    report = inspect_graph(read_xmodel(shared / "xmodels" / f"{name}.xmodel"))
    listing = (shared / "xmodels" / "dumps" / f"{name}.txt").read_text()
    ours = sorted(
        (
            s.name,
            s.device,
            s.ops,
            sorted(t.tensor for t in s.inputs),
            sorted(t.tensor for t in s.outputs),
        )
        for s in report.subgraphs
    )
    assert ours == _listed_subgraphs(listing)
    types = re.search(r"^  op types: (.*)$", listing, re.MULTILINE)
    assert types is not None
    assert {f"{k}={v}" for k, v in report.operators.items()} == set(types.group(1).split())


def test_the_outputs_of_pointpillars_are_in_forward_order(shared: Path) -> None:
    report = inspect_graph(read_xmodel(shared / "xmodels" / "vck5000_8pe_pointpillars_v2.5.xmodel"))
    assert [t.shape[3] for t in report.outputs] == [42, 18, 12]
    reasons = {op.type: op.reason for op in report.cpu_ops}
    assert "kernel 1x100" in reasons["pool-fix"]
    assert "custom operator" in reasons["PPScatterV2"]
    assert reasons["transpose"] == "the DPU has no transpose"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("xmodels/quantized_voxelnet.xmodel", "quantized"),
        ("golden/micro_b_conv_bias/quantize_result/ConvBias_int.xmodel", "quantized"),
        ("xmodels/vck190_densebox_v1.4.1.xmodel", "compiled"),
        ("xmodels/u50lv_lstm_v2.0.xmodel", "compiled"),
        ("xmodels/zcu102_pointpillars_v2.5.xmodel", "compiled"),
    ],
)
def test_every_genuine_file_can_be_shown(shared: Path, name: str, kind: str) -> None:
    file = shared / name
    graph = read_xmodel(file)
    report = inspect_graph(graph, file)
    assert report.kind == kind
    shown = text(report)
    assert hashlib.md5(file.read_bytes()).hexdigest() in shown
    for tensor in report.inputs + report.outputs:
        assert tensor.tensor in shown
    ElementTree.fromstring(svg(graph))


# ---------------------------------------------------------------- picture


def _drawn(graph: Graph) -> Tuple[Dict[str, Tuple[float, float, float, float]], int, str]:
    """Boxes by the operator named in their tooltip, number of connections, all text."""
    root = ElementTree.fromstring(svg(graph))
    boxes = {}
    for group in root.findall(f"{NAMESPACE}g"):
        title, rect = group.find(f"{NAMESPACE}title"), group.find(f"{NAMESPACE}rect")
        if title is None or rect is None:
            continue
        name = str(title.text).splitlines()[0].split(" ", 1)[1]
        boxes[name] = tuple(float(rect.attrib[k]) for k in ("x", "y", "width", "height"))
    paths = [p for p in root.iter(f"{NAMESPACE}path") if "marker-end" in p.attrib]
    return boxes, len(paths), " ".join(root.itertext())  # type: ignore[return-value]


def test_picture_shows_operators_without_constants() -> None:
    boxes, connections, shown = _drawn(compiled())
    assert set(boxes) == {"in", "conv", "f", "s", "z", "p", "t"}
    assert connections == 6
    assert "conv2d-fix 1x3 /2 RELU" in shown
    assert "1x8x8x4 XINT8 fix 5" in shown
    for device in ("on the DPU (1)", "on the CPU (5)", "given by the user (1)"):
        assert device in shown


def test_picture_of_the_unet(shared: Path) -> None:
    file = shared / "golden" / "uynet_w8" / "quantize_result" / "UYNet_int.xmodel"
    graph = read_xmodel(file)
    boxes, connections, _ = _drawn(graph)
    layers = [op for op in graph.ops.values() if op.type not in ("const", "fix", "stack")]
    assert set(boxes) == {op.name for op in layers}
    # One connection for each operator but the input; a concat has two.
    concats = [op for op in layers if op.type == "concat"]
    assert len(concats) == 4
    assert connections == len(layers) - 1 + len(concats)
    places = list(boxes.values())
    for i, (x, y, w, h) in enumerate(places):
        for x2, y2, w2, h2 in places[:i]:
            assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y
    for op in layers:
        for name in op.input_names:
            source = graph.op(name)
            source = graph.input_ops(source)[0] if source.type == "fix" else source
            if source.name in boxes:
                assert boxes[source.name][1] < boxes[op.name][1]


def test_hostile_names_stay_text() -> None:
    graph = Graph('<script>"&\x01')
    name = "</title><script>\x02"
    graph.add(
        Op(
            name,
            "data<b>",
            float32_tensor(name, (1,)),
            {"k<": Attr(AttrKind.NONE, None)},
        )
    )
    graph.root.ops = [name]
    root = ElementTree.fromstring(svg(graph))
    assert not list(root.iter(f"{NAMESPACE}script"))


def test_an_empty_graph_is_drawn() -> None:
    ElementTree.fromstring(svg(Graph("nothing")))
