"""Whole networks of many kinds: quantized, exported, compiled and run to the quantizer's codes."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Tuple

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from torch import Tensor  # noqa: E402

from deepfake_fpga.compile.compiler import compile_graph  # noqa: E402
from deepfake_fpga.compile.targets import target_by_name  # noqa: E402
from deepfake_fpga.compile.weights import constant_arrays  # noqa: E402
from deepfake_fpga.compile.xir.graph import Graph  # noqa: E402
from deepfake_fpga.compile.xir.xmodel import read_xmodel  # noqa: E402
from deepfake_fpga.inference.cpu_operators import float2fix, run_cpu_operator  # noqa: E402
from deepfake_fpga.inference.devices import open_device  # noqa: E402
from deepfake_fpga.inference.session import ordered_subgraphs  # noqa: E402
from deepfake_fpga.quantize.export import xir_name  # noqa: E402
from deepfake_fpga.quantize.quantized import QuantizedModel  # noqa: E402
from deepfake_fpga.quantize.quantizer import QuantizeOptions, Quantizer  # noqa: E402

from .zoo import ZOO, Averaged, Mapped, shaken  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_thread")]


def made(kind: type, shape: Tuple[int, ...], release: str) -> Tuple[QuantizedModel, Tensor]:
    torch.manual_seed(0)
    model = shaken(kind())
    images = torch.rand(10, *shape) * 2 - 0.9
    quantizer = Quantizer(model, images[:1], QuantizeOptions(release=release))
    return quantizer.quantized(quantizer.calibrate([images[:5], images[5:]])), images[:3]


def executed(graph: Graph, images: np.ndarray) -> Dict[str, np.ndarray]:
    """Every tensor of a compiled graph, by its name; DPU subgraphs on the simulated card."""
    (source,) = [op for op in graph.ops.values() if op.type in ("data", "data-fix")]
    fix_point = source.tensor.fix_point
    values = dict(constant_arrays(graph))
    for op in graph.ops.values():
        if op.type == "const":
            values[op.name] = np.frombuffer(op.get("data"), "<f4").reshape(op.tensor.dims)
    values[source.name] = images if fix_point is None else float2fix(images, fix_point)
    op_of = {op.tensor.name: op.name for op in graph.ops.values()}
    for step in ordered_subgraphs(graph):
        if step.device == "DPU":
            device = open_device("sim", graph, step, batch=len(images), threads=1)
            batch = {info.name: values[op_of[info.name]] for info in device.inputs}
            for name, array in device.wait(device.submit(batch)).items():
                values[op_of[name]] = array
            device.close()
            continue
        for name in step.all_ops():
            if name not in values:
                values[name] = run_cpu_operator(graph, graph.op(name), values)
    return {graph.op(name).tensor.name: array for name, array in values.items()}


def real(graph: Graph, tensors: Dict[str, np.ndarray], name: str) -> np.ndarray:
    """The values of the tensor called ``name``, or of what became of it."""
    found = [t for t in tensors if t.startswith((f"{name}_fix", f"{name}("))]
    found += [t for t in tensors if t == name]
    (op, *_) = [op for op in graph.ops.values() if op.tensor.name == found[0]]
    array = tensors[op.tensor.name].astype(np.float32)
    return array if op.tensor.fix_point is None else array * np.float32(2.0**-op.tensor.fix_point)


def nhwc(array: np.ndarray) -> np.ndarray:
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


CASES = [(kind, shape, "3.5") for kind, shape in ZOO]
# Where releases differ: a mean is an operator of its own, a flattened map is put in order.
CASES += [(Averaged, (3, 6, 6), "3.0"), (Mapped, (3, 4, 6), "2.5"), (Mapped, (3, 4, 6), "1.4.1")]


@pytest.mark.parametrize(
    ("kind", "shape", "release"), CASES, ids=[f"{kind.__name__}-{r}" for kind, _, r in CASES]
)
def test_from_module_to_card(
    kind: type, shape: Tuple[int, ...], release: str, tmp_path: Path
) -> None:
    quantized, images = made(kind, shape, release)
    quantized.export_xmodel(tmp_path / "net_int.xmodel")
    target = target_by_name("8pe_normal")
    assert target is not None
    graph = compile_graph(read_xmodel(tmp_path / "net_int.xmodel"), target)
    tensors = executed(graph, nhwc(images.numpy()))
    result = quantized(images)
    expected: List[Tensor] = list(result.values()) if isinstance(result, dict) else [result]
    for node, values in zip(quantized.graph.output_nodes, expected):
        found = real(graph, tensors, xir_name(quantized.graph.debug_name(node)))
        tolerance = 0 if node in quantized.node_positions else 1e-6
        assert np.abs(found - nhwc(values.numpy())).max() <= tolerance
        assert np.unique(found).size > 4
