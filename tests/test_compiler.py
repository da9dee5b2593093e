"""The compiler on recorded quantized models: numbers, structure and files of the result."""

from __future__ import annotations

import json
import re
from hashlib import md5
from pathlib import Path
from typing import Any, Dict, List, Mapping

import numpy as np
import pytest

from deepfake_fpga.compile.compiler import compile_graph, compile_xmodel, is_simulated
from deepfake_fpga.compile.targets import TARGETS, Target, target_by_name
from deepfake_fpga.compile.weights import constant_arrays
from deepfake_fpga.compile.xir.attributes import map_bytes
from deepfake_fpga.compile.xir.graph import Graph, Subgraph
from deepfake_fpga.compile.xir.opdefs import problems
from deepfake_fpga.compile.xir.xmodel import dump_xmodel, parse_xmodel, read_xmodel
from deepfake_fpga.errors import FormatError, UsageError
from deepfake_fpga.inference.devices.reference import ReferenceDevice

MICRO = [
    "micro_a_conv_bn_relu",
    "micro_b_conv_bias",
    "micro_c_convt_concat",
    "micro_d_pool_linear_sigmoid",
    "micro_e2_resadd_avgpool2",
    "micro_e_resadd_avgpool7",
    "micro_f_cle",
]
OLDER = [
    f"release_{release}/{case}"
    for release in ("1.4.1", "2.0", "2.5")
    for case in ("micro_c_convt_concat", "micro_d_pool_linear_sigmoid", "uynet_w8")
    # The quantized U-YNet of release 2.5 is not recorded.
    if (release, case) != ("2.5", "uynet_w8")
]


def target(name: str = "VCK50008PE") -> Target:
    found = target_by_name(name)
    assert found is not None
    return found


def quantized(shared: Path, case: str) -> Path:
    return next((shared / "golden" / case).rglob("*_int.xmodel"))


def compiled(shared: Path, case: str, name: str = "VCK50008PE") -> Graph:
    """The compiled graph, after a trip through the file format."""
    graph = compile_graph(read_xmodel(quantized(shared, case)), target(name))
    return parse_xmodel(dump_xmodel(graph), case)


def first_input(shared: Path, case: str) -> np.ndarray:
    """The first test image, float32 NHWC."""
    folder = shared / "golden" / case
    if (folder / "test_inputs.npz").is_file():
        return np.load(folder / "test_inputs.npz")["x"][:1].transpose(0, 2, 3, 1)
    return np.load(folder / "test_u8.npz")["images"][:1].astype(np.float32) / np.float32(255)


def run(graph: Graph, values: np.ndarray) -> Dict[str, np.ndarray]:
    """Int8 codes of every tensor of the one DPU subgraph, by the name of the quantizer's fix."""
    (subgraph,) = graph.subgraphs("DPU")
    taps = [
        graph.ops[name].tensor.name
        for name in subgraph.all_ops()
        if graph.ops[name].type != "const-fix"
    ]
    device = ReferenceDevice(graph, subgraph, 1, taps)
    info = device.inputs[0]
    assert info.fix_point is not None
    scaled = np.floor(values.astype(np.float64) * 2.0**info.fix_point + 0.5)
    codes = np.ascontiguousarray(np.clip(scaled, -128, 127).astype(np.int8))
    outputs = device.compute({info.name: codes})
    return {
        re.sub(r"_upload_0|_download_0|\(MoveReshape\)", "", name): array
        for name, array in outputs.items()
    }


def recorded_nodes(shared: Path, case: str) -> Dict[str, np.ndarray]:
    """The quantizer's codes of every node for that image, NHWC, by the name of the fix."""
    folder = shared / "golden" / case
    scopes = {
        node["node"]: node["scope"]
        for node in json.loads((folder / "inter_index.json").read_text())
    }
    nodes = {}
    with np.load(folder / "inter_img0_int8.npz") as arrays:
        for name in arrays.files:
            array = arrays[name]
            fix = re.sub("[^0-9A-Za-z]", "_", scopes[name]) + "_fix"
            nodes[fix] = array.transpose(0, 2, 3, 1) if array.ndim == 4 else array
    return nodes


