"""The card's readings as a textfile for Prometheus' node exporter."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

from ..board.health import CardHealth
from ..errors import UsageError
from ..files import write_text

PREFIX = "deepfake_fpga_card"

_METRICS: Dict[str, str] = {
    "up": "1 if the cards could be read, 0 if not.",
    "temperature_celsius": "Temperature of one sensor of the card.",
    "power_watts": "Power the board takes.",
    "power_max_watts": "Maximum power as the card's tool tells it.",
    "power_warning": "1 if the card's own power warning is on.",
    "rail_volts": "Voltage of one supply rail.",
    "rail_amperes": "Current of one supply rail.",
    "limits_passed": "Number of limits passed, by severity.",
    "last_read_timestamp_seconds": "When the card was last read, Unix time.",
}

Sample = Tuple[str, Dict[str, str], float]


def metrics_text(healths: Optional[Sequence[CardHealth]], now: float) -> str:
    """The textfile's content; what was not read has no sample.

    Args:
        healths: one record per card; ``None`` where the cards could not be read.
        now: Unix time of the reading, seconds.
    """
    samples: List[Sample] = [("up", {}, 0.0 if healths is None else 1.0)]
    for health in healths or ():
        samples += _samples(health)
    samples.append(("last_read_timestamp_seconds", {}, now))
    lines = []
    for name, text in _METRICS.items():
        own = [sample for sample in samples if sample[0] == name]
        if own:
            lines.append(f"# HELP {PREFIX}_{name} {text}")
            lines.append(f"# TYPE {PREFIX}_{name} gauge")
        lines += [f"{PREFIX}_{name}{_labels(labels)} {value!r}" for _, labels, value in own]
    return "\n".join(lines) + "\n"


def check_textfile(path: Path) -> None:
    """Refuses a name that the node exporter would never read.

    Raises:
        UsageError: it does not end in ``.prom``, or there is a folder of that name.
    """
    if path.suffix != ".prom" or path.is_dir():
        raise UsageError(
            f"The node exporter reads only files ending in .prom, {path} is not one",
            "a folder" if path.is_dir() else f"it ends in {path.suffix or 'nothing'}",
            f"--prometheus {path.with_suffix('.prom')}",
        )


def write_textfile(path: Path, text: str) -> None:
    """Replaces the textfile at once.

    The exporter reads every ``*.prom`` of the folder, so the file in progress must not end so.
    """
    temporary = path.with_name(path.name + ".new")
    write_text(temporary, text)
    os.replace(str(temporary), str(path))


def _samples(health: CardHealth) -> List[Sample]:
    card = {"bdf": health.bdf}
    samples: List[Sample] = []
    for sensor in health.sensors:
        if sensor.celsius is not None:
            labels = {**card, "sensor": sensor.name or sensor.label}
            samples.append(("temperature_celsius", labels, sensor.celsius))
    if health.power_watts is not None:
        samples.append(("power_watts", card, health.power_watts))
    if health.max_watts is not None:
        samples.append(("power_max_watts", card, health.max_watts))
    if health.power_warning is not None:
        samples.append(("power_warning", card, float(health.power_warning)))
    for rail in health.rails:
        labels = {**card, "rail": rail.name or rail.label}
        if rail.volts is not None:
            samples.append(("rail_volts", labels, rail.volts))
        if rail.amps is not None:
            samples.append(("rail_amperes", labels, rail.amps))
    warnings = len(health.warnings) - len(health.stops)
    samples.append(("limits_passed", {**card, "severity": "warning"}, float(warnings)))
    samples.append(("limits_passed", {**card, "severity": "stop"}, float(len(health.stops))))
    return samples


def _labels(labels: Dict[str, str]) -> str:
    if not labels:
        return ""

    def escaped(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return "{" + ",".join(f'{name}="{escaped(value)}"' for name, value in labels.items()) + "}"
