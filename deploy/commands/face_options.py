"""Options of ``run`` that say how faces are found in the pictures."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, TypeVar

import click

if TYPE_CHECKING:
    from ...inference.faces import FaceOptions

F = TypeVar("F", bound=Callable[..., Any])

KINDS = ["auto", "cascade", "yunet", "whole", "boxes"]

OPTIONS = (
    click.option(
        "--faces",
        type=click.Choice(KINDS),
        default="auto",
        show_default=True,
        help="How faces are found: cascade is OpenCV's own detector, yunet needs --face-model, "
        "boxes --face-boxes, whole takes every picture as a crop of a face. auto is whole for "
        "crops (square, at most 320 pixels or filled by one face), else the file given, else "
        "cascade.",
    ),
    click.option(
        "--face-model",
        type=click.Path(path_type=Path),
        metavar="FILE.onnx",
        help="YuNet's network, for --faces yunet.",
    ),
    click.option(
        "--face-boxes",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Boxes as JSON Lines (frame, box, id) or CSV (frame,x0,y0,x1,y1,id), for "
        "--faces boxes.",
    ),
    click.option(
        "--min-face",
        type=click.FloatRange(min=20),
        metavar="PIXELS",
        help="Judge faces from this size on; smaller ones are recorded as too_small. Default: 48.",
    ),
    click.option(
        "--detect-every",
        type=click.IntRange(min=1),
        metavar="N",
        help="Look for faces in one frame of N and follow them between. Default: every 0.12 s.",
    ),
)


def face_options(command: F) -> F:
    """Adds the options; the command gets them as one argument ``faces``."""

    @functools.wraps(command)
    def wrapped(
        faces: str,
        face_model: Any,
        face_boxes: Any,
        min_face: Any,
        detect_every: Any,
        **values: Any,
    ) -> Any:
        asked = _asked(faces, face_model, face_boxes, min_face, detect_every)
        return command(faces=asked, **values)

    function: Any = wrapped
    for option in reversed(OPTIONS):
        function = option(function)
    return function  # type: ignore[no-any-return]


def _asked(kind: str, model: Any, boxes: Any, smallest: Any, every: Any) -> FaceOptions:
    from ...inference.faces import FaceOptions, Kind

    options = FaceOptions(Kind(kind), model, boxes, every, smallest)
    options.check()
    return options
