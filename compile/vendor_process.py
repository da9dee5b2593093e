"""One run of a vendor's program: its console line by line, a time limit, and no orphans.

The program's output is only ever text for people: colours are taken off, bytes that are no UTF-8
are replaced, and a progress line counts as what stands last on it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import shlex
import signal
import subprocess
import threading
import time
from typing import IO, Callable, Dict, Iterator, Optional, Sequence

from ..errors import WorkError

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_LINGER = 5.0
"""Seconds a program's children may hold its console after it has ended."""


def shell_line(command: Sequence[str]) -> str:
    """A command as it would be typed."""
    return " ".join(shlex.quote(word) for word in command)


def plain_line(raw: bytes) -> str:
    """A line of a console as text without colours, control characters or line end."""
    text = _ESCAPES.sub("", raw.decode("utf-8", errors="replace")).rstrip("\r\n")
    text = text.rpartition("\r")[2]
    return "".join(c for c in text if c == "\t" or c.isprintable())


def run_program(command: Sequence[str], on_line: Callable[[str], None], time_limit: float) -> int:
    """Runs a program to its end and returns its status, negative for the signal that ended it.

    Standard error counts as output. Whatever ends this call ends the program and its children too.

    Args:
        command: program and words.
        on_line: receives each line as it comes, see ``plain_line``.
        time_limit: seconds it may take.

    Raises:
        WorkError: it did not end in time, or could not be started.
    """
    # A Python program would otherwise keep its own lines back until its end.
    environment: Dict[str, str] = {**os.environ, "PYTHONUNBUFFERED": "1"}
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise WorkError(
            f"{command[0]} cannot be started", str(error), f"ls -l {command[0]}"
        ) from error
    try:
        for line in _lines(process, time_limit, command[0]):
            on_line(line)
    finally:
        _end(process)
    return process.returncode


def _lines(process: subprocess.Popen[bytes], time_limit: float, name: str) -> Iterator[str]:
    lines: queue.Queue[Optional[bytes]] = queue.Queue()
    assert process.stdout is not None

    def read(stream: IO[bytes]) -> None:
        with stream:
            for raw in stream:
                lines.put(raw)
        lines.put(None)

    threading.Thread(target=read, args=(process.stdout,), daemon=True).start()
    last = time.monotonic() + time_limit
    ended: Optional[float] = None
    closed, recent = False, ""
    while True:
        now = time.monotonic()
        if ended is None and _has_ended(process):
            ended = now
        if ended is not None and (closed or now - ended > _LINGER):
            return
        if ended is None and now > last:
            raise WorkError(
                f"{os.path.basename(name)} did not end within {time_limit:g} seconds",
                f"its last line was {recent!r}" if recent else "it printed nothing",
                "it was stopped; if it needs longer: --time-limit SECONDS",
            )
        if closed:  # the console is, the program goes on
            time.sleep(0.02)
            continue
        try:
            raw = lines.get(timeout=0.1)
        except queue.Empty:
            continue
        if raw is None:
            closed = True
            continue
        line = plain_line(raw)
        recent = line if line.strip() else recent
        yield line


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether the program has ended; it stays a zombie, so that its group keeps its number."""
    try:
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, process.pid, options) is not None
    except ChildProcessError:  # signals of children are ignored in this process
        return True


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends what is left of the program and of all it started."""
    with contextlib.suppress(OSError):  # none is left
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        process.kill()
    process.wait()
