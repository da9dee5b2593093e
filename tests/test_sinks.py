"""Sinks: records, pictures and videos, whole at the end and kept after a failure."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Iterable, List, Optional, Type

import cv2
import numpy as np
import pytest

from deepfake_fpga.inference.records import Frame, FrameResult, Status, VideoInfo
from deepfake_fpga.inference.sinks import MaskSink, OverlaySink, OverlayVideoSink, RecordSink, Sink
from deepfake_fpga.inference.sinks.cv_mp4 import CvMp4Writer
from deepfake_fpga.inference.sinks.video import FILES
from deepfake_fpga.inference.sinks.writer import VideoWriter, choose_writer
from deepfake_fpga.inference.sources import open_video

from .clips import EITHER, frame_times, level, sound_packets, write_clip
from .needs import needs_av

Writer = Type[VideoWriter]

FIELDS = [
    "source", "frame", "time", "fake_probability", "verdict", "mask_fraction", "device",
    "status", "reason", "inherited_from", "track", "box",
]  # fmt: skip


@pytest.fixture(params=EITHER)
def writer(request: pytest.FixtureRequest) -> Writer:
    """Either encoder of videos."""
    return choose_writer()[0] if request.param == "av" else CvMp4Writer


def judged(frame: Frame, real: float = 0.25) -> FrameResult:
    mask = np.zeros((224, 224), np.uint8)
    mask[100:150, 100:150] = 1
    if frame.status is not Status.OK:
        return FrameResult(frame, None, None, "sim")
    return FrameResult(frame, real, mask, "sim")


def image_frame(name: str, size: Any = (20, 30)) -> Frame:
    return Frame(name, 0, None, np.full((*size, 3), 90, np.uint8))


def fill(sink: Sink, results: Iterable[FrameResult]) -> None:
    with sink:
        for result in results:
            sink.write(result, sink.render(result))


def test_records_have_exactly_the_fields_in_order(tmp_path: Path) -> None:
    lost = Frame("é.mp4", 1, 0.05, None, Status.DECODE_ERROR, "broken")
    path = tmp_path / "new" / "records.jsonl"
    fill(RecordSink(path), [judged(image_frame("a.png")), judged(lost)])
    first, second = (json.loads(line) for line in path.read_text("utf-8").splitlines())
    assert list(first) == list(second) == FIELDS
    assert first == {
        "source": "a.png", "frame": 0, "time": None, "fake_probability": 0.75,
        "verdict": "FAKE", "mask_fraction": round(2500 / 224**2, 7), "device": "sim",
        "status": "ok", "reason": "", "inherited_from": None, "track": None, "box": None,
    }  # fmt: skip
    assert second == {
        "source": "é.mp4", "frame": 1, "time": 0.05, "fake_probability": None,
        "verdict": None, "mask_fraction": None, "device": "sim",
        "status": "decode_error", "reason": "broken",
        "inherited_from": None, "track": None, "box": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("real", "threshold", "verdict"),
    [(0.5, 0.5, "FAKE"), (0.51, 0.5, "REAL"), (0.0, 1.0, "FAKE"), (0.3, 0.8, "REAL")],
)
def test_the_verdict_follows_the_threshold(real: float, threshold: float, verdict: str) -> None:
    result = FrameResult(image_frame("a"), real, np.zeros((2, 2), np.uint8), "sim", threshold)
    assert result.to_json()["verdict"] == verdict


def test_records_are_kept_when_the_run_fails(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    sink = RecordSink(path)
    sink.open()
    sink.write(judged(image_frame("a.png")), None)
    assert not path.exists()
    sink.close(complete=False)
    assert len(path.read_text().splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["records.jsonl"]


def test_masks_and_overlays_are_png_of_the_image_size(tmp_path: Path) -> None:
    results = [judged(image_frame("d/a.png")), judged(image_frame("e/A.jpg", (300, 200)))]
    results.append(judged(Frame("b.png", 0, None, None, Status.DECODE_ERROR, "x")))
    fill(MaskSink(tmp_path / "masks"), results)
    fill(OverlaySink(tmp_path / "overlays"), results)
    fill(OverlaySink(tmp_path / "beside", beside=True), results)
    for folder in ("masks", "overlays", "beside"):
        names = sorted(p.name for p in (tmp_path / folder).iterdir())
        assert names == ["A-2.png", "a.png"]
    mask = cv2.imread(str(tmp_path / "masks" / "A-2.png"), cv2.IMREAD_UNCHANGED)
    assert mask is not None
    assert mask.shape == (300, 200)
    assert set(np.unique(mask)) == {0, 255}
    assert mask[160, 110] == 255
    overlay = cv2.imread(str(tmp_path / "overlays" / "A-2.png"))
    beside = cv2.imread(str(tmp_path / "beside" / "A-2.png"))
    assert overlay is not None
    assert beside is not None
    assert overlay.shape == (300, 200, 3)
    assert overlay[160, 110, 2] > overlay[160, 110, 1] + 50  # red on disk: BGR order is right
    np.testing.assert_array_equal(beside[:, :200], 90)
    np.testing.assert_array_equal(beside[:, 200:], overlay)


def overlay_of(
    path: Path, folder: Path, stop: Optional[int] = None, **options: Any
) -> OverlayVideoSink:
    """Sends a clip through the video sink, as far as ``stop``."""
    sink = OverlayVideoSink(folder, **options)
    sink.open()
    for frame in open_video(str(path)):
        if frame.index == stop:
            break
        result = judged(frame)
        sink.write(result, sink.render(result))
    sink.close(complete=stop is None)
    return sink


def stream_of(path: Path) -> Any:
    """Codec, rate, width and height of a video, and the brightness of its frames."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    code = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode()
    rate = capture.get(cv2.CAP_PROP_FPS)
    brightness, shape = [], None
    while True:
        good, image = capture.read()
        if not good:
            break
        shape = image.shape
        brightness.append(float(image[30:40, 4:12].mean()))
    capture.release()
    assert shape is not None
    return code, rate, shape[1], shape[0], brightness


