"""What has to be measured in a process of its own: loading and peak memory.

``measure`` starts this module as a program with a task and reads what it answers. A process that
has measured other things before would count their imports and their memory.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

import numpy as np

from ...errors import WorkError
from .machine import peak_bytes

TIMEOUT = 1800.0
"""Seconds after which a child counts as hung."""

_PACKAGES = {
    "sim": ("onnx", "onnxruntime"),
    "float": ("torch",),
    "quantized": ("torch",),
}


def measure(task: Mapping[str, Any], cache: Optional[Path] = None) -> Dict[str, Any]:
    """Does one task in a new process.

    Args:
        task: ``{"task": "device" or "video", ...}``, see ``device`` and ``video``.
        cache: folder of the engine cache for it; the user's own if not given.

    Returns:
        What the task answers: seconds and bytes.

    Raises:
        WorkError: the process failed or hung.
    """
    environment = dict(os.environ)
    if cache is not None:
        environment["DEEPFAKE_FPGA_CACHE"] = str(cache)
    with tempfile.TemporaryDirectory(prefix="deepfake-fpga-bench-") as folder:
        answer = Path(folder) / "answer.json"
        command = [sys.executable, "-m", __name__, json.dumps(dict(task)), str(answer)]
        try:
            process = subprocess.run(
                command,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            raise WorkError(
                f"Measuring {task.get('task')} in a process of its own took too long",
                f"no end after {TIMEOUT:.0f} s",
            ) from None
        if process.returncode or not answer.is_file():
            words = process.stdout.decode("utf-8", "replace").strip().splitlines()[-3:]
            raise WorkError(
                f"Measuring {task.get('task')} in a process of its own failed",
                f"status {process.returncode}: {' | '.join(words) or 'it said nothing'}",
            )
        found: Dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    return found


def device(task: Mapping[str, Any]) -> Dict[str, Any]:
    """Opens a model on a device and computes some batches.

    Args:
        task: ``subject``, ``name``, ``layout``, ``batch`` and ``threads`` (or ``None``),
            ``batches``.

    Returns:
        ``import_seconds`` of the packages it needs, ``load_seconds`` from the model's file to a
        device ready for a batch, ``base_bytes`` before that, ``peak_bytes`` of the whole process,
        ``peak_from``, and ``notes`` of the device.
    """
    from ...inference.artifact import load_artifact
    from .contenders import Subject, contender

    start = time.perf_counter()
    for name in _PACKAGES.get(str(task["name"]), ()):
        importlib.import_module(name)
    imported = time.perf_counter()
    base, _ = peak_bytes()
    subject = Subject.from_json(task["subject"])
    begun = time.perf_counter()
    artifact = load_artifact(subject.model)
    record = artifact.preprocessing
    chosen = contender(
        str(task["name"]), subject, (record.height, record.width), str(task.get("layout", ""))
    )
    with chosen.open(artifact, task.get("batch"), task.get("threads")) as session:
        loaded = time.perf_counter()
        images = np.full((session.batch, record.height, record.width, 3), 90, np.uint8)
        for _ in range(int(task.get("batches", 2))):
            session.run(images)
        notes = session.reason
    peak, source = peak_bytes()
    return {
        "import_seconds": imported - start,
        "load_seconds": loaded - begun,
        "base_bytes": base,
        "peak_bytes": peak,
        "peak_from": source,
        "notes": notes,
    }


def video(task: Mapping[str, Any]) -> Dict[str, Any]:
    """Runs a clip with the device that costs nothing.

    Args:
        task: ``model``, ``clip``, ``output``, ``pictures``, ``threads``.

    Returns:
        ``frames``, ``seconds``, ``base_bytes``, ``peak_bytes``, ``peak_from``.
    """
    from ...inference.artifact import load_artifact
    from ...inference.run import RunOptions, run
    from ...inference.session import Session
    from ...inference.sources import open_video

    base, _ = peak_bytes()
    with Session(load_artifact(Path(task["model"])), "null") as session:
        options = RunOptions(threads=task["threads"], pictures=bool(task["pictures"]))
        summary = run([open_video(str(task["clip"]))], session, Path(task["output"]), options)
    peak, source = peak_bytes()
    return {
        "frames": summary.meter.done,
        "seconds": summary.seconds,
        "base_bytes": base,
        "peak_bytes": peak,
        "peak_from": source,
    }


TASKS = {"device": device, "video": video}


def main(arguments: List[str]) -> int:
    """The program: a task as JSON, and the file for the answer."""
    task = json.loads(arguments[0])
    answer = TASKS[str(task["task"])](task)
    Path(arguments[1]).write_text(json.dumps(answer), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
