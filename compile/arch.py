"""Where the vendor's ``arch.json`` for a target is on this host."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import List, Mapping, Optional

from ..errors import ToolkitError
from .targets import Target, resolve_target

ROOT_VARIABLE = "VAI_ROOT"
"""Environment variable of the vendor's tree in its containers."""

DEFAULT_ROOT = "/opt/vitis_ai"


@dataclass(frozen=True)
class ArchChoice:
    """An ``arch.json`` and why.

    Attributes:
        path: the file; ``None`` where the host has none for the target.
        reason: what was found, or where it was looked for.
    """

    path: Optional[Path]
    reason: str


def find_arch(
    target: Target, program: Optional[Path] = None, environment: Optional[Mapping[str, str]] = None
) -> ArchChoice:
    """Looks through the vendor's folders for an ``arch.json`` of ``target``.

    What a file says decides, not its folder's name, which differs between releases.

    Args:
        target: the DPU.
        program: ``vai_c_xir``; its conda environment has the files too.
        environment: this process's if not given.
    """
    roots = arch_roots(program, environment)
    found: List[Path] = []
    for root in roots:
        for path in sorted(root.glob("*/*/arch.json")):
            if _target_of(path) == target:
                found.append(path)
    found.sort(key=lambda path: path.parent.name != target.folder)
    if found:
        return ArchChoice(found[0], f"{found[0]} is the container's for {target.dpu_name}")
    looked = ", ".join(f"{root}" for root in roots)
    return ArchChoice(None, f"no arch.json for {target.dpu_name} below {looked}")


def arch_roots(
    program: Optional[Path] = None, environment: Optional[Mapping[str, str]] = None
) -> List[Path]:
    """Folders of ``<DPU>/<BOARD>/arch.json``, whether they exist or not, the likeliest first."""
    variables = os.environ if environment is None else environment
    root = Path(variables.get(ROOT_VARIABLE) or DEFAULT_ROOT)
    roots = [root / "compiler" / "arch", root / "arch"]
    if program is not None:
        prefix = program.resolve().parent.parent
        roots += sorted(prefix.glob("lib/python3*/site-packages/vaic/arch"))
    return roots


def _target_of(path: Path) -> Optional[Target]:
    try:
        return resolve_target(path).target
    except (ToolkitError, OSError):  # another card's, or damaged
        return None
