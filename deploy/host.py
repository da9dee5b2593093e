"""The computer a command looks at: its environment, files and programs, real or made up by a test.

Paths are written as the computer itself has them; ``root`` is put before them when they are
looked up.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, List, Mapping, Optional, Sequence, Tuple, Union

from ..board.cards import CardSearch, find_cards
from ..board.health import CardHealth, read_health
from ..board.tools import run_tool
from ..board.vendor import VendorTool, find_package, find_program
from ..errors import ToolkitError
from ..inference.devices.preflight import Runtime, find_runtime

AnyPath = Union[str, Path]


@dataclass(frozen=True)
class Outcome:
    """How a program ended.

    Attributes:
        status: exit status; ``None`` if it could not be started or did not end in time.
        output: standard output.
        error: standard error, or why there is no status.
    """

    status: Optional[int]
    output: str = ""
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether it ran and ended with status 0."""
        return self.status == 0

    @property
    def said(self) -> str:
        """The last line it wrote, errors first; empty if it wrote none."""
        lines = (self.error.strip() or self.output.strip()).splitlines()
        return lines[-1].strip() if lines else ""


Runner = Callable[[Sequence[str], float], Outcome]
"""Runs a program (argument list, seconds allowed) and never raises for what the program does."""


def run_program(argv: Sequence[str], seconds: float) -> Outcome:
    """Runs a program with nothing on its standard input; a hung one is killed."""
    try:
        done = run_tool(argv[0], argv[1:], seconds)
    except ToolkitError as error:
        return Outcome(None, "", f"{error.cause}: {error.evidence}")
    return Outcome(done.status, done.text, done.errors if done.status is not None else done.ending)


def _free_bytes(path: Path) -> int:
    return shutil.disk_usage(str(path)).free


@dataclass(frozen=True)
class Host:
    """One computer.

    Attributes:
        env: environment variables.
        root: folder that stands for ``/``.
        run: runs a program.
        package: looks for one of the vendor's Python modules.
        program: looks for one of the vendor's programs.
        cards: looks for cards.
        health: reads the sensors of the card at an address.
        runtime: looks for the interpreter with ``xir`` and ``vart``.
        free_bytes: free space of the file system of an existing path, in bytes.
        python: version of the interpreter.
        executable: path of the interpreter.
        user: login name, user id, group id of who types.
    """

    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    root: Path = Path("/")
    run: Runner = run_program
    package: Callable[[str], VendorTool] = find_package
    program: Callable[[str], VendorTool] = find_program
    cards: Callable[[], CardSearch] = find_cards
    health: Callable[[Optional[str]], CardHealth] = read_health
    runtime: Callable[[], Runtime] = find_runtime
    free_bytes: Callable[[Path], int] = _free_bytes
    python: Tuple[int, int, int] = field(default_factory=lambda: sys.version_info[:3])
    executable: str = sys.executable
    user: Tuple[str, int, int] = field(default_factory=lambda: current_user(os.environ))

    def at(self, path: AnyPath) -> Path:
        """Where a path of this computer is found."""
        return self.root.joinpath(*Path(path).parts[1:]) if Path(path).is_absolute() else Path(path)

    def exists(self, path: AnyPath) -> bool:
        """Whether there is anything at ``path``."""
        return self.at(path).exists()

    def is_file(self, path: AnyPath) -> bool:
        """Whether ``path`` is a file."""
        return self.at(path).is_file()

    def is_dir(self, path: AnyPath) -> bool:
        """Whether ``path`` is a folder."""
        return self.at(path).is_dir()

    def read(self, path: AnyPath) -> str:
        """A text file's content; empty if there is none or it may not be read."""
        try:
            return self.at(path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def glob(self, folder: str, pattern: str) -> List[str]:
        """Paths in ``folder`` whose names match, sorted, as this computer writes them."""
        found = sorted(path.name for path in self.at(folder).glob(pattern))
        return [f"{folder.rstrip('/')}/{name}" for name in found]

    def which(self, name: str) -> Optional[str]:
        """A program on ``PATH``."""
        return shutil.which(name, path=self.env.get("PATH", os.defpath))

    def device_nodes(self) -> Tuple[List[str], List[str]]:
        """Nodes of the card's two functions: ``/dev/xclmgmt*`` and ``/dev/dri/renderD*``."""
        return self.glob("/dev", "xclmgmt*"), self.glob("/dev/dri", "renderD*")


def current_user(env: Mapping[str, str]) -> Tuple[str, int, int]:
    """Name, user id and group id of who types; under ``sudo`` those of who called it."""
    uid, gid = os.getuid(), os.getgid()
    if uid == 0 and env.get("SUDO_UID", "").isdigit() and env.get("SUDO_GID", "").isdigit():
        return env.get("SUDO_USER", "user"), int(env["SUDO_UID"]), int(env["SUDO_GID"])
    name = env.get("USER") or env.get("LOGNAME") or ("root" if uid == 0 else "user")
    return name, uid, gid
