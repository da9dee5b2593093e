"""What the right answers are: ``metadata.json`` and the naming of the original's face crops.

A crop is called ``<video>_<n>.png``; ``metadata.json`` says
``{"<video>.mp4": {"label": "REAL" or "FAKE", ...}}``. A video file is looked up by its own name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

from ..errors import FormatError, MissingError
from .records import FrameResult, Verdict

LABELS = {"REAL": Verdict.REAL, "FAKE": Verdict.FAKE}


class Accuracy:
    """Counts right verdicts, frame by frame, as the original did.

    Args:
        labels: video name without suffix to label.
        name: where the labels come from.
    """

    def __init__(self, labels: Mapping[str, Verdict], name: str) -> None:
        self._labels = dict(labels)
        self.name = name
        self.judged = 0
        self.correct = 0
        self.not_judged = 0
        self._unknown: Dict[str, int] = {}

    def add(self, result: FrameResult) -> None:
        """Counts one frame."""
        label, video = self._label(Path(result.frame.source), result.frame.video is not None)
        if label is None:
            self._unknown[video] = self._unknown.get(video, 0) + 1
        elif result.verdict is None:
            self.not_judged += 1
        else:
            self.judged += 1
            self.correct += result.verdict is label

    @property
    def accuracy(self) -> Optional[float]:
        """Share of right verdicts among judged frames of known videos; ``None`` without any."""
        return self.correct / self.judged if self.judged else None

    @property
    def unknown(self) -> List[str]:
        """Videos without a label, sorted."""
        return sorted(self._unknown)

    def to_json(self) -> Dict[str, Any]:
        """The part of the summary that says how many were right."""
        return {
            "labels": self.name,
            "judged": self.judged,
            "correct": self.correct,
            "accuracy": None if self.accuracy is None else round(self.accuracy, 6),
            "not_judged": self.not_judged,
            "unknown_videos": self.unknown,
            "unknown_frames": sum(self._unknown.values()),
        }

    def _label(self, path: Path, is_video: bool) -> Any:
        # A crop may also be called exactly like its video.
        names = [path.stem] if is_video else [path.stem.rpartition("_")[0], path.stem]
        for name in names:
            if name in self._labels:
                return self._labels[name], name
        return None, next(name for name in names if name)


def read_labels(path: Path) -> Accuracy:
    """Reads ``metadata.json``.

    Raises:
        MissingError: there is no such file.
        FormatError: it is not of that form.
    """
    if not path.is_file():
        raise MissingError(f"The labels {path} do not exist", "", "check --labels")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatError(f"The labels {path} are not JSON", str(error), "check --labels") from None
    wanted = 'wanted: {"VIDEO.mp4": {"label": "REAL" or "FAKE"}, ...}'
    if not isinstance(content, dict) or not content:
        raise FormatError(f"The labels {path} name no videos", wanted, "check --labels")
    labels = {}
    for name, entry in content.items():
        label = entry.get("label") if isinstance(entry, dict) else None
        if label not in LABELS:
            raise FormatError(
                f"The labels {path} have no valid label for {name!r}",
                f"found {json.dumps(entry)[:80]}; {wanted}",
                "correct the entry",
            )
        labels[Path(name).stem] = LABELS[label]
    return Accuracy(labels, str(path))