def times_of(path: Path) -> List[float]:
    """The times of a video's frames in seconds."""
    return [frame.time or 0.0 for frame in open_video(str(path))]


@pytest.mark.parametrize("rate", [Fraction(20), Fraction(30000, 1001), Fraction(25, 2)])
def test_the_video_has_the_rate_frames_and_times_of_its_source(
    rate: Fraction, writer: Writer, tmp_path: Path
) -> None:
    path = write_clip(tmp_path / "in.mp4", 15, rate=rate, height=64, width=96)
    sink = overlay_of(path, tmp_path / "out", kind=writer)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["overlay.mp4"]
    assert sink.paths == [tmp_path / "out" / "overlay.mp4"]
    codec, out_rate, width, height, brightness = stream_of(sink.paths[0])
    assert codec == ("FMP4" if writer is CvMp4Writer else "h264")
    assert out_rate == pytest.approx(float(rate), abs=0.001)
    assert (width, height) == (96, 64)
    np.testing.assert_allclose(brightness, [level(i) for i in range(15)], atol=8)
    np.testing.assert_allclose(times_of(sink.paths[0]), times_of(path), atol=0.001)
    if writer is not CvMp4Writer:
        assert frame_times(sink.paths[0]) == frame_times(path)


def test_odd_sizes_are_padded_to_even(writer: Writer, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "in.mkv", 3, height=63, width=77, codec="ffv1", pix_fmt="bgr0")
    sink = overlay_of(path, tmp_path / "out", kind=writer)
    assert stream_of(sink.paths[0])[2:4] == (78, 64)
    beside = overlay_of(path, tmp_path / "beside", beside=True, kind=writer)
    assert stream_of(beside.paths[0])[2:4] == (154, 64)


@needs_av
def test_variable_times_are_kept(tmp_path: Path) -> None:
    times = [0, 40, 50, 130, 131, 400, 900]
    path = write_clip(
        tmp_path / "in.mp4", 7, times=times, time_base=Fraction(1, 1000), rate=Fraction(25)
    )
    sink = overlay_of(path, tmp_path / "out")
    assert frame_times(sink.paths[0]) == [Fraction(t, 1000) for t in times]


