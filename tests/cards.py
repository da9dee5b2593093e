"""A simulated card for tests: the drop-in modules in a child process, as hostile as asked for."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Dict, Optional

import numpy as np

from deepfake_fpga.compile.targets import target_by_name
from deepfake_fpga.compile.weights import SIMULATED_STAMP
from deepfake_fpga.compile.xir.attributes import boolean, int32, map_string, string, uint64
from deepfake_fpga.compile.xir.graph import Graph
from deepfake_fpga.deploy.simulate.host import SimulatedHost
from deepfake_fpga.deploy.simulate.options import SimulateOptions
from deepfake_fpga.inference.devices import CardOptions
from deepfake_fpga.inference.devices.handmade import GraphBuilder
from deepfake_fpga.inference.devices.preflight import PYTHON_VARIABLE

LIBRARIES = {"ref": "libvart-cpu-runner.so", "run": "librt-engine.so"}


def for_card(graph: Graph) -> Graph:
    """A graph made by hand with what the compiler adds for the runtime."""
    for subgraph in graph.subgraphs("DPU"):
        target = target_by_name(str(subgraph.get("dpu_name")))
        assert target is not None
        subgraph.attrs["runner"] = map_string(LIBRARIES)
        subgraph.attrs["dpu_fingerprint"] = uint64(target.fingerprint)
    for op in graph.ops.values():
        if op.type == "float2fix":
            attrs = {
                "bit_width": int32(8),
                "round_mode": string("DPU_ROUND"),
                "if_signed": boolean(True),
            }
            op.attrs.update({key: attr for key, attr in attrs.items() if key not in op.attrs})
    graph.attrs["libs_info"] = map_string({SIMULATED_STAMP + "test": "simulated"})
    return graph


def sums(target: str = "DPUCVDX8H_ISA1_F2W2_8PE") -> Graph:
    """Two outputs of other shapes: each pixel's channels added up, and the largest of a picture."""
    build = GraphBuilder(dpu_name=target)
    weights = np.ones((2, 1, 1, 3), np.int8)
    source = build.input((1, 4, 4, 3), 4)
    conv = build.convolution("conv", source, weights, None, (0, 0, 4), (1, 4, 4, 2))
    build.output(conv)
    build.output(
        build.add("top", "pool-fix", (1, 1, 1, 2), 4, [conv], kernel=(4, 4), stride=(1, 1),
                  type="MAX")
    )  # fmt: skip
    return for_card(build.finish())


def batch_of_sums(number: int, batch: int = 8) -> Dict[str, np.ndarray]:
    """Inputs of ``sums`` that no other number gives."""
    codes = np.random.default_rng(number).integers(-20, 21, (batch, 4, 4, 3))
    return {"image_fix": codes.astype(np.int8)}


def right(inputs: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    """The answer to a batch of ``sums``, worked out by hand."""
    total = inputs["image_fix"].astype(int).sum(-1, keepdims=True).repeat(2, -1).clip(-128, 127)
    top = total.max(axis=(1, 2), keepdims=True)
    return {
        "conv_download_0_fix": total.astype(np.int8),
        "top_download_0_fix": top.astype(np.int8),
    }


def host_options(folder: Path, **hostile: Any) -> Dict[str, str]:
    """The variables in which a simulated host differs from this process.

    Args:
        folder: for its files.
        hostile: fields of ``SimulateOptions``; the small nets are computed by the reference.
    """
    options = SimulateOptions(**{"aborts": "process", "device": "reference", **hostile})
    environment = SimulatedHost(options, folder).environment()
    changed = {name: value for name, value in environment.items() if os.environ.get(name) != value}
    if "XLNX_VART_FIRMWARE" not in environment:
        changed["XLNX_VART_FIRMWARE"] = ""
    return {**changed, PYTHON_VARIABLE: sys.executable}


def card_options(
    folder: Path, environment: Optional[Dict[str, str]] = None, **options: Any
) -> CardOptions:
    """Options of a card on a simulated host; ``hostile`` fields as a dictionary.

    Args:
        folder: for the host's files.
        environment: further variables of the child.
        options: fields of ``CardOptions`` and, by their names, of ``SimulateOptions``.
    """
    of_card = {name: options.pop(name) for name in list(options) if name in _CARD_FIELDS}
    variables = {**host_options(folder, **options), **(environment or {})}
    return CardOptions(environment=variables, **of_card)


_CARD_FIELDS = set(CardOptions.__dataclass_fields__)
