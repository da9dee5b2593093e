"""Measures calibration against float32 PyTorch, side by side in one run.

    python benchmarks/calibration.py [--width 64] [--batch 8] [--batches 1] [--rounds 5]
                                     [--threads 2] [-o FILE.json]

Every round times one float pass and one calibration of the same images, so a disturbance of the
machine meets both; the ratio is that of the medians. ``setup`` is what a calibration does once,
whatever the number of images (the search for the parameters' fix points); ``ratio`` leaves it out
and ``ratio_with_setup`` does not. The vendor's calibration was measured at 7.7 times a float pass.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Dict, List, Optional

import torch

from deepfake_fpga.quantize.model import UYNet
from deepfake_fpga.quantize.quantizer import Quantizer


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8, help="8 or more")
    parser.add_argument("--batches", type=int, default=1, help="per calibration")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("-o", "--output", type=Path, help="JSON file to write")
    options = parser.parse_args(arguments)

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = UYNet(width=options.width).eval()
    images = torch.rand(options.batch, 3, 224, 224)
    quantizer = Quantizer(model, images[:1])

    def float_pass() -> None:
        with torch.no_grad():
            for _ in range(options.batches):
                model(images)

    seconds: Dict[str, List[float]] = {"float": [], "setup": [], "calibration": []}

    def calibration() -> None:
        begun = time.perf_counter()
        first: List[float] = []

        def batches():  # type: ignore[no-untyped-def]
            first.append(time.perf_counter())
            for _ in range(options.batches):
                yield images

        quantizer.calibrate(batches())
        seconds["setup"].append(first[0] - begun)
        seconds["calibration"].append(time.perf_counter() - first[0])

    float_pass()
    calibration()
    for times in seconds.values():
        times.clear()
    for _ in range(options.rounds):
        begun = time.perf_counter()
        float_pass()
        seconds["float"].append(time.perf_counter() - begun)
        calibration()

    medians = {name: statistics.median(times) for name, times in seconds.items()}
    whole = medians["setup"] + medians["calibration"]
    record = {
        "width": options.width,
        "batch": options.batch,
        "batches": options.batches,
        "threads": options.threads,
        "rounds": options.rounds,
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ratio": round(medians["calibration"] / medians["float"], 2),
        "ratio_with_setup": round(whole / medians["float"], 2),
        "median_seconds": {name: round(value, 3) for name, value in medians.items()},
        "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "all_seconds": {name: [round(t, 3) for t in times] for name, times in seconds.items()},
    }
    text = json.dumps(record, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