def test_sound_that_fits_is_copied_byte_for_byte(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "in.mp4", 40, sound="aac")
    sink = overlay_of(path, tmp_path / "out")
    packets = sound_packets(path)
    assert len(packets) > 80
    assert sound_packets(sink.paths[0]) == packets
    assert sink.notes == []
    assert len(frame_times(sink.paths[0])) == 40


@pytest.mark.parametrize("sound", ["pcm_s16le", "flac"])
def test_other_sound_is_encoded_to_aac(sound: str, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "in.mkv", 40, sound=sound)
    sink = overlay_of(path, tmp_path / "out")
    av = pytest.importorskip("av")
    with av.open(str(sink.paths[0])) as container:
        stream = container.streams.audio[0]
        assert stream.codec_context.name == "aac"
        wave = np.concatenate([f.to_ndarray()[0] for f in container.decode(stream)])
    assert 1.9 < len(wave) / 48000 < 2.2
    tone = np.abs(np.fft.rfft(wave[4800:52800]))  # one second: bins are hertz
    assert int(tone.argmax()) == 440
    assert "AAC" in sink.notes[0]


def test_a_lost_frame_has_its_place_in_the_video(writer: Writer, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "in.mp4", 10, height=128, width=128)
    sink = OverlayVideoSink(tmp_path, kind=writer)
    lost = {0, 1, 6}
    with sink:
        for frame in open_video(str(path)):
            if frame.index in lost:
                frame = Frame(
                    frame.source, frame.index, frame.time, None, Status.DECODE_ERROR, "x",
                    frame.video, frame.pts,
                )  # fmt: skip
            result = judged(frame)
            sink.write(result, sink.render(result))
    np.testing.assert_allclose(times_of(sink.paths[0]), times_of(path), atol=0.001)
    brightness = stream_of(sink.paths[0])[4]
    for index in range(10):
        if index in lost:
            assert abs(brightness[index] - 48) < 8
        else:
            assert abs(brightness[index] - level(index)) < 8


def test_a_video_without_a_single_picture_gives_no_file(tmp_path: Path) -> None:
    source = open_video(str(write_clip(tmp_path / "in.mp4", 3)))
    lost = [Frame("x", i, 0.0, None, Status.DECODE_ERROR, "x", source.info, i) for i in range(3)]
    fill(OverlayVideoSink(tmp_path / "out"), map(judged, lost))
    assert not (tmp_path / "out").exists()


def test_a_run_that_stops_leaves_a_whole_shorter_video(writer: Writer, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "in.mp4", 40)
    sink = overlay_of(path, tmp_path / "out", stop=13, kind=writer)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["overlay.mp4"]
    np.testing.assert_allclose(times_of(sink.paths[0]), times_of(path)[:13], atol=0.001)


def test_the_sound_stops_with_the_pictures(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "in.mp4", 40, sound="aac")
    sink = overlay_of(path, tmp_path / "out", stop=13)
    assert 20 < len(sound_packets(sink.paths[0])) < 50


def test_each_of_several_videos_has_its_own_file(writer: Writer, tmp_path: Path) -> None:
    paths = [
        write_clip(tmp_path / "a.mp4", 3),
        write_clip(tmp_path / "b.mp4", 4, height=32, width=48, rate=Fraction(10)),
    ]
    sink = OverlayVideoSink(tmp_path / "out", several=True, kind=writer)
    with sink:
        for path in paths:
            for frame in open_video(str(path)):
                sink.write(judged(frame), sink.render(judged(frame)))
        assert [p.name for p in sink.paths] == ["overlay-a.mp4"]
    lengths: List[int] = [len(times_of(p)) for p in sink.paths]
    assert [p.name for p in sink.paths] == ["overlay-a.mp4", "overlay-b.mp4"]
    assert lengths == [3, 4]


