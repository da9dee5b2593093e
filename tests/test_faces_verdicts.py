"""What faces come to: tracks that speak for themselves, and frames in which nobody is."""

from __future__ import annotations

from typing import Iterable, List, Tuple

from deepfake_fpga.inference.faces.results import for_frame, marked, summed_up
from deepfake_fpga.inference.records import Face, Frame, FrameResult, Status
from deepfake_fpga.inference.verdicts import Rules, Scores, judge_video
from deepfake_fpga.inference.verdicts.records import WHOLE_FRAME, Reason, State, scores_of
from deepfake_fpga.preprocessing import Square

RULES = Rules(aggregation="mean")


def result(number: int, faces: Iterable[Tuple[int, float]]) -> FrameResult:
    """The result of a frame with faces of these numbers and fake probabilities."""
    frame = marked(Frame("clip", number, number / 25, None), None)
    bare = FrameResult(frame, None, None, "sim")
    parts: List[FrameResult] = []
    for track, fake in faces:
        face = Face(track, (0.0, 0.0, 9.0, 9.0), Square(0, 0, 9))
        parts.append(FrameResult(frame, 1 - fake, None, "sim", face=face))
    if not parts:
        return FrameResult(marked(frame, []), None, None, "sim")
    return summed_up(frame, parts, bare)


def scores(frames: Iterable[List[Tuple[int, float]]]) -> Scores:
    found = Scores()
    for number, faces in enumerate(frames):
        for score in scores_of(result(number, faces)):
            found.add(score)
    return found


def test_the_frame_speaks_with_its_most_suspicious_face() -> None:
    both = result(0, [(1, 0.125), (2, 0.875)])
    assert both.fake_probability == 0.875
    assert both.status is Status.OK
    assert [score.track for score in scores_of(both)] == [1, 2]
    none = result(0, [])
    assert none.status is Status.NO_FACE
    assert [(s.track, s.status) for s in scores_of(none)] == [(WHOLE_FRAME, "no_face")]


def test_a_face_the_device_gave_no_number_for_is_no_result() -> None:
    broken = result(0, [(1, float("nan"))])
    assert broken.status is Status.NO_RESULT
    assert result(0, [(1, float("nan")), (2, 0.25)]).fake_probability == 0.25


def test_each_track_has_its_verdict_and_empty_frames_are_no_track() -> None:
    verdict = judge_video(scores([[(1, 0.02), (2, 0.99)]] * 20 + [[]] * 5), RULES)
    assert [(t.track, t.state) for t in verdict.tracks] == [
        (1, State.AUTHENTIC),
        (2, State.MANIPULATED),
    ]
    assert verdict.state is State.MANIPULATED
    assert (verdict.frames, verdict.judged) == (25, 20)


def test_nobody_at_all_is_inconclusive() -> None:
    verdict = judge_video(scores([[]] * 30), RULES)
    assert verdict.state is State.INCONCLUSIVE
    assert verdict.reason is Reason.NO_FACE
    assert verdict.probability is None


def test_a_face_for_three_frames_decides_nothing() -> None:
    for fake in (0.01, 0.99):
        verdict = judge_video(scores([[]] * 10 + [[(1, fake)]] * 3 + [[]] * 10), RULES)
        assert verdict.state is State.INCONCLUSIVE
        assert verdict.reason is Reason.TOO_FEW_FRAMES


def test_authentic_speaks_of_the_whole_video() -> None:
    def clip(fake: float, seen: int) -> Scores:
        return scores([[(1, fake)]] * seen + [[]] * (40 - seen))

    assert judge_video(clip(0.01, 30), RULES).state is State.AUTHENTIC
    short = judge_video(clip(0.01, 10), RULES)
    assert (short.state, short.reason) == (State.INCONCLUSIVE, Reason.LOW_COVERAGE)
    assert judge_video(clip(0.99, 10), RULES).state is State.MANIPULATED  # seen is seen


def test_a_repeated_frame_has_the_faces_of_the_first() -> None:
    first = result(0, [(1, 0.125), (2, 0.875)])
    again = for_frame(first, Frame("clip", 7, 0.28, None, same_as=0))
    assert [part.to_json()["frame"] for part in again.parts] == [7, 7]
    assert [part.to_json()["inherited_from"] for part in again.parts] == [0, 0]
    assert again.fake_probability == 0.875
    nobody = for_frame(result(0, []), Frame("clip", 1, 0.04, None, same_as=0))
    assert nobody.status is Status.NO_FACE
