"""The drop-in ``xir`` against the genuine module: its surface, genuine files, order, the tree."""

from __future__ import annotations

import copy
import gc
import inspect
import os
import pickle
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any, Dict, Iterator, List, Tuple

import pytest

from deepfake_fpga.compile.xir import DataType, diff_graphs, read_xmodel
from deepfake_fpga.compile.xir.attributes import int32
from deepfake_fpga.compile.xir.opdefs import definitions
from deepfake_fpga.deploy import simulate
from deepfake_fpga.deploy.simulate import SimulateOptions, XirAbort
from deepfake_fpga.deploy.simulate.xir.inside import graph_of, runner_tensor, subgraph_of

from .xir_dumps import DumpedSubgraph, comparable, read_dump

DUMPED = ["quantized_voxelnet", "vck5000_8pe_pointpillars_v2.5", "vck5000_8pe_tf2mnist_v2.5"]
MAP_BYTES = "reg_id_to_parameter_value"


@pytest.fixture
def xir() -> Iterator[ModuleType]:
    simulate.install()
    import xir as module

    yield module
    simulate.uninstall()


def genuine_files(shared: Path) -> List[Path]:
    files = sorted(shared.glob("xmodels/*.xmodel")) + sorted(shared.glob("golden/**/*.xmodel"))
    assert len(files) >= 20
    return [file for file in files if not file.name.startswith("rejected")]


# ---------------------------------------------------------------- the surface


def listed_surface(shared: Path) -> Dict[str, Dict[str, Tuple[str, List[str]]]]:
    """Class -> member -> (what it is, its signatures) of the genuine module."""
    text = (shared / "spec" / "xir-vart-signatures.txt").read_text(encoding="utf-8")
    text = text.partition("==================== vart")[0]
    classes: Dict[str, Dict[str, Tuple[str, List[str]]]] = {}
    members: Dict[str, Tuple[str, List[str]]] = {}
    for line in text.splitlines():
        if line.startswith("class xir."):
            members = classes.setdefault(re.findall(r"xir\.(\w+)", line)[0], {})
        elif line.startswith("        "):
            signature = line.strip()
            signature = re.sub(r"^\d\. ", "", signature)
            if "(self" in signature:
                list(members.values())[-1][1].append(signature)
        elif line.startswith("   "):
            name, kind = line.split()
            members[name] = (kind, [])
    return classes


def test_every_member_of_the_genuine_module_is_there(xir: ModuleType, shared: Path) -> None:
    classes = listed_surface(shared)
    assert set(classes) == set(xir.__all__)
    assert sum(len(members) for members in classes.values()) > 120
    for class_name, members in classes.items():
        cls = getattr(xir, class_name)
        assert cls.__module__ == "xir"
        for name, (kind, signatures) in members.items():
            found = inspect.getattr_static(cls, name)
            where = f"{class_name}.{name}"
            assert isinstance(found, property) == (kind == "property"), where
            assert isinstance(found, staticmethod) == (kind == "staticmethod"), where
            if kind != "instancemethod" or name in ("__str__", "__repr__") or cls is xir.DataType:
                continue
            doc = found.__doc__ or ""
            for signature in signatures:
                assert signature in doc, (where, doc)
        public = {name for name in dir(cls) if not name.startswith("_")}
        assert public == {name for name in members if not name.startswith("_")}, class_name


def test_the_module_shows_its_classes_and_nothing_else(xir: ModuleType) -> None:
    names = {"DataType", "Graph", "GraphTemplate", "Op", "OpTemplate", "Subgraph", "Tensor"}
    assert {name for name in dir(xir) if not name.startswith("__")} == names
    assert set(xir.__all__) == names
    assert repr(xir.Graph) == "<class 'xir.Graph'>"


def test_what_has_no_constructor_cannot_be_made(xir: ModuleType) -> None:
    for name in ("Op", "Subgraph", "Tensor", "OpTemplate", "GraphTemplate", "Graph"):
        with pytest.raises(TypeError):
            getattr(xir, name)()
    with pytest.raises(TypeError):
        xir.Tensor("name", [1, 4], "xint8")


