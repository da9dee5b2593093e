"""Files shared by every stage: whole or absent when written, named for what they are when read.

Nothing is ever left half-written: content goes to a temporary name in the same folder and is
renamed when it is complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Iterator, Optional

from .errors import FormatError, MissingError

LFS_PREFIX = b"version https://git-lfs.github.com/spec/"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path``; it becomes ``path`` if the block succeeds.

    The parent folder is made. The temporary name keeps the suffix, for writers that choose their
    format by it. On an error ``path`` is left as it was and the temporary file is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        os.replace(str(temporary), str(path))
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


@contextlib.contextmanager
def workspace(parent: Path) -> Iterator[Path]:
    """Yields a temporary folder inside ``parent``, removed at the end.

    Several files that belong together are made here and moved with ``publish`` when all are done.
    A ``parent`` that was made for it and is still empty at the end is removed too.
    """
    new = not parent.is_dir()
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".work-", dir=str(parent)))
    try:
        yield folder
    finally:
        shutil.rmtree(str(folder), ignore_errors=True)
        if new:
            with contextlib.suppress(OSError):  # it has content now
                parent.rmdir()


def publish(folder: Path, target: Path, last: str = "") -> None:
    """Moves every file of ``folder`` into ``target`` (same file system), replacing namesakes.

    The one called ``last`` (a manifest) is moved after all others.
    """
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.iterdir(), key=lambda path: (path.name == last, path.name)):
        os.replace(str(path), str(target / path.name))


def write_text(path: Path, text: str) -> None:
    """Writes a text file (UTF-8, Unix line ends) at once or not at all.

    Names of files that are no UTF-8 come as lone surrogates; they are written as the escapes
    that JSON has for them.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file, indented, keys in the order given, NaN refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sha256(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal."""
    return _digest(path, "sha256")


def md5(path: Path) -> str:
    """The MD5 of a file in hexadecimal, as the vendor's compiler records it."""
    return _digest(path, "md5")


def impostor(head: bytes) -> Optional[str]:
    """What a file that should be binary is instead, from its first bytes (256 are enough).

    Returns:
        A phrase such as ``"a Git-LFS pointer, not the file itself"``, or ``None`` where nothing
        is recognised.
    """
    if not head:
        return "an empty file"
    if head.startswith(LFS_PREFIX):
        return "a Git-LFS pointer, not the file itself"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "an HTML page, probably the error page of a failed download"
    if start.startswith((b"<?xml", b"<error")):
        return "an XML document, probably the error answer of a storage server"
    if not any(head):
        return "a file of zero bytes, probably an unfinished download"
    return None


def refuse_impostor(path: Path, expected: str) -> None:
    """Refuses a file that is absent, empty, a Git-LFS pointer, an HTML page or all zeros.

    Args:
        path: the file.
        expected: what it should be, for the message (``"checkpoint"``).

    Raises:
        MissingError: there is no such file.
        FormatError: it is one of the things named by ``impostor``.
    """
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise MissingError(f"The {expected} {path} {kind}", "", "check the path")
    with path.open("rb") as file:
        head = file.read(256)
    found = impostor(head)
    if found is None:
        return
    next_step = "download the file again"
    if "Git-LFS" in found:
        next_step = f"git lfs pull --include={path.name}"
    raise FormatError(
        f"The {expected} {path} is {found}", f"its first bytes are {head[:40]!r}", next_step
    )


def _digest(path: Path, algorithm: str) -> str:
    digest = hashlib.new(algorithm)
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
