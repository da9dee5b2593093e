"""The timeline: planted stretches are found, WebVTT reads back, pictures show what they should."""

from __future__ import annotations

import html
import json
import re
from typing import List, Optional, Sequence, Tuple

import numpy as np
import pytest

from deepfake_fpga.inference.records import Frame, FrameResult, Status, VideoInfo
from deepfake_fpga.inference.verdicts.gallery import APART, SPREAD, WORST, Gallery, decoded
from deepfake_fpga.inference.verdicts.judgement import Rules, judge_video
from deepfake_fpga.inference.verdicts.pictures import contact_sheet, in_two_digits, timeline_picture
from deepfake_fpga.inference.verdicts.records import FrameScore
from deepfake_fpga.inference.verdicts.scores import Scores
from deepfake_fpga.inference.verdicts.timeline import (
    Interval,
    IntervalRules,
    covered,
    duration,
    find_intervals,
    timeline_record,
    timestamp,
    webvtt,
)

RULES = IntervalRules()
RATE = 10.0


def scores_of(values: Sequence[Optional[float]], track: int = 0) -> Scores:
    return Scores(
        FrameScore(n / RATE, n, track, v, None if v is None else v / 4, "ok" if v else "no_face")
        for n, v in enumerate(values)
    )


def found(values: Sequence[Optional[float]]) -> List[Tuple[float, float]]:
    intervals = find_intervals(scores_of(values), RULES)
    return [(round(i.start, 3), round(i.end, 3)) for i in intervals]


def stretch(low: float, high: float, *parts: Tuple[int, int], frames: int = 100) -> List[float]:
    values = [low] * frames
    for first, after in parts:
        values[first:after] = [high] * (after - first)
    return values


def test_planted_stretches_are_found_to_the_frame() -> None:
    values = stretch(0.1, 0.9, (20, 35), (60, 100))
    intervals = find_intervals(scores_of(values), RULES)
    assert [(i.start, i.end) for i in intervals] == [(2.0, 3.5), (6.0, 10.0)]
    first = intervals[0]
    assert (first.first_frame, first.last_frame, first.frames) == (20, 34, 15)
    assert (first.mean, first.mask_fraction) == pytest.approx((0.9, 0.225))
    assert covered(intervals) == pytest.approx(5.5)


def test_noise_around_the_planted_stretch_moves_its_ends_by_no_frame() -> None:
    rng = np.random.RandomState(1)
    values = np.array(stretch(0.2, 0.8, (30, 70))) + rng.uniform(-0.15, 0.15, 100)
    assert found(list(values)) == [(3.0, 7.0)]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        # Between the two limits it goes on, and does not begin.
        ([0.1] * 5 + [0.7] * 3 + [0.5] * 5 + [0.3] * 5, [(0.5, 1.3)]),
        ([0.1] * 5 + [0.55] * 10 + [0.1] * 5, []),
        # A flicker of two frames is left out, three are enough.
        ([0.1] * 5 + [0.9] * 2 + [0.1] * 9, []),
        ([0.1] * 5 + [0.9] * 3 + [0.1] * 9, [(0.5, 0.8)]),
        # A gap of two frames is closed, one of three is not.
        ([0.9] * 5 + [0.1] * 2 + [0.9] * 5, [(0.0, 1.2)]),
        ([0.9] * 5 + [0.1] * 3 + [0.9] * 5, [(0.0, 0.5), (0.8, 1.3)]),
        # Not looked at is not authentic: a short blindness is passed over, a long one ends it.
        ([0.9] * 5 + [None] * 1 + [0.9] * 5, [(0.0, 1.1)]),
        ([0.9] * 5 + [None] * 9 + [0.9] * 5, [(0.0, 0.5), (1.4, 1.9)]),
        ([None] * 10, []),
        ([], []),
    ],
)
def test_borders(values: List[Optional[float]], wanted: List[Tuple[float, float]]) -> None:
    assert found(values) == wanted


def test_tracks_have_their_own_intervals() -> None:
    both = list(scores_of(stretch(0.1, 0.9, (10, 20)), 1))
    both += list(scores_of(stretch(0.1, 0.9, (15, 40)), 2))
    intervals = find_intervals(Scores(both), RULES)
    assert [(i.track, i.start, i.end) for i in intervals] == [(1, 1.0, 2.0), (2, 1.5, 4.0)]
    assert covered(intervals) == pytest.approx(3.0)


