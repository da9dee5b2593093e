"""One file over http or https: whole or kept as far as it came, and continued from there.

What came so far lies in a folder with the validator (``ETag`` or ``Last-Modified``) of the answer
it belongs to; a part of another version of the file is never continued.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Callable, Dict, Optional
from urllib.parse import urlsplit

from ... import __version__
from ...errors import MismatchError, WorkError
from ...files import write_json
from .answers import HEAD, by_hand, page_error, web_page
from .sources import Source

Progress = Callable[[int, Optional[int]], None]

ATTEMPTS = 5
"""Failures in a row without a new byte, before giving up."""

SILENCE = 60.0
"""Seconds without a byte that count as a failure; how long it takes in all does not matter."""

LONGEST_WAIT = 120.0
"""Seconds a server may ask to wait; more is for a person to decide."""

MARGIN = 64 << 20
"""Bytes left free on the disk."""

_BLOCK = 1 << 18
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})


class _BrokenError(Exception):
    """A failure after which another attempt makes sense."""

    def __init__(self, words: str, wait: float = 0.0) -> None:
        super().__init__(words)
        self.wait = wait


@dataclass(frozen=True)
class Partial:
    """What came so far of a file.

    Attributes:
        folder: holds ``data`` and ``state.json``; made when needed.
    """

    folder: Path

    @property
    def data(self) -> Path:
        """The bytes."""
        return self.folder / "data"

    def size(self) -> int:
        """How many bytes there are."""
        with contextlib.suppress(FileNotFoundError):
            return self.data.stat().st_size
        return 0

    def state(self) -> Dict[str, Any]:
        """Address, validator and size of the whole; empty where nothing is known."""
        with contextlib.suppress(OSError, ValueError):
            state = json.loads((self.folder / "state.json").read_text("utf-8"))
            if isinstance(state, dict):
                return state
        return {}

    def begin(self, state: Dict[str, Any]) -> None:
        """Starts anew."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data.write_bytes(b"")
        write_json(self.folder / "state.json", state)

    def drop(self) -> None:
        """Removes all."""
        shutil.rmtree(str(self.folder), ignore_errors=True)


def download(
    source: Source,
    address: str,
    partial: Partial,
    *,
    size: Optional[int] = None,
    say: Callable[[str], None],
    progress: Progress,
    sleep: Callable[[float], None] = time.sleep,
    silence: float = SILENCE,
) -> None:
    """Brings ``address`` to ``partial.data``, continuing what is there of it.

    Args:
        source: what it is, for messages.
        address: http or https.
        partial: where it is kept; left as far as it came after an error.
        size: bytes it must have, where that is known.
        say: takes lines for a person: what is tried again and why.
        progress: takes bytes done and in all.
        sleep: waits between attempts.
        silence: seconds without a byte that count as a failure.

    Raises:
        MismatchError: the server has a file of another size.
        WorkError: it cannot be had; the message says what to do.
    """
    failures = 0
    farthest = partial.size()
    while True:
        try:
            _attempt(source, address, partial, size, say, progress, silence)
            return
        except _BrokenError as error:
            if partial.size() > farthest:
                farthest, failures = partial.size(), 0
            failures += 1
            if failures >= ATTEMPTS:
                raise WorkError(
                    f"{source.name} could not be downloaded",
                    f"{error}; {failures} attempts in a row brought nothing new",
                    f"{_kept(partial)}; type the same again later, or take {source.page} "
                    f"with a browser and type: {by_hand(source)}",
                ) from error
            wait = error.wait or 2.0 ** (failures - 1)
            say(f"{source.name}: {error}; trying again in {wait:.0f} s")
            sleep(wait)


def _kept(partial: Partial) -> str:
    return f"{partial.size()} bytes are kept" if partial.size() else "nothing is kept"


def _attempt(
    source: Source,
    address: str,
    partial: Partial,
    size: Optional[int],
    say: Callable[[str], None],
    progress: Progress,
    silence: float,
) -> None:
    have, state = partial.size(), partial.state()
    validator = state.get("validator") if state.get("address") == address else None
    request = urllib.request.Request(address, headers=_headers())
    if have and validator:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", str(validator))
    try:
        with _open(request, silence) as answer:
            _receive(source, address, partial, size, say, progress, answer)
    except urllib.error.HTTPError as error:
        with error:
            _judge(source, partial, have, state, error)
    except http.client.HTTPException as error:
        raise _BrokenError(f"the connection broke: {error or type(error).__name__}") from error
    except socket.timeout as error:  # an OSError of its own before 3.10
        raise _BrokenError(f"{silence:.0f} s without a byte") from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, socket.gaierror):
            host = urlsplit(address).hostname
            raise _BrokenError(f"{host} is not known here: is there a network?") from error
        raise _BrokenError(f"no connection: {error.reason}") from error
    except (ConnectionError, TimeoutError, ssl.SSLError) as error:
        raise _BrokenError(f"the connection broke: {error}") from error


