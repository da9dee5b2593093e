"""What the vendor's quantizer prints: kept in a file, and its warnings and errors read from there.

Its notes go to standard error, its C++ parts and progress bars straight to the descriptors, so
both are caught while one of its calls runs, and only then.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from pathlib import Path
from typing import Iterator, List, Tuple

from ..compile.vendor_process import plain_line

_MESSAGE = re.compile(r"\[VAIQ_(?P<kind>NOTE|WARN|ERROR)\](?:\[(?P<code>\w+)\])?:\s*(?P<text>.*)")


class _DescriptorStream(io.TextIOBase):
    """Text straight to a descriptor, wherever that points at the time; it cannot be closed.

    The tool's logger keeps the stream it finds first, through all later calls.
    """

    encoding = "utf-8"

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):  # closed: nothing can go there
            os.write(self._descriptor, text.encode("utf-8", "replace"))
        return len(text)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        pass


_OUTPUT, _ERROR = _DescriptorStream(1), _DescriptorStream(2)


class VendorConsole:
    """The console of the vendor's calls.

    Args:
        path: file it is kept in; begun anew.

    Attributes:
        warnings: texts of the tool's warnings, each once, with their code if they have one.
        errors: texts of its errors, likewise.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.warnings: List[str] = []
        self.errors: List[str] = []
        self._read = 0
        path.write_bytes(b"")

    @contextlib.contextmanager
    def capture(self) -> Iterator[None]:
        """What is printed inside the block goes to the file; then messages are read from it."""
        streams = sys.stdout, sys.stderr
        for stream in streams:
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        with self.path.open("ab", buffering=0) as file:
            saved = _redirected(file.fileno())
            sys.stdout, sys.stderr = _OUTPUT, _ERROR
            try:
                yield
            finally:
                sys.stdout, sys.stderr = streams
                for descriptor, copy in saved:
                    os.dup2(copy, descriptor)
                    os.close(copy)
                self._take_messages()

    def last_error(self) -> str:
        """The tool's last error, else the last line it printed, else empty."""
        if self.errors:
            return f"its last error: {self.errors[-1]}"
        lines = [plain_line(raw).strip() for raw in self.path.read_bytes().splitlines()]
        lines = [line for line in lines if line]
        return f"its last line: {lines[-1]}" if lines else ""

    def _take_messages(self) -> None:
        raw = self.path.read_bytes()
        fresh, self._read = raw[self._read :], len(raw)
        for line in fresh.splitlines():
            found = _MESSAGE.search(plain_line(line))
            if found is None or found["kind"] == "NOTE":
                continue
            code = f"{found['code']}: " if found["code"] else ""
            text = code + found["text"].strip()
            kept = self.warnings if found["kind"] == "WARN" else self.errors
            if text not in kept:
                kept.append(text)


def _redirected(target: int) -> List[Tuple[int, int]]:
    """Points standard output and error at ``target``; returns each with a copy of what it was."""
    saved = []
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):  # closed: nothing can go there
            saved.append((descriptor, os.dup(descriptor)))
            os.dup2(target, descriptor)
    return saved