@pytest.mark.parametrize("case", [*MICRO, "uynet_w8"])
def test_every_node_has_the_quantizers_codes(shared: Path, case: str) -> None:
    found = run(compiled(shared, case), first_input(shared, case))
    nodes = recorded_nodes(shared, case)
    assert nodes
    for name, codes in nodes.items():
        assert np.array_equal(found[name].reshape(codes.shape), codes), name


def test_a_flipped_weight_byte_is_seen(shared: Path) -> None:
    graph = compiled(shared, MICRO[0])
    subgraph = graph.subgraphs("DPU")[0]
    parameters = bytearray(subgraph.get("reg_id_to_parameter_value")["REG_0"])
    place = next(index for index, byte in enumerate(parameters) if byte)
    parameters[place] ^= 0x40
    subgraph.attrs["reg_id_to_parameter_value"] = map_bytes({"REG_0": bytes(parameters)})
    found = run(graph, first_input(shared, MICRO[0]))
    nodes = recorded_nodes(shared, MICRO[0])
    assert any(not np.array_equal(found[name], codes) for name, codes in nodes.items())


@pytest.mark.parametrize("name", [t.folder for t in TARGETS])
def test_uynet_is_one_dpu_subgraph_on_every_target(shared: Path, name: str) -> None:
    graph = compiled(shared, "uynet_w8", name)
    assert sorted(str(c.device) for c in graph.root.children) == ["CPU", "CPU", "DPU", "USER"]
    (subgraph,) = graph.subgraphs("DPU")
    assert subgraph.get("dpu_name") == target(name).dpu_name
    assert subgraph.get("dpu_fingerprint") == target(name).fingerprint
    inputs, outputs = graph.boundary(subgraph)
    assert [op.tensor.name for op in inputs] == ["UYNet__input_0_fix"]
    assert {op.tensor.dims for op in outputs} == {(1, 224, 224, 2), (1, 1)}
    assert all(op.type == "download" for op in outputs)
    assert graph.get("return_ops") == (
        "UYNet__UYNet_OutConv_outc__Conv2d_conv__ret_fix",
        "UYNet__UYNet_ret_51",
    )
    on_cpu = {op.type for op in graph.ops.values() if op.get("device") == "CPU"}
    assert on_cpu == {"fix2float", "sigmoid"}
    sigmoid = graph.ops["UYNet__UYNet_ret_51"]
    assert sigmoid.get("cpu_reason") == ('operator "sigmoid" is not in the DPU\'s instruction set')


@pytest.mark.parametrize("case", [*MICRO, "uynet_w8", *OLDER])
def test_result_is_a_sound_graph(shared: Path, case: str) -> None:
    source = read_xmodel(quantized(shared, case))
    before = dump_xmodel(source)
    graph = compile_graph(source, target())
    assert dump_xmodel(source) == before
    for op in graph.ops.values():
        assert problems(op) == [], op.name
        assert op.get("device") in ("USER", "DPU", "CPU")
    assert sorted(graph.root.all_ops()) == sorted(graph.ops)
    assert is_simulated(graph)
    assert not is_simulated(source)
    assert set(constant_arrays(graph)) == {
        op.name for op in graph.ops.values() if op.type == "const-fix"
    }
    stamped = source.get("return_ops")
    if stamped is not None:
        assert graph.get("return_ops") == stamped
    for subgraph in graph.subgraphs("DPU"):
        check_memory(graph, subgraph)


