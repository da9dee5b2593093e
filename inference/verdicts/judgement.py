"""From frame scores to a verdict: the rules, each with its number and its reason.

A track is *manipulated* where its probability reaches the threshold and *authentic* below it,
unless one of these holds, and then it is *inconclusive*:

* no frame could be judged (the commonest cause is the reason), or fewer than ``min_frames`` could;
* the probability lies within ``band`` of the threshold;
* it would be authentic, and less than ``min_coverage`` was judged. *Authentic* speaks of the whole,
  so the whole has to be seen; a manipulation that was seen was seen.

A video is manipulated where a track is that was judged in at least ``min_share`` as many frames as
the longest; where only lesser ones are, the tracks conflict. It is authentic where every track of
that size is, and else inconclusive.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from .aggregation import AGGREGATIONS
from .calibration import Calibration, read_calibration
from .records import WHOLE_FRAME, Reason, State, TrackVerdict, VideoVerdict, limits, track_name
from .scores import Scores

DEFAULT_AGGREGATION = "top-k"
"""Chosen by measurement: ``docs/verdicts.md``."""

DEFAULT_BAND = 0.1
"""For scores that are not calibrated; what was measured for those that are is with the model."""


@dataclass(frozen=True)
class Rules:
    """The numbers of a judgement.

    Attributes:
        aggregation: a name in ``AGGREGATIONS``.
        threshold: probability from which a track is manipulated.
        band: within this of the threshold nothing is decided; less near 0 and 1 (``limits``).
        min_frames: judged frames a video's track needs; fewer are a glimpse.
        min_coverage: share of the frames that has to be judged before a video is authentic.
        min_share: a track speaks for the video from this share of the longest one's frames on.
        calibration: how a score becomes a probability.
    """

    aggregation: str = DEFAULT_AGGREGATION
    threshold: float = 0.5
    band: float = DEFAULT_BAND
    min_frames: int = 5
    min_coverage: float = 0.5
    min_share: float = 0.25
    calibration: Calibration = field(default_factory=Calibration)

    def to_json(self) -> Dict[str, Any]:
        """A JSON object."""
        return {
            "aggregation": self.aggregation,
            "threshold": self.threshold,
            "band": self.band,
            "min_frames": self.min_frames,
            "min_coverage": self.min_coverage,
            "min_share": self.min_share,
            "calibration": self.calibration.to_json(),
        }


def choose_rules(model: Path, threshold: float = 0.5, aggregation: Optional[str] = None) -> Rules:
    """The rules for a compiled model: those measured for it where it has such, else the defaults.

    Args:
        model: the ``.xmodel``.
        threshold: as in ``Rules``.
        aggregation: another one than the default; what was fitted for that one is then not used.

    Raises:
        FormatError: the model's ``verdict.json`` cannot be understood.
    """
    found = read_calibration(model)
    name = aggregation or found.aggregation or DEFAULT_AGGREGATION
    if found.fitted and found.aggregation != name:
        reason = f"not calibrated: the model's calibration is for {found.aggregation}, not {name}"
        found = Calibration(reason=reason)
    band = DEFAULT_BAND if found.band is None else found.band
    return Rules(aggregation=name, threshold=threshold, band=band, calibration=found)


def judge_video(scores: Scores, rules: Rules) -> VideoVerdict:
    """What the scores of one video come to.

    Args:
        scores: of every frame, in order.
        rules: the numbers.
    """
    numbers, tracks = scores.frames, scores.track_numbers
    probabilities, times, masks = scores.probabilities, scores.times, scores.masks
    seen = ~np.isnan(probabilities)
    frames = len(np.unique(numbers))
    judged = len(np.unique(numbers[seen]))
    verdicts = [
        _judge_track(track, scores, probabilities[own], times[own], masks[own], rules)
        for track, own in ((track, tracks == track) for track in _spoken_of(scores))
    ]
    state, probability, reason = _together(verdicts, rules)
    if state is State.AUTHENTIC and judged < rules.min_coverage * frames:
        # Each face that was found may have been seen whole; the rest of the video was not.
        state, reason = State.INCONCLUSIVE, Reason.LOW_COVERAGE
    parts = [] if reason is None else [reason.words]
    if probability is not None:
        parts.append(f"{rules.aggregation} of {judged} frames")
    if len(verdicts) > 1:
        guilty = [track_name(v.track) for v in verdicts if v.state is State.MANIPULATED]
        parts.append(f"{len(verdicts)} tracks, manipulated: {', '.join(guilty) or 'none'}")
    parts += _missing(
        frames,
        judged,
        "frames",
        {
            f"{status}: {why}" if why else status: count
            for (status, why), count in scores.failures().items()
        },
    )
    return VideoVerdict(
        state, probability, frames, judged, reason, "; ".join(parts), tuple(verdicts)
    )


def judge_pictures(
    frames: int, judged: int, total: float, reasons: Mapping[str, int], rules: Rules
) -> VideoVerdict:
    """What pictures come to: the mean of those judged, one is enough, nothing is calibrated.

    Args:
        frames: how many there are.
        judged: those with a probability.
        total: the sum of their fake probabilities.
        reasons: why the others have none (``status: words``), with counts.
        rules: of which threshold, band and coverage apply.
    """
    if not frames:
        words = Reason.NO_FRAMES.words
        return VideoVerdict(State.INCONCLUSIVE, None, 0, 0, Reason.NO_FRAMES, words)
    reason: Optional[Reason]
    probability = None
    if judged:
        probability = round(total / judged, 7)
        band = DEFAULT_BAND if rules.calibration.fitted else rules.band
        own = replace(rules, min_frames=1, band=band)
        state, reason = _decide(probability, judged, judged / frames, own)
    else:
        worst = max(reasons, key=lambda text: reasons[text]) if reasons else ""
        state, reason = State.INCONCLUSIVE, _known(worst.partition(":")[0])
    parts = [] if reason is None else [reason.words]
    if judged:
        parts.append(f"mean of {judged} images")
    parts += _missing(frames, judged, "images", reasons)
    return VideoVerdict(state, probability, frames, judged, reason, "; ".join(parts))


def judge_together(parts: Sequence[Tuple[str, VideoVerdict]]) -> VideoVerdict:
    """One answer for several sources: manipulated where any is, authentic where all are.

    Args:
        parts: name and verdict of each.
    """
    if len(parts) == 1:
        return parts[0][1]
    verdicts = [verdict for _, verdict in parts]
    probabilities = [v.probability for v in verdicts if v.probability is not None]
    states = [verdict.state for verdict in verdicts]
    counts = ", ".join(f"{states.count(state)} {state.value}" for state in State if state in states)
    reason: Optional[Reason] = None
    if State.MANIPULATED in states:
        state = State.MANIPULATED
    elif State.INCONCLUSIVE in states or not states:
        state = State.INCONCLUSIVE
        reason = next((v.reason for v in verdicts if v.reason is not None), Reason.NO_FRAMES)
    else:
        state = State.AUTHENTIC
    return VideoVerdict(
        state,
        max(probabilities) if probabilities else None,
        sum(v.frames for v in verdicts),
        sum(v.judged for v in verdicts),
        reason,
        f"of {len(parts)} sources: {counts or 'none was read'}",
    )


def _judge_track(
    track: int,
    scores: Scores,
    p: np.ndarray,
    t: np.ndarray,
    masks: np.ndarray,
    rules: Rules,
) -> TrackVerdict:
    good = ~np.isnan(p)
    judged = int(good.sum())
    timed = t[~np.isnan(t)]
    score = probability = mask = None
    state, reason = State.INCONCLUSIVE, None
    if judged:
        # Pictures have no time: each stands for a moment of its own.
        places = np.where(np.isnan(t), np.arange(len(t), dtype=np.float64), t)[good]
        score = AGGREGATIONS[rules.aggregation](p[good], places)
        probability = rules.calibration.apply(score) if rules.calibration.fitted else score
        marked = masks[good & ~np.isnan(masks)]
        mask = round(float(marked.mean()), 7) if len(marked) else None
        state, reason = _decide(probability, judged, judged / len(p), rules)
    else:
        reason = _commonest(scores, track)
    return TrackVerdict(
        track,
        state,
        None if probability is None else round(probability, 6),
        None if score is None else round(score, 6),
        len(p),
        judged,
        reason,
        mask,
        float(timed[0]) if len(timed) else None,
        float(timed[-1]) if len(timed) else None,
    )


def _decide(
    probability: float, judged: int, coverage: float, rules: Rules
) -> Tuple[State, Optional[Reason]]:
    if judged < rules.min_frames:
        return State.INCONCLUSIVE, Reason.TOO_FEW_FRAMES
    low, high = limits(rules.threshold, rules.band)
    if low < probability < high:
        return State.INCONCLUSIVE, Reason.NEAR_THRESHOLD
    if probability >= high:
        return State.MANIPULATED, None
    if coverage < rules.min_coverage:
        return State.INCONCLUSIVE, Reason.LOW_COVERAGE
    return State.AUTHENTIC, None


def _together(
    verdicts: Sequence[TrackVerdict], rules: Rules
) -> Tuple[State, Optional[float], Optional[Reason]]:
    """State, probability and reason of the whole."""
    judged = [v for v in verdicts if v.probability is not None]
    if not judged:
        reason = verdicts[0].reason if verdicts else Reason.NO_FRAMES
        return State.INCONCLUSIVE, None, reason
    longest = max(v.judged for v in judged)
    large = [v for v in judged if v.judged >= rules.min_share * longest]

    def highest(among: Sequence[TrackVerdict]) -> float:
        return max(v.probability or 0.0 for v in among)

    accused = [v for v in judged if v.state is State.MANIPULATED]
    speaking = [v for v in accused if v in large]
    if speaking:
        return State.MANIPULATED, highest(speaking), None
    if accused:
        return State.INCONCLUSIVE, highest(accused), Reason.CONFLICTING_TRACKS
    open_ones = [v for v in large if v.state is State.INCONCLUSIVE]
    if open_ones:
        first = max(open_ones, key=lambda v: v.probability or 0.0)
        return State.INCONCLUSIVE, highest(large), first.reason
    return State.AUTHENTIC, highest(large), None


def _spoken_of(scores: Scores) -> List[int]:
    """The tracks; frames without any face are none where there are faces in others."""
    tracks, numbers = scores.tracks, scores.track_numbers
    faceless = tracks[1:] and tracks[0] == WHOLE_FRAME
    if faceless and np.isnan(scores.probabilities[numbers == WHOLE_FRAME]).all():
        return tracks[1:]
    return tracks


def _commonest(scores: Scores, track: int) -> Reason:
    """The commonest cause among the scores of a track without a probability."""
    counts: Dict[str, int] = {}
    for score in scores:
        if not score.judged and score.track == track:
            counts[score.status] = counts.get(score.status, 0) + 1
    return _known(max(counts, key=lambda name: counts[name]) if counts else "")


def _known(status: str) -> Reason:
    known = {reason.value: reason for reason in Reason}
    return known.get(status, Reason.NO_RESULT)


def _missing(frames: int, judged: int, unit: str, reasons: Mapping[str, int]) -> List[str]:
    if not reasons or judged == frames:
        return []
    worst = max(reasons, key=lambda text: reasons[text])
    return [f"{frames - judged} of {frames} {unit} not judged ({worst})"]
