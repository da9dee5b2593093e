"""A simulated card with a tiny model on it, for the tests of the module ``vart``."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Sequence

import numpy as np
import pytest

from deepfake_fpga.compile.xir.attributes import map_string, uint64
from deepfake_fpga.compile.xir.graph import Graph
from deepfake_fpga.compile.xir.xmodel import write_xmodel
from deepfake_fpga.deploy import simulate
from deepfake_fpga.deploy.simulate import card_state
from deepfake_fpga.deploy.simulate.abort import XirAbort
from deepfake_fpga.deploy.simulate.options import SimulateOptions
from deepfake_fpga.inference.devices.handmade import GraphBuilder
from deepfake_fpga.inference.devices.reference import ReferenceDevice

RUNNERS = {
    "run": "librt-engine.so",
    "ref": "libvart-cpu-runner.so",
    "sim": "libvart-sim-runner.so",
}
FINGERPRINT = 0x501000000140FEE
ES1 = 0x501000000000FEE
INPUT, MAIN, SIDE = "image_fix", "main_download_0_fix", "side_download_0_fix"


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A host with the drop-in modules, firmware, and a card that has run nothing."""
    firmware = tmp_path / "dpu_DPUCVDX8H_8PE.xclbin"
    firmware.write_bytes(b"xclbin2")
    monkeypatch.setenv("XLNX_VART_FIRMWARE", str(firmware))
    monkeypatch.delenv("XLNX_ENABLE_FINGERPRINT_CHECK", raising=False)
    card_state.forget()
    simulate.install()
    yield
    simulate.uninstall()
    card_state.forget()


@pytest.fixture
def vart() -> Any:
    return importlib.import_module("vart")


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> Callable[..., SimulateOptions]:
    """Puts options in force; the plain reference computes unless told otherwise."""

    def choose(**given: Any) -> SimulateOptions:
        chosen = SimulateOptions(**{"device": "reference", **given})
        for name, value in chosen.to_environment().items():
            monkeypatch.setenv(name, value)
        return chosen

    choose()
    return choose


def tiny() -> Graph:
    """One input of 6x5x3, outputs of 6x5x4 and 6x5x2, each with another fix point."""
    random = np.random.default_rng(5)
    build = GraphBuilder("tiny")
    image = build.input((1, 6, 5, 3), 5)
    weights = random.integers(-128, 128, (4, 3, 3, 3)).astype(np.int8)
    bias = random.integers(-128, 128, 4).astype(np.int8)
    main = build.convolution(
        "main", image, weights, bias, (7, 6, 4), (1, 6, 5, 4), pad=(1, 1, 1, 1), nonlinear="RELU"
    )
    weights = random.integers(-128, 128, (2, 1, 1, 4)).astype(np.int8)
    side = build.convolution("side", main, weights, None, (7, 0, 3), (1, 6, 5, 2))
    build.output(main)
    build.output(side)
    graph = build.finish()
    subgraph = graph.subgraphs("DPU")[0]
    subgraph.attrs.update(runner=map_string(RUNNERS), dpu_fingerprint=uint64(FINGERPRINT))
    return graph


def opened(graph: Graph, folder: Path, device: str = "DPU") -> Any:
    """The first subgraph of a device as a program gets it: through a file and ``xir``."""
    xir = importlib.import_module("xir")
    path = folder / "model.xmodel"
    write_xmodel(graph, path)
    children = xir.Graph.deserialize(str(path)).get_root_subgraph().toposort_child_subgraph()
    return next(
        child
        for child in children
        if child.has_attr("device") and child.get_attr("device") == device
    )


@pytest.fixture
def subgraph(tmp_path: Path, options: Callable[..., SimulateOptions]) -> Any:
    return opened(tiny(), tmp_path)


@pytest.fixture
def runner(vart: Any, subgraph: Any) -> Any:
    return vart.Runner.create_runner(subgraph, "run")


def pictures(count: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-128, 128, (count, 6, 5, 3)).astype(np.int8)


def expected(codes: np.ndarray, graph: Graph = None) -> Dict[str, np.ndarray]:  # type: ignore[assignment]
    """What the definition gives for any number of pictures."""
    graph = tiny() if graph is None else graph
    dpu = graph.subgraphs("DPU")[0]
    device = ReferenceDevice(graph, dpu, len(codes))
    return device.compute({device.inputs[0].name: codes})


def outputs_of(runner: Any, dtype: Any = np.int8, fill: int = 77) -> List[np.ndarray]:
    return [np.full(tuple(t.dims), fill, dtype) for t in runner.get_output_tensors()]


def run(runner: Any, inputs: Sequence[Any], outputs: Sequence[Any], **more: Any) -> int:
    status: int = runner.wait(runner.execute_async(list(inputs), list(outputs), **more))
    return status


def aborts(identifier: str, text: str = "") -> Any:
    return pytest.raises(XirAbort, match=rf"(?s)\[{identifier}\].*{text}" if identifier else text)
