"""What kind of machine this is, and whether it has other work to do."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple

BUSY = 0.5
"""Load per core from which other work disturbs a measurement."""

_INSTRUCTIONS = ("amx_int8", "avx512_vnni", "avx_vnni", "avx512bw", "avx2", "i8mm", "asimddp")
"""What makes 8-bit sums quick, the best first, as Linux names it."""


@dataclass(frozen=True)
class Machine:
    """A kind of machine; two of one kind can be compared.

    Attributes:
        processor: its name.
        cores: that this process may use.
        instructions: the best known for 8-bit sums; empty where none was found.
        system: operating system and architecture.
    """

    processor: str
    cores: int
    instructions: str
    system: str

    @property
    def kind(self) -> str:
        """A name for files: processor, cores, instructions."""
        parts = f"{self.processor} {self.cores} cores {self.instructions}"
        return re.sub(r"[^a-z0-9]+", "-", parts.lower()).strip("-")

    def to_json(self) -> Dict[str, Any]:
        """A JSON object."""
        return {"kind": self.kind, **asdict(self)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Machine:
        """What ``to_json`` wrote."""
        return cls(
            str(record["processor"]),
            int(record["cores"]),
            str(record["instructions"]),
            str(record["system"]),
        )


def this_machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> Machine:
    """The machine this runs on."""
    name, flags = "", set()
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name" and not name:
            name = value.strip()
        if key.strip().lower() in ("flags", "features"):
            flags.update(value.split())
    found = [word for word in _INSTRUCTIONS if word in flags]
    return Machine(
        name or platform.processor() or platform.machine(),
        cores(),
        found[0] if found else "",
        f"{platform.system()} {platform.machine()}",
    )


def cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load() -> Optional[float]:
    """Processes that want a core, over the last minute; ``None`` where the system tells nothing."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def busy_note(before: Optional[float], count: int) -> str:
    """Says that the machine was busy before anything was measured; empty where it was not."""
    if before is None or before <= BUSY * count:
        return ""
    return (
        f"other work shared the machine: load {before:.2f} on {count} cores before the start; "
        "ratios hold better than rates"
    )


def peak_bytes(status: Path = Path("/proc/self/status")) -> Tuple[int, str]:
    """The most memory this process has had resident, and where the figure is from.

    The kernel's own mark counts this program alone; ``getrusage`` may carry over what the program
    that started this one had.
    """
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(encoding="ascii"), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        found = None
    if found:
        return int(found.group(1)) * 1024, "VmHWM"
    try:
        import resource
    except ImportError:  # Windows
        return 0, "not known here"
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "ru_maxrss"
