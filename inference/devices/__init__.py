"""Which devices there are, which one ``auto`` takes and why, and how one is opened.

Each device is one module of this package with a ``create`` function; it is imported when it is
asked for, so choosing ``null`` needs no onnxruntime and choosing ``sim`` no torch.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from pathlib import Path
from typing import List, Optional, Sequence, Tuple

from ...compile.xir.graph import Graph, Subgraph
from ...errors import DeviceError, MissingError
from .base import Batch, Device, TensorInfo
from .recording import Recording

GRAPH_DEVICES = ("sim", "reference", "null")
"""Devices that run the operators of a compiled model."""

DEVICES = ("auto", "card", *GRAPH_DEVICES, "replay", "float")
"""Every name that ``--device`` takes."""

__all__ = [
    "DEVICES",
    "GRAPH_DEVICES",
    "Batch",
    "Device",
    "TensorInfo",
    "choose_device",
    "open_device",
    "sim_available",
]


def choose_device(wanted: str = "auto") -> Tuple[str, str]:
    """Resolves ``--device``.

    Returns:
        The device's name and, in words, why it was taken.

    Raises:
        MissingError: there is no such device.
        DeviceError: the card was asked for and cannot be used.
    """
    if wanted not in DEVICES:
        raise MissingError(
            f"There is no device called {wanted!r}", f"known: {', '.join(DEVICES)}", "--device auto"
        )
    if wanted == "card":
        raise DeviceError(
            "The card cannot be used from this version",
            "; ".join(_card_evidence()),
            "--device sim computes the same integers on this machine",
        )
    if wanted == "auto":
        no_card = "no usable card: " + "; ".join(_card_evidence())
        available, reason = sim_available()
        if available:
            return "sim", no_card
        return "reference", f"{no_card}; no sim: {reason}; slow, but the same numbers"
    return wanted, "asked for"


def sim_available() -> Tuple[bool, str]:
    """Whether ``sim`` has the packages it needs, and in words what it has or lacks."""
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        names = " and ".join(missing)
        return False, f"{names} not installed (pip install {' '.join(missing)})"
    return True, "onnx and onnxruntime are installed"


def open_device(
    kind: str,
    graph: Graph,
    subgraph: Subgraph,
    *,
    batch: int,
    threads: Optional[int] = None,
    taps: Sequence[str] = (),
    recording: Optional[Recording] = None,
) -> Device:
    """Loads one DPU subgraph of a compiled model on a device.

    Args:
        kind: a name of ``GRAPH_DEVICES``, or ``replay``; ``choose_device`` resolves ``auto``.
        graph: the compiled model.
        subgraph: the DPU subgraph, a child of the graph's root.
        batch: pictures per submission.
        threads: threads of one computation; ``None`` for one per core.
        taps: tensors inside the subgraph to be returned as well.
        recording: what ``replay`` plays back; it stays the caller's to close.

    Raises:
        MissingError: there is no such device, or ``replay`` has no recording.
        UnsupportedError: an operator or a tap the device cannot treat.
    """
    if kind == "replay":
        if recording is None:
            raise MissingError(
                "The device replay needs a recording",
                "none was given",
                "deepfake-fpga run --device replay --recording FILE",
            )
        from .replay import ReplayDevice

        return ReplayDevice(recording, graph, subgraph, batch, taps)
    if kind not in GRAPH_DEVICES:
        raise MissingError(
            f"No device {kind!r} runs the operators of a compiled model",
            f"known: {', '.join((*GRAPH_DEVICES, 'replay'))}",
        )
    module = importlib.import_module(f".{kind}", __name__)
    device: Device = module.create(graph, subgraph, batch=batch, threads=threads, taps=taps)
    return device


def _card_evidence() -> List[str]:
    """What was looked for to reach a card, and what was found."""
    vart = importlib.util.find_spec("vart") is not None
    nodes = sorted(str(p) for p in Path("/dev/dri").glob("renderD*"))
    firmware = os.environ.get("XLNX_VART_FIRMWARE", "")
    return [
        "Python module vart " + ("found" if vart else "not found"),
        "/dev/dri " + (f"has {', '.join(nodes)}" if nodes else "has no render node"),
        f"XLNX_VART_FIRMWARE is {firmware!r}" if firmware else "XLNX_VART_FIRMWARE is not set",
    ]
