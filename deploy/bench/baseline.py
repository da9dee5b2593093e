"""A bench run beside a saved one of the same kind of machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

from ...errors import FormatError, MismatchError, MissingError
from ...files import write_json
from .machine import Machine
from .record import Bench, read_record

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
"""Of the checkout; an installed package has none."""

HOST = "null"
"""The device that computes nothing: what is compared is the host around it, end to end."""


@dataclass(frozen=True)
class Change:
    """One device now and then.

    Attributes:
        device: its name.
        before: images/s saved; ``None`` where it was not measured then.
        now: images/s; ``None`` where it is not measured now.
        worse: whether it lost more than is tolerated, or is gone.
    """

    device: str
    before: Optional[float]
    now: Optional[float]
    worse: bool

    @property
    def ratio(self) -> Optional[float]:
        """Now by then."""
        if self.before is None or self.now is None or not self.before:
            return None
        return self.now / self.before

    def to_json(self) -> Dict[str, Any]:
        """A JSON object."""
        ratio = self.ratio
        return {
            "device": self.device,
            "before": self.before,
            "now": self.now,
            "ratio": None if ratio is None else round(ratio, 3),
            "worse": self.worse,
        }


def compare(
    bench: Bench,
    record: Mapping[str, Any],
    tolerance: float,
    any_machine: bool = False,
    wanted: bool = True,
) -> List[Change]:
    """Every device of either run.

    Args:
        bench: now.
        record: what ``read_record`` gave.
        tolerance: share of its rate that a device may lose.
        any_machine: compares even with another kind of machine.
        wanted: whether a device of the record that is not measured now counts as worse.

    Raises:
        MismatchError: another kind of machine, model, batch or number of threads.
        FormatError: a field is missing in the record.
    """
    try:
        machine = Machine.from_json(record["machine"])
        model = str(record["model"]["sha256"])
        settings = dict(record["settings"])
        before = {
            str(device["name"]): float(
                device["end_to_end" if device["name"] == HOST else "images_per_second"]["median"]
            )
            for device in record["devices"]
        }
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(
            "The baseline lacks a field", f"{type(error).__name__}: {error}"
        ) from None
    if machine.kind != bench.machine.kind and not any_machine:
        raise MismatchError(
            "The baseline is of another kind of machine",
            f"it is of {machine.kind}, this is {bench.machine.kind}",
            "--any-machine compares all the same; --save-baseline makes one for this machine",
        )
    if model != bench.model_sha256:
        raise MismatchError(
            "The baseline is of another model",
            f"SHA-256 {model[:12]}..., this one has {bench.model_sha256[:12]}...",
            "measure the same model, or save a new baseline",
        )
    for key in ("threads", "in_flight"):
        if settings.get(key) != bench.settings.get(key):
            raise MismatchError(
                f"The baseline was measured with other {key.replace('_', ' ')}",
                f"{settings.get(key)}, now {bench.settings.get(key)}",
                f"--{key.replace('_', '-')} {settings.get(key)}",
            )
    now = {
        device.name: (device.end_to_end if device.name == HOST else device.images).median
        for device in bench.devices
    }
    changes = []
    for name in dict.fromkeys([*before, *now]):
        old, new = before.get(name), now.get(name)
        lost = new is not None and old is not None and new < old * (1 - tolerance)
        worse = lost or (new is None and wanted)
        changes.append(Change(name, old, new, worse))
    return changes


def save(bench: Bench, folder: Path = FOLDER) -> Path:
    """Writes the run as the baseline of its kind of machine, without the paths of this one.

    Raises:
        MissingError: there is no ``benchmarks`` folder: this is an installed package.
    """
    if not folder.is_dir():
        raise MissingError(
            "There is no folder for baselines", str(folder), "write the record with -o DIR instead"
        )
    path = folder / "baselines" / f"{bench.machine.kind}.json"
    record = bench.to_json()
    record["model"]["path"] = Path(bench.model).name
    record["frames"] = "" if "/" in bench.frames else bench.frames
    del record["left_out"], record["agreement"]
    for device in record["devices"]:
        del device["reason"], device["process"]
    write_json(path, record)
    return path


__all__ = ["FOLDER", "Change", "compare", "read_record", "save"]
