"""A server on this machine that misbehaves on demand, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from typing import Dict, Iterator, List, Optional


@dataclass
class Behaviour:
    """How the next answers are.

    Attributes:
        data: the file.
        etag: its validator; none if empty.
        ranges: whether parts are served.
        cuts: after how many bytes each of the next answers is cut; the rest are whole.
        statuses: of the next answers; then 200.
        headers: added to every answer.
        length: stated instead of the true one; ``-1`` for none.
        drip: seconds between pieces of ``step`` bytes; 0 for all at once.
        redirect: where every answer leads.
    """

    data: bytes = b""
    etag: str = '"1"'
    ranges: bool = True
    cuts: List[int] = field(default_factory=list)
    statuses: List[int] = field(default_factory=list)
    headers: Dict[str, str] = field(default_factory=dict)
    length: Optional[int] = None
    drip: float = 0.0
    step: int = 1 << 16
    redirect: str = ""


class Server(ThreadingMixIn, HTTPServer):
    """Serves ``behaviour`` at every path.

    Attributes:
        asked: the ``Range`` header of each request, empty where there was none.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behaviour = Behaviour()
        self.asked: List[str] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """Says nothing of a client that hangs up."""

    @property
    def url(self) -> str:
        """Of a file here."""
        return f"http://127.0.0.1:{self.server_address[1]}/file.bin"


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """A running server."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        how = self.server.behaviour
        wanted = self.headers.get("Range", "")
        self.server.asked.append(wanted)
        if how.redirect:
            self._head(302, {"Location": how.redirect, "Content-Length": "0"})
            return
        status = how.statuses.pop(0) if how.statuses else 200
        if status != 200:
            body = how.data if "Content-Type" in how.headers else b"no"
            self._head(status, {"Content-Length": str(len(body)), **how.headers})
            self.wfile.write(body)
            return
        headers = {"ETag": how.etag} if how.etag else {}
        start, total = 0, len(how.data)
        fresh = self.headers.get("If-Range", how.etag) == how.etag
        if wanted and how.ranges and fresh:
            start = int(wanted[len("bytes=") : -1])
            if start >= total:
                self._head(416, {"Content-Range": f"bytes */{total}", "Content-Length": "0"})
                return
            status, headers["Content-Range"] = 206, f"bytes {start}-{total - 1}/{total}"
        length = total - start if how.length is None else how.length
        if length >= 0:
            headers["Content-Length"] = str(length)
        self._head(status, {**headers, **how.headers})
        body = how.data[start:]
        if how.cuts:
            body = body[: how.cuts.pop(0)]
        for at in range(0, len(body), how.step):
            self.wfile.write(body[at : at + how.step])
            self.wfile.flush()
            time.sleep(how.drip)
        self.close_connection = True

    def _head(self, status: int, headers: Dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass
