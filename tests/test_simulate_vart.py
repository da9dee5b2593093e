"""The drop-in vart: its surface, what makes a runner, tensors, and exact numbers."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepfake_fpga.compile.compiler import compile_graph
from deepfake_fpga.compile.targets import target_by_name
from deepfake_fpga.compile.xir.attributes import map_string, string, uint64
from deepfake_fpga.compile.xir.graph import Graph
from deepfake_fpga.compile.xir.xmodel import read_xmodel
from deepfake_fpga.deploy.simulate import card
from deepfake_fpga.errors import UnsupportedError
from deepfake_fpga.inference.cpu_operators import float2fix
from deepfake_fpga.inference.devices import sim_available
from deepfake_fpga.inference.devices.handmade import GraphBuilder
from deepfake_fpga.inference.devices.reference import ReferenceDevice

from . import simulated_card
from .simulated_card import (
    ES1,
    FINGERPRINT,
    INPUT,
    MAIN,
    RUNNERS,
    SIDE,
    aborts,
    expected,
    opened,
    outputs_of,
    pictures,
    run,
    tiny,
)

host, vart, options = simulated_card.host, simulated_card.vart, simulated_card.options
subgraph, runner = simulated_card.subgraph, simulated_card.runner


# -- surface ------------------------------------------------------------------------------------


def test_the_module_has_the_genuine_names_and_no_constructors(vart: Any) -> None:
    assert sorted(vart.__all__) == ["Runner", "RunnerExt", "TensorBuffer"]
    assert "xir" in sys.modules
    for name in vart.__all__:
        cls = getattr(vart, name)
        assert cls.__module__ == "vart"
        assert cls.__mro__[-2].__name__ == "pybind11_object"
        with pytest.raises(TypeError, match=rf"vart\.{name}: No constructor defined!"):
            cls()
    assert vart.RunnerExt.__mro__[1] is vart.Runner


def test_signatures_are_the_recorded_ones(vart: Any, shared: Path) -> None:
    text = (shared / "spec" / "xir-vart-signatures.txt").read_text(encoding="utf-8")
    recorded = text[text.index("class vart.Runner(") :]
    for cls in (vart.Runner, vart.RunnerExt, vart.TensorBuffer):
        for name, member in vars(cls).items():
            if name.startswith("_") or name == "create_runner":
                continue
            assert member.__doc__.splitlines()[0] in recorded
    public = {
        name
        for cls in (vart.Runner, vart.RunnerExt, vart.TensorBuffer)
        for name in vars(cls)
        if not name.startswith("_")
    }
    assert public == {
        "create_runner",
        "execute_async",
        "get_input_tensors",
        "get_output_tensors",
        "wait",
        "get_inputs",
        "get_outputs",
        "get_tensor",
    }


def test_objects_take_no_other_attributes(runner: Any) -> None:
    with pytest.raises(AttributeError):
        runner.batch = 8
    assert repr(runner).startswith("vart::Runner@0x")


# -- create_runner ------------------------------------------------------------------------------


def test_the_mode_has_to_be_named(vart: Any, subgraph: Any) -> None:
    with aborts("VART_RUNNER_CONSTRUCTION_FAIL", "Cannot find runner for mode ! subgraph name: su"):
        vart.Runner.create_runner(subgraph)
    with aborts("VART_RUNNER_CONSTRUCTION_FAIL", "Cannot find runner for mode gpu!"):
        vart.Runner.create_runner(subgraph, "gpu")
    with aborts(
        "VART_RUNNER_CONSTRUCTION_FAIL", r"cannot open library! lib=libvart-sim-runner\.so"
    ):
        vart.Runner.create_runner(subgraph, "sim")
    assert vart.Runner.create_runner(subgraph=subgraph, mode="run") is not None


def test_arguments_of_other_types(vart: Any, subgraph: Any) -> None:
    with aborts("VART_RUNNER_CONSTRUCTION_FAIL"):
        vart.Runner.create_runner(None, "run")
    for wrong in ((), ("graph", "run"), (subgraph, 1), (subgraph, None)):
        with pytest.raises(TypeError, match="create_runner"):
            vart.Runner.create_runner(*wrong)
    with pytest.raises(TypeError):
        vart.RunnerExt.create_runner(subgraph)
    with pytest.raises(TypeError):
        vart.RunnerExt.create_runner(subgraph, mode="run")


def test_what_was_not_compiled_has_no_runner(vart: Any, subgraph: Any, tmp_path: Path) -> None:
    text = "Cannot find runner attr, this subgraph may not be compiled! subgraph name: root"
    with aborts("VART_RUNNER_CONSTRUCTION_FAIL", text):
        vart.Runner.create_runner(subgraph.get_parent(), "run")
    subgraph.set_attr("runner", {"run": "libvart-dummy-runner.so"})
    with aborts("VART_RUNNER_CONSTRUCTION_FAIL", "cannot load symbol 'create_runner'"):
        vart.Runner.create_runner(subgraph, "run")
    for other in ("librt-engine.so", {"run": 1}):
        subgraph.set_attr("runner", other)
        with aborts("", "bad any_cast"):
            vart.Runner.create_runner(subgraph, "run")


def test_firmware_has_to_be_there(
    vart: Any, subgraph: Any, options: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XLNX_VART_FIRMWARE", str(tmp_path / "none.xclbin"))
    with aborts("VART_XCLBIN_READ_ERROR"):
        vart.Runner.create_runner(subgraph, "run")
    monkeypatch.setenv("XLNX_VART_FIRMWARE", str(tmp_path))
    assert vart.Runner.create_runner(subgraph, "run")
    monkeypatch.delenv("XLNX_VART_FIRMWARE")
    with aborts("VART_XCLBIN_PATH_INVALID", "please consider setting XLNX_VART_FIRMWARE"):
        vart.Runner.create_runner(subgraph, "run")
    options(release="2.0")
    with pytest.raises(RuntimeError, match=r"Error: xclbinPath is not set"):
        vart.Runner.create_runner(subgraph, "run")


@pytest.mark.parametrize("kind", ["absent", "unbound"])
def test_no_card_no_runner(vart: Any, subgraph: Any, options: Any, kind: str) -> None:
    options(card=kind)
    with aborts("VART_XRT_DEVICE_AVAILABLE_ERROR", "No devices available"):
        vart.Runner.create_runner(subgraph, "run")


def test_model_and_card_must_be_of_one_build(
    vart: Any, subgraph: Any, options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    options(variant="4pe_miscdwc")
    with aborts("VART_VERSION_MISMATCH_ERROR", "subgraph's version is mismatch with xclbin"):
        vart.Runner.create_runner(subgraph, "run")
    monkeypatch.setenv("XLNX_ENABLE_FINGERPRINT_CHECK", "0")
    runner = vart.Runner.create_runner(subgraph, "run")
    assert runner.get_input_tensors()[0].dims == [4, 6, 5, 3]
    monkeypatch.delenv("XLNX_ENABLE_FINGERPRINT_CHECK")
    options(card="es1")
    with aborts("VART_VERSION_MISMATCH_ERROR"):
        vart.Runner.create_runner(subgraph, "run")


def test_a_model_for_es1_silicon_is_unknown_to_later_releases(
    vart: Any, options: Any, tmp_path: Path
) -> None:
    graph = tiny()
    graph.subgraphs("DPU")[0].attrs["dpu_fingerprint"] = uint64(ES1)
    subgraph = opened(graph, tmp_path)
    options(card="es1")
    text = "Cannot find or create target with fingerprint=0x0501000000000fee"
    with aborts("TARGET_FACTORY_UNREGISTERED_TARGET", text):
        vart.Runner.create_runner(subgraph, "run")
    options(card="es1", release="1.4.1")
    assert vart.Runner.create_runner(subgraph, "run").get_input_tensors()[0].dims[0] == 8


def test_models_without_or_of_another_dpu(
    vart: Any, options: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = tiny()
    attrs = graph.subgraphs("DPU")[0].attrs
    del attrs["dpu_fingerprint"]
    with aborts("VART_GRAPH_FINGERPRINT_ERROR", "no hardware info in subgraph"):
        vart.Runner.create_runner(opened(graph, tmp_path), "run")
    attrs["dpu_fingerprint"] = uint64(0x101000056010407)
    with pytest.raises(RuntimeError, match="no DpuController found"):
        vart.Runner.create_runner(opened(graph, tmp_path), "run")


@pytest.mark.parametrize(
    ("variant", "engines"),
    [("8pe_normal", 8), ("6pe_dwc", 6), ("6pe_misc", 6), ("4pe_miscdwc", 4)],
)
def test_the_batch_is_the_number_of_engines(
    vart: Any, options: Any, tmp_path: Path, variant: str, engines: int
) -> None:
    target = target_by_name(variant)
    assert target is not None
    graph = tiny()
    graph.subgraphs("DPU")[0].attrs["dpu_fingerprint"] = uint64(target.fingerprint)
    options(variant=variant)
    runner = vart.Runner.create_runner(opened(graph, tmp_path), "run")
    assert [t.dims[0] for t in runner.get_input_tensors()] == [engines]
    assert [t.dims[0] for t in runner.get_output_tensors()] == [engines] * 2
    codes = pictures(engines)
    outputs = outputs_of(runner)
    assert run(runner, [codes], outputs) == 0
    for tensor, got in zip(runner.get_output_tensors(), outputs):
        np.testing.assert_array_equal(got, expected(codes)[tensor.name])


def test_a_batch_in_the_file_multiplies_the_engines(
    vart: Any, options: Any, tmp_path: Path
) -> None:
    build = GraphBuilder()
    image = build.input((2, 4, 4, 3), 5)
    weights = np.full((2, 1, 1, 3), 3, np.int8)
    build.output(build.convolution("c", image, weights, None, (5, 0, 5), (2, 4, 4, 2)))
    graph = build.finish()
    attrs = graph.subgraphs("DPU")[0].attrs
    attrs.update(runner=map_string(RUNNERS), dpu_fingerprint=uint64(FINGERPRINT))
    runner = vart.Runner.create_runner(opened(graph, tmp_path), "run")
    codes = np.arange(16 * 48, dtype=np.int64).astype(np.int8).reshape(16, 4, 4, 3)
    assert runner.get_input_tensors()[0].dims == [16, 4, 4, 3]
    outputs = outputs_of(runner)
    assert run(runner, [codes], outputs) == 0
    np.testing.assert_array_equal(outputs[0], expected(codes, graph)["c_download_0_fix"])


# -- tensors ------------------------------------------------------------------------------------


def test_tensors_are_the_models_sorted_by_name(runner: Any) -> None:
    inputs, outputs = runner.get_input_tensors(), runner.get_output_tensors()
    assert isinstance(inputs, list)
    assert isinstance(outputs, list)
    assert [(t.name, t.dims, t.dtype, t.get_attr("fix_point")) for t in inputs + outputs] == [
        (INPUT, [8, 6, 5, 3], "xint8", 5),
        (MAIN, [8, 6, 5, 4], "xint8", 4),
        (SIDE, [8, 6, 5, 2], "xint8", 3),
    ]
    assert inputs[0].producer is None
    assert inputs[0].has_attr("__device_id__")
    assert [t is u for t, u in zip(outputs, runner.get_output_tensors())] == [True, True]


def test_attributes_are_those_of_the_tensors_inside(
    vart: Any, options: Any, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    xir = importlib.import_module("xir")
    path = shared / "xmodels" / "vck5000_8pe_pointpillars_v2.5.xmodel"
    children = xir.Graph.deserialize(str(path)).get_root_subgraph().toposort_child_subgraph()
    dpu = [child for child in children if child.get_attr("device") == "DPU"]
    runner = vart.Runner.create_runner(dpu[0], "run")
    (given,) = runner.get_input_tensors()
    assert given.name == "VoxelNet__input_0_fix"
    assert (given.dims[0], given.get_attr("fix_point")) == (8, 6)
    # As in the file, at the tensor of the upload.
    assert (given.get_attr("reg_id"), given.get_attr("ddr_addr"), given.get_attr("location")) == (
        2,
        0,
        1,
    )
    assert given.get_attr("stride") == [4800000, 400, 4, 1]
    (made,) = runner.get_output_tensors()
    assert made.name.endswith("ReLU_relu__145_fix")
    assert made.has_attr("reg_id")


def test_a_genuine_file_gives_what_the_definition_gives(
    vart: Any, options: Any, shared: Path
) -> None:
    xir = importlib.import_module("xir")
    path = shared / "xmodels" / "vck5000_8pe_tf2mnist_v2.5.xmodel"
    graph = read_xmodel(path)
    children = xir.Graph.deserialize(str(path)).get_root_subgraph().toposort_child_subgraph()
    first, last = (child for child in children if child.get_attr("device") == "DPU")
    with pytest.raises(UnsupportedError, match=r"order of the weights .* is not established"):
        vart.Runner.create_runner(first, "run")
    record = next(s for s in graph.subgraphs("DPU") if s.name == last.get_name())
    runner = vart.Runner.create_runner(last, "run")
    (tensor,) = runner.get_input_tensors()
    codes = np.random.default_rng(0).integers(-128, 128, tensor.dims).astype(np.int8)
    outputs = outputs_of(runner)
    run(runner, [codes], outputs)
    reference = ReferenceDevice(graph, record, 8).compute({tensor.name: codes})
    np.testing.assert_array_equal(outputs[0], reference[runner.get_output_tensors()[0].name])


def test_shuffled_tensors_come_in_every_order_and_match_by_name(
    vart: Any, subgraph: Any, options: Any
) -> None:
    options(shuffle=True, seed=4)
    codes = pictures()
    truth = expected(codes)
    seen = set()
    for _ in range(16):
        runner = vart.Runner.create_runner(subgraph, "run")
        names = [t.name for t in runner.get_output_tensors()]
        assert names == [t.name for t in runner.get_output_tensors()]
        seen.add(tuple(names))
        outputs = outputs_of(runner)
        run(runner, [codes], outputs)
        for name, got in zip(names, outputs):
            np.testing.assert_array_equal(got, truth[name])
    assert seen == {(MAIN, SIDE), (SIDE, MAIN)}


# -- numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["reference", "sim", "auto"])
def test_every_slot_gives_what_a_single_run_gives(
    vart: Any, subgraph: Any, options: Any, device: str
) -> None:
    if device == "sim" and not sim_available()[0]:
        pytest.skip("no onnxruntime here")
    options(device=device)
    runner = vart.Runner.create_runner(subgraph, "run")
    codes = pictures()
    outputs = outputs_of(runner)
    assert run(runner, [codes], outputs) == 0
    for slot in range(8):
        alone = expected(codes[slot : slot + 1])
        np.testing.assert_array_equal(outputs[0][slot], alone[MAIN][0])
        np.testing.assert_array_equal(outputs[1][slot], alone[SIDE][0])


def test_without_onnxruntime_the_reference_computes_and_says_so_once(
    vart: Any,
    subgraph: Any,
    options: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    options(device="auto")
    monkeypatch.setattr(card, "sim_available", lambda: (False, "onnxruntime not installed"))
    monkeypatch.setattr(card, "_notes", [])
    for _ in range(2):
        runner = vart.Runner.create_runner(subgraph, "run")
    assert capfd.readouterr().err.count("onnxruntime not installed") == 1
    outputs = outputs_of(runner)
    run(runner, [pictures()], outputs)
    np.testing.assert_array_equal(outputs[0], expected(pictures())[MAIN])


GOLDEN = (
    "micro_a_conv_bn_relu",
    "micro_b_conv_bias",
    "micro_c_convt_concat",
    "micro_d_pool_linear_sigmoid",
    "micro_e2_resadd_avgpool2",
)


@pytest.mark.parametrize("name", GOLDEN)
def test_recorded_networks_give_the_recorded_outputs(
    vart: Any, options: Any, shared: Path, tmp_path: Path, name: str
) -> None:
    folder = shared / "golden" / name
    target = target_by_name("8pe_normal")
    assert target is not None
    quantized = read_xmodel(next((folder / "quantize_result").glob("*_int.xmodel")))
    graph = compile_graph(quantized, target)
    values = np.load(str(folder / "test_inputs.npz"))["x"].transpose(0, 2, 3, 1)
    wanted = np.load(str(folder / "quant_outputs.npz"))["out"]
    runner = vart.Runner.create_runner(opened(graph, tmp_path), "run")
    (given,) = runner.get_input_tensors()
    (made,) = runner.get_output_tensors()
    codes = np.zeros(tuple(given.dims), np.int8)
    codes[: len(values)] = float2fix(values, given.get_attr("fix_point"))
    floats = np.empty(tuple(made.dims), np.float32)
    assert run(runner, [codes], [floats]) == 0
    got = floats[: len(values)]
    single = vart.Runner.create_runner(opened(graph, tmp_path), "ref")
    alone = np.empty((1, *made.dims[1:]), np.float32)
    assert run(single, [codes[2:3].copy()], [alone]) == 0
    np.testing.assert_array_equal(alone, got[2:3])
    if "sigmoid" in name:
        got = np.concatenate([_on_cpu(vart, graph, tmp_path, floats[k]) for k in range(len(got))])
        np.testing.assert_allclose(got, wanted, atol=1e-6, rtol=0)
        return
    if got.ndim == 4:
        got = got.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(got, wanted)


def _on_cpu(vart: Any, graph: Graph, folder: Path, logit: np.ndarray) -> np.ndarray:
    """One picture through the CPU subgraph behind the DPU's."""
    runner = vart.Runner.create_runner(opened(graph, folder, "CPU"), "run")
    (given,) = runner.get_input_tensors()
    (made,) = runner.get_output_tensors()
    assert (given.dims, given.dtype, made.dtype) == ([1, 1], "xint8", "float32")
    codes = np.asarray(logit * 2.0 ** given.get_attr("fix_point"), np.int8).reshape(1, 1)
    result = np.empty((1, 1), np.float32)
    assert run(runner, [codes], [result]) == 0
    return result