def check_memory(graph: Graph, subgraph: Subgraph) -> None:
    """Every byte of every space belongs to exactly one tensor that is no view of another."""
    sizes = subgraph.get("reg_id_to_size")
    spaces = {int(space[4:]): np.zeros(size, np.uint8) for space, size in sizes.items()}
    for name in subgraph.all_ops():
        op = graph.ops[name]
        tensor = op.tensor
        strides = tensor.get("stride")
        if strides is None or op.type in ("concat-fix", "reshape-fix"):
            continue
        space = spaces[tensor.get("reg_id")][tensor.get("ddr_addr") :]
        last = sum((dim - 1) * step for dim, step in zip(tensor.dims[1:], strides[1:]))
        assert last < len(space), name
        # Operands of one concatenation interleave: only their strides tell them apart.
        mine = np.lib.stride_tricks.as_strided(space, tensor.dims[1:], strides[1:])
        assert not mine.any(), name
        mine += 1
    assert all(space.all() for number, space in spaces.items() if number != 0)


@pytest.mark.parametrize("case", OLDER)
def test_older_releases_give_one_dpu_subgraph(shared: Path, case: str) -> None:
    graph = compiled(shared, case)
    assert len(graph.subgraphs("DPU")) == 1
    assert not {"matmul", "flatten", "transpose"} & {op.type for op in graph.ops.values()}


@pytest.mark.parametrize("case", OLDER)
def test_older_releases_give_their_recorded_outputs(shared: Path, case: str) -> None:
    graph = compiled(shared, case)
    inputs = first_input(shared, case.partition("/")[2])
    found = run(graph, inputs)
    with np.load(shared / "golden" / case / "quant_outputs.npz") as recorded:
        expected = {name: recorded[name][:1] for name in recorded.files}
    for name, values in expected.items():
        if name == "cls" or case.endswith("sigmoid"):
            last = next(op for op in graph.ops.values() if op.type == "sigmoid")
            fixed = graph.ops[graph.ops[last.inputs["input"][0]].inputs["input"][0]].tensor
            codes = found[fixed.name].astype(float) * 2.0 ** -(fixed.fix_point or 0)
            assert values == pytest.approx(1 / (1 + np.exp(-codes)), abs=1e-6)
            continue
        fix = graph.get("return_ops")[0]
        producer = graph.producer(fix)
        assert producer is not None
        fix_point = producer.tensor.fix_point or 0
        codes = found[fix].astype(float).transpose(0, 3, 1, 2)
        assert np.array_equal(codes, values.astype(float) * 2.0**fix_point)


IGNORED = {"mc_code", "mc_code_preload"}


def without(attrs: Mapping[str, Any], *ignored: str) -> Dict[str, Any]:
    return {key: attr for key, attr in attrs.items() if key not in ignored}


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("vck5000_8pe_pointpillars_v2.5", "VCK50008PE"),
        ("vck5000_6pedwc_pointpillars_v2.5", "VCK50006PEDWC"),
    ],
)
def test_result_equals_the_vendors_but_for_instructions(
    shared: Path, name: str, folder: str
) -> None:
    """Operators, order, names, attributes, addresses, strides, parameters, the subgraph tree."""
    genuine = read_xmodel(shared / "xmodels" / f"{name}.xmodel")
    source = read_xmodel(shared / "xmodels" / "quantized_voxelnet.xmodel")
    ours = compile_graph(source, target(folder))
    assert list(ours.ops) == list(genuine.ops)
    for op in genuine.ops.values():
        mine = ours.ops[op.name]
        assert (mine.type, mine.inputs, mine.tensor) == (op.type, op.inputs, op.tensor)
        assert without(mine.attrs, "cpu_reason") == op.attrs, op.name
    for (_, mine), (_, node) in zip(ours.root.walk(), genuine.root.walk()):
        assert (mine.name, mine.ops) == (node.name, node.ops)
        assert [c.name for c in mine.children] == [c.name for c in node.children]
        assert without(mine.attrs, *IGNORED) == without(node.attrs, *IGNORED), node.name
        assert IGNORED & set(mine.attrs) == IGNORED & set(node.attrs)
    assert ours.get("return_ops") == genuine.get("return_ops")


