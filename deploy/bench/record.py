"""What a bench run found, and its JSON file."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ...errors import FormatError, MissingError
from .agreement import Agreement
from .machine import Machine
from .published import PUBLISHED
from .rounds import UNSTEADY, Series

SCHEMA = 1


@dataclass(frozen=True)
class Latency:
    """Milliseconds from giving one batch to having its answer, nothing else under way."""

    p50: float
    p90: float
    p99: float
    batches: int


@dataclass
class DeviceResult:
    """One device.

    Attributes:
        name: of the device.
        layout: of the float model's memory, the faster one.
        reason: what the device says of itself.
        batch: pictures per submission.
        images: images/s through the session, batches in flight.
        device_only: images/s by the device's own busy time; ``None`` where it has none.
        end_to_end: images/s from the files to the records.
        latency: of one batch.
        others: images/s of layouts that were slower, by layout.
        memory: of a process that only loads and computes: seconds and bytes.
        joules: of the board per image.
        batch_sweep: batch to images/s.
        thread_sweep: threads to images/s.
        simulated: whether a drop-in took the place of the vendor's runtime.
    """

    name: str
    layout: str
    reason: str
    batch: int
    images: Series
    device_only: Optional[Series]
    end_to_end: Series
    latency: Latency
    others: Dict[str, Series] = field(default_factory=dict)
    memory: Dict[str, Any] = field(default_factory=dict)
    joules: Optional[float] = None
    batch_sweep: Dict[int, Series] = field(default_factory=dict)
    thread_sweep: Dict[int, Series] = field(default_factory=dict)
    simulated: bool = False

    @property
    def label(self) -> str:
        """For people."""
        if self.simulated:
            return f"{self.name} (simulated)"
        return f"{self.name} ({self.layout})" if self.layout else self.name

    @property
    def spread(self) -> float:
        """The largest spread among its rates."""
        series = [self.images, self.device_only, self.end_to_end]
        return max(one.spread for one in series if one is not None)

    def to_json(self) -> Dict[str, Any]:
        """A JSON object; rates in images per second."""
        return {
            "name": self.name,
            "layout": self.layout,
            "simulated": self.simulated,
            "reason": self.reason,
            "batch": self.batch,
            "images_per_second": self.images.to_json(2),
            "device_only": None if self.device_only is None else self.device_only.to_json(2),
            "end_to_end": self.end_to_end.to_json(2),
            "latency_ms": {
                "p50": round(self.latency.p50, 3),
                "p90": round(self.latency.p90, 3),
                "p99": round(self.latency.p99, 3),
                "batches": self.latency.batches,
            },
            "slower_layouts": {key: one.to_json(2) for key, one in self.others.items()},
            "process": self.memory,
            "joules_per_image": self.joules,
            "batch_sweep": {str(key): one.to_json(2) for key, one in self.batch_sweep.items()},
            "thread_sweep": {str(key): one.to_json(2) for key, one in self.thread_sweep.items()},
        }


@dataclass
class Bench:
    """A whole run.

    Attributes:
        machine: the kind of machine.
        model: path and what it is.
        model_sha256: of its file.
        frames: what was measured with, in words.
        settings: rounds, threads and the like.
        devices: in the order of the table.
        left_out: device to the reason why it was not measured.
        agreements: of the outputs.
        notes: what has to be known beside the figures.
        versions: of what computes.
    """

    machine: Machine
    model: str
    model_sha256: str
    frames: str
    settings: Dict[str, Any]
    devices: List[DeviceResult]
    left_out: Dict[str, str]
    agreements: List[Agreement]
    notes: List[str]
    versions: Mapping[str, str]

    @property
    def failures(self) -> Tuple[Agreement, ...]:
        """Devices whose answers are wrong."""
        return tuple(one for one in self.agreements if one.failed)

    def to_json(self) -> Dict[str, Any]:
        """The content of ``bench.json``."""
        return {
            "schema": SCHEMA,
            "kind": "deepfake-fpga bench",
            "machine": self.machine.to_json(),
            "model": {"path": self.model, "sha256": self.model_sha256},
            "frames": self.frames,
            "settings": self.settings,
            "devices": [device.to_json() for device in self.devices],
            "left_out": self.left_out,
            "agreement": [one.to_json() for one in self.agreements],
            "published_not_measured": [
                {"label": one.label, "images_per_second": one.frames, "source": one.source}
                for one in PUBLISHED
            ],
            "notes": self.notes,
            "versions": dict(self.versions),
        }


def unsteady_notes(devices: List[DeviceResult]) -> List[str]:
    """A sentence where a figure is not to be trusted."""
    found = [
        f"{device.label} {100 * device.spread:.0f} %"
        for device in devices
        if device.spread > UNSTEADY
    ]
    if not found:
        return []
    return [f"the middle half of the rounds lies apart by more than 10 %: {', '.join(found)}"]


def read_record(path: Path) -> Dict[str, Any]:
    """The content of a ``bench.json``.

    Raises:
        MissingError: there is no such file.
        FormatError: it is no record of a bench run that this version reads.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingError(
            f"The baseline {path} does not exist", "", "deepfake-fpga bench --save-baseline"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"The baseline {path} cannot be read", str(error)) from None
    if not isinstance(record, dict) or record.get("kind") != "deepfake-fpga bench":
        raise FormatError(f"{path} is no record of a bench run", "its kind is another")
    if record.get("schema") != SCHEMA:
        raise FormatError(
            f"{path} is of another version",
            f"schema {record.get('schema')!r}, this version reads {SCHEMA}",
            "save it again: deepfake-fpga bench --save-baseline",
        )
    return record