def test_a_cpu_subgraph_with_a_foreign_operator_needs_a_library_that_is_missing(
    vart: Any, options: Any, tmp_path: Path
) -> None:
    build = GraphBuilder()
    image = build.input((1, 4, 4, 3), 5)
    weights = np.ones((2, 1, 1, 3), np.int8)
    logits = build.output(build.convolution("c", image, weights, None, (7, 0, 4), (1, 4, 4, 2)))
    build.on_host("strange", "grid-sample", (1, 4, 4, 2), logits, shape=(1, 4, 4, 2))
    graph = build.finish()
    graph.op("strange").attrs["data_type"] = string("FLOAT32")
    graph.subgraphs("CPU")[0].attrs["runner"] = map_string({"run": RUNNERS["ref"]})
    with aborts("VART_RUNNER_CONSTRUCTION_FAIL", "cannot open library! lib=libvart-cpu-runner"):
        vart.Runner.create_runner(opened(graph, tmp_path, "CPU"), "run")


def test_the_reference_mode_needs_no_card_and_takes_one_picture(
    vart: Any, subgraph: Any, options: Any
) -> None:
    options(card="absent")
    runner = vart.Runner.create_runner(subgraph, "ref")
    assert runner.get_input_tensors()[0].dims == [1, 6, 5, 3]
    outputs = outputs_of(runner)
    run(runner, [pictures(1)], outputs)
    np.testing.assert_array_equal(outputs[1], expected(pictures(1))[SIDE])
    assert vart.RunnerExt.create_runner(subgraph, "ref") is None


