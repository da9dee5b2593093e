"""A camera of this machine, by OpenCV."""

from __future__ import annotations

import functools
import glob
import os
import re
import sys
from fractions import Fraction
from typing import Iterator, Optional, Union

import numpy as np

from ...errors import MissingError, WorkError
from .live import Connection, LiveOptions, LiveSource, LostError, Picture

Device = Union[int, str]


def device_of(text: str) -> Optional[Device]:
    """What a word names as a camera: ``camera:0``, ``0`` or ``/dev/video0``; else ``None``."""
    found = re.match(r"(?:camera:)?([0-9]{1,3})$", text)
    if found:
        return int(found.group(1))
    if re.match(r"/dev/video[0-9]+$", text):
        return text
    return None


def open_camera(text: str, options: Optional[LiveOptions] = None) -> LiveSource:
    """The camera a word names.

    Raises:
        MissingError: there is none of that name.
        WorkError: it cannot be opened.
    """
    options = LiveOptions() if options is None else options
    device = device_of(text)
    if device is None:
        raise MissingError(f"{text} is no camera", "", "name it 0, camera:0 or /dev/video0")
    path = device if isinstance(device, str) else f"/dev/video{device}"
    if sys.platform.startswith("linux") and not os.path.exists(path):
        others = sorted(glob.glob("/dev/video*"))
        raise MissingError(
            f"There is no camera {text}",
            f"{path} does not exist; "
            + (f"there are {', '.join(others)}" if others else "no camera is here"),
            "connect it, or in a container pass it on with --device",
        )
    name = f"camera:{device}" if isinstance(device, int) else device
    label = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")
    try:
        connect = functools.partial(CameraConnection, device)
        source = LiveSource(name, "camera", label, connect, options)
    except LostError as error:
        allowed = not os.path.exists(path) or os.access(path, os.R_OK | os.W_OK)
        raise WorkError(
            f"The camera {text} cannot be opened",
            str(error),
            "end the program that uses it" if allowed else "join the group video, and log in again",
        ) from error
    return source


class CameraConnection(Connection):
    """An open camera."""

    def __init__(self, device: Device) -> None:
        import cv2

        self._capture = cv2.VideoCapture(device)
        if not self._capture.isOpened():
            self._capture.release()
            raise LostError("OpenCV cannot open it")
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = Fraction(rate).limit_denominator(1001) if 0 < rate <= 1000 else None

    def pictures(self) -> Iterator[Picture]:
        """The pictures as they come; a camera has no clock that can be relied on."""
        while True:
            good, image = self._capture.read()
            if not good or image is None:
                raise LostError("it gives no picture")
            yield None, functools.partial(_rgb, image)

    def close(self) -> None:
        """Releases the camera."""
        self._capture.release()


def _rgb(image: np.ndarray) -> np.ndarray:
    import cv2

    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