def test_arguments_are_checked_as_the_binding_does(xir: ModuleType) -> None:
    graph = xir.Graph("g")
    op = graph.create_op(name="d", kind="data", attrs={"shape": [1, 4], "data_type": "float32"})
    other = xir.Graph(name="h")
    for call in (
        lambda: xir.Graph(3),
        lambda: xir.Graph("a", "b"),
        lambda: graph.get_op(),
        lambda: graph.get_op(op),
        lambda: graph.get_op(nome="d"),
        lambda: graph.get_op("d", name="d"),
        lambda: graph.get_leaf_subgraph("d"),
        lambda: graph.get_leaf_subgraph(None),
        lambda: graph.remove_op("d"),
        lambda: graph.create_op("e", "relu", None, None, other),
        lambda: graph.set_attrs([("a", 1)]),
        lambda: graph.get_root_subgraph().merge_children([]),
        lambda: graph.get_root_subgraph().merge_children({op}),
        lambda: graph.get_root_subgraph().has_op(3),
        lambda: op.get_input_op("input", 0.0),
        lambda: op.get_input_num(1),
        lambda: op.set_input_ops("input", op),
        lambda: op.set_input_ops("input", "d"),
        lambda: xir.Graph.deserialize(Path("x")),
        lambda: xir.DataType(8),
    ):
        with pytest.raises(TypeError):
            call()
    for name in ("dims", "ndim", "dtype", "producer", "note"):
        with pytest.raises(AttributeError):
            setattr(op.get_output_tensor(), name, None)


def test_texts(xir: ModuleType) -> None:
    graph = xir.Graph("g")
    op = graph.create_op("d", "data", {"shape": [1, 4], "data_type": "float32"})
    assert repr(graph) == "<xir.Graph named 'g'>"
    assert repr(op) == "<xir.Op named 'd'>"
    assert str(graph) == "{name: 'g', op_num: 1, attrs: {}}"
    assert str(op).startswith("{name: 'd', type: 'data', attrs: {")
    tensor = op.get_output_tensor()
    assert str(tensor) == "{name: 'd', shape: [1, 4], type: 'float32', attrs: {}}"
    assert repr(tensor) == "<xir.Tensor named 'd'>"
    assert str(graph.get_root_subgraph()) == "{name: 'root', op_num: 1, attrs: {}}"
    assert repr(graph.get_root_subgraph()) == "<xir.Subgraph named 'root'>"


