"""Selection: which frames are left out, which inherit, and that numbers and times stay true."""

from __future__ import annotations

import functools
import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any, Iterator, List, Sequence

import numpy as np
import pytest

from deepfake_fpga.errors import UsageError
from deepfake_fpga.inference.records import Frame, Status, VideoInfo
from deepfake_fpga.inference.run import RunOptions, run
from deepfake_fpga.inference.selection import (
    Selection,
    changed,
    seconds_of,
    select,
    select_all,
    small,
)
from deepfake_fpga.inference.sources import Source, open_images, open_video
from deepfake_fpga.inference.sources.base import TimedRead
from deepfake_fpga.inference.sources.files import open_folder

from .clips import frame_times, level, sound_packets, write_clip
from .fakes import FakeSession
from .needs import needs_av

INFO = VideoInfo(Path("x.mp4"), Fraction(25), Fraction(1, 1000), Fraction(0), None)


class TimesSource(Source):
    """Frames at given times; counts what was made. A picture's value is ``values[index]``."""

    kind = "video"

    def __init__(self, times: Sequence[float], values: Any = None, broken: Any = ()) -> None:
        self.name, self.notes, self.info = "times", [], INFO
        self.times, self.values, self.broken = list(times), values, broken
        self.length = len(self.times)
        self.made: List[int] = []
        self.closed = False

    def reads(self) -> Iterator[Any]:
        try:
            for index, time in enumerate(self.times):
                yield TimedRead(functools.partial(self.frame, index, time), time)
        finally:
            self.closed = True

    def frame(self, index: int, time: float) -> Frame:
        self.made.append(index)
        pts = round(time * 1000)
        if index in self.broken:
            return Frame("times", index, time, None, Status.DECODE_ERROR, "x", self.info, pts)
        value = 0 if self.values is None else self.values[index]
        image = np.full((20, 30, 3), value, np.uint8)
        return Frame("times", index, time, image, video=self.info, pts=pts)


def indices(source: Source) -> List[int]:
    return [frame.index for frame in source]


def even(count: int, rate: float = 25) -> List[float]:
    return [round(index / rate, 6) for index in range(count)]


@pytest.mark.parametrize("every", [2, 3, 7, 100])
def test_every_so_many_frames(every: int) -> None:
    source = TimesSource(even(50))
    chosen = select(source, Selection(every=every))
    assert indices(chosen) == list(range(0, 50, every))
    assert source.made == list(range(0, 50, every))  # the others are not even made
    assert chosen.left_out == 50 - len(source.made)
    assert chosen.length == len(source.made)


@pytest.mark.parametrize("fps", [0.5, 3, 7.3, 10, 12.5, 24, 25, 60])
@pytest.mark.parametrize("rate", [25, 30000 / 1001, 60])
def test_a_rate_takes_the_first_frame_of_each_interval(fps: float, rate: float) -> None:
    times = even(300, rate)
    chosen = select(TimesSource(times), Selection(fps=fps))
    wanted, seen = [], set()
    for index, time in enumerate(times):
        interval = math.floor(time * fps + 1e-4)
        if interval not in seen:
            seen.add(interval)
            wanted.append(index)
    assert indices(chosen) == wanted
    assert chosen.left_out == 300 - len(wanted)


def test_a_rate_goes_by_time_not_by_number() -> None:
    times = [0, 0.01, 0.02, 0.5, 0.51, 1.0, 1.01, 5.0, 5.2, 5.99, 6.0]
    assert indices(select(TimesSource(times), Selection(fps=1))) == [0, 5, 7, 10]
    late = [time + 3.7 for time in times]  # counted from the first frame
    assert indices(select(TimesSource(late), Selection(fps=1))) == [0, 5, 7, 10]


def test_a_stretch_is_exact_and_ends_the_reading() -> None:
    source = TimesSource(even(100))
    chosen = select(source, Selection(start=1.0, end=2.0))
    frames = list(chosen)
    assert [frame.index for frame in frames] == list(range(25, 50))
    assert source.made == list(range(25, 50))
    assert source.closed
    assert [frame.time for frame in frames] == even(50)[25:]  # times of the whole video
    assert [frame.pts for frame in frames] == [40 * n for n in range(25)]  # those of the stretch
    assert len({id(frame.video) for frame in frames}) == 1
    video = frames[0].video
    assert video is not None
    assert (video.begin, video.end, video.start) == (1, 2, 1)
    assert chosen.length == 25