def test_the_threshold_moves_both_limits() -> None:
    assert IntervalRules.around(0.5) == IntervalRules(0.6, 0.4)
    assert IntervalRules.around(0.95) == IntervalRules(0.96, 0.85)
    assert IntervalRules.around(0.0) == IntervalRules(0.1, 0.0)


def test_the_record_is_strict_json_with_every_frame() -> None:
    values = [0.1] * 10 + [None] * 2 + [0.9] * 10
    scores = scores_of(values)
    intervals = find_intervals(scores, RULES)
    verdict = judge_video(scores, Rules(aggregation="mean"))
    record = timeline_record("a.mp4", scores, verdict, intervals, RULES)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    track = record["tracks"][0]
    assert track["frames"]["fake_probability"] == values
    assert track["frames"]["frame"] == list(range(22))
    assert track["intervals"][0]["start"] == 1.2
    assert record["duration"] == pytest.approx(2.2) == duration(scores)
    assert record["manipulated_seconds"] == pytest.approx(1.0)


CUE = re.compile(
    r"(?P<id>\d+)\n(?P<start>[\d:.]+) --> (?P<end>[\d:.]+)(?P<settings>[^\n]*)\n(?P<text>.+)", re.S
)


def parse_vtt(text: str) -> List[Tuple[int, int, str]]:
    """Cues as milliseconds and text, by the rules of the W3C's WebVTT."""
    assert text.startswith("WEBVTT\n\n")
    assert text.endswith("\n")
    assert "\r" not in text
    cues = []
    for block in text.strip("\n").split("\n\n")[1:]:
        if block.startswith("NOTE"):
            assert "-->" not in block
            continue
        match = CUE.fullmatch(block)
        assert match, block
        assert "-->" not in match["text"]
        assert re.fullmatch(r"( \w+:\S+)*", match["settings"])
        times = []
        for stamp in (match["start"], match["end"]):
            parts = re.fullmatch(r"(\d{2,}):([0-5]\d):([0-5]\d)\.(\d{3})", stamp)
            assert parts, stamp
            hours, minutes, seconds, rest = (int(part) for part in parts.groups())
            times.append(((hours * 60 + minutes) * 60 + seconds) * 1000 + rest)
        assert times[0] < times[1]
        assert not cues or cues[-1][0] <= times[0]
        assert not re.search(r"<|&(?!\w+;)", match["text"])
        cues.append((times[0], times[1], html.unescape(match["text"])))
    return cues


def test_webvtt_reads_back() -> None:
    intervals = find_intervals(scores_of(stretch(0.1, 0.9, (20, 35), (60, 100))), RULES)
    cues = parse_vtt(webvtt("a --> b\n\n<i>&.mp4", intervals))
    assert [(start, end) for start, end, _ in cues] == [(2000, 3500), (6000, 10000)]
    assert cues[0][2] == "whole frame: looks manipulated, score 0.90, 22.5 % of the picture marked"
    assert parse_vtt(webvtt("a.mp4", [])) == []


def test_webvtt_of_long_videos_and_single_moments() -> None:
    moment = Interval(3, 360000.0004, 360000.0004, 1, 1, 1, 0.9, 0.9, 360000.0, None)
    ((start, end, text),) = parse_vtt(webvtt("a.mp4", [moment]))
    assert (start, end) == (360000000, 360000001)
    assert text == "face 3: looks manipulated, score 0.90"
    assert timestamp(360000001) == "100:00:00.001"


def result(number: int, probability: Optional[float], video: VideoInfo, grey: int) -> FrameResult:
    lost = probability is None
    image = None if lost else np.full((60, 80, 3), grey, np.uint8)
    mask = None if lost else np.zeros((16, 16), np.uint8)
    if mask is not None:
        mask[4:12, 4:12] = 1
    frame = Frame(
        "a.mp4",
        number,
        number / RATE,
        image,
        Status.DECODE_ERROR if lost else Status.OK,
        video=video,
    )
    return FrameResult(frame, None if probability is None else 1 - probability, mask, "test")


def gallery_of(values: Sequence[Optional[float]]) -> Gallery:
    from fractions import Fraction
    from pathlib import Path

    video = VideoInfo(Path("a.mp4"), Fraction(10), Fraction(1, 10), Fraction(0), len(values))
    gallery = Gallery()
    for number, value in enumerate(values):
        gallery.write(result(number, value, video, 40 + number % 150), None)
    return gallery