def test_data_types(xir: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    kind = xir.DataType("xint8")
    assert (str(kind), repr(kind)) == ("'xint8'", "<xir.DataType 'xint8'>")
    assert (kind.type, kind.bit_width) == (xir.DataType.XINT, 8)
    assert kind.type is xir.DataType.Type.XINT
    assert int(kind.type) == 2
    assert str(xir.DataType("FLOAT32")) == "'float32'"
    assert str(xir.DataType(xir.DataType.UINT, 16)) == "'uint16'"
    assert str(xir.DataType()) == "'unknown0'"
    kind.type, kind.bit_width = xir.DataType.Type.INT, 4
    assert str(kind) == "'int4'"
    with pytest.raises(TypeError):
        kind.type = 2
    for text in ("Int8", "number8"):
        assert xir.DataType(text).type is xir.DataType.UNKNOWN
        assert text in capsys.readouterr().err
    for text in ("int", "", "8", "int8x"):
        with pytest.raises(XirAbort):
            xir.DataType(text)


# ---------------------------------------------------------------- genuine files


@pytest.mark.parametrize("name", DUMPED)
def test_operators_are_as_the_genuine_library_lists_them(
    xir: ModuleType, shared: Path, name: str
) -> None:
    dump = read_dump(shared / "xmodels" / "dumps" / f"{name}.txt")
    graph = xir.Graph.deserialize(str(shared / "xmodels" / f"{name}.xmodel"))
    assert graph.get_name() == dump.name
    assert attrs_of(graph) == dump.attrs
    assert graph.get_op_num() == len(dump.ops) > 20
    assert [op.get_name() for op in graph.toposort()] == [op.name for op in dump.ops]
    assert sorted(op.get_name() for op in graph.get_head_ops()) == sorted(dump.heads)
    assert sorted(op.get_name() for op in graph.get_tail_ops()) == sorted(dump.tails)
    for listed in dump.ops:
        op = graph.get_op(listed.name)
        tensor = op.get_output_tensor()
        inputs = {
            arg: [source.get_name() for source in sources]
            for arg, sources in op.get_input_ops().items()
            if sources
        }
        assert (op.get_type(), inputs) == (listed.type, listed.inputs), listed.name
        assert op.get_fanout_num() == len(op.get_fanout_ops()) == listed.fanout, listed.name
        assert attrs_of(op) == listed.attrs, listed.name
        assert (tensor.name, tuple(tensor.dims)) == (listed.tensor, listed.dims)
        assert (tensor.dtype, tensor.ndim) == (listed.dtype, len(listed.dims))
        assert tensor.get_element_num() == listed.elements
        assert tensor.get_data_size() == listed.size
        assert attrs_of(tensor) == listed.tensor_attrs
        assert tensor.producer is op
        assert graph.get_tensor(listed.tensor) is tensor
        assert graph.get_tensor_producer(tensor) is op


@pytest.mark.parametrize("name", DUMPED)
def test_the_subgraph_tree_is_as_the_genuine_library_lists_it(
    xir: ModuleType, shared: Path, name: str
) -> None:
    graph = xir.Graph.deserialize(str(shared / "xmodels" / f"{name}.xmodel"))

    def compare(node: Any, listed: DumpedSubgraph, parent: Any) -> int:
        assert node.get_name() == listed.name
        assert (node.depth, node.is_leaf) == (listed.depth, listed.leaf)
        assert node.get_op_num() == len(node.get_ops()) == listed.op_num
        assert attrs_of(node) == listed.attrs
        assert node.get_parent() is parent
        assert node.is_root == (parent is None)
        assert node.root is graph.get_root_subgraph()
        assert node.get_graph() is graph
        if listed.inputs is not None and listed.outputs is not None:
            assert sorted(t.name for t in node.get_input_tensors()) == listed.inputs
            assert sorted(t.name for t in node.get_output_tensors()) == listed.outputs
        if listed.ops is not None:
            assert [op.get_name() for op in node.toposort()] == listed.ops
        children = node.toposort_child_subgraph()
        assert node.get_children() == set(children)
        assert [child.get_name() for child in children] == [c.name for c in listed.children]
        assert node.get_children_num() == len(children)
        return 1 + sum(compare(c, li, node) for c, li in zip(children, listed.children))

    dump = read_dump(shared / "xmodels" / "dumps" / f"{name}.txt")
    nodes = compare(graph.get_root_subgraph(), dump.root, None)
    assert nodes == {DUMPED[0]: 1, DUMPED[1]: 39, DUMPED[2]: 15}[name]


def attrs_of(handle: Any) -> Dict[str, Any]:
    attrs = handle.get_attrs()
    for name, value in attrs.items():
        assert handle.has_attr(name)
        assert handle.get_attr(name) == value
    return {name: comparable(value) for name, value in attrs.items()}


def test_every_genuine_file_survives_reading_and_writing(
    xir: ModuleType, shared: Path, tmp_path: Path
) -> None:
    for file in genuine_files(shared):
        graph = xir.Graph.deserialize(str(file))
        target = tmp_path / "out.xmodel"
        graph.serialize(str(target))
        back = read_xmodel(target)
        assert diff_graphs(graph_of(graph), back) == [], file
        assert list(back.ops) == [op.get_name() for op in graph.toposort()]
        # Against the file itself, only optional attributes have been filled in.
        original = read_xmodel(file)
        for difference in diff_graphs(original, back):
            op = original.op(difference.where.partition(" ")[2])
            name = difference.what.partition(" ")[2]
            optional = [a for a in definitions()[op.type].attrs if a.name == name]
            assert (difference.left, optional[0].required) == ("", False), difference
            assert back.op(op.name).attrs[name] == optional[0].default
        kept = {d.name for d in back.op_defs}
        assert kept >= {d.name for d in original.op_defs} | set(definitions())


def test_what_the_binding_cannot_read_is_none_but_kept(
    xir: ModuleType, shared: Path, tmp_path: Path
) -> None:
    file = shared / "xmodels" / "vck5000_8pe_tf2mnist_v2.5.xmodel"
    graph = xir.Graph.deserialize(str(file))
    for child in graph.get_root_subgraph().toposort_child_subgraph():
        if child.has_attr(MAP_BYTES):
            assert child.get_attr(MAP_BYTES) is None
            parameters = subgraph_of(child).get(MAP_BYTES)
            assert sum(map(len, parameters.values())) > 10000
            assert child.get_attr("runner")["run"] == "librt-engine.so"
            assert isinstance(child.get_attr("dpu_fingerprint"), int)
            return
    pytest.fail("no subgraph has parameters")


def test_failures_of_reading_and_writing(
    xir: ModuleType, shared: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    garbage = tmp_path / "garbage.xmodel"
    garbage.write_text("version https://git-lfs.github.com/spec/v1\n")
    cut = tmp_path / "cut.xmodel"
    whole = (shared / "xmodels" / "quantized_voxelnet.xmodel").read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    old = shared / "xmodels" / "rejected_v1.2_u50_sp_net.xmodel"
    for file in (garbage, cut, old, tmp_path / "absent.xmodel", tmp_path):
        with pytest.raises(XirAbort) as failure:
            xir.Graph.deserialize(str(file))
        assert failure.value.identifier == "XIR_READ_PB_FAILURE"
        line = f"[UNILOG][FATAL][XIR_READ_PB_FAILURE][failed to read pb file] file = {file}"
        assert str(failure.value) == line
        assert line in capfd.readouterr().err
    with pytest.raises(XirAbort) as failure:
        xir.Graph("g").serialize(str(tmp_path / "no" / "folder.xmodel"))
    assert failure.value.identifier == "XIR_WRITE_PB_FAILURE"


def test_an_empty_file_is_an_empty_graph(xir: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "empty.xmodel"
    file.touch()
    graph = xir.Graph.deserialize(str(file))
    assert (graph.get_name(), graph.get_op_num()) == ("", 0)
    graph = xir.Graph("nothing in it")
    graph.set_attr("origin", "here")
    graph.serialize(str(file))
    back = xir.Graph.deserialize(str(file))
    assert (back.get_name(), back.get_op_num()) == ("nothing in it", 0)
    assert back.get_attrs() == {"origin": "here"}
    assert back.get_root_subgraph().is_leaf


# ---------------------------------------------------------------- identity and lifetime


def branches(xir: ModuleType) -> Any:
    """``a`` feeds ``left`` and ``right``, which feed ``sum``; ``tail`` reads ``sum``."""
    graph = xir.Graph("branches")
    a = graph.create_op("a", "data", {"shape": [1, 2, 2, 3], "data_type": "float32"})
    left = graph.create_op("left", "relu", input_ops={"input": [a]})
    right = graph.create_op("right", "sigmoid", input_ops={"input": [a]})
    both = graph.create_op("sum", "add", input_ops={"input": [left, right]})
    graph.create_op("tail", "relu", input_ops={"input": [both]})
    return graph


def names_of(handles: Any) -> List[str]:
    return [handle.get_name() for handle in handles]


def test_handles_are_the_same_object_every_time(xir: ModuleType) -> None:
    graph = branches(xir)
    a = graph.get_op("a")
    assert graph.get_op("a") is a
    assert a.get_graph() is graph
    assert graph.get_op("left").get_input_op("input") is a
    assert graph.toposort()[0] is a
    assert a in graph.get_ops()
    assert a.get_output_tensor() is graph.get_tensor("a")
    assert graph.get_tensor("a") in graph.get_tensors()
    assert {a: 1}[graph.get_op("a")] == 1
    root = graph.get_root_subgraph()
    root.create_child_subgraph()
    child = root.find_child_subgraph_by_op(a)
    assert child in root.get_children()
    assert child is graph.get_leaf_subgraph(a)
    assert graph.get_op("b") is None
    assert graph.get_tensor("b") is None


def test_sets_are_sets_and_lists_are_lists(xir: ModuleType) -> None:
    graph = branches(xir)
    root = graph.get_root_subgraph()
    for found in (
        graph.get_ops(),
        graph.get_tensors(),
        graph.get_head_ops(),
        graph.get_tail_ops(),
        root.get_ops(),
        root.get_children(),
        root.get_input_tensors(),
        root.get_output_tensors(),
    ):
        assert type(found) is set
    a = graph.get_op("a")
    for found in (
        graph.toposort(),
        root.toposort(),
        root.toposort_child_subgraph(),
        a.get_fanout_ops(),
        a.get_input_tensors(),
        a.get_input_ops_by_name("input"),
        a.get_output_tensor().dims,
    ):
        assert type(found) is list


def test_handles_cannot_be_copied_or_sent_to_another_process(xir: ModuleType) -> None:
    for handle in (branches(xir), branches(xir).get_op("a"), xir.DataType("int8")):
        for way in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="cannot pickle 'xir"):
                way(handle)


def test_threads_that_ask_at_once_get_the_same_handle(
    xir: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(tmp_path / "g.xmodel")
    branches(xir).serialize(file)
    graph = xir.Graph.deserialize(file)
    both_are_making_one = threading.Barrier(2)
    make = xir.Op._of

    def wait_and_make(record: Any, graph: Any) -> Any:
        both_are_making_one.wait(30)
        return make(record, graph)

    monkeypatch.setattr(xir.Op, "_of", wait_and_make)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(graph.get_op, ["sum", "sum"])
    assert first is second


def test_a_handle_keeps_its_graph(xir: ModuleType) -> None:
    tensor = branches(xir).get_op("tail").get_input_tensor("input")
    child = branches(xir).get_root_subgraph()
    gc.collect()
    assert names_of(tensor.producer.get_graph().toposort())[0] == "a"
    assert child.get_op_num() == 5


# ---------------------------------------------------------------- the tree


def test_children_of_a_leaf_and_their_order(xir: ModuleType) -> None:
    graph = branches(xir)
    root = graph.get_root_subgraph()
    assert (root.get_name(), root.depth, root.is_leaf, root.is_root) == ("root", 0, True, True)
    assert root.get_parent() is None
    assert root.toposort_child_subgraph() == []
    assert root.create_child_subgraph() is None
    assert names_of(root.toposort_child_subgraph()) == [
        # Depth first by name, read backwards: the later name of two branches comes first.
        "subgraph_a",
        "subgraph_right",
        "subgraph_left",
        "subgraph_sum",
        "subgraph_tail",
    ]
    with pytest.raises(XirAbort) as failure:
        root.create_child_subgraph()
    assert failure.value.identifier == "XIR_SUBGRAPH_CREATE_CHILDREN_FOR_NONLEAF"


def test_merging_children(xir: ModuleType, tmp_path: Path) -> None:
    graph = branches(xir)
    root = graph.get_root_subgraph()
    root.create_child_subgraph()
    children = {child.get_name()[9:]: child for child in root.get_children()}
    merged = root.merge_children({children["left"], children["sum"]})
    assert merged is root.find_child_subgraph_by_op_name("sum")
    assert merged is root.find_child_subgraph_by_op(graph.get_op("left"))
    assert root.get_children_num() == 4
    assert root.is_child(merged)
    assert not merged.is_child(root)
    assert {op.get_name() for op in merged.get_ops()} == {"left", "sum"}
    assert {t.name for t in merged.get_input_tensors()} == {"a", "right"}
    assert {t.name for t in merged.get_output_tensors()} == {"sum"}
    assert merged.get_tensor_producer(graph.get_tensor("sum")) is graph.get_op("sum")
    assert merged.get_tensor_producer(graph.get_tensor("a")) is None
    assert merged.has_op("left")
    assert merged.has_op(op=graph.get_op("sum"))
    assert not merged.has_op(graph.get_op("a"))
    assert not merged.has_op(name="tail")
    assert names_of(root.toposort_child_subgraph()) == [
        "subgraph_a",
        "subgraph_right",
        merged.get_name(),
        "subgraph_tail",
    ]
    assert merged.set_name("middle") is merged
    merged.set_attr("device", "DPU")
    merged.create_child_subgraph()
    assert [c.depth for c in merged.get_children()] == [2, 2]
    file = str(tmp_path / "tree.xmodel")
    graph.serialize(file)
    back = xir.Graph.deserialize(file).get_root_subgraph()
    assert names_of(back.toposort_child_subgraph()) == names_of(root.toposort_child_subgraph())
    again = back.find_child_subgraph_by_op_name("left")
    assert (again.get_name(), again.get_attrs()) == ("middle", {"device": "DPU"})
    assert names_of(again.toposort_child_subgraph()) == ["subgraph_left", "subgraph_sum"]


def test_children_that_cannot_be_merged(xir: ModuleType) -> None:
    graph, other = branches(xir), branches(xir)
    root = graph.get_root_subgraph()
    root.create_child_subgraph()
    other.get_root_subgraph().create_child_subgraph()
    foreign = other.get_root_subgraph().toposort_child_subgraph()[0]
    leaves = root.toposort_child_subgraph()
    inner = root.merge_children(frozenset(leaves[:2]))
    inner.create_child_subgraph()
    for request, identifier in (
        ({foreign}, "NONCHILD"),
        ({leaves[2], root}, "NONCHILD"),
        ({leaves[2], inner}, "NONLEAF"),
    ):
        with pytest.raises(XirAbort) as failure:
            root.merge_children(request)
        assert failure.value.identifier == f"XIR_SUBGRAPH_INVALID_MERGE_REQUEST_{identifier}"
    with pytest.raises(TypeError):
        root.merge_children(leaves[2:])


def test_children_that_read_each_other_in_a_circle(xir: ModuleType) -> None:
    graph = branches(xir)
    root = graph.get_root_subgraph()
    root.create_child_subgraph()
    ends = {root.find_child_subgraph_by_op_name(name) for name in ("a", "sum")}
    root.merge_children(ends)
    with pytest.raises(XirAbort) as failure:
        root.toposort_child_subgraph()
    assert failure.value.identifier == "XIR_SUBGRAPH_HAS_CYCLE"


# ---------------------------------------------------------------- the others' door


def test_a_runner_s_tensor_stands_alone(xir: ModuleType) -> None:
    attrs = {"fix_point": int32(5)}
    tensor = runner_tensor("x_fix", [8, 224, 224, 3], DataType.XINT, 8, attrs)
    assert isinstance(tensor, xir.Tensor)
    assert (tensor.name, tensor.dims, tensor.ndim) == ("x_fix", [8, 224, 224, 3], 4)
    assert (tensor.dtype, tensor.producer) == ("xint8", None)
    assert tensor.get_data_size() == tensor.get_element_num() == 8 * 224 * 224 * 3
    tensor.set_attr("fix_point", 6)
    assert tensor.get_attr("fix_point") == 6
    assert attrs == {"fix_point": int32(5)}
    clone = xir.Tensor.clone(tensor)
    clone.name = "y"
    assert (clone.get_attrs(), tensor.name) == ({"fix_point": 6}, "x_fix")
    assert clone.producer is None


def test_the_process_ends_where_that_is_asked_for(shared: Path) -> None:
    code = (
        "from deepfake_fpga.deploy import simulate; simulate.install()\n"
        "import xir; xir.Graph('g').get_attr('missing'); print('still here')"
    )
    environment = SimulateOptions(aborts="process").to_environment()
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
    )
    assert done.returncode == -6
    assert done.stdout == b""
    line = rb"\[XIR_UNREGISTERED_ATTR\]\[Unregistered attribute!\] Attrs doesn't contain attribute "
    assert re.search(rb"^F\d{4} .*\] \[UNILOG\]\[FATAL\]" + line + rb"missing$", done.stderr, re.M)
