"""How ``import xir`` finds the drop-in module: an importer put in front of the others, on request.

``xir`` becomes another name of ``deepfake_fpga.deploy.simulate.xir``, submodules included, so both
names give the same module and the same classes.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Dict, List, Optional, Sequence

MODULES = ("xir", "vart", "pytorch_nndct", "nndct_shared")
"""Top-level names of the drop-in modules."""

_HOME = Path(__file__).resolve().parent


class DropInFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the names in ``MODULES`` from this package."""

    def __init__(self) -> None:
        self._specs: Dict[str, Optional[importlib.machinery.ModuleSpec]] = {}

    def find_spec(
        self,
        fullname: str,
        path: Optional[Sequence[str]] = None,
        target: Optional[ModuleType] = None,
    ) -> Optional[importlib.machinery.ModuleSpec]:
        """A spec for ``fullname`` if it is one of ours."""
        del path, target
        if fullname.partition(".")[0] not in MODULES:
            return None
        file = _HOME.joinpath(*fullname.split("."))
        if (file / "__init__.py").is_file():
            return importlib.util.spec_from_file_location(
                fullname,
                str(file / "__init__.py"),
                loader=self,
                submodule_search_locations=[str(file)],
            )
        file = file.with_suffix(".py")
        if file.is_file():
            return importlib.util.spec_from_file_location(fullname, str(file), loader=self)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """The module under its full name."""
        module = importlib.import_module(f"{__package__}.{spec.name}")
        if spec.name == "vart":
            # As the genuine module does, also where ours is loaded already.
            importlib.import_module("xir")
        self._specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Gives the module its own spec back, by which its relative imports work.

        Running it is not needed: ``create_module`` has imported it.
        """
        assert module.__spec__ is not None
        module.__spec__ = self._specs.pop(module.__spec__.name)


def install() -> None:
    """Makes the drop-in modules importable in this process, whatever else has their names.

    Call it before the first ``import xir``. Calling it again changes nothing.
    """
    if is_installed():
        return
    for name in _loaded():
        del sys.modules[name]
    sys.meta_path.insert(0, DropInFinder())
    importlib.invalidate_caches()


def uninstall() -> None:
    """Takes the drop-in modules away again; objects already imported stay usable."""
    sys.meta_path[:] = [f for f in sys.meta_path if not isinstance(f, DropInFinder)]
    for name in _loaded():
        del sys.modules[name]


def is_installed() -> bool:
    """Whether ``install`` is in force."""
    return any(isinstance(finder, DropInFinder) for finder in sys.meta_path)


def _loaded() -> List[str]:
    return [name for name in sys.modules if name.partition(".")[0] in MODULES]
