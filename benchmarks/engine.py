"""Measures the simulated card against float32 PyTorch, side by side in one run.

    python benchmarks/engine.py [--width 64] [--batch 8] [--rounds 5] [--threads N] [-o FILE.json]

Every round times each engine once, so a disturbance of the machine meets all of them; the medians
and their ratios are printed and written. ``plain`` is the same ONNX graph without the measures
that make it exact (no clip after an activation, output scales at the power of two).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import numpy as np

from deepfake_fpga.compile.xir.graph import Op
from deepfake_fpga.inference.devices.handmade import uynet
from deepfake_fpga.inference.devices.onnx_graph import Piece
from deepfake_fpga.inference.devices.sim import SimDevice

MACS_AT_64 = 36.9e9


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--no-torch", action="store_true", help="leave the float model out")
    parser.add_argument("-o", "--output", type=Path, help="JSON file to write")
    options = parser.parse_args(arguments)

    graph = uynet(options.width)
    subgraph = graph.subgraphs("DPU")[0]
    codes = np.random.default_rng(1).integers(0, 33, (options.batch, 224, 224, 3)).astype(np.int8)
    start = time.perf_counter()
    exact = SimDevice(graph, subgraph, options.batch, options.threads)
    build_seconds = time.perf_counter() - start
    engines: Dict[str, Callable[[], Any]] = {"sim": lambda: exact.compute({"image_fix": codes})}
    plain = PlainDevice(graph, subgraph, options.batch, options.threads)
    engines["plain"] = lambda: plain.compute({"image_fix": codes})
    if not options.no_torch:
        engines["torch"] = torch_engine(options.width, options.batch, options.threads)

    for run in engines.values():
        run()
    seconds: Dict[str, List[float]] = {name: [] for name in engines}
    for _ in range(options.rounds):
        for name, run in engines.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)

    medians = {name: statistics.median(times) for name, times in seconds.items()}
    record = {
        "width": options.width,
        "batch": options.batch,
        "threads": options.threads,
        "rounds": options.rounds,
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "engine": exact.engine_reason,
        "build_seconds": round(build_seconds, 3),
        "median_seconds": {name: round(value, 4) for name, value in medians.items()},
        "images_per_second": {n: round(options.batch / v, 2) for n, v in medians.items()},
        "gmac_per_second": round(
            MACS_AT_64 * (options.width / 64) ** 2 * options.batch / medians["sim"] / 1e9, 1
        ),
        "sim_over_plain": round(medians["sim"] / medians["plain"], 3),
        "all_seconds": {name: [round(t, 4) for t in times] for name, times in seconds.items()},
    }
    if "torch" in medians:
        record["speedup_over_torch"] = round(medians["torch"] / medians["sim"], 2)
    text = json.dumps(record, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")
    return 0


class PlainPiece(Piece):
    """The translation without what makes it exact."""

    def activated(self, value: str, op: Op, fo: int) -> str:
        """Nothing after the rounding."""
        return value

    def output_scale(self, cut: int) -> float:
        """The power of two itself."""
        return 2.0**cut


class PlainDevice(SimDevice):
    """Rounds half to even and leaves the clips out."""

    piece_type = PlainPiece


def torch_engine(width: int, batch: int, threads: int) -> Callable[[], Any]:
    """The float model in PyTorch, NCHW, batch norm in place, no gradients."""
    import torch

    from deepfake_fpga.quantize.model import UYNet

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = UYNet(width=width).eval()
    images = torch.rand(batch, 3, 224, 224)

    def run() -> Any:
        with torch.no_grad():
            return model(images)

    return run


if __name__ == "__main__":
    sys.exit(main())
