"""Who is who from frame to frame: crossings, losses, cuts, crowds, and who is kept out."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np
import pytest

from deepfake_fpga.errors import MismatchError
from deepfake_fpga.inference.faces import (
    Box,
    CascadeDetector,
    Detection,
    Detector,
    FaceFinder,
    FaceOptions,
    Following,
    Kind,
    Limits,
    Located,
    Tracker,
    finder,
)
from deepfake_fpga.inference.faces.assignment import assign
from deepfake_fpga.inference.faces.quality import assess, nose_offset
from deepfake_fpga.inference.faces.scenes import CHANGED, distance, spread
from deepfake_fpga.inference.records import Frame, Status, VideoInfo
from deepfake_fpga.preprocessing import USUAL_MARGIN, Preprocessing, cut, fit, square_about

from .scenes import Person, ground, scene

RATE = 25


def at(x: float, y: float = 100.0, side: float = 80.0, score: float = 0.8) -> Detection:
    return Detection(Box(x - side / 2, y - side / 2, x + side / 2, y + side / 2), score)


def follow(
    frames: Sequence[Optional[Sequence[Detection]]], rules: Optional[Following] = None
) -> List[Dict[int, Box]]:
    tracker = Tracker(rules, sure=0.2)
    return [
        {one.track: one.box for one in tracker.update(number / RATE, found)}
        for number, found in enumerate(frames)
    ]


def test_the_assignment_is_the_best_there_is() -> None:
    chance = random.Random(3)
    for _ in range(60):
        rows, columns = chance.randint(1, 5), chance.randint(1, 5)
        worth = [
            [chance.choice([0.0, chance.random()]) for _ in range(columns)] for _ in range(rows)
        ]
        pairs = assign(worth)
        assert len(set(pairs.values())) == len(pairs)
        assert all(worth[row][column] > 0 for row, column in pairs.items())
        got = sum(worth[row][column] for row, column in pairs.items())
        small, large = sorted((rows, columns))
        best = 0.0
        for chosen in itertools.permutations(range(large), small):
            pairing = enumerate(chosen)
            best = max(
                best,
                sum(worth[a][b] if rows <= columns else worth[b][a] for a, b in pairing),
            )
        assert got == pytest.approx(best)
    assert assign([]) == {}
    assert assign([[], []]) == {}


def test_two_people_who_cross_keep_their_numbers() -> None:
    frames: List[List[Detection]] = []
    for number in range(60):
        left, right = at(100 + 6 * number), at(454 - 6 * number, 106)
        hidden = abs(left.box.x0 - right.box.x0) < 40
        frames.append([left] if hidden else [right, left])
    tracks = follow(frames)
    first, last = tracks[2], tracks[-1]
    assert set(first) == set(last) == {1, 2}
    right_going = min(first, key=lambda track: first[track].x0)
    assert last[right_going].middle[0] == pytest.approx(454, abs=6)
    assert all(set(frame) <= {1, 2} for frame in tracks)


def test_a_short_loss_keeps_the_number_and_a_long_one_does_not() -> None:
    for lost, same in ((15, True), (60, False)):
        frames = [[at(200)]] * 20 + [[]] * lost + [[at(205)]] * 10  # type: ignore[list-item]
        tracks = follow(frames)
        assert (set(tracks[-1]) == {1}) is same
        # Judged a little while, not as long as it is remembered.
        carried = sum(1 in frame for frame in tracks[20 : 20 + lost])
        assert carried == 6  # 0.25 s at 25 frames per second


def test_frames_nobody_looked_at_follow_the_movement() -> None:
    frames = [[at(100 + 5 * n)] if n % 3 == 0 else None for n in range(60)]
    tracks = follow(frames)
    errors = [abs(frame[1].middle[0] - (100 + 5 * n)) for n, frame in enumerate(tracks)]
    assert max(errors) < 12  # a seventh of the box, while the speed is not known yet
    assert max(errors[24:]) < 1
    assert all(set(frame) == {1} for frame in tracks)


def test_boxes_are_smoother_than_the_detections() -> None:
    noise = np.random.RandomState(0).normal(0, 4, (200, 3))
    frames = [[at(200 + dx, 100 + dy, 80 + ds)] for dx, dy, ds in noise]
    tracks = follow(frames)
    steps = [np.subtract(b[1], a[1]) for a, b in zip(tracks[10:], tracks[11:])]
    raw = [np.subtract(b[0].box, a[0].box) for a, b in zip(frames[10:], frames[11:])]
    assert np.std(steps) < 0.7 * np.std(raw)


def test_a_mistake_of_the_detector_is_forgotten_at_the_next_look() -> None:
    frames: List[Optional[List[Detection]]] = [[at(200)], [at(200), at(500)], None, [at(200)], []]
    assert [set(frame) for frame in follow(frames)] == [{1}, {1, 2}, {1, 2}, {1}, {1}]


def test_a_weak_detection_continues_a_face_and_begins_none() -> None:
    frames = [[at(200), at(500, score=0.1)], [at(200, score=0.1)]]
    assert [set(frame) for frame in follow(frames)] == [{1}, {1}]


def test_twenty_faces_keep_their_numbers_in_any_order() -> None:
    chance = random.Random(1)
    places = [(100.0 + 120 * (n % 5), 100.0 + 120 * (n // 5)) for n in range(20)]
    frames = []
    for number in range(30):
        found = [at(x + 2 * number, y) for x, y in places]
        chance.shuffle(found)
        frames.append(found)
    tracks = follow(frames)
    assert all(len(frame) == 20 for frame in tracks)
    for track, box in tracks[0].items():
        moved = tracks[-1][track].middle[0] - box.middle[0]
        assert moved == pytest.approx(58, abs=3)


def test_frames_far_apart_keep_who_stays() -> None:
    tracker = Tracker()
    seen = [
        [one.track for one in tracker.update(2.0 * n, [at(200 + 5 * (n % 2))])] for n in range(6)
    ]
    assert seen == [[1]] * 6


def test_the_same_detections_give_the_same_tracks() -> None:
    chance = random.Random(5)
    frames = [
        [at(chance.uniform(0, 600), chance.uniform(0, 300)) for _ in range(chance.randint(0, 6))]
        for _ in range(80)
    ]
    assert follow(frames) == follow(frames)


# --- which faces are judged


def test_faces_are_kept_out_with_the_reason() -> None:
    import cv2

    person = Person(5, 200, 50, 220)
    image, box = scene([person]), person.box
    assert assess(image, box, Limits()) is None
    status, words = assess(image, box, Limits(smallest=300.0)) or (None, "")
    assert status is Status.TOO_SMALL
    assert "300 are needed" in words
    blurred = cv2.GaussianBlur(image, (0, 0), box.side / 20)
    assert (assess(blurred, box, Limits()) or (None,))[0] is Status.BLURRED
    half = Person(5, -110, 50, 220)
    assert (assess(scene([half]), half.box, Limits()) or (None,))[0] is Status.CUT
    side = Detection(box, 0.9, profile=True)
    assert (assess(image, box, Limits(), side) or (None,))[0] is Status.PROFILE


def test_landmarks_tell_a_turned_head() -> None:
    def seen(nose: float) -> Detection:
        eyes = ((40.0, 50.0), (80.0, 50.0))
        return Detection(
            Box(20, 20, 100, 100), 1, (*eyes, (nose, 70.0), (45.0, 85.0), (75.0, 85.0))
        )

    assert nose_offset(seen(60)) == 0
    assert nose_offset(seen(76)) == pytest.approx(0.4)
    image = scene([Person(5, -40, -40, 200)])
    assert (assess(image, seen(76).box, Limits(), seen(76)) or (None,))[0] is Status.PROFILE
    assert assess(image, seen(62).box, Limits(), seen(62)) is None


def test_scenes_differ_and_movement_does_not() -> None:
    near = [spread(scene([Person(3, 100 + 10 * n, 40, 200)], room=3)) for n in range(6)]
    assert max(distance(a, b) for a, b in zip(near, near[1:])) < CHANGED / 4
    assert distance(near[0], spread(scene([Person(4, 300, 40, 200)], room=4))) > CHANGED


# --- from frames to cut faces


class Stub(Detector):
    """Finds what a list says for each frame; counts how often it is asked."""

    name = "cascade"

    def __init__(self, frames: Dict[int, List[Detection]]) -> None:
        self.frames, self.asked = frames, [0]
        self.asked = []

    def detect(self, image: np.ndarray, frame: Optional[Frame] = None) -> List[Detection]:
        assert frame is not None
        self.asked.append(frame.index)
        return self.frames.get(frame.index, [])


VIDEO = VideoInfo(Path("clip.mp4"), Fraction(RATE), Fraction(1, RATE), Fraction(0), None)


class At:
    """A read whose time is known."""

    def __init__(self, time: float) -> None:
        self.time = time


def located(
    finding: FaceFinder, images: Sequence[np.ndarray], video: Optional[VideoInfo] = VIDEO
) -> List[Optional[List[Located]]]:
    found = []
    for number, image in enumerate(images):
        frame = Frame("clip.mp4", number, number / RATE, image, video=video)
        read = object() if video is None else At(number / RATE)
        look = finding.look(frame, finding.wanted(0, read))
        found.append(finding.locate(0, frame, look))
    return found


def finding(
    monkeypatch: pytest.MonkeyPatch, stub: Detector, options: Optional[FaceOptions] = None
) -> FaceFinder:
    monkeypatch.setattr(finder, "open_detector", lambda options: (stub, "for a test"))
    return FaceFinder(options or FaceOptions(), Preprocessing(height=32, width=32))


def tracks_of(found: Sequence[Optional[List[Located]]]) -> List[Tuple[int, ...]]:
    return [tuple(one.face.track for one in frame or ()) for frame in found]


def test_a_face_is_looked_for_now_and_then_and_followed_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    person = Person(5, 200, 50, 220)
    stub = Stub({n: [Detection(person.box, 0.9)] for n in range(30)})
    found = located(finding(monkeypatch, stub), [scene([person])] * 30)
    assert stub.asked == list(range(0, 30, 3))  # every 0.12 s
    assert tracks_of(found) == [(1,)] * 30
    every = Stub(stub.frames)
    located(finding(monkeypatch, every, FaceOptions(every=7)), [scene([person])] * 30)
    assert every.asked == [0, 7, 14, 21, 28]


def test_a_new_scene_ends_the_tracks_and_is_looked_at_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, other = Person(3, 100, 40, 200), Person(4, 120, 50, 200)
    images = [scene([one], room=3)] * 8 + [scene([other], room=4)] * 8
    frames = {n: [Detection((one if n < 8 else other).box, 0.9)] for n in range(16)}
    stub = Stub(frames)
    found = located(finding(monkeypatch, stub), images)
    assert 8 in stub.asked
    assert tracks_of(found) == [(1,)] * 8 + [(2,)] * 8


def test_a_face_for_three_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    person = Person(5, 200, 50, 220)
    shown = range(12, 15)
    images = [scene([person] if n in shown else []) for n in range(30)]
    stub = Stub({n: [Detection(person.box, 0.9)] for n in shown})
    found = tracks_of(located(finding(monkeypatch, stub, FaceOptions(every=1)), images))
    assert [n for n, tracks in enumerate(found) if tracks][:3] == [12, 13, 14]
    assert set(sum(found, ())) == {1}
    assert len([tracks for tracks in found if tracks]) <= 3 + 7  # carried for 0.25 s at most


def test_each_video_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    person = Person(5, 200, 50, 220)
    stub = Stub({n: [Detection(person.box, 0.9)] for n in range(30)})
    own = finding(monkeypatch, stub)
    first = located(own, [scene([person])] * 4)
    second = located(own, [scene([person])] * 4, replace(VIDEO, path=Path("other.mp4")))
    assert tracks_of(first) == tracks_of(second) == [(1,)] * 4
    assert sum(own.choices.values()) == 2


def test_faces_of_an_image_are_numbered_from_the_left(monkeypatch: pytest.MonkeyPatch) -> None:
    people = [Person(6, 380, 60, 200), Person(5, 20, 60, 200)]
    stub = Stub({0: [Detection(person.box, 0.9) for person in people]})
    ((left, right),) = located(finding(monkeypatch, stub), [scene(people)], None)  # type: ignore[misc]
    assert (left.face.track, right.face.track) == (1, 2)
    assert left.face.box[0] < right.face.box[0]
    assert left.picture is not None
    assert left.picture.shape == (32, 32, 3)


def test_what_is_cut_out_is_what_the_shared_functions_give(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    person = Person(5, 200, 50, 220)
    image = scene([person])
    ((one,),) = located(
        finding(monkeypatch, Stub({0: [Detection(person.box, 0.9)]})), [image], None
    )  # type: ignore[misc]
    expected = fit(
        cut(image, square_about(person.box, USUAL_MARGIN)), Preprocessing(height=32, width=32)
    )
    assert np.array_equal(one.picture, expected)


def test_crops_are_taken_whole_and_the_reason_is_kept() -> None:
    own = FaceFinder(FaceOptions(), Preprocessing())
    assert located(own, [np.zeros((256, 256, 3), np.uint8)] * 5) == [None] * 5
    (choice,) = own.to_json()["choices"]
    assert choice["method"] == "whole"
    assert "crop" in choice["reason"]
    assert own.notes() == []


def test_a_large_square_filled_by_a_face_is_a_crop() -> None:
    close = scene([Person(5, 0, 0, 400)], 400, 400)
    own = FaceFinder(FaceOptions(), Preprocessing())
    assert located(own, [close] * 2) == [None] * 2
    far = scene([Person(5, 100, 100, 150)], 400, 400)
    own = FaceFinder(FaceOptions(), Preprocessing())
    assert tracks_of(located(own, [far] * 2)) == [(1,)] * 2
    assert "margin" in own.notes()[0]


def test_the_cascade_follows_two_people_and_a_blurred_third() -> None:
    import cv2

    images = []
    for number in range(24):
        people = [Person(3, 20 + 3 * number, 60, 180), Person(5, 330 - 2 * number, 70, 190)]
        images.append(scene(people, room=7))
    own = FaceFinder(FaceOptions(Kind.CASCADE), Preprocessing())
    found = located(own, images)
    assert tracks_of(found).count((1, 2)) >= 22
    assert all(set(tracks) <= {1, 2} for tracks in tracks_of(found))
    for number in (6, 12, 20):
        boxes = {one.face.track: Box(*one.face.box) for one in found[number] or ()}
        person = Person(3, 20 + 3 * number, 60, 180)
        assert max(box.overlap(person.box) for box in boxes.values()) > 0.7
    soft = cv2.GaussianBlur(images[0], (0, 0), 5)
    blurred = located(FaceFinder(FaceOptions(Kind.CASCADE), Preprocessing()), [soft])[0] or []
    assert all(one.status is Status.BLURRED and one.picture is None for one in blurred)


def test_an_empty_room_has_no_face() -> None:
    own = FaceFinder(FaceOptions(), Preprocessing())
    assert located(own, [ground(2, 360, 640)] * 4) == [[]] * 4


def test_a_video_on_its_head_is_judged_upright() -> None:
    person = Person(5, 200, 50, 220)
    upright = scene([person])
    turned = np.ascontiguousarray(np.rot90(upright, 2))
    own = FaceFinder(FaceOptions(Kind.CASCADE), Preprocessing())
    ((one,),) = located(own, [turned])  # type: ignore[misc]
    assert one.face.turns == 2
    assert one.picture is not None
    found = CascadeDetector().detect(np.asarray(one.picture))
    assert [face.turns for face in found] == [0]


def test_a_model_of_another_detector_is_refused() -> None:
    record = Preprocessing(face="yunet", margin=0.2)
    with pytest.raises(MismatchError, match="framed by yunet"):
        FaceFinder(FaceOptions(Kind.CASCADE), record)
    own = FaceFinder(FaceOptions(Kind.CASCADE), Preprocessing(face="cascade", margin=0.2))
    assert own.preprocessing.margin == 0.2
    assert own.notes() == []


def test_a_real_clip_shows_one_face(shared: Path) -> None:
    """Crops of a compressed clip: whole by themselves; looked into, one face throughout."""
    import cv2

    capture = cv2.VideoCapture(str(shared / "data" / "deep_fake_video.avi"))
    images = []
    while len(images) < 120:
        good, image = capture.read()
        assert good
        images.append(np.ascontiguousarray(image[..., ::-1]))
    capture.release()
    assert located(FaceFinder(FaceOptions(), Preprocessing()), images[:3]) == [None] * 3
    found = located(FaceFinder(FaceOptions(Kind.CASCADE), Preprocessing()), images)
    assert tracks_of(found) == [(1,)] * 120
    assert {one.status for frame in found for one in frame or ()} == {Status.OK}
