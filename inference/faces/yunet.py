"""YuNet through OpenCV: a small network with landmarks, where its ``.onnx`` file is given."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, List, Optional

import numpy as np

from ...errors import FormatError, MissingError, UnsupportedError
from ...files import refuse_impostor
from ..records import Frame
from .base import Box, Detection, Detector, distinct

LONGEST = 640
"""Pixels of the longer side of what is searched: the size the network was made for."""

SCORE, SURE = 0.3, 0.6
"""Score from which a face may be continued, and from which it is believed by itself."""

OVERLAP = 0.3
MOST = 200


class YuNetDetector(Detector):
    """``cv2.FaceDetectorYN``.

    The network frames a face from the hairline to the chin. A square of the frame's width about
    its lower middle comes near what the cascade frames, so that a margin means about the same.

    Args:
        model: the ``face_detection_yunet_*.onnx`` of OpenCV's model zoo.

    Raises:
        MissingError: there is no such file.
        FormatError: OpenCV cannot load it.
        UnsupportedError: this OpenCV is too old.
    """

    name = "yunet"
    sure = SURE

    def __init__(self, model: Path) -> None:
        import cv2

        if not hasattr(cv2, "FaceDetectorYN"):
            raise UnsupportedError(
                "This OpenCV cannot run YuNet",
                f"OpenCV {cv2.__version__} has no FaceDetectorYN, 4.5.4 has",
                "pip install 'opencv-python-headless>=4.5.4,<5', or use --faces cascade",
            )
        self.model = Path(model)
        if not self.model.is_file():
            raise MissingError(
                f"There is no face model {model}",
                "",
                "name the face_detection_yunet .onnx with --face-model, or use --faces cascade",
            )
        refuse_impostor(self.model, "face model")
        self._own = threading.local()  # a network may be used by one thread at a time
        self._network()

    def detect(self, image: np.ndarray, frame: Optional[Frame] = None) -> List[Detection]:
        """See ``Detector.detect``."""
        import cv2

        height, width = image.shape[:2]
        scale = min(1.0, LONGEST / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        picture = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        if scale < 1:
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        network = self._network()
        network.setInputSize(size)
        rows = network.detect(picture)[1]
        if rows is None:
            return []
        ratio = np.array([width / size[0], height / size[1]])
        return distinct([_detection(row, ratio) for row in np.asarray(rows, np.float64)])

    def _network(self) -> Any:
        import cv2

        network = getattr(self._own, "network", None)
        if network is None:
            try:
                network = cv2.FaceDetectorYN.create(
                    str(self.model), "", (320, 320), SCORE, OVERLAP, MOST
                )
            except cv2.error as error:
                raise FormatError(
                    f"{self.model} is no face model that OpenCV can load",
                    str(error).strip().splitlines()[-1],
                    "take face_detection_yunet .onnx from OpenCV's model zoo",
                ) from error
            self._own.network = network
        return network


def _detection(row: np.ndarray, ratio: np.ndarray) -> Detection:
    """A row of the network: x, y, width, height, five points, score."""
    (x, y), (w, h) = row[:2] * ratio, row[2:4] * ratio
    middle, lower = x + w / 2, y + 0.55 * h
    points = row[4:14].reshape(5, 2) * ratio
    return Detection(
        Box(
            float(middle - w / 2), float(lower - w / 2), float(middle + w / 2), float(lower + w / 2)
        ),
        float(min(1.0, max(0.0, row[14]))),
        tuple((float(a), float(b)) for a, b in points),
    )
