"""How long ``deepfake-fpga --help`` takes beside an empty Python.

Run as ``python benchmarks/startup.py``.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "deepfake-fpga --help": [sys.executable, "-m", "deepfake_fpga", "--help"],
}


def seconds(command: list[str], repeats: int = 9) -> float:
    """Median wall time of ``command`` in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    result = {name: round(seconds(command), 4) for name, command in COMMANDS.items()}
    result["difference"] = round(result["deepfake-fpga --help"] - result["python -c pass"], 4)
    print(json.dumps(result, indent=2))
