"""A simulated host: module shims, programs and firmware in a folder, and its environment.

One child process and all that it starts see Vitis AI and a card; nothing else does.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import fields, replace
from pathlib import Path
from types import TracebackType
from typing import Dict, List, Mapping, Optional, Sequence, Tuple, Type

from ...board.releases import release_named
from ...compile.targets import TARGETS, resolve_target
from ...errors import MissingError
from .installing import MODULES
from .options import SimulateOptions

PROGRAMS = ("vai_c_xir", "xbutil", "xbmgmt", "lspci")
"""Programs that stand on the PATH of a simulated host."""

_WANTED = ("numpy", "click", "yaml", "onnx", "onnxruntime", "torch")
"""What the drop-in modules use; all but the first three can be done without, slowly or in part."""

_ASK = "import importlib.util as u, sys; print([n for n in sys.argv[1:] if not u.find_spec(n)])"

_SHIM = '''"""__drop_in__ deepfake-fpga: imports the drop-in module of this name."""
import importlib
import sys

try:
    import deepfake_fpga
except ImportError:
    sys.path.append({home!r})
from deepfake_fpga.deploy.simulate import install

install()
sys.modules[__name__] = importlib.import_module(__name__)
'''

_LAUNCHER = '''"""Runs one of the drop-in programs: launcher.py NAME ARGUMENTS."""
import importlib
import sys

sys.path.append({home!r})
name = sys.argv[1]
program = importlib.import_module("deepfake_fpga.deploy.simulate.programs." + name)
sys.exit(program.main(sys.argv[2:]))
'''

_WRAPPER = """#!/bin/sh
# __drop_in__ deepfake-fpga
exec {python} {launcher} {name} "$@"
"""


class SimulatedHost:
    """The folder and the environment of one simulated host.

    Args:
        options: how card and tools behave.
        folder: where the host's files go and stay; a temporary folder, removed on ``close``, if
            not given.

    Attributes:
        options: as given, with ``state`` set to this host's folder.
        folder: holds ``modules``, ``bin``, ``state`` and the vendor's tree below ``opt``.
    """

    def __init__(self, options: SimulateOptions, folder: Optional[Path] = None) -> None:
        self._temporary = folder is None
        self.folder = Path(tempfile.mkdtemp(prefix="simulate-") if folder is None else folder)
        self.folder = self.folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        state = self.folder / "state"
        state.mkdir(exist_ok=True)
        self.options = replace(options, state=str(state))
        self.target = resolve_target(options.variant).target
        # 3.5 no longer knows the card; who asks for its texts still gets a card.
        self._release = "3.0" if options.release == "3.5" else options.release
        self._write_modules()
        self._write_programs()
        self._write_arch()
        self.firmware = self._write_firmware()

    def environment(self, base: Optional[Mapping[str, str]] = None) -> Dict[str, str]:
        """The variables of a process on this host.

        Args:
            base: what it would have without; this process's own if not given.
        """
        env = dict(os.environ if base is None else base)
        env.update(self.options.to_environment())
        env["PATH"] = _joined(self.folder / "bin", env.get("PATH", os.defpath))
        env["PYTHONPATH"] = _joined(self.folder / "modules", env.get("PYTHONPATH", ""))
        env["VAI_ROOT"] = str(self.folder / "opt" / "vitis_ai")
        env.pop("XLNX_VART_FIRMWARE", None)
        env.pop("XCLBIN_PATH", None)
        if self.options.firmware:
            env["XLNX_VART_FIRMWARE"] = str(self.firmware)
            env["XCLBIN_PATH"] = str(self.firmware.parent)
        return env

    def run(self, command: Sequence[str]) -> int:
        """Runs a command on this host and returns its status, 128 and more for a signal.

        Raises:
            MissingError: there is no such program.
        """
        env = self.environment()
        found = shutil.which(command[0], path=env["PATH"])
        if found is None:
            raise MissingError(
                f"There is no program {command[0]!r}",
                f"PATH is {env['PATH']}",
                "deepfake-fpga simulate -- python SCRIPT.py",
            )
        process = subprocess.Popen([found, *command[1:]], env=env)
        while True:
            try:
                status = process.wait()
                return status if status >= 0 else 128 - status
            except KeyboardInterrupt:
                # The terminal has sent it to the child as well, whose status counts.
                continue

    def describe(self) -> str:
        """The host in words: release, card, build, and what of it is hostile."""
        plain = SimulateOptions(
            release=self.options.release,
            card=self.options.card,
            variant=self.options.variant,
            state=self.options.state,
        )
        unlike = [
            f"{field.name} {getattr(self.options, field.name)}"
            for field in fields(self.options)
            if getattr(self.options, field.name) != getattr(plain, field.name)
        ]
        text = f"Vitis AI {self.options.release}, {self.options.card} VCK5000 with the DPU "
        text += self.target.dpu_name
        return text + (f"; {', '.join(unlike)}" if unlike else "")

    def close(self) -> None:
        """Removes the folder if it is temporary."""
        if self._temporary:
            shutil.rmtree(str(self.folder), ignore_errors=True)

    def __enter__(self) -> SimulatedHost:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    def _write_modules(self) -> None:
        modules = self.folder / "modules"
        modules.mkdir(exist_ok=True)
        for name in MODULES:
            text = _SHIM.format(home=str(package_home()))
            (modules / f"{name}.py").write_text(text, encoding="utf-8")

    def _write_programs(self) -> None:
        folder = self.folder / "bin"
        folder.mkdir(exist_ok=True)
        launcher = self.folder / "launcher.py"
        launcher.write_text(_LAUNCHER.format(home=str(package_home())), encoding="utf-8")
        for name in PROGRAMS:
            text = _WRAPPER.format(
                python=shlex.quote(sys.executable), launcher=shlex.quote(str(launcher)), name=name
            )
            (folder / name).write_text(text, encoding="utf-8")
            (folder / name).chmod(0o755)

    def _write_arch(self) -> None:
        root = self.folder / "opt" / "vitis_ai" / "compiler" / "arch" / "DPUCVDX8H"
        for target in TARGETS:
            if self._release in target.released:
                arch = root / target.folder / "arch.json"
                arch.parent.mkdir(parents=True, exist_ok=True)
                arch.write_text(json.dumps({"target": target.dpu_name}), encoding="utf-8")

    def _write_firmware(self) -> Path:
        release = release_named(self._release)
        # The default build has another name in each release; any other must be the release's.
        default = self.options.variant == SimulateOptions().variant
        wanted = None if default else self.target.variant
        path = self.folder / release.xclbin(wanted).lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"xclbin2\0 of a simulated card\n")
        return path


def package_home() -> Path:
    """The folder that has to be on the search path for ``import deepfake_fpga``."""
    spec = importlib.util.find_spec(__name__.partition(".")[0])
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).absolute().parent.parent


def choose_python(command: Sequence[str]) -> Tuple[List[str], str]:
    """The command with a Python that can run the drop-in modules, and why it was taken.

    ``python`` and ``python3`` mean the one on the PATH; where that lacks a package that the drop-in
    modules use and this process has, this process's own. Other commands stay as they are.
    """
    words = list(command)
    if words[0] not in ("python", "python3"):
        return words, ""
    found = shutil.which(words[0])
    seen = "there is none on the PATH"
    if found is not None:
        wanted = [name for name in _WANTED if importlib.util.find_spec(name) is not None]
        lacks = _lacking(found, wanted)
        if not lacks:
            return words, f"{words[0]} is {found}, the one on the PATH"
        seen = f"{found} lacks {', '.join(lacks)}"
    words[0] = sys.executable
    return words, f"{command[0]} is {sys.executable}: {seen}"


def _lacking(python: str, names: Sequence[str]) -> List[str]:
    """Which of these packages an interpreter does not have; all where it cannot be asked."""
    done = subprocess.run(
        [python, "-c", _ASK, *names], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        return [str(name) for name in ast.literal_eval(done.stdout.decode("utf-8"))]
    except (SyntaxError, ValueError):
        return list(names)


def _joined(first: Path, rest: str) -> str:
    return f"{first}{os.pathsep}{rest}" if rest else str(first)
