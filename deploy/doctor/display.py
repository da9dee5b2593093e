"""Checks of the screen, for those who ask for windows; results go to files without one."""

from __future__ import annotations

from typing import Iterator

from .facts import Facts, Place
from .findings import EVERYTHING, Finding

_GUI = "import cv2; print([l for l in cv2.getBuildInformation().splitlines() if 'GUI:' in l][0])"


def check_display(facts: Facts) -> Iterator[Finding]:
    """DISPLAY, socket and cookie of X11, and windows in OpenCV; nothing if not asked for."""
    if not facts.request.display:
        return
    host = facts.host
    inside = facts.place in (Place.VITIS, Place.CONTAINER)
    again = "deepfake-fpga session --display"
    display = host.env.get("DISPLAY", "")
    fix = again if inside else "ssh -X HOST  # or log in on its screen"
    yield Finding("DISPLAY", bool(display), display or "not set", fix, EVERYTHING)
    if display.startswith(":"):
        socket = f"/tmp/.X11-unix/X{display[1:].partition('.')[0]}"
        there = host.exists(socket)
        seen = socket if there else f"there is no {socket}"
        yield Finding("X11 socket", there, seen, again if inside else "startx", EVERYTHING)
    cookie = host.env.get("XAUTHORITY") or f"{host.env.get('HOME', '')}/.Xauthority"
    there = host.is_file(cookie)
    yield Finding(
        "X11 cookie",
        there,
        cookie if there else f"there is no {cookie}: windows may be refused",
        "xhost +local:  # on the host; xhost -local: takes it back",
    )
    if not inside:
        xauth = host.which("xauth")
        yield Finding("xauth", xauth is not None, xauth or "not on PATH", "sudo apt install xauth")
    outcome = host.run([host.executable, "-c", _GUI], 60.0)
    words = outcome.output.partition("GUI:")[2].strip()
    yield Finding(
        "OpenCV windows",
        outcome.ok and words not in ("", "NONE"),
        f"cv2 is built with GUI: {words}" if words else outcome.said or "cv2 does not say",
        f"{host.executable} -m pip uninstall opencv-python-headless && "
        f"{host.executable} -m pip install 'opencv-python<5'",
        EVERYTHING,
    )
