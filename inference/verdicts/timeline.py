"""When a face is manipulated: intervals with their scores and mask areas, as data and as WebVTT."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from .records import VideoVerdict, limits, track_name
from .scores import Scores

SCHEMA = 1


@dataclass(frozen=True)
class IntervalRules:
    """What makes an interval.

    Attributes:
        enter: fake probability of a frame that begins one.
        leave: probability below which one ends; between the two it goes on (hysteresis).
        min_length: seconds; a shorter one is a flicker and left out.
        max_gap: seconds; two with less between them, or frames not judged for less, are one.
    """

    enter: float = 0.6
    leave: float = 0.4
    min_length: float = 0.25
    max_gap: float = 0.25

    @classmethod
    def around(cls, threshold: float, margin: float = 0.1) -> IntervalRules:
        """Hysteresis on both sides of a threshold, narrower where that is near 0 or 1."""
        leave, enter = limits(threshold, margin)
        return cls(enter, leave)

    def to_json(self) -> Dict[str, float]:
        """A JSON object."""
        return {
            "enter": self.enter,
            "leave": self.leave,
            "min_length": self.min_length,
            "max_gap": self.max_gap,
        }


@dataclass(frozen=True)
class Interval:
    """A stretch in which one track looks manipulated.

    Attributes:
        track: the identity.
        start: seconds, time of the first frame.
        end: seconds, when its last frame gives way to the next.
        first_frame: number of the first frame.
        last_frame: number of the last.
        frames: those judged.
        mean: of their fake probabilities.
        peak: the highest of them.
        peak_time: seconds, time of that frame.
        mask_fraction: mean share of the picture marked; ``None`` where no mask is known.
    """

    track: int
    start: float
    end: float
    first_frame: int
    last_frame: int
    frames: int
    mean: float
    peak: float
    peak_time: float
    mask_fraction: Optional[float]

    def to_json(self) -> Dict[str, Any]:
        """A JSON object."""
        return {
            "track": self.track,
            "start": round(self.start, 6),
            "end": round(self.end, 6),
            "first_frame": self.first_frame,
            "last_frame": self.last_frame,
            "frames": self.frames,
            "fake_probability": {"mean": round(self.mean, 6), "peak": round(self.peak, 6)},
            "peak_time": round(self.peak_time, 6),
            "mask_fraction": None if self.mask_fraction is None else round(self.mask_fraction, 6),
        }


def find_intervals(scores: Scores, rules: IntervalRules) -> List[Interval]:
    """The intervals of every track, by start; none for pictures, which have no time.

    Args:
        scores: of one video, in order.
        rules: what makes an interval.
    """
    found: List[Interval] = []
    times, p, masks = scores.times, scores.probabilities, scores.masks
    step = frame_step(scores)
    for track in scores.tracks:
        own = (scores.track_numbers == track) & ~np.isnan(times)
        place = np.nonzero(own)[0]
        for first, last in _stretches(times[place], p[place], rules):
            chosen = place[first : last + 1]
            judged = chosen[~np.isnan(p[chosen])]
            start = float(times[place[first]])
            after = float(times[place[last]]) + step
            if last + 1 < len(place):
                after = min(after, float(times[place[last + 1]]))
            if after - start < rules.min_length - 1e-6:
                continue
            top = judged[int(np.argmax(p[judged]))]
            marked = masks[judged][~np.isnan(masks[judged])]
            found.append(
                Interval(
                    track,
                    start,
                    after,
                    int(scores.frames[place[first]]),
                    int(scores.frames[place[last]]),
                    len(judged),
                    float(p[judged].mean()),
                    float(p[top]),
                    float(times[top]),
                    float(marked.mean()) if len(marked) else None,
                )
            )
    return sorted(found, key=lambda interval: (interval.start, interval.track))


def frame_step(scores: Scores) -> float:
    """The usual time from one frame to the next in seconds; 0.04 where there is but one."""
    times = np.unique(scores.times[~np.isnan(scores.times)])
    return float(np.median(np.diff(times))) if len(times) > 1 else 0.04


def duration(scores: Scores) -> float:
    """Seconds until the last frame ends; 0 without times."""
    times = scores.times[~np.isnan(scores.times)]
    return float(times.max()) + frame_step(scores) if len(times) else 0.0


def _stretches(times: np.ndarray, p: np.ndarray, rules: IntervalRules) -> List[List[int]]:
    """First and last position of each stretch, joined over small gaps, not yet filtered."""
    stretches: List[List[int]] = []
    inside = False
    for position in np.nonzero(~np.isnan(p))[0]:
        value, time = float(p[position]), float(times[position])
        if inside:
            if time - float(times[stretches[-1][1]]) > rules.max_gap + 1e-9 and _blind(
                p, stretches[-1][1], int(position)
            ):
                inside = False  # too long without a look
            elif value < rules.leave:
                inside = False
            else:
                stretches[-1][1] = int(position)
        if not inside and value >= rules.enter:
            stretches.append([int(position), int(position)])
            inside = True
    joined: List[List[int]] = []
    for stretch in stretches:
        # The time between is from the end of the one to the start of the other.
        if joined and (
            float(times[stretch[0]]) - float(times[joined[-1][1] + 1]) < rules.max_gap - 1e-9
        ):
            joined[-1][1] = stretch[1]
        else:
            joined.append(stretch)
    return joined


def _blind(p: np.ndarray, before: int, after: int) -> bool:
    """Whether there are frames between the two and none was judged."""
    return after - before > 1 and bool(np.isnan(p[before + 1 : after]).all())


def timeline_record(
    source: str,
    scores: Scores,
    verdict: VideoVerdict,
    intervals: Sequence[Interval],
    rules: IntervalRules,
) -> Dict[str, Any]:
    """The content of ``timeline.json``.

    Args:
        source: the video, as named.
        scores: its frame scores.
        verdict: what they come to.
        intervals: from ``find_intervals``.
        rules: by which they were found.
    """
    tracks = []
    by_number = {track.track: track for track in verdict.tracks}
    for number in scores.tracks:
        own = scores.track_numbers == number
        about = by_number.get(number)
        tracks.append(
            {
                "track": number,
                "name": track_name(number),
                "verdict": None if about is None else about.state.value,
                "fake_probability": None if about is None else about.probability,
                "intervals": [i.to_json() for i in intervals if i.track == number],
                "frames": {
                    "frame": [int(frame) for frame in scores.frames[own]],
                    "time": _column(scores.times[own]),
                    "fake_probability": _column(scores.probabilities[own]),
                    "mask_fraction": _column(scores.masks[own]),
                },
            }
        )
    return {
        "schema": SCHEMA,
        "source": source,
        "verdict": verdict.state.value,
        "fake_probability": verdict.probability,
        "duration": round(duration(scores), 6),
        "manipulated_seconds": round(covered(intervals), 6),
        "rules": rules.to_json(),
        "tracks": tracks,
    }


def covered(intervals: Sequence[Interval]) -> float:
    """Seconds in which at least one track looks manipulated."""
    total, until = 0.0, float("-inf")
    for interval in sorted(intervals, key=lambda i: i.start):
        total += max(0.0, interval.end - max(interval.start, until))
        until = max(until, interval.end)
    return total


def webvtt(source: str, intervals: Sequence[Interval]) -> str:
    """The intervals as a WebVTT file, which players show as subtitles.

    Args:
        source: the video, as named, for a note.
        intervals: one cue each, in order of their start.
    """
    note = " ".join(source.split()).replace("-->", "->")
    blocks = ["WEBVTT", f"NOTE\nFrames of {note} that look manipulated"]
    if not intervals:
        blocks.append("NOTE\nnone was found")
    for number, interval in enumerate(sorted(intervals, key=lambda i: i.start), 1):
        # A cue has to end after it starts, also when rounded to milliseconds.
        start = round(interval.start * 1000)
        end = max(round(interval.end * 1000), start + 1)
        text = f"{track_name(interval.track)}: looks manipulated, score {interval.mean:.2f}"
        if interval.mask_fraction is not None:
            text += f", {100 * interval.mask_fraction:.1f} % of the picture marked"
        cue = html.escape(text, quote=False)
        blocks.append(f"{number}\n{timestamp(start)} --> {timestamp(end)} line:10%\n{cue}")
    return "\n\n".join(blocks) + "\n"


def timestamp(milliseconds: int) -> str:
    """``hh:mm:ss.mmm``; the hours may have more digits."""
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}.{rest:03d}"


def _column(values: np.ndarray) -> List[Optional[float]]:
    return [None if np.isnan(value) else round(float(value), 6) for value in values]