def test_the_gallery_keeps_the_worst_moments_and_some_from_all_over() -> None:
    values: List[Optional[float]] = [0.1] * 500
    peaks = {40: 0.7, 43: 0.9, 100: 0.95, 200: 0.8, 300: 0.85, 400: 0.75, 480: 0.99, 490: 0.6}
    for number, value in peaks.items():
        values[number] = value
    values[250] = None
    clip = gallery_of(values).clips["a.mp4"]
    # 40 is too near to 43 to be another moment; 490 is the seventh.
    assert [shot.frame for shot in clip.worst] == [480, 100, 43, 300, 200, 400]
    assert len(clip.worst) == WORST
    times = [shot.time or 0.0 for shot in clip.worst]
    assert min(abs(a - b) for n, a in enumerate(times) for b in times[:n]) >= APART
    chosen = [shot.frame for shot in clip.chosen()]
    assert len(chosen) == SPREAD
    assert chosen == sorted(chosen)
    steps = np.diff([0, *chosen, 500])
    assert steps.max() <= 3 * 500 / SPREAD
    assert len(clip.spread) < 2 * SPREAD
    assert (clip.height, clip.width) == (60, 80)


def test_a_kept_picture_has_its_mask_drawn_in() -> None:
    (shot,) = gallery_of([0.9]).clips["a.mp4"].worst
    plain, overlay = decoded(shot.plain), decoded(shot.overlay)
    assert plain.shape == overlay.shape == (240, 320, 3)
    changed = np.abs(plain.astype(int) - overlay).max(axis=2) > 20
    assert changed[100:140, 120:200].mean() > 0.9  # the middle is marked
    assert changed[80:200, :40].mean() < 0.05  # the side is not


def test_pictures_show_curve_interval_and_frames() -> None:
    values = stretch(0.1, 0.9, (30, 60))
    scores, clip = scores_of(values), gallery_of(values).clips["a.mp4"]
    verdict = judge_video(scores, Rules(aggregation="mean"))
    intervals = find_intervals(scores, RULES)
    picture = timeline_picture(scores, verdict, intervals, clip.worst)
    assert picture.shape[1] == 1200
    assert picture.shape[0] > 370
    wash = (picture[60:320] == (252, 226, 226)).all(axis=2).any(axis=0)
    columns = np.nonzero(wash)[0]
    left, width = 60, 1120
    assert columns.min() == pytest.approx(left + width * 0.3, abs=3)
    assert columns.max() == pytest.approx(left + width * 0.6, abs=3)
    line = (picture[60:321] == (38, 84, 168)).all(axis=2)
    outside, inside = left + int(width * 0.1), left + int(width * 0.5)
    assert np.nonzero(line[:, outside])[0].mean() / 260 == pytest.approx(0.9, abs=0.02)
    assert np.nonzero(line[:, inside])[0].mean() / 260 == pytest.approx(0.1, abs=0.02)
    sheet = contact_sheet(clip.chosen())
    assert sheet.shape[1] == 4 * (320 + 8) + 8
    assert sheet.shape[0] == 3 * (240 + 28 + 8) + 8
    # The frames in their order, each brighter than the one before.
    levels = [
        int(sheet[8 + row * 276 + 60, 8 + column * 328 + 20, 0])
        for row in range(3)
        for column in range(4)
    ]
    assert levels == sorted(levels)
    assert levels[-1] - levels[0] > 60


def test_every_face_has_a_line_of_its_own() -> None:
    faces = Scores([*scores_of([0.9] * 20, 1), *scores_of([0.2] * 20, 2)])
    picture = timeline_picture(faces, judge_video(faces, Rules()), [], [])
    for colour, value in (((38, 84, 168), 0.9), ((176, 96, 0), 0.2)):
        rows = np.nonzero((picture[60:321, 300] == colour).all(axis=1))[0]
        assert rows.mean() / 260 == pytest.approx(1 - value, abs=0.02)
        name = np.abs(picture[15:40, 900:].astype(int) - colour).max(axis=2)
        assert name.min() < 60  # thin letters are never quite their colour


def test_pictures_of_nothing() -> None:
    scores = scores_of([None] * 9)
    verdict = judge_video(scores, Rules())
    assert timeline_picture(scores, verdict, [], []).shape == (370, 1200, 3)
    assert contact_sheet([]).shape[2] == 3
    assert timeline_picture(Scores(), judge_video(Scores(), Rules()), [], []).ndim == 3


@pytest.mark.parametrize(
    ("probability", "words"),
    [
        (1.0, "above 0.99"),
        (0.996, "above 0.99"),
        (0.99, "0.99"),
        (0.5, "0.50"),
        (0.002, "below 0.01"),
    ],
)
def test_no_picture_says_that_something_is_certain(probability: float, words: str) -> None:
    assert in_two_digits(probability) == words
