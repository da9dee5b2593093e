"""A window on this machine's screen that shows a run while it lasts; needs an OpenCV with a GUI."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from typing import List, Optional, Tuple

from ...errors import UnsupportedError
from .live import LiveSink, picture

TITLE = "deepfake-fpga"
PROBE_SECONDS = 20.0

_PROBE = "import cv2; cv2.namedWindow('x'); cv2.waitKey(1); cv2.destroyAllWindows()"

_ESCAPE = 27


class WindowSink(LiveSink):
    """Shows the latest overlay until the run ends.

    Escape, ``q`` or the window's own button close it; the run goes on.

    Args:
        beside: puts the original left of its overlay.

    Attributes:
        notes: why the window was lost, if it was.

    Raises:
        UnsupportedError: there can be no window here.
    """

    def __init__(self, beside: bool = False) -> None:
        super().__init__(beside)
        refuse_without_window()
        self.notes: List[str] = []
        self._thread: Optional[threading.Thread] = None

    def open(self) -> None:
        """Opens the window."""
        self._thread = threading.Thread(target=self._show, name="window", daemon=True)
        self._thread.start()

    def close(self, complete: bool) -> None:
        """Closes the window."""
        self.latest.end()
        if self._thread is not None:
            self._thread.join(2.0)

    def _show(self) -> None:
        import cv2

        # Everything of a window is done on one thread, as its toolkit wants it.
        try:
            cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
            number = 0
            while not self.latest.ended:
                number, result = self.latest.after(number, 0.03)
                if result is not None:
                    cv2.imshow(TITLE, picture(result, self.beside))
                key = cv2.waitKey(1) & 0xFF
                if key in (ord("q"), _ESCAPE):
                    break
                if number and cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) < 1:
                    break
            cv2.destroyAllWindows()
        except cv2.error as error:
            self.notes.append(f"the window was lost: {' '.join(str(error).split())}")


def refuse_without_window() -> None:
    """Looks whether a window can be opened here.

    Raises:
        UnsupportedError: it cannot, and why.
    """
    reason, step = _lack()
    if reason:
        raise UnsupportedError(
            "No window can be shown", reason, f"{step}--serve 8080 shows the same in a browser"
        )


def _lack() -> Tuple[str, str]:
    """What a window lacks here and what to do about it; empty where it lacks nothing."""
    import cv2

    built = re.search(r"^\s*GUI:[ \t]*(\S*)", cv2.getBuildInformation(), re.MULTILINE)
    if built is not None and built.group(1) == "NONE":
        return (
            f"OpenCV {cv2.__version__} is built without windows (opencv-python-headless)",
            "pip uninstall opencv-python-headless; pip install 'opencv-python<5'; or ",
        )
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        return "neither DISPLAY nor WAYLAND_DISPLAY is set, so there is no screen", ""
    # Some toolkits end the process where the display does not answer, so a child asks first.
    try:
        child = subprocess.run(
            [sys.executable, "-c", _PROBE],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PROBE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"a window did not open within {PROBE_SECONDS:.0f} s", ""
    if child.returncode:
        lines = child.stdout.decode("utf-8", "replace").strip().splitlines()
        return f"a window does not open here: {lines[-1] if lines else child.returncode}", ""
    return "", ""