def test_voxelnet_fits_one_more_pooling_on_the_misc_variant(shared: Path) -> None:
    """The 100 x 1 pooling is the CPU's on 8PE and the DPU's on 6PE misc, as genuine files show."""
    source = read_xmodel(shared / "xmodels" / "quantized_voxelnet.xmodel")
    lines: List[str] = []
    graphs = {
        name: compile_graph(source, target(name), lines.append)
        for name in ("VCK50008PE", "VCK50006PEMISC")
    }
    devices = {
        name: [op.get("device") for op in graph.ops.values() if op.type == "pool-fix"]
        for name, graph in graphs.items()
    }
    assert devices == {"VCK50008PE": ["CPU"], "VCK50006PEMISC": ["DPU"]}
    pooling = [line for line in lines if "type = pool-fix" in line]
    assert len(pooling) == 1
    assert pooling[0].startswith("[UNILOG][WARNING] xir::Op{name = VoxelNet__")
    assert pooling[0].endswith(
        'has been assigned to CPU: [DPU only supports "kernel_width"(100) equal to'
        ' "kernel_height"(1)].'
    )


def test_files_and_console_of_a_compilation(shared: Path, tmp_path: Path) -> None:
    lines: List[str] = []
    source = quantized(shared, "uynet_w8")
    result = compile_xmodel(source, target(), tmp_path / "out", "YNET.xmodel", lines.append)
    folder = tmp_path / "out"
    assert sorted(p.name for p in folder.iterdir()) == ["YNET.xmodel", "md5sum.txt", "meta.json"]
    digest = md5(result.xmodel.read_bytes()).hexdigest()
    assert (folder / "md5sum.txt").read_text() == f"{digest}  YNET.xmodel\n"
    meta = json.loads((folder / "meta.json").read_text())
    assert meta["target"] == "DPUCVDX8H_ISA1_F2W2_8PE"
    assert meta["filename"] == "YNET.xmodel"
    assert meta["simulated"] is True
    graph = read_xmodel(result.xmodel)
    assert meta["kernel"] == [s.name for s in graph.subgraphs("DPU")]
    assert graph.get("files_md5sum") == {source.name: md5(source.read_bytes()).hexdigest()}
    assert [(op.type, op.name) for op in result.cpu] == [("sigmoid", "UYNet__UYNet_ret_51")]
    shape = [re.sub(r'"[^"]*"', '""', line) for line in lines]
    assert shape[0] == shape[2] == "*" * 50
    assert shape[3:] == [
        "[UNILOG][INFO] Compile mode: dpu",
        "[UNILOG][INFO] Debug mode: function",
        "[UNILOG][INFO] Target architecture: DPUCVDX8H_ISA1_F2W2_8PE",
        "[UNILOG][INFO] Graph name: UYNet, with op num: 192",
        "[UNILOG][INFO] Begin to compile...",
        "[UNILOG][WARNING] xir::Op{name = UYNet__UYNet_ret_51, type = sigmoid} has been assigned"
        ' to CPU: [operator "" is not in the DPU\'s instruction set].',
        "[UNILOG][INFO] Total device subgraph number 4, DPU subgraph number 1",
        "[UNILOG][INFO] Compile done.",
        '[UNILOG][INFO] The meta json is saved to ""',
        '[UNILOG][INFO] The compiled xmodel is saved to ""',
        f'[UNILOG][INFO] The compiled xmodel\'s md5sum is {digest}, and has been saved to ""',
    ]


def test_a_second_compilation_gives_the_same_bytes(shared: Path, tmp_path: Path) -> None:
    source = quantized(shared, "micro_c_convt_concat")
    digests = {
        compile_xmodel(source, target(), tmp_path / folder, "n", lambda line: None).md5
        for folder in ("a", "b")
    }
    assert len(digests) == 1


def test_a_failed_compilation_leaves_nothing(shared: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    already = shared / "xmodels" / "vck5000_8pe_tf2mnist_v2.5.xmodel"
    with pytest.raises(FormatError, match="is compiled already"):
        compile_xmodel(already, target(), out, "YNET", lambda line: None)
    for name in ("", ".xmodel", "a/b", ".."):
        with pytest.raises(UsageError, match="cannot be the name"):
            compile_xmodel(quantized(shared, MICRO[0]), target(), out, name, lambda line: None)
    assert not out.exists()