def _receive(
    source: Source,
    address: str,
    partial: Partial,
    size: Optional[int],
    say: Callable[[str], None],
    progress: Progress,
    answer: Any,
) -> None:
    headers = answer.headers
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise WorkError(
            f"The server of {source.name} sends it encoded, so it cannot be continued or checked",
            f"Content-Encoding: {headers['Content-Encoding']}",
            f"take {source.page} with a browser and type: {by_hand(source)}",
        )
    length = _number(headers.get("Content-Length"))
    have = partial.size()
    if answer.status == 206:
        start, total = _range(headers.get("Content-Range", ""))
        if start != have or total is None or total != partial.state().get("size", total):
            partial.drop()
            raise _BrokenError(f"the server sent another part than asked for ({start}, {total})")
        say(f"{source.name}: going on at {have} of {total} bytes")
    else:
        if have:
            say(f"{source.name}: starting anew, as the server does not go on with what is here")
        have, total = 0, length
        head = answer.read(HEAD) if _may_be_page(headers) else b""
        meaning = web_page(head, headers.get("Content-Type", ""))
        if meaning is not None:
            raise page_error(source, meaning, with_gdown=False)
        if size is not None and total is not None and total != size:
            raise MismatchError(
                f"The server has another {source.name} than is expected",
                f"{total} bytes, {size} expected",
                "look at its page for a new version; --force accepts what differs from the "
                "first download",
            )
        partial.begin({"address": address, "validator": _validator(headers), "size": total})
        have = _append(partial, head)
    _need_room(partial.folder, (total or size or 0) - have, source)
    progress(have, total)
    with partial.data.open("ab") as file:
        for block in iter(lambda: answer.read(_BLOCK), b""):
            _write(file, block, source, partial)
            have += len(block)
            progress(have, total)
            # A page that calls itself something else is known by its first bytes.
            if have == len(block) and web_page(block) is not None:
                file.close()
                partial.drop()
                raise page_error(source, str(web_page(block)), with_gdown=False)
    if total is not None and have < total:
        raise _BrokenError(f"the connection ended after {have} of {total} bytes")
    if total is None:
        say(f"{source.name}: the server did not say how long it is; only its content can tell")


def _judge(
    source: Source,
    partial: Partial,
    have: int,
    state: Dict[str, Any],
    error: urllib.error.HTTPError,
) -> None:
    """Raises what an error status means; returns where the file is whole already."""
    code = error.code
    if code == 416:
        if have and have == _range(error.headers.get("Content-Range", ""))[1] == state.get("size"):
            return
        partial.drop()
        raise _BrokenError("the server cannot go on with what is here, which is dropped")
    if code in _LATER:
        wait = _number(error.headers.get("Retry-After")) or 0
        if wait <= LONGEST_WAIT:
            raise _BrokenError(f"the server answers {code} {error.reason}", float(wait))
        raise WorkError(
            f"The server of {source.name} asks to wait",
            f"{code} {error.reason}, Retry-After: {wait} s",
            f"type the same again then; {_kept(partial)}",
        )
    meaning = web_page(error.read(HEAD), error.headers.get("Content-Type", ""))
    if meaning not in (None, "it is no file"):
        raise page_error(source, f"{code} {error.reason}; {meaning}", with_gdown=False)
    what = f"{code} {error.reason}"
    if code // 100 == 3:
        what = "the address leads in a circle, or from https to http: " + " ".join(what.split())
    raise WorkError(
        f"{source.name} is not to be had at its address",
        what,
        f"look at {source.page} with a browser; another address goes into a file for --sources",
    )


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect from https to anything else."""

    def redirect_request(
        self, req: Any, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise urllib.error.HTTPError(req.full_url, code, f"to {newurl}", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(request: urllib.request.Request, silence: float) -> Any:
    return urllib.request.build_opener(_Redirects).open(request, timeout=silence)


def _headers() -> Dict[str, str]:
    return {"User-Agent": f"deepfake-fpga/{__version__}", "Accept-Encoding": "identity"}


def _may_be_page(headers: Any) -> bool:
    return "html" in headers.get("Content-Type", "").lower()


def _validator(headers: Any) -> Optional[str]:
    """What tells whether a later answer is of the same bytes; a weak ``ETag`` does not."""
    etag: Optional[str] = headers.get("ETag")
    if etag and not etag.startswith("W/"):
        return etag
    modified: Optional[str] = headers.get("Last-Modified")
    return modified


def _range(text: str) -> Any:
    """First byte and total of a ``Content-Range``; ``None`` for what it does not say."""
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", text.strip())
    return tuple(map(_number, found.groups())) if found else (None, None)


def _number(text: Optional[str]) -> Optional[int]:
    return int(text) if text and text.strip().isdigit() else None


def _append(partial: Partial, data: bytes) -> int:
    with partial.data.open("ab") as file:
        file.write(data)
    return len(data)


def _write(file: IO[bytes], block: bytes, source: Source, partial: Partial) -> None:
    try:
        file.write(block)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise no_room(partial.folder, source, len(block), 0) from error
        raise


def _need_room(folder: Path, needed: int, source: Source) -> None:
    free = shutil.disk_usage(str(folder)).free
    if needed + MARGIN > free:
        raise no_room(folder, source, needed, free)


def no_room(folder: Path, source: Source, needed: int, free: int) -> WorkError:
    """The error of a disk that is too small."""
    return WorkError(
        f"There is no room for {source.name}",
        f"{needed} bytes are to come and {MARGIN} should stay free, {free} are free at {folder}",
        "make room, or name a folder on another disk with --data-dir",
    )
