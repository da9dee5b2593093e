"""How the vendor's programs are run: with a time limit, all output kept, a hung one killed.

Their exit status is not to be trusted (some report a failure with 0), so it is only one of the
things a caller looks at. JSON comes by a file that must not exist yet.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Sequence, Tuple

from ..errors import DeviceError, MissingError
from .vendor import find_program

SETUP = "source /opt/xilinx/xrt/setup.sh"
"""Puts the card's programs on the PATH."""

_NEXT = {
    "xbutil": f"{SETUP}, or install the XRT package of your release",
    "xbmgmt": f"{SETUP}, or install the XRT package of your release",
    "lspci": "apt install pciutils",
}
_AFTER_KILL = 2.0
_STEP = 0.02


@dataclass(frozen=True)
class ToolOutput:
    """What one run of a program left.

    Attributes:
        command: the words typed.
        status: exit status; ``None`` where it was killed at its time limit.
        text: standard output.
        errors: standard error.
        seconds: how long it was given, for the message of a killed one.
    """

    command: Tuple[str, ...]
    status: Optional[int]
    text: str
    errors: str
    seconds: float

    @property
    def timed_out(self) -> bool:
        """Whether it was killed at its time limit."""
        return self.status is None

    @property
    def line(self) -> str:
        """The command as typed."""
        return " ".join(self.command)

    @property
    def last_words(self) -> str:
        """The line for messages: the last with "error" in it, else the last of all."""
        lines = [s.strip() for s in (*self.text.splitlines(), *self.errors.splitlines())]
        lines = [line for line in lines if line]
        # A usage text may follow the error.
        errors = [line for line in lines if "error" in line.lower()]
        return (errors or lines or [""])[-1][:300]

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        if self.timed_out:
            return f"`{self.line}` did not answer within {self.seconds:g} s and was killed"
        return f"`{self.line}` ended with status {self.status}"

    def require(self) -> ToolOutput:
        """Itself, if the program ended by itself and with status 0.

        Raises:
            DeviceError: it did not.
        """
        if self.status == 0:
            return self
        next_step = f"run it by hand: {self.line}"
        if self.timed_out:
            next_step = "look at dmesg for the card's driver, then restart the host (cold)"
        said = f"its last words: {self.last_words}" if self.last_words else "it said nothing"
        raise DeviceError(self.ending, said, next_step)


def run_tool(name: str, arguments: Sequence[str] = (), timeout: float = 20.0) -> ToolOutput:
    """Runs one of the vendor's programs found on ``PATH``.

    The program gets no terminal and a process group of its own, which is killed as a whole at
    the limit: the vendor's are scripts around a native program.

    Args:
        name: ``xbutil``, ``xbmgmt``, ``lspci``.
        arguments: the words after it.
        timeout: seconds until it is killed.

    Raises:
        MissingError: there is no such program.
        DeviceError: it is there and cannot be started.
    """
    path = shutil.which(name)
    if path is None:
        raise MissingError(
            f"The program {name} is not there",
            find_program(name).evidence,
            _NEXT.get(name, f"install {name}"),
        )
    command = (name, *arguments)
    # Files, not pipes: a grandchild that outlives the kill may hold a pipe open for ever.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(
                [path, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        except OSError as error:
            raise DeviceError(f"{path} cannot be started", str(error), f"ls -l {path}") from None
        status = _wait(process, timeout)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode("utf-8", errors="replace"))
    return ToolOutput(command, status, texts[0], texts[1], timeout)


def run_for_json(
    name: str, arguments: Sequence[str], timeout: float = 20.0
) -> Tuple[Optional[Any], ToolOutput]:
    """Runs a program that writes its report into a file (``-f JSON -o FILE``).

    The file is a new one each time, for the program refuses one that exists, and the status and
    the words it prints (``Successfully wrote``) do not tell whether it is good: it is read.

    Returns:
        The JSON, ``None`` where no readable file was written, and what the program printed.

    Raises:
        MissingError, DeviceError: as ``run_tool``.
    """
    folder = Path(tempfile.mkdtemp(prefix="deepfake-fpga-"))
    try:
        file = folder / "report.json"
        output = run_tool(name, [*arguments, "-f", "JSON", "-o", str(file)], timeout)
        content: Optional[Any] = None
        with contextlib.suppress(OSError, ValueError):
            content = json.loads(file.read_text(encoding="utf-8", errors="replace"))
        # The file is gone when a person reads the command.
        shown = (*output.command[:-1], "FILE")
        return content, dataclasses.replace(output, command=shown)
    finally:
        shutil.rmtree(str(folder), ignore_errors=True)


def _wait(process: subprocess.Popen[bytes], timeout: float) -> Optional[int]:
    """Exit status, or ``None`` if the process had to be killed."""
    try:
        return process.wait(timeout=timeout)
    except subprocess.TimeoutExpired:
        pass
    except BaseException:
        _kill(process)
        raise
    _kill(process)
    return None


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    # A process stuck in the driver cannot be killed; it is not waited for.
    end = time.monotonic() + _AFTER_KILL
    while process.poll() is None and time.monotonic() < end:
        time.sleep(_STEP)
