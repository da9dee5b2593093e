"""Translated engines kept on disk by what they were made from, so that opening a model is quick.

The cache is a convenience: it may be deleted at any time, a damaged entry is made again, and where
it cannot be written nothing is kept. Entries appear whole by a rename, so several processes may
use it at once. It is bounded: the entries used least recently go first.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Callable, Optional, Tuple

VARIABLE = "DEEPFAKE_FPGA_CACHE"
"""Environment variable: another folder for the cache, or ``off``."""

LIMIT = 1 << 30
"""Most bytes the cache may hold."""

_SUFFIX = ".engine"
_DIGEST = hashlib.sha256().digest_size


def cache_folder() -> Optional[Path]:
    """Where engines are kept; ``None`` where they are not."""
    wanted = os.environ.get(VARIABLE, "")
    if wanted.lower() == "off":
        return None
    if wanted:
        return Path(wanted) / "engines"
    try:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    except RuntimeError:  # no home folder
        return None
    return Path(base) / "deepfake-fpga" / "engines"


def cached(key: str, make: Callable[[], bytes], limit: int = LIMIT) -> Tuple[bytes, bool]:
    """What was kept under ``key``, else what ``make`` gives, which is then kept.

    Args:
        key: hexadecimal digest of everything the result depends on.
        make: called if nothing sound is kept.
        limit: most bytes of all entries together; a larger result is not kept.

    Returns:
        The bytes, and whether they came from the cache.
    """
    folder = cache_folder()
    if folder is None:
        return make(), False
    entry = folder / f"{key}{_SUFFIX}"
    kept = _read(entry)
    if kept is not None:
        return kept, True
    data = make()
    if len(data) + _DIGEST <= limit:
        # A full disk or a folder that cannot be written costs the next start some time, no more.
        with contextlib.suppress(OSError):
            _write(entry, data)
            _trim(folder, limit, entry)
    return data, False


def _read(entry: Path) -> Optional[bytes]:
    try:
        data = entry.read_bytes()
        os.utime(str(entry))
    except OSError:
        return None
    digest, payload = data[:_DIGEST], data[_DIGEST:]
    return payload if hashlib.sha256(payload).digest() == digest else None


def _write(entry: Path, data: bytes) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=entry.stem, suffix=".partial", dir=str(entry.parent))
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(hashlib.sha256(data).digest())
            stream.write(data)
        os.replace(name, str(entry))
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _trim(folder: Path, limit: int, newest: Path) -> None:
    """Removes the entries used least recently until all fit; others may do the same at once."""
    entries = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            status = path.stat()
            entries.append((path == newest, status.st_mtime, status.st_size, path))
    total = sum(size for _, _, size, _ in entries)
    for _, _, size, path in sorted(entries, key=lambda entry: entry[:2]):
        if total <= limit:
            break
        with contextlib.suppress(OSError):
            path.unlink()
        total -= size
