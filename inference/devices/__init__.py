"""Which devices there are, which one ``auto`` takes and why, and how one is opened.

Each device is a module of this package, imported when it is asked for, so choosing ``null`` needs
no onnxruntime and choosing ``sim`` no torch.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import List, Optional, Sequence, Tuple

from ...compile.xir.graph import Graph, Subgraph
from ...errors import MissingError
from .base import Batch, Device, TensorInfo
from .card_queue import CardOptions
from .preflight import check_host, check_model, sentence
from .recording import Recording

GRAPH_DEVICES = ("sim", "reference", "null")
"""Devices that run the operators of a compiled model on this machine."""

FALLBACKS = ("sim", "reference")
"""Devices that can go on where the card fails: they compute the same integers."""

DEVICES = ("auto", "card", *GRAPH_DEVICES, "replay", "float")
"""Every name that ``--device`` takes."""

__all__ = [
    "DEVICES",
    "FALLBACKS",
    "GRAPH_DEVICES",
    "Batch",
    "CardOptions",
    "Device",
    "TensorInfo",
    "choose_device",
    "choose_simulated",
    "open_device",
    "open_devices",
    "sim_available",
]


def choose_device(
    wanted: str = "auto",
    graph: Optional[Graph] = None,
    model: Optional[Path] = None,
    card: Optional[CardOptions] = None,
) -> Tuple[str, str]:
    """Resolves ``--device``.

    ``auto`` is the card where host and model can use one, else its simulation.

    Args:
        wanted: a name of ``DEVICES``.
        graph: the model, for ``auto``; without it only the host is looked at.
        model: its file, for messages.
        card: how the card would be used.

    Returns:
        The device's name and, in words, why it was taken.

    Raises:
        MissingError: there is no such device.
    """
    if wanted not in DEVICES:
        raise MissingError(
            f"There is no device called {wanted!r}", f"known: {', '.join(DEVICES)}", "--device auto"
        )
    if wanted != "auto":
        return wanted, "asked for"
    card = CardOptions() if card is None else card
    environment = card.child_environment()
    checks, runtime = check_host(card.python, environment)
    if runtime.check.ok and graph is not None:
        path = Path(graph.name) if model is None else model
        checks += check_model(graph, path, runtime.drop_in, environment)
    if all(check.ok for check in checks):
        told = [check.evidence for check in checks if check.name in ("firmware", "fingerprint")]
        return "card", f"host and model are fit for it: {'; '.join(told)}"
    name, reason = choose_simulated()
    return name, "; ".join(filter(None, [f"no usable card: {sentence(checks)}", reason]))


def choose_simulated() -> Tuple[str, str]:
    """``sim``, or ``reference`` where it lacks a package, and then why."""
    available, reason = sim_available()
    if available:
        return "sim", ""
    return "reference", f"no sim: {reason}; slow, but the same numbers"


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
        kind: a name of ``GRAPH_DEVICES``, ``card`` or ``replay``; ``choose_device`` resolves
            ``auto``.
        graph: the compiled model.
        subgraph: the DPU subgraph, a child of the graph's root.
        batch: pictures per submission.
        threads: threads of one computation; ``None`` for one per core.
        taps: tensors inside the subgraph to be returned as well.
        recording: what ``replay`` plays back; it stays the caller's to close.

    Raises:
        MissingError: there is no such device, or ``replay`` has no recording.
        UnsupportedError: an operator or a tap the device cannot treat.
        DeviceError, MismatchError: the card cannot be used.
    """
    if kind == "card":
        from .card import open_card

        return open_card(graph, [subgraph], batch=batch, taps=taps)[0]
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
            f"known: {', '.join((*GRAPH_DEVICES, 'card', 'replay'))}",
        )
    module = importlib.import_module(f".{kind}", __name__)
    device: Device = module.create(graph, subgraph, batch=batch, threads=threads, taps=taps)
    return device


def open_devices(
    kind: str,
    graph: Graph,
    subgraphs: Sequence[Subgraph],
    *,
    batch: int,
    threads: Optional[int] = None,
    recording: Optional[Recording] = None,
    model: Optional[Path] = None,
    card: Optional[CardOptions] = None,
) -> List[Device]:
    """Loads all DPU subgraphs of a model on one device; on the card they share one process.

    Args:
        kind: see ``open_device``, as are the others.
        graph: the compiled model.
        subgraphs: its DPU subgraphs.
        batch: pictures per submission.
        threads: threads of one computation.
        recording: what ``replay`` plays back.
        model: the model's file, for the card.
        card: how the card is used.

    Raises:
        ToolkitError: see ``open_device``; those opened before are closed.
    """
    if kind == "card":
        from .card import open_card

        return open_card(graph, subgraphs, batch=batch, model=model, options=card)
    devices: List[Device] = []
    try:
        for subgraph in subgraphs:
            devices.append(
                open_device(
                    kind, graph, subgraph, batch=batch, threads=threads, recording=recording
                )
            )
    except BaseException:
        for device in devices:
            device.close()
        raise
    return devices