def test_a_size_that_changes_midway_is_brought_to_the_first(writer: Writer, tmp_path: Path) -> None:
    source = open_video(str(write_clip(tmp_path / "in.mp4", 2)))
    frames = [
        Frame("x", i, i / 20, np.full((64 + 32 * i, 64, 3), 90, np.uint8), video=source.info,
              pts=i * 512)
        for i in range(2)
    ]  # fmt: skip
    sink = OverlayVideoSink(tmp_path / "out", kind=writer)
    fill(sink, map(judged, frames))
    assert stream_of(sink.paths[0])[2:4] == (64, 64)
    assert len(times_of(sink.paths[0])) == 2


def test_colours_survive_the_video(writer: Writer, tmp_path: Path) -> None:
    source = open_video(str(write_clip(tmp_path / "in.mp4", 1)))
    image = np.zeros((128, 128, 3), np.uint8)
    image[:] = (180, 60, 30)
    sink = OverlayVideoSink(tmp_path / "out", kind=writer)
    result = FrameResult(
        Frame("x", 0, 0.0, image, video=source.info, pts=0), 0.5, np.zeros((2, 2), np.uint8), "sim"
    )
    fill(sink, [result])
    frame = next(iter(open_video(str(sink.paths[0]))))
    assert frame.image is not None
    np.testing.assert_allclose(frame.image[60, 60], (180, 60, 30), atol=6)


def test_opencv_says_that_it_evens_the_times(tmp_path: Path) -> None:
    source = open_video(str(write_clip(tmp_path / "in.mp4", 4)))
    for spacing, notes in ((1, 0), (3, 1)):
        frames = [
            replace(frame, pts=(frame.pts or 0) * spacing if frame.index else 0) for frame in source
        ]
        sink = OverlayVideoSink(tmp_path / f"out{spacing}", kind=CvMp4Writer)
        fill(sink, map(judged, frames))
        assert len(times_of(sink.paths[0])) == 4
        assert ["even times" in note for note in sink.notes] == [True] * notes


def test_without_pyav_opencv_writes_and_the_reason_is_noted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    source = open_video(str(write_clip(tmp_path / "in.mp4", 3)))
    sink = OverlayVideoSink(tmp_path / "out", several=True)
    with sink:
        for _ in range(2):
            video = replace(source.info)
            for frame in source:
                result = judged(replace(frame, video=video))
                sink.write(result, sink.render(result))
    assert len(sink.paths) == 2
    assert len(sink.notes) == 1
    assert "OpenCV, as PyAV is missing" in sink.notes[0]
    assert "without the sound" in sink.notes[0]


def test_a_video_that_opencv_could_not_write_whole_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_video(str(write_clip(tmp_path / "in.mp4", 3)))
    sink = OverlayVideoSink(tmp_path / "out", kind=CvMp4Writer)
    sink.open()
    for frame in source:
        sink.write(judged(frame), sink.render(judged(frame)))
    sink._lanes[FILES].writer._count += 1  # type: ignore[union-attr]
    with pytest.raises(OSError, match="holds 3 of 4 frames"):
        sink.close(complete=True)
    assert list((tmp_path / "out").iterdir()) == []


def test_videos_of_live_sources_are_written_side_by_side(tmp_path: Path) -> None:
    def frame(name: str, origin: int, number: int, info: VideoInfo) -> FrameResult:
        image = np.full((64, 64, 3), 40 + 40 * origin, np.uint8)
        result = judged(Frame(name, number, number / 10, image, video=info, pts=number))
        return replace(result, origin=origin)

    infos = [
        VideoInfo(Path(name), Fraction(10), Fraction(1, 10), Fraction(0), None, has_file=False)
        for name in ("door", "gate")
    ]
    sink = OverlayVideoSink(tmp_path, several=True, live={0, 1})
    results = [frame("x", number % 2, number // 2, infos[number % 2]) for number in range(12)]
    fill(sink, results)
    assert sorted(p.name for p in sink.paths) == ["overlay-door.mp4", "overlay-gate.mp4"]
    for path in sink.paths:
        assert len(times_of(path)) == 6