def test_stretch_and_number_together() -> None:
    source = TimesSource(even(100))
    assert indices(select(source, Selection(start=1.0, every=10))) == list(range(25, 100, 10))
    selection = Selection(start=0.5, end=1.5, fps=5)
    assert indices(select(TimesSource(even(100)), selection)) == [13, 18, 23, 28, 33]


def test_all_frames_is_the_source_itself() -> None:
    source = TimesSource(even(3))
    assert select(source, Selection()) is source


@pytest.mark.parametrize(
    "options", [{"every": 2, "fps": 3.0}, {"start": 2.0, "end": 2.0}, {"start": 3.0, "end": 1.0}]
)
def test_contradictions_are_refused(options: Any) -> None:
    with pytest.raises(UsageError):
        Selection(**options)


def test_images_have_no_times(tmp_path: Path) -> None:
    write_grey(tmp_path / "in", [1, 2, 3])
    source = open_images(str(tmp_path / "in"))
    with pytest.raises(UsageError, match="no times"):
        select_all([source, source], Selection(fps=3))
    mixed = select_all([source, TimesSource(even(50))], Selection(end=1.0))
    assert [len(list(chosen)) for chosen in mixed] == [3, 25]
    assert len(list(select(source, Selection(every=2)))) == 2


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("12.5", 12.5), ("0", 0), ("90", 90), ("1:02", 62), ("1:02:03.25", 3723.25), (" 0:00 ", 0)],
)
def test_times_as_people_write_them(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "1:60", "1:2:3:4", ":5", "1:", "nan", "1:-2", "1.5:3"]
)
def test_times_that_are_none(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        seconds_of(text)


# Still pictures


def test_unchanged_frames_refer_to_the_last_judged_one() -> None:
    values = [10, 10, 12, 15, 18, 19, 26, 26, 100, 10, 10, 13]
    source = TimesSource(even(12), values, broken={4})
    frames = list(select(source, Selection(skip_static=True, static_threshold=8)))
    # 19 is 9 above 10: slow drift is seen, as the comparison is with the last judged frame.
    assert [frame.same_as for frame in frames] == [
        None, 0, 0, 0, None, None, 5, 5, None, None, 9, 9
    ]  # fmt: skip
    assert frames[4].status is Status.DECODE_ERROR
    assert [frame.index for frame in frames] == list(range(12))
    assert all(frame.image is not None for frame in frames if frame.index != 4)


def test_single_pixels_are_noise_and_a_patch_is_not() -> None:
    one = np.full((60, 80), 100, np.uint8)
    speckled = one.copy()
    speckled[::4, ::4] = 160
    line, patch, faint = one.copy(), one.copy(), one.copy()
    line[:, 10:12] = 160
    patch[20:23, 30:33] = 160
    faint[:] = 108
    assert not changed(one, speckled, 8)
    assert not changed(one, line, 8)
    assert changed(one, patch, 8)
    assert not changed(one, faint, 8)
    assert changed(one, faint, 7)
    assert changed(one, one[:, 1:], 8)


def test_pictures_are_compared_small_and_grey() -> None:
    image = np.zeros((1080, 1920, 3), np.uint8)
    image[..., 0] = 255
    assert small(image).shape == (90, 160)
    assert set(np.unique(small(image))) == {76}  # 0.299 of 255
    assert small(image[:2]).shape == (1, 160)
    assert small(image[:10, :12]).shape == (10, 12)


def test_rate_and_still_pictures_together() -> None:
    source = TimesSource(even(40), [0] * 20 + [50] * 20)
    frames = list(select(source, Selection(every=8, skip_static=True)))
    assert [(frame.index, frame.same_as) for frame in frames] == [
        (0, None), (8, 0), (16, 0), (24, None), (32, 24)
    ]  # fmt: skip


def test_after_frames_were_lost_the_next_is_judged() -> None:
    chosen = select(TimesSource(even(6)), Selection(skip_static=True))
    assert chosen.chained
    found = []
    for read in chosen.reads():
        found.append(read().same_as)
        if len(found) == 3:
            chosen.forget()
    assert found == [None, 0, 0, None, 3, 3]


# Whole runs


def write_grey(folder: Path, values: Sequence[int]) -> Path:
    import cv2

    folder.mkdir()
    for number, value in enumerate(values):
        assert cv2.imwrite(str(folder / f"f_{number}.png"), np.full((40, 30, 3), value, np.uint8))
    return folder


def grey_session() -> FakeSession:
    session = FakeSession(size=64)
    session.reals = lambda images: (images.mean(axis=(1, 2, 3)) / 255).astype(np.float32)
    return session


def go(sources: Any, output: Path, **options: Any) -> Any:
    session = grey_session()
    options = {"pictures": False, **options}
    summary = run(sources, session.as_session(), output, RunOptions(**options))
    text = (output / "records.jsonl").read_text()
    return summary, [json.loads(line) for line in text.splitlines()], session


@pytest.mark.parametrize("threads", [1, 4])
def test_images_inherit_by_name(threads: int, tmp_path: Path) -> None:
    folder = write_grey(tmp_path / "in", [40, 40, 40, 200, 200, 40])
    _, records, session = go(
        [open_images(str(folder))], tmp_path / "out", selection=Selection(skip_static=True),
        threads=threads, pictures=True,
    )  # fmt: skip
    names = [
        None if r["inherited_from"] is None else Path(r["inherited_from"]).name for r in records
    ]
    assert names == [None, "f_0.png", "f_0.png", None, "f_3.png", None]
    grey = [round(255 * (1 - record["fake_probability"])) for record in records]
    assert grey == [40, 40, 40, 200, 200, 40]
    assert sum(session.sizes) == 3
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 6


def test_the_summary_counts_what_was_left_out_and_inherited(tmp_path: Path) -> None:
    pictures = [np.full((64, 64, 3), v, np.uint8) for v in [30] * 12 + [200] * 8]
    clip = write_clip(tmp_path / "c.avi", 20, codec="mjpeg", pix_fmt="yuvj420p", pictures=pictures)
    summary, records, session = go(
        [open_video(str(clip))], tmp_path / "out", selection=Selection(every=2, skip_static=True)
    )
    assert [record["frame"] for record in records] == list(range(0, 20, 2))
    assert [record["inherited_from"] for record in records] == [None, *[0] * 5, None, *[12] * 3]
    assert sum(session.sizes) == 2
    written = summary.to_json()
    assert written["selection"] == {
        "every": 2, "fps": None, "start": 0.0, "end": None, "skip_static": True,
        "static_threshold": 8, "left_out": 10, "inherited": 8,
    }  # fmt: skip
    assert written["sources"][0]["left_out"] == 10
    assert written["sources"][0]["inherited_frames"] == 8
    assert written["sources"][0]["judged"] == 10
    assert written["frames_by_device"] == {"fake": 2}
    assert written["frames"]["total"] == 10


def test_without_a_selection_the_summary_says_none(tmp_path: Path) -> None:
    folder = write_grey(tmp_path / "in", [40])
    summary, _, _ = go([open_images(str(folder))], tmp_path / "out")
    assert summary.to_json()["selection"] is None


def test_every_video_of_a_folder_is_selected_from_for_itself(tmp_path: Path) -> None:
    folder = write_grey(tmp_path / "in", [40, 41, 42, 43, 44])
    for number in (5, 6):
        write_clip(folder / f"f_{number}.avi", 30, codec="mjpeg", pix_fmt="yuvj420p")
    chosen = select(open_folder(str(folder)), Selection(every=2))
    found = [(Path(frame.source).name, frame.index) for frame in chosen]
    assert found == [
        *((f"f_{n}.png", 0) for n in (0, 2, 4)),
        *(("f_5.avi", n) for n in range(0, 30, 2)),
        *(("f_6.avi", n) for n in range(0, 30, 2)),
    ]
    assert chosen.left_out == 2 + 15 + 15
    stretch = select(open_folder(str(folder)), Selection(start=0.5, end=0.7))
    videos = [(Path(f.source).name, f.index) for f in stretch if f.video is not None]
    assert videos == [(f"f_{n}.avi", index) for n in (5, 6) for index in range(10, 14)]


@needs_av
def test_the_overlay_of_a_stretch_begins_at_zero_and_has_its_sound(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "c.mp4", 60, sound="aac")
    _, records, _ = go(
        [open_video(str(clip))], tmp_path / "out", pictures=True,
        selection=Selection(start=1.0, end=2.0),
    )  # fmt: skip
    assert [record["frame"] for record in records] == list(range(20, 40))
    assert [record["time"] for record in records] == [n / 20 for n in range(20, 40)]
    overlay = tmp_path / "out" / "overlay.mp4"
    assert [float(time) for time in frame_times(overlay)] == [n / 20 for n in range(20)]
    whole, part = sound_packets(clip), sound_packets(overlay)
    assert 44 <= len(part) <= 49  # a second of 1024 samples at 48 kHz is 46.9
    assert part[0] in whole[45:50]
    for index, (read, record) in enumerate(zip(open_video(str(overlay)), records)):
        assert read.index == index
        grey = 255 * (1 - record["fake_probability"])
        assert abs(grey - level(record["frame"])) < 4
