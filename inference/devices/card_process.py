"""One child process with the vendor's runtime: how it is started, spoken to and brought to an end.

The vendor's libraries end their process by an abort on nearly every error, and ``wait`` on a hung
card never returns. In a child of their own both are events, and what the vendor printed is a log.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import IO, Any, Deque, Dict, List, Mapping, Optional, Sequence

WORKER = Path(__file__).with_name("card_worker.py")

_LOG_TAIL = 1 << 16
_KILL_SECONDS = 2.0


class ChildEndedError(Exception):
    """The child has closed its side: it ended, or is about to."""


class InterruptedWaitError(Exception):
    """Somebody called ``wake`` while an answer was waited for."""


class CardProcess:
    """A running ``card_worker``.

    Args:
        python: the interpreter and its options.
        environment: of the child.
        memory: file descriptor of the memory that both sides map.
        log: where the child's own output and its libraries' go; appended to.

    Attributes:
        log: as given.
    """

    def __init__(
        self, python: Sequence[str], environment: Mapping[str, str], memory: int, log: Path
    ) -> None:
        self.log = log
        self._start = log.stat().st_size if log.exists() else 0
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                [*python, str(WORKER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                bufsize=0,
                env=dict(environment),
                pass_fds=[memory],
                # Ctrl-C is for the parent, which ends the child in order.
                start_new_session=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._commands: IO[bytes] = self._process.stdin
        self._replies: IO[bytes] = self._process.stdout
        self._buffer = b""
        self._lines: Deque[bytes] = deque()

    @property
    def pid(self) -> int:
        """Process number."""
        return self._process.pid

    def send(self, **message: Any) -> None:
        """Sends one command; a child that is gone is noticed by ``receive``."""
        with contextlib.suppress(OSError, ValueError):
            self._commands.write(json.dumps(message).encode("utf-8") + b"\n")

    def receive(self, seconds: float, wake: int) -> Optional[Dict[str, Any]]:
        """The next answer; ``None`` if there is none within ``seconds``.

        Args:
            seconds: how long to wait.
            wake: file descriptor; the wait ends as soon as it can be read.

        Raises:
            ChildEndedError: no answer will follow.
            InterruptedWaitError: ``wake`` can be read.
        """
        limit = time.monotonic() + seconds
        source = self._replies.fileno()
        while not self._lines:
            left = max(0.0, limit - time.monotonic())
            ready, _, _ = select.select([source, wake], [], [], left)
            if wake in ready:
                raise InterruptedWaitError
            if not ready:
                return None
            data = os.read(source, 1 << 16)
            if not data:
                raise ChildEndedError
            *lines, self._buffer = (self._buffer + data).split(b"\n")
            self._lines.extend(lines)
        try:
            message = json.loads(self._lines.popleft().decode("utf-8"))
        except ValueError:
            raise ChildEndedError from None  # cut off in the middle of a line
        assert isinstance(message, dict)
        return message

    def end(self, seconds: float) -> Optional[int]:
        """Lets the child release the card, for ``seconds``; then kills it.

        Returns:
            Its status as ``subprocess`` gives it; ``None`` for a process that even a kill does
            not end (it sits in a driver).
        """
        self.send(close=True)
        with contextlib.suppress(OSError):
            self._commands.close()
        limit = time.monotonic() + seconds
        # Until the end of its answers: a full pipe must not keep it.
        with contextlib.suppress(OSError, ValueError):
            while time.monotonic() < limit and self._process.poll() is None:
                left = max(0.0, min(0.05, limit - time.monotonic()))
                if select.select([self._replies], [], [], left)[0] and not os.read(
                    self._replies.fileno(), 1 << 16
                ):
                    break
        return self._reap(max(0.0, limit - time.monotonic()))

    def kill(self) -> Optional[int]:
        """Ends the child at once; returns as ``end``."""
        return self._reap(0.0)

    def fate(self) -> Optional[int]:
        """The status of a child that has closed its side; one that lingers is killed."""
        return self._reap(_KILL_SECONDS)

    def tail(self) -> List[str]:
        """The last lines the child's libraries printed, without the empty ones."""
        with contextlib.suppress(OSError), self.log.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            stream.seek(max(self._start, size - _LOG_TAIL))
            text = stream.read().decode("utf-8", "replace")
            return [line.rstrip() for line in text.splitlines() if line.strip()]
        return []

    def _reap(self, seconds: float) -> Optional[int]:
        status: Optional[int] = None
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = self._process.wait(_KILL_SECONDS)
        for stream in (self._commands, self._replies):
            with contextlib.suppress(OSError):
                stream.close()
        return status


def shared_memory(size: int) -> IO[bytes]:
    """A file without a name and with room for ``size`` bytes, in memory where that has room.

    Docker's ``/dev/shm`` has 64 MB unless told otherwise, and writing beyond what is there would
    end the process; then the temporary folder is taken.

    Raises:
        OSError: there is no room there either.
    """
    folder = "/dev/shm"
    if os.access(folder, os.W_OK):
        with contextlib.suppress(OSError):
            return _reserved(folder, size)
    return _reserved(None, size)


def _reserved(folder: Optional[str], size: int) -> IO[bytes]:
    memory = tempfile.TemporaryFile(prefix="deepfake-fpga-", dir=folder)  # noqa: SIM115
    try:
        os.posix_fallocate(memory.fileno(), 0, size)
    except OSError:
        memory.close()
        raise
    return memory


def signal_name(status: Optional[int]) -> str:
    """How a process ended, in words, from its status."""
    if status is None:
        return "it could not even be killed: it sits in the driver"
    if status >= 0:
        return f"it exited with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"it was ended by {name} (status {128 - status} in a shell)"
