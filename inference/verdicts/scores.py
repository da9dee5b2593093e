"""The frame scores of one source as columns: about fifty bytes a frame, however long it is."""

from __future__ import annotations

import math
from array import array
from typing import Dict, Iterable, Iterator, List, Optional, Tuple

import numpy as np

from .records import FrameScore


class Scores:
    """Frame scores in the order they came; iterating gives them back.

    Args:
        scores: the first ones.
    """

    def __init__(self, scores: Iterable[FrameScore] = ()) -> None:
        self._times = array("d")
        self._probabilities = array("d")
        self._masks = array("d")
        self._frames = array("q")
        self._tracks = array("q")
        self._why = array("q")
        self._reasons: Dict[Tuple[str, str], int] = {}
        for score in scores:
            self.add(score)

    def add(self, score: FrameScore) -> None:
        """Appends one score."""
        why = (score.status, score.reason)
        self._times.append(_number(score.time))
        self._probabilities.append(_number(score.fake_probability))
        self._masks.append(_number(score.mask_fraction))
        self._frames.append(score.frame)
        self._tracks.append(score.track)
        self._why.append(self._reasons.setdefault(why, len(self._reasons)))

    def __len__(self) -> int:
        return len(self._times)

    def __iter__(self) -> Iterator[FrameScore]:
        reasons = list(self._reasons)
        columns = (self._times, self._frames, self._tracks, self._probabilities, self._masks)
        for time, frame, track, probability, mask, why in zip(*columns, self._why):
            yield FrameScore(
                _value(time), int(frame), int(track), _value(probability), _value(mask),
                *reasons[int(why)],
            )  # fmt: skip

    @property
    def tracks(self) -> List[int]:
        """The tracks, by number."""
        return sorted(set(self._tracks))

    @property
    def times(self) -> np.ndarray:
        """float64 ``[n]``, seconds; NaN where there is none."""
        return np.array(self._times, np.float64)

    @property
    def probabilities(self) -> np.ndarray:
        """float64 ``[n]``; NaN where not judged."""
        return np.array(self._probabilities, np.float64)

    @property
    def masks(self) -> np.ndarray:
        """float64 ``[n]``, shares of the picture; NaN where not judged."""
        return np.array(self._masks, np.float64)

    @property
    def frames(self) -> np.ndarray:
        """int64 ``[n]``, numbers of the frames."""
        return np.array(self._frames, np.int64)

    @property
    def track_numbers(self) -> np.ndarray:
        """int64 ``[n]``."""
        return np.array(self._tracks, np.int64)

    def failures(self) -> Dict[Tuple[str, str], int]:
        """``(status, reason)`` of the scores without a probability, with counts."""
        why = np.array(self._why, np.int64)[np.isnan(self.probabilities)]
        reasons = list(self._reasons)
        numbers, counts = np.unique(why, return_counts=True)
        return {reasons[number]: int(count) for number, count in zip(numbers, counts)}


def _number(value: Optional[float]) -> float:
    return math.nan if value is None else value


def _value(number: float) -> Optional[float]:
    return None if math.isnan(number) else number
