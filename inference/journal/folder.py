"""The lock of an output folder: who opens its journal or makes its final files does so alone."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Iterator


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the folder; a process that dies lets go of it.

    Where a file system knows no locks there is none, and two at once do the same work twice, with
    the same outcome.
    """
    import fcntl

    handle = os.open(str(folder), os.O_RDONLY)
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.02)
            except OSError:
                break
        yield
    finally:
        os.close(handle)
