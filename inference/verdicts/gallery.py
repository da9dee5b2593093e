"""The frames of each video that are worth showing: the most suspicious, and some from all over.

Kept as small JPEG pictures while the run goes on, so that nothing is decoded twice, also where the
video is a stream that will not come again. However long a video is, it keeps the same few.
"""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

import numpy as np

from ..overlay import draw
from ..records import FrameResult, VideoInfo
from ..sinks.base import Keeper

HEIGHT = 240
"""Pixels of a kept picture."""

WIDEST = 4 * HEIGHT

WORST = 6
"""Suspicious frames kept."""

SPREAD = 12
"""Frames from all over the video shown; up to twice as many are kept until its length is known."""

APART = 0.5
"""Seconds between two suspicious frames, as neighbours show the same."""

QUALITY = 88


@dataclass(frozen=True, eq=False)
class Shot:
    """One kept frame.

    Attributes:
        frame: its number.
        time: seconds from the start of the video; ``None`` where unknown.
        fake_probability: ``None`` where not judged.
        mask_fraction: share of the picture marked; ``None`` likewise.
        status: as in its record.
        plain: the picture as JPEG, ``HEIGHT`` pixels high.
        overlay: the same with what was found drawn into it.
    """

    frame: int
    time: Optional[float]
    fake_probability: Optional[float]
    mask_fraction: Optional[float]
    status: str
    plain: bytes
    overlay: bytes


@dataclass
class ClipGallery:
    """The kept frames of one video.

    Attributes:
        worst: the most suspicious, the worst first.
        spread: some from all over, in order.
        height: pixels of the video's own pictures; 0 where none could be decoded.
        width: likewise.
        video: what is known of the video.
    """

    worst: List[Shot] = field(default_factory=list)
    spread: List[Shot] = field(default_factory=list)
    height: int = 0
    width: int = 0
    video: Optional[VideoInfo] = None
    _stride: int = 1
    _seen: int = 0

    def add(self, result: FrameResult) -> None:
        """Keeps a frame if it is one to be kept."""
        self.video = result.frame.video
        image = result.frame.image
        if image is None:
            return
        self.height, self.width = int(image.shape[0]), int(image.shape[1])
        number, self._seen = self._seen, self._seen + 1
        shot: Optional[Shot] = None
        if number % self._stride == 0:
            shot = _shot(result)
            self.spread.append(shot)
            if len(self.spread) >= 2 * SPREAD:
                self.spread = self.spread[::2]
                self._stride *= 2
        probability = result.fake_probability
        if probability is not None and self._is_worse(probability, result.frame.time):
            self._keep(shot or _shot(result))

    def chosen(self, count: int = SPREAD) -> List[Shot]:
        """``count`` of the frames from all over, evenly spaced."""
        if len(self.spread) <= count:
            return list(self.spread)
        step = len(self.spread) / count
        return [self.spread[int((k + 0.5) * step)] for k in range(count)]

    def to_json(self) -> Dict[str, Any]:
        """Everything that is to be shown, as a JSON object."""
        video = None
        if self.video is not None:
            video = {f.name: getattr(self.video, f.name) for f in fields(self.video)}
            for name, value in video.items():
                if isinstance(value, (Path, Fraction)):
                    video[name] = str(value)
        return {
            "worst": [_stored(shot) for shot in self.worst],
            "spread": [_stored(shot) for shot in self.spread],
            "height": self.height,
            "width": self.width,
            "video": video,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> ClipGallery:
        """Reads what ``to_json`` gave."""
        video = record["video"]
        if video is not None:
            video = dict(video, path=Path(video["path"]))
            for name in ("rate", "time_base", "start", "begin", "end"):
                video[name] = None if video[name] is None else Fraction(video[name])
        return cls(
            [_loaded(shot) for shot in record["worst"]],
            [_loaded(shot) for shot in record["spread"]],
            record["height"],
            record["width"],
            None if video is None else VideoInfo(**video),
        )

    def _is_worse(self, probability: float, time: Optional[float]) -> bool:
        near = [shot for shot in self.worst if _near(shot, time)]
        rivals = near or (self.worst if len(self.worst) >= WORST else [])
        return all(probability > (shot.fake_probability or 0.0) for shot in near) and (
            not rivals or probability > min(shot.fake_probability or 0.0 for shot in rivals)
        )

    def _keep(self, shot: Shot) -> None:
        others = [other for other in self.worst if not _near(other, shot.time)]
        others.append(shot)
        others.sort(key=lambda other: -(other.fake_probability or 0.0))
        self.worst = others[:WORST]


class Gallery(Keeper):
    """Keeps frames of every video of a run.

    Attributes:
        clips: by the name of the video in the records.
    """

    needs_image = True
    file = "gallery.json"

    def __init__(self) -> None:
        self.clips: Dict[str, ClipGallery] = {}

    def write(self, result: FrameResult, rendered: Any) -> None:
        """Looks at one frame of a video."""
        if result.frame.video is not None:
            self.clips.setdefault(result.frame.source, ClipGallery()).add(result)

    def save(self, source: str) -> Optional[bytes]:
        """The frames kept of a video, as JSON."""
        clip = self.clips.get(source)
        return None if clip is None else json.dumps(clip.to_json()).encode("ascii")

    def load(self, source: str, data: bytes) -> None:
        """Takes them back."""
        if source not in self.clips:
            self.clips[source] = ClipGallery.from_json(json.loads(data.decode("ascii")))


def decoded(jpeg: bytes) -> np.ndarray:
    """uint8 ``[H, W, 3]``, RGB, of a kept picture."""
    import cv2

    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return np.ascontiguousarray(picture[:, :, ::-1])


def _stored(shot: Shot) -> Dict[str, Any]:
    pictures = {name: getattr(shot, name) for name in ("plain", "overlay")}
    texts = {name: base64.b64encode(data).decode("ascii") for name, data in pictures.items()}
    return dict(asdict(shot), **texts)


def _loaded(record: Mapping[str, Any]) -> Shot:
    values = dict(record)
    for name in ("plain", "overlay"):
        values[name] = base64.b64decode(values[name])
    return Shot(**values)


def _near(shot: Shot, time: Optional[float]) -> bool:
    if shot.time is None or time is None:
        return False
    return abs(shot.time - time) < APART


def _shot(result: FrameResult) -> Shot:
    import cv2

    image = result.frame.image
    assert image is not None
    height, width = _size(image.shape[0], image.shape[1])
    way = cv2.INTER_AREA if image.shape[0] > height else cv2.INTER_LINEAR
    small = np.asarray(cv2.resize(image, (width, height), interpolation=way), np.uint8)
    marked = draw(result, small)
    return Shot(
        result.frame.index,
        result.frame.time,
        result.fake_probability,
        result.mask_fraction,
        result.status.value,
        _jpeg(small),
        _jpeg(marked),
    )


def _size(height: int, width: int) -> Tuple[int, int]:
    wide = max(1, round(width * HEIGHT / height))
    if wide <= WIDEST:
        return HEIGHT, wide
    return max(1, round(height * WIDEST / width)), WIDEST


def _jpeg(picture: np.ndarray) -> bytes:
    import cv2

    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    good, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
    assert good
    return bytes(data)
