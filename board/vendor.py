"""Which of the vendor's tools this host has, found without importing or running any of them.

The vendor's Python modules come with its containers. Importing them may print, abort the process
or take seconds, so they are only looked for. The public index has an unrelated package that is
also called ``xir`` (pure Python); it is recognised and named.
"""

from __future__ import annotations

import enum
import importlib.machinery
import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

PACKAGES = ("pytorch_nndct", "xir", "vart")
PROGRAMS = ("vai_c_xir", "xbutil")
_USUAL_FOLDERS = (Path("/opt/xilinx/xrt/bin"), Path("/opt/vitis_ai/compiler/bin"))
DROP_IN = b"__drop_in__"
"""Stands near the beginning of every drop-in module and program of ours."""

_NATIVE = (".so", ".pyd", ".dylib")


class State(enum.Enum):
    """What was found under a vendor tool's name."""

    GENUINE = "genuine"
    SIMULATED = "simulated"
    UNRELATED = "unrelated"
    ABSENT = "absent"


@dataclass(frozen=True)
class VendorTool:
    """One of the vendor's packages or programs.

    Attributes:
        name: of the Python module or the program.
        state: what was found.
        path: the module's file or folder, or the program; ``None`` where absent.
        version: from the distribution's metadata, empty where there is none.
        evidence: what was seen, one phrase for people.
    """

    name: str
    state: State
    path: Optional[Path]
    version: str
    evidence: str

    @property
    def usable(self) -> bool:
        """Whether it can be driven: the vendor's own, or our drop-in under ``simulate``."""
        return self.state in (State.GENUINE, State.SIMULATED)


def detect_vendor() -> Dict[str, VendorTool]:
    """Looks for all packages and programs; name to what was found."""
    found = {name: find_package(name) for name in PACKAGES}
    found.update({name: find_program(name) for name in PROGRAMS})
    return found


def find_package(name: str) -> VendorTool:
    """Looks for one of the vendor's Python modules on ``sys.path``.

    ``xir`` and ``vart`` are genuine if they are native extensions or hold one, ``pytorch_nndct``
    if it has the quantizer's ``apis`` module.
    """
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # ValueError: a module loaded without a spec
        spec = None
    folders = [Path(p) for p in spec.submodule_search_locations or ()] if spec else []
    if spec is None or not (spec.has_location or folders):
        other = _for_another_python(name)
        seen = f"{other} is for another Python" if other else "not on Python's search path"
        return VendorTool(name, State.ABSENT, None, "", seen)
    path = folders[0] if folders else Path(str(spec.origin))
    if _is_drop_in(spec):
        return VendorTool(name, State.SIMULATED, path, "", f"{path} (our drop-in module)")
    version, summary = _distribution(path, name)
    said = f"version {version}" if version else "no version given"
    if summary:
        said += f", {summary!r}"
    if _is_genuine(name, path, folders):
        return VendorTool(name, State.GENUINE, path, version, f"{path} ({said})")
    evidence = f"{path} is not the vendor's: {_what_lacks(name)} ({said})"
    return VendorTool(name, State.UNRELATED, path, version, evidence)


def find_program(name: str) -> VendorTool:
    """Looks for one of the vendor's programs on ``PATH``."""
    found = shutil.which(name)
    if found and _names_drop_in(Path(found)):
        return VendorTool(name, State.SIMULATED, Path(found), "", f"{found} (our drop-in program)")
    if found:
        return VendorTool(name, State.GENUINE, Path(found), "", found)
    evidence = "not on PATH"
    for folder in _USUAL_FOLDERS:
        if os.access(str(folder / name), os.X_OK):
            evidence += f", though {folder / name} exists (its setup script was not sourced)"
    return VendorTool(name, State.ABSENT, None, "", evidence)


def _is_genuine(name: str, path: Path, folders: Sequence[Path]) -> bool:
    if name == "pytorch_nndct":
        return any(any(folder.glob("apis*")) for folder in folders)
    if path.name.endswith(tuple(importlib.machinery.EXTENSION_SUFFIXES)):
        return True
    return any(_has_native(folder) for folder in folders)


def _is_drop_in(spec: importlib.machinery.ModuleSpec) -> bool:
    return spec.origin is not None and _names_drop_in(Path(spec.origin))


def _names_drop_in(file: Path) -> bool:
    if file.name.endswith(_NATIVE) or not file.is_file():
        return False
    with file.open("rb") as stream:
        return DROP_IN in stream.read(4096)


def _what_lacks(name: str) -> str:
    if name == "pytorch_nndct":
        return "it has no apis module"
    return "it is Python only, the vendor's is a native extension"


def _has_native(folder: Path) -> bool:
    return any(file.name.endswith(_NATIVE) for file in _files(folder))


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(str(folder)):
        for name in names:
            yield Path(parent) / name


def _distribution(path: Path, name: str) -> Tuple[str, str]:
    """Version and summary from the metadata installed beside a module."""
    wanted = name.replace("-", "_").lower()
    candidates: List[Path] = sorted(path.parent.glob("*.dist-info/METADATA"))
    candidates += sorted(path.parent.glob("*.egg-info/PKG-INFO"))
    for file in candidates:
        if file.parent.name.replace("-", "_").lower().startswith(wanted + "_"):
            fields = _header(file)
            return fields.get("version", ""), fields.get("summary", "")
    return "", ""


def _header(file: Path) -> Dict[str, str]:
    fields: Dict[str, str] = {}
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        if not line.strip():
            break
        key, colon, value = line.partition(":")
        if colon and not line[0].isspace():
            fields.setdefault(key.strip().lower(), value.strip())
    return fields


def _for_another_python(name: str) -> Optional[Path]:
    """A native module of this name that this interpreter's importer passes over."""
    for entry in sys.path:
        found = sorted(Path(entry or ".").glob(f"{name}.cpython-*"))
        if found:
            return found[0]
    return None