# -- RunnerExt and TensorBuffer -----------------------------------------------------------------


def test_buffers_of_the_extended_runner(vart: Any, subgraph: Any) -> None:
    runner = vart.RunnerExt.create_runner(subgraph, "run")
    assert isinstance(runner, vart.Runner)
    inputs, outputs = runner.get_inputs(), runner.get_outputs()
    assert [type(b) for b in inputs + outputs] == [vart.TensorBuffer] * 3
    assert [b.get_tensor().name for b in outputs] == [MAIN, SIDE]
    view = np.asarray(inputs[0])
    assert view.shape == (8, 6, 5, 3)
    assert view.dtype == np.int8
    view[:] = pictures()
    np.testing.assert_array_equal(np.asarray(inputs[0]), pictures())
    assert runner.wait(runner.execute_async(inputs, outputs)) == 0
    np.testing.assert_array_equal(np.asarray(outputs[0]), expected(pictures())[MAIN])
    np.testing.assert_array_equal(np.array(outputs[1]), expected(pictures())[SIDE])


def test_every_call_gives_new_buffers(vart: Any, subgraph: Any) -> None:
    runner = vart.RunnerExt.create_runner(subgraph, "run")
    first, second = runner.get_inputs()[0], runner.get_inputs()[0]
    np.asarray(first)[:] = 3
    assert not np.asarray(second).any()
    view = np.asarray(runner.get_outputs()[0])
    view[:] = 5
    assert (view == 5).all(), "the view keeps its memory"
    assert "image_fix" in str(first)
    with pytest.raises(TypeError):
        first[0]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python code cannot grant memory before")
def test_a_tensor_buffer_is_a_buffer(vart: Any, subgraph: Any) -> None:
    buffer = vart.RunnerExt.create_runner(subgraph, "run").get_inputs()[0]
    assert memoryview(buffer).format == "b"
