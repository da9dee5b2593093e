"""What the console says of the host: system, tools, memory."""

from __future__ import annotations

import platform
from typing import List, Optional, Sequence, Tuple

import torch

from .versions import version


def host_notes() -> List[str]:
    """The two tables at the start."""
    system = platform.uname()
    rows = [(name, getattr(system, name)) for name in ("system", "node", "release", "version")]
    rows += [("machine", system.machine), ("processor", system.processor)]
    tools = [("GCC", platform.python_compiler()), ("python", platform.python_version())]
    tools += [("pytorch", torch.__version__), ("vai_q_pytorch", version())]
    return [
        _table("OS and CPU information:", rows),
        _table("Tools version information:", tools),
    ]


def _table(title: str, rows: Sequence[Tuple[str, str]]) -> str:
    lines: List[str] = [title, *(f"{name:>21} --- {value}" for name, value in rows)]
    return "\n".join(lines)


def memory() -> Optional[Tuple[int, int]]:
    """All and available memory in KiB; ``None`` where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            table = dict(line.split(":", 1) for line in file)
        return int(table["MemTotal"].split()[0]), int(table["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return None
