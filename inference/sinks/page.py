"""A page in the browser that shows a run while it lasts: the overlay as MJPEG, verdict and rate.

::

    /              the page
    /stream        multipart/x-mixed-replace, the latest picture as often as the viewer takes it
    /picture.jpg   the latest picture
    /status.json   counts, rate and the latest record

Every viewer is served on a thread of its own. One that is slow gets fewer pictures, one that is
gone or stands still for ``PATIENCE`` is dropped, and none of them is waited for by the run.
"""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from typing import Any, Callable, List, Optional, Set, Tuple

from ...errors import UsageError, WorkError
from ..records import FrameResult
from .live import Latest, LiveSink, picture
from .page_text import PAGE

RATE = 25.0
"""Pictures per second that a viewer gets at most."""

QUALITY = 82
VIEWERS = 16
"""Streams at once; a machine that watches itself that often has no time left for the run."""

PATIENCE = 10.0
"""Seconds after which a connection that takes nothing is dropped."""

FAREWELL = 0.3
"""Seconds in which viewers may still get the last picture when the run ends."""

BOUNDARY = "picture"


class PageSink(LiveSink):
    """Serves the page from the opening to the closing.

    Args:
        host: the address to listen on; ``127.0.0.1`` is seen on this machine only.
        port: 0 for one that is free.
        beside: puts the original left of its overlay.
        announce: told the page's address when it can be opened.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        beside: bool = False,
        announce: Optional[Callable[[str], None]] = None,
    ) -> None:
        super().__init__(beside)
        self.host, self.port = host, port
        self.announce = announce
        self._server: Optional[_Server] = None
        self._thread: Optional[threading.Thread] = None

    def open(self) -> None:
        """Starts to listen.

        Raises:
            UsageError: the address cannot be had.
        """
        try:
            self._server = _Server(self.host, self.port, self.latest, self.beside)
        except (OSError, OverflowError) as error:
            raise UsageError(
                f"The page cannot be served at {_joined(self.host, self.port)}",
                str(error),
                "choose another port: --serve 0 takes one that is free",
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="page", daemon=True
        )
        self._thread.start()
        if self.announce is not None:
            self.announce(f"http://{_joined(self.host, self._server.server_address[1])}/")

    def close(self, complete: bool) -> None:
        """Lets the viewers have the last picture and ends."""
        self.latest.end()
        server, self._server = self._server, None
        if server is not None and self._thread is not None:
            server.dismiss(FAREWELL)
            server.shutdown()
            server.server_close()
            server.dismiss(0)
            self._thread.join()
            self.notes = server.faults


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """The listening socket, its connections, and the picture that they share."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, host: str, port: int, latest: Latest, beside: bool) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.latest, self.beside = latest, beside
        self.streams = threading.BoundedSemaphore(VIEWERS)
        self._changed = threading.Condition()
        self._open: Set[socket.socket] = set()
        self.faults: List[str] = []
        self._drawing = threading.Lock()
        self._drawn: Tuple[int, bytes] = (0, b"")
        super().__init__((host, port), _Viewer)

    def jpeg(self, number: int, result: FrameResult) -> bytes:
        """The picture of a result, drawn once for all who want it."""
        with self._drawing:
            if self._drawn[0] < number:
                self._drawn = (number, _jpeg(result, self.beside))
            return self._drawn[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Starts a connection's thread."""
        with self._changed:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Ends a connection."""
        super().shutdown_request(request)
        with self._changed:
            self._open.discard(request)
            self._changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Notes what is wrong here; that a viewer is gone or stands still is no matter."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError) and len(self.faults) < 1:
            self.faults.append(f"the page could not answer: {error!r}")

    def dismiss(self, seconds: float) -> None:
        """Waits so long for the connections to end by themselves, then ends them."""
        with self._changed:
            self._changed.wait_for(lambda: not self._open, seconds)
            left = list(self._open)
        for request in left:
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)


class _Viewer(BaseHTTPRequestHandler):
    """One request."""

    server: _Server
    timeout = PATIENCE
    server_version = "deepfake-fpga"
    sys_version = ""

    def do_GET(self) -> None:
        """Answers."""
        path = self.path.split("?", 1)[0]
        if path == "/":
            self._answer("text/html; charset=utf-8", PAGE.encode())
        elif path == "/status.json":
            text = json.dumps(self.server.latest.status(), allow_nan=False)
            self._answer("application/json", text.encode())
        elif path == "/picture.jpg":
            number, result = self.server.latest.after(0, 0)
            if result is None:
                self.send_error(503, "No picture yet")
            else:
                self._answer("image/jpeg", self.server.jpeg(number, result))
        elif path == "/stream":
            self._stream()
        else:
            self.send_error(404)

    def log_message(self, *args: Any) -> None:
        """Says nothing: standard error belongs to the run."""

    def _head(self, kind: str, length: Optional[int] = None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def _answer(self, kind: str, body: bytes) -> None:
        self._head(kind, len(body))
        self.wfile.write(body)

    def _stream(self) -> None:
        if not self.server.streams.acquire(blocking=False):
            self.send_error(503, "Too many viewers")
            return
        try:
            self._head(f"multipart/x-mixed-replace; boundary={BOUNDARY}")
            latest, number = self.server.latest, 0
            while True:
                start = time.monotonic()
                ended = latest.ended  # asked first: nothing is put after the end
                number, result = latest.after(number, 1.0)
                if result is not None:
                    body = self.server.jpeg(number, result)
                    part = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\n"
                    part += f"Content-Length: {len(body)}\r\n\r\n"
                    self.wfile.write(part.encode() + body + b"\r\n")
                    latest.pause(1 / RATE - (time.monotonic() - start))
                elif ended:
                    self.wfile.write(f"--{BOUNDARY}--\r\n".encode())
                    return
        finally:
            self.server.streams.release()


def _jpeg(result: FrameResult, beside: bool) -> bytes:
    import cv2

    good, data = cv2.imencode(".jpg", picture(result, beside), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not good:
        raise WorkError("OpenCV cannot encode a JPEG")
    return bytes(data)


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
