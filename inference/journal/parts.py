"""What was found out about a stretch of a collection, as files: whole and valid, or not there.

A part is the lines of some items, in order, and a last line that names each item with its outcome
and the place of its lines. A part without that last line is not one, so that whatever a crash or a
power failure left is known for what it is. The other files of lines (CSV, run lengths) lie beside
it under the same number; they are published first.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Iterable, Iterator, List, Optional, Tuple

RECORDS = "records.jsonl"

_TAIL = 1 << 16


@dataclass
class Outcome:
    """What became of one item.

    Attributes:
        number: of the item.
        reason: why it failed; empty if it did not.
        size: of the file read, in bytes; ``None`` where it could not be read.
        mtime: its time, in nanoseconds.
        sha256: of the bytes that were read.
        frames: records written.
        judged: those with a verdict.
        left_out: frames that a selection dropped.
        notes: what was found wrong on the way.
        places: offset and length of its lines in each file of lines.
    """

    number: int
    reason: str = ""
    size: Optional[int] = None
    mtime: Optional[int] = None
    sha256: Optional[str] = None
    frames: int = 0
    judged: int = 0
    left_out: int = 0
    notes: List[str] = field(default_factory=list)
    places: List[Tuple[int, int]] = field(default_factory=list)


def part_name(block: int, file: str = RECORDS) -> str:
    """The name of a block's part: ``00000007.jsonl``, or ``00000007.<file>`` for other lines."""
    return f"{block:08d}.jsonl" if file == RECORDS else f"{block:08d}.{file}"


def trailer(block: int, outcomes: Iterable[Outcome]) -> bytes:
    """The last line of a part."""
    items = [asdict(outcome) for outcome in outcomes]
    line = json.dumps({"block": block, "items": items}, allow_nan=False, separators=(",", ":"))
    return line.encode("ascii") + b"\n"


def read_part(path: Path, block: int) -> Optional[List[Outcome]]:
    """The outcomes in a part; ``None`` where it is missing or not whole."""
    try:
        with path.open("rb") as file:
            lines = _last_line(file)
    except OSError:
        return None
    with contextlib.suppress(ValueError, TypeError, KeyError, UnicodeDecodeError):
        content = json.loads(lines.decode("ascii"))
        if content["block"] == block:
            outcomes = [Outcome(**item) for item in content["items"]]
            for outcome in outcomes:
                outcome.places = [(offset, length) for offset, length in outcome.places]
            return outcomes
    return None


def assemble(
    folder: Path, target: IO[bytes], file: str, places: Iterable[Tuple[int, int, int]]
) -> None:
    """Copies lines out of parts.

    Args:
        folder: where the parts are.
        target: gets them.
        file: which file of lines.
        places: block, offset and length of each stretch, in the order wanted.

    Raises:
        OSError: a part cannot be read, or is shorter than it was.
    """
    for block, offset, length in _joined(places):
        path = folder / part_name(block, file)
        with path.open("rb") as source:
            source.seek(offset)
            while length:
                data = source.read(min(length, 1 << 20))
                if not data:
                    raise OSError(f"{path} ends before byte {offset + length}")
                target.write(data)
                length -= len(data)


def sync_file(file: IO[Any]) -> None:
    """Makes sure that a file survives a power failure."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """The same for the names in a folder."""
    handle = os.open(str(folder), os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_all(folder: Path) -> None:
    """The same for everything on the folder's file system: one call for hundreds of files."""
    handle = os.open(str(folder), os.O_RDONLY)
    try:
        call = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
        if call is None:
            os.sync()
        elif call(handle) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(folder))
    finally:
        os.close(handle)


def _joined(places: Iterable[Tuple[int, int, int]]) -> Iterator[Tuple[int, int, int]]:
    """Neighbouring stretches as one."""
    block, start, end = -1, 0, 0
    for number, offset, length in places:
        if number == block and offset == end:
            end += length
            continue
        if end > start:
            yield block, start, end - start
        block, start, end = number, offset, offset + length
    if end > start:
        yield block, start, end - start


def _last_line(file: IO[bytes]) -> bytes:
    """The last line if the file ends with its end, else nothing."""
    size = file.seek(0, os.SEEK_END)
    data = b""
    while size:
        step = min(_TAIL, size)
        size -= step
        file.seek(size)
        data = file.read(step) + data
        if not data.endswith(b"\n"):
            return b""
        at = data.rfind(b"\n", 0, len(data) - 1)
        if at >= 0:
            return data[at + 1 : -1]
    return data[:-1]
