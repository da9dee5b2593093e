"""Damaged and impossible models: whatever is in the file, only our own errors, soon and small."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import numpy as np
import pytest

from deepfake_fpga.compile.compiler import compile_graph
from deepfake_fpga.compile.report import inspect_graph
from deepfake_fpga.compile.targets import target_by_name
from deepfake_fpga.compile.xir.attributes import Attr, blob, boolean, int32, int32s, string
from deepfake_fpga.compile.xir.graph import Graph, Op, Subgraph, float32_tensor
from deepfake_fpga.compile.xir.schema import SCHEMA
from deepfake_fpga.compile.xir.wire import Message
from deepfake_fpga.compile.xir.xmodel import dump_xmodel, parse_xmodel
from deepfake_fpga.errors import FormatError, ToolkitError
from deepfake_fpga.inference.artifact import artifact_of
from deepfake_fpga.inference.devices import open_device, sim_available
from deepfake_fpga.inference.quantized_graph import QuantizedGraph

EXACT = ("reference", "sim") if sim_available()[0] else ("reference",)


def quantized() -> Graph:
    """A small network as the quantizer writes one, with an operator of each kind."""
    random = np.random.default_rng(3)
    graph = Graph("Net")

    def add(name: str, kind: str, dims: Tuple[int, ...], inputs: Any, **attrs: Attr) -> str:
        given = inputs if isinstance(inputs, dict) else {"input": tuple(inputs)} if inputs else {}
        graph.add(Op(name, kind, float32_tensor(name, dims), attrs, given))
        return name

    def fix(name: str, point: int) -> str:
        attrs = {
            "fix_point": int32(point),
            "bit_width": int32(8),
            "round_mode": string("DPU_ROUND"),
            "if_signed": boolean(True),
        }
        return add(name + "_fix", "fix", graph.ops[name].tensor.dims, [name], **attrs)

    def const(name: str, shape: Tuple[int, ...], point: int) -> str:
        values = (random.integers(-99, 99, shape) * 2.0**-point).astype("<f4")
        attrs = {
            "data": blob(values.tobytes()),
            "data_type": string("float32"),
            "shape": int32s(shape),
        }
        add(name, "const", shape, [], **attrs)
        return fix(name, point)

    def window(kernel: int, stride: int, pad: int) -> Dict[str, Attr]:
        return {
            "kernel": int32s((kernel, kernel)),
            "stride": int32s((stride, stride)),
            "pad": int32s((pad,) * 4),
            "pad_mode": string("FLOOR"),
        }

    def conv(name: str, kind: str, source: str, dims: Any, shape: Any, *geometry: int) -> str:
        inputs = {
            "input": (source,),
            "weights": (const(name + "_weight", shape, 7),),
            "bias": (const(name + "_bias", (shape[0],), 8),),
        }
        return add(name, kind, dims, inputs, dilation=int32s((1, 1)), **window(*geometry))

    shape = {"shape": int32s((1, 8, 8, 3)), "data_type": string("FLOAT32")}
    x = fix(add("x", "data", (1, 8, 8, 3), [], **shape), 6)
    a = conv("a", "conv2d", x, (1, 8, 8, 4), (4, 3, 3, 3), 3, 1, 1)
    a = fix(add("r", "relu", (1, 8, 8, 4), [a]), 4)
    p = fix(
        add("p", "maxpool2d", (1, 4, 4, 4), [a], **{**window(2, 2, 0), "global": boolean(False)}), 4
    )
    up = conv("up", "transposed-conv2d", p, (1, 8, 8, 4), (4, 2, 2, 4), 2, 2, 0)
    joined = fix(add("cat", "concat", (1, 8, 8, 8), [a, up], axis=int32(3)), 4)
    s = fix(add("sum", "add", (1, 8, 8, 8), [joined, joined]), 3)
    fix(conv("out", "conv2d", s, (1, 8, 8, 2), (2, 1, 1, 8), 1, 1, 0), 3)
    graph.root.ops = list(graph.ops)
    return graph


def compiled() -> Graph:
    target = target_by_name("8pe_normal")
    assert target is not None
    return compile_graph(quantized(), target)


def use(graph: Graph) -> None:
    """Everything the toolkit does with a model."""
    inspect_graph(graph, __file__)
    dpu = graph.subgraphs("DPU")
    if not dpu:
        model = QuantizedGraph(graph)
        feeds = {
            op.name: np.ones((1, *op.tensor.dims[1:]), np.float32)
            for op in graph.ops.values()
            if op.type == "data"
        }
        model.run(feeds)
        target = target_by_name("8pe_normal")
        assert target is not None
        compile_graph(graph, target)
        return
    for device in EXACT:
        for subgraph in dpu:
            with open_device(device, graph, subgraph, batch=1, threads=1) as opened:
                feed = {i.name: np.ones(i.shape, i.dtype) for i in opened.inputs}
                opened.wait(opened.submit(feed))
    artifact_of(graph, Path("fuzz.xmodel"))


def outcome(action: Callable[[], Any]) -> str:
    """``fine`` or the name of our error; any other exception fails the test."""
    try:
        action()
    except ToolkitError as error:
        return type(error).__name__
    return "fine"


def words(action: Callable[[], Any]) -> str:
    """What our error says; empty where there is none."""
    try:
        action()
    except ToolkitError as error:
        return str(error)
    return ""


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """A graph of a few kilobytes must not take more than a gigabyte beyond what is there."""
    if not sys.platform.startswith("linux"):
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + (1 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("make", [quantized, compiled])
def test_the_models_themselves_are_fine(make: Callable[[], Graph]) -> None:
    graph = parse_xmodel(dump_xmodel(make()), "fuzz.xmodel")
    # The small network is no U-YNet, which only the last step minds.
    assert outcome(lambda: use(graph)) == ("fine" if make is quantized else "MismatchError")


# -- bytes ----------------------------------------------------------------------------------------


def _changed(data: bytes, random: np.random.Generator) -> bytes:
    """Some of the ways a file is damaged."""
    changed = bytearray(data)
    for _ in range(int(random.integers(1, 4))):
        at = int(random.integers(0, len(changed)))
        kind = int(random.integers(0, 6))
        if kind == 0:
            del changed[at:]
        elif kind == 1:
            changed[at] ^= 1 << int(random.integers(0, 8))
        elif kind == 2:
            changed[at] = int(random.integers(0, 256))
        elif kind == 3:
            changed[at:at] = b"\xff\xff\xff\xff\x0f"  # a huge length or dimension
        elif kind == 4:
            del changed[at : at + int(random.integers(1, 40))]
        else:
            end = at + int(random.integers(1, 80))
            changed[at:at] = changed[at:end]
        if not changed:
            break
    return bytes(changed)


@pytest.mark.parametrize("make", [quantized, compiled])
@pytest.mark.parametrize("seed", range(6))
def test_damaged_bytes_end_in_our_errors(make: Callable[[], Graph], seed: int) -> None:
    random = np.random.default_rng([seed, make is compiled])
    data = dump_xmodel(make())
    outcomes: Dict[str, int] = {}
    for _ in range(60):
        changed = _changed(data, random)
        result = outcome(lambda changed=changed: use(parse_xmodel(changed, "fuzz.xmodel")))  # type: ignore[misc]
        outcomes[result] = outcomes.get(result, 0) + 1
    assert outcomes.get("FormatError", 0) > 5


# -- structure ------------------------------------------------------------------------------------


def message(make: Callable[[], Graph]) -> Message:
    return SCHEMA.decode("Graph", dump_xmodel(make()))


def _nested(depth: int) -> bytes:
    """A chain of subgraphs, built from the inside: an encoder would not build it."""

    def field(number: int, data: bytes) -> bytes:
        size, length = b"", len(data)
        while True:
            size += bytes([length & 127 | (128 if length > 127 else 0)])
            length >>= 7
            if not length:
                return bytes([number << 3 | 2]) + size + data

    inner = field(1, b"leaf")
    for _ in range(depth):
        inner = field(1, b"s") + field(10, inner)
    whole = message(quantized)
    del whole["subg_root"]
    return SCHEMA.encode("Graph", whole) + field(10, inner)


@pytest.mark.parametrize("depth", [90, 200, 2000, 20_000])
def test_a_deep_subgraph_tree_is_read_or_refused(depth: int) -> None:
    assert outcome(lambda: parse_xmodel(_nested(depth), "x")) in ("FormatError", "fine")


def _cycle(whole: Message) -> None:
    _feed(whole, 0, whole["op_node"][-1]["op_name"])


def _itself(whole: Message) -> None:
    _feed(whole, 5, whole["op_node"][5]["op_name"])


def _nobody(whole: Message) -> None:
    _feed(whole, 5, "nobody")


def _feed(whole: Message, at: int, producer: str) -> None:
    whole["op_node"][at]["args"].append({"arg_name": "input", "arg_ops": [producer]})


def _twice(whole: Message) -> None:
    whole["op_node"].append(whole["op_node"][3])


def _one_tensor(whole: Message) -> None:
    third, fourth = (whole["op_node"][at]["output_tensor"] for at in (3, 4))
    fourth["tensor_name"] = third["tensor_name"]


def _listed_twice(whole: Message) -> None:
    whole["subg_root"]["op_name"].append(whole["subg_root"]["op_name"][0])


def _no_operator(whole: Message) -> None:
    whole["subg_root"]["op_name"].append("nobody")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_cycle, "does not come before it"),
        (_itself, "does not come before it"),
        (_nobody, "does not come before it"),
        (_twice, "stands twice"),
        (_one_tensor, "two tensors called"),
        (_listed_twice, "a second time"),
        (_no_operator, "which is no operator"),
    ],
)
def test_a_broken_graph_is_refused(change: Callable[[Message], None], said: str) -> None:
    whole = message(quantized)
    change(whole)
    with pytest.raises(FormatError) as error:
        parse_xmodel(SCHEMA.encode("Graph", whole), "x.xmodel")
    assert said in str(error.value)


def test_a_long_chain_of_operators_is_walked() -> None:
    graph = quantized()
    last = list(graph.ops)[-1]
    for at in range(3000):
        op = Op(f"relu{at}", "relu", float32_tensor(f"relu{at}", graph.ops[last].tensor.dims))
        op.inputs = {"input": (last,)}
        last = graph.add(op).name
    graph.root.ops = list(graph.ops)
    assert outcome(lambda: inspect_graph(graph, __file__)) == "fine"
    assert outcome(lambda: QuantizedGraph(graph).run({})) == "fine"


# -- attributes, fix points, shapes ---------------------------------------------------------------

NASTY: List[Attr] = [
    int32(0),
    int32(-1),
    int32(2**31 - 1),
    int32s(()),
    int32s((0, 0)),
    int32s((-1, -1, -1, -1)),
    int32s((2**31 - 1, 2**31 - 1)),
    int32s((2**31 - 1,) * 4),
    string("nonsense"),
    boolean(True),
    blob(b""),
    blob(b"123"),
]


@pytest.mark.parametrize("seed", range(4))
def test_changed_graphs_end_in_our_errors(seed: int) -> None:
    random = np.random.default_rng(seed)
    sources = [dump_xmodel(quantized()), dump_xmodel(compiled())]

    def pick(items: Any) -> Any:
        return items[int(random.integers(0, len(items)))]

    def change(graph: Graph) -> None:
        ops = list(graph.ops.values())
        op, kind = pick(ops), int(random.integers(0, 6))
        tables = [op.attrs, op.tensor.attrs, graph.attrs]
        tables += [node.attrs for _, node in graph.root.walk()]
        table = pick([t for t in tables if t] or [ops[0].attrs])
        key, argument = pick(list(table)), pick([*op.inputs, "input"])
        before = [other.name for other in ops[: ops.index(op)]]
        if kind <= 1:
            table[key] = pick(NASTY)
        elif kind == 2:
            del table[key]
        elif kind == 3:
            op.inputs[argument] = tuple(
                pick(before) for _ in range(int(random.integers(0, 3)) if before else 0)
            )
        elif kind == 4:
            dims = [*op.tensor.dims] or [1]
            dims[int(random.integers(0, len(dims)))] = pick([0, 1, 2, 3, 7, 100, -1, 2**20])
            op.tensor.dims = tuple(dims)
        else:
            op.type = pick(ops).type

    outcomes: Dict[str, int] = {}
    for _ in range(60):
        graph = parse_xmodel(pick(sources), "fuzz.xmodel")
        for _ in range(int(random.integers(1, 4))):
            change(graph)
        result = outcome(lambda graph=graph: use(parse_xmodel(dump_xmodel(graph), "x")))  # type: ignore[misc]
        outcomes[result] = outcomes.get(result, 0) + 1
    assert outcomes["FormatError"] > 10


@pytest.mark.parametrize("make", [quantized, compiled])
def test_impossible_attributes_are_refused_by_name(make: Callable[[], Graph]) -> None:
    pristine = dump_xmodel(make())
    places = [
        (op.name, key)
        for op in make().ops.values()
        for key in op.attrs
        if key in ("kernel", "stride", "pad", "dilation", "axis", "fix_point", "data", "nonlinear")
    ]
    refused: List[Tuple[str, str]] = []
    for name, key in places:
        for nasty in NASTY:
            graph = parse_xmodel(pristine, "x")
            graph.ops[name].attrs[key] = nasty
            said = words(lambda graph=graph: use(graph))  # type: ignore[misc]
            if said and "one mask and one classifier" not in said:
                refused.append((name, said))
                # A constant that is off its grid is named, not the fix behind it.
                known = (name.replace("_fix", ""), graph.ops[name].tensor.name)
                assert any(word in said for word in known), (key, nasty, said)
    assert len(refused) > len(places) * 5


@pytest.mark.parametrize("make", [quantized, compiled])
@pytest.mark.parametrize(
    "dims",
    [(1, 2**20, 2**20, 3), (1, 0, 8, 3), (1, -1, 8, 3), (), (1,), (2**31 - 1,), (1, 8, 8, 2**28)],
)
def test_absurd_sizes_are_refused_by_name(make: Callable[[], Graph], dims: Tuple[int, ...]) -> None:
    for name in [op.name for op in make().ops.values() if "const" not in op.type]:
        graph = make()
        op = graph.ops[name]
        op.tensor.dims = dims
        said = words(lambda graph=graph: use(graph))  # type: ignore[misc]
        readers = [reader.name for reader in graph.consumers()[name]]
        known = (op.tensor.name, *readers, "one picture", "one mask and one classifier")
        assert any(word in said for word in known), (name, said)


@pytest.mark.parametrize("point", [32, -32, 10_000, -(2**31)])
def test_a_fix_point_out_of_range_is_refused_by_name(point: int) -> None:
    graph = quantized()
    graph.ops["cat_fix"].attrs["fix_point"] = int32(point)
    with pytest.raises(FormatError, match="'cat_fix'") as error:
        use(graph)
    assert str(point) in error.value.evidence
    graph = compiled()
    graph.ops["cat"].tensor.attrs["fix_point"] = int32(point)
    for device in EXACT:
        with pytest.raises(FormatError, match="'cat'") as error:
            open_device(device, graph, graph.subgraphs("DPU")[0], batch=1)
        assert str(point) in error.value.evidence


@pytest.mark.parametrize("device", EXACT)
def test_missing_constants_are_named(device: str) -> None:
    graph = compiled()
    subgraph = graph.subgraphs("DPU")[0]
    del subgraph.attrs["reg_id_to_parameter_value"]
    with pytest.raises(FormatError, match=r"Constant '\w+_new' has no bytes") as error:
        open_device(device, graph, subgraph, batch=1)
    assert "--weights" in error.value.next_step
    graph = quantized()
    del graph.ops["up_weight"].attrs["data"]
    with pytest.raises(FormatError, match="'up_weight' are missing"):
        QuantizedGraph(graph)
    target = target_by_name("8pe_normal")
    assert target is not None
    with pytest.raises(FormatError, match="'up_weight'"):
        compile_graph(graph, target)


def test_subgraphs_that_depend_on_each_other_are_refused() -> None:
    graph = compiled()
    names = [name for child in graph.root.children for name in child.all_ops()]
    dpu = graph.subgraphs("DPU")[0]
    dpu.children, dpu.ops = [], names[::2]
    graph.root.children = [dpu, Subgraph("rest", {"device": string("CPU")}, names[1::2])]
    assert outcome(lambda: use(graph)) != "fine"
