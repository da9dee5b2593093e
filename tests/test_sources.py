"""Sources: what is read, in which order, at which times, and what becomes of damaged files."""

from __future__ import annotations

import struct
import sys
import wave
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, cast

import cv2
import numpy as np
import pytest

from deepfake_fpga.errors import (
    FormatError,
    MissingError,
    ToolkitError,
    UnsupportedError,
    UsageError,
)
from deepfake_fpga.inference.records import Status, VideoInfo
from deepfake_fpga.inference.sources import VideoSource, open_images, open_video
from deepfake_fpga.inference.sources.av_video import (
    AvVideoSource,
    _Landing,
    _Timeline,
    matrix_angle,
)
from deepfake_fpga.inference.sources.base import TimedRead
from deepfake_fpga.inference.sources.cv_video import CvVideoSource
from deepfake_fpga.inference.sources.images import decode

from .clips import EITHER, av, level, spoil_frame, write_clip
from .faces import gif_bytes
from .needs import needs_av

Open = Callable[[str], VideoSource]

RED = np.zeros((6, 8, 3), np.uint8)
RED[..., 0] = 250
RED[:2, ..., 2] = 90


@pytest.fixture(params=EITHER)
def video(request: pytest.FixtureRequest) -> Open:
    """Opens a video with either decoder."""
    return AvVideoSource if request.param == "av" else CvVideoSource


def encode(suffix: str, image: np.ndarray) -> bytes:
    """Bytes of a file; ``image`` in OpenCV's own channel order."""
    good, data = cv2.imencode(suffix, image)
    assert good
    return bytes(data)


def save(path: Path, image: np.ndarray = RED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(path.suffix, image[..., ::-1]))
    return path


def test_a_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    for name in ("face_10.png", "face_2.png", "Face_1.jpg", "face_2b.png", "notes.txt"):
        save(tmp_path / name) if name != "notes.txt" else (tmp_path / name).write_text("x")
    source = open_images(str(tmp_path))
    names = [Path(frame.source).name for frame in source]
    assert names == ["Face_1.jpg", "face_2.png", "face_2b.png", "face_10.png"]
    assert source.length == 4


def test_a_pattern_descends_and_orders_by_folder(tmp_path: Path) -> None:
    for name in ("b2/x_1.png", "b10/x_1.png", "b2/x_11.png", "b2/x_3.png", "b2/metadata.json"):
        path = tmp_path / name
        save(path) if path.suffix == ".png" else path.write_text("{}")
    found = [frame.source for frame in open_images(str(tmp_path / "**" / "*"))]
    wanted = ["b2/x_1.png", "b2/x_3.png", "b2/x_11.png", "b10/x_1.png"]
    assert found == [str(tmp_path / name) for name in wanted]


def test_an_unreadable_image_is_recorded_and_the_rest_goes_on(tmp_path: Path) -> None:
    save(tmp_path / "1.png")
    (tmp_path / "2.png").write_text("this is no picture")
    (tmp_path / "3.png").write_bytes(b"")
    whole = encode(".jpg", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    (tmp_path / "4.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "5.jpg").write_bytes(whole)
    frames = list(open_images(str(tmp_path)))
    assert [frame.status.value for frame in frames] == [
        "ok", "decode_error", "decode_error", "decode_error", "ok"
    ]  # fmt: skip
    assert frames[1].image is None
    assert "format" in frames[1].reason
    assert "empty" in frames[2].reason
    assert "truncated" in frames[3].reason


def test_a_file_that_vanishes_is_recorded(tmp_path: Path) -> None:
    save(tmp_path / "1.png")
    gone = save(tmp_path / "2.png")
    source = open_images(str(tmp_path))
    gone.unlink()
    first, second = source
    assert first.status is Status.OK
    assert second.status is Status.DECODE_ERROR
    assert "No such file" in second.reason


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp", ".tiff"])
def test_colours_come_as_rgb(suffix: str, tmp_path: Path) -> None:
    (frame,) = open_images(str(save(tmp_path / f"x{suffix}")))
    assert frame.image is not None
    assert frame.image.dtype == np.uint8
    assert np.abs(frame.image.astype(int) - RED).max() <= (8 if suffix == ".webp" else 0)
    assert (frame.index, frame.time) == (0, None)


def test_grey_alpha_and_sixteen_bits_become_rgb() -> None:
    ramp = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    grey, _ = decode(encode(".png", ramp))
    assert grey is not None
    np.testing.assert_array_equal(grey, np.repeat(ramp[..., None], 3, axis=2))
    alpha, _ = decode(encode(".png", np.dstack([RED[..., ::-1], ramp])))
    np.testing.assert_array_equal(alpha, RED)
    deep, _ = decode(encode(".png", RED[..., ::-1].astype(np.uint16) * 257))
    assert deep is not None
    assert deep.dtype == np.uint8
    assert np.abs(deep.astype(int) - RED).max() <= 1


def test_a_gif_gives_its_first_picture() -> None:
    mask = np.zeros((9, 7), np.uint8)
    mask[2:5, 1:4] = 1
    image, reason = decode(gif_bytes(mask))
    assert image is not None, reason
    np.testing.assert_array_equal(image, np.repeat(mask[..., None] * 255, 3, axis=2))
    assert decode(gif_bytes(mask)[:20])[0] is None


def test_a_jpeg_with_a_thumbnail_is_cut_where_its_own_scan_is_cut() -> None:
    body = encode(".jpg", np.random.default_rng(1).integers(0, 255, (40, 40, 3), np.uint8))
    thumb = encode(".jpg", RED)
    segment = b"\xff\xe5" + struct.pack(">H", len(thumb) + 2) + thumb
    whole = body[:2] + segment + body[2:]
    assert decode(whole)[0] is not None
    assert decode(whole[:-40])[0] is None


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda d: d / "absent.png", MissingError, "does not exist"),
        (lambda d: d / "*.png", MissingError, "No image matches"),
        (lambda d: d, UsageError, "crops"),
        (lambda d: d / "clip.mp4", UsageError, "--video"),
        (lambda d: d / "*.mp4", MissingError, "none with the suffix"),
    ],
)
def test_wrong_images_are_named(make: object, kind: type, words: str, tmp_path: Path) -> None:
    (tmp_path / "crops").mkdir()
    (tmp_path / "clip.mp4").write_bytes(b"x")
    with pytest.raises(kind) as caught:
        open_images(str(make(tmp_path)))  # type: ignore[operator]
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.mp4", "libx264", Fraction(30000, 1001)),
        ("b.avi", "mjpeg", Fraction(20)),
        ("c.mkv", "libx264", Fraction(24)),
        ("d.avi", "mpeg4", Fraction(15)),
    ],
)
def test_a_video_gives_every_frame_in_order(
    name: str, codec: str, rate: Fraction, video: Open, tmp_path: Path
) -> None:
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = write_clip(tmp_path / name, 15, height=48, width=80, codec=codec, rate=rate,
                      pix_fmt=pix_fmt)  # fmt: skip
    source = video(str(path))
    assert abs(source.info.rate - rate) < Fraction(1, 50)
    if name != "c.mkv" and av is not None:  # OpenCV writes 29.97 as 2997/100
        assert source.info.rate == rate
    frames = list(source)
    assert [frame.index for frame in frames] == list(range(15))
    for frame in frames:
        assert frame.image is not None
        assert frame.image.shape == (48, 80, 3)
        assert abs(float(frame.image.mean()) - level(frame.index)) < 4
        assert frame.time == pytest.approx(frame.index / rate, abs=0.001)
    assert source.length == 15
    assert source.notes == []


def test_variable_rate_keeps_the_real_times(video: Open, tmp_path: Path) -> None:
    times = [0, 40, 50, 130, 131, 400, 900]
    path = write_clip(
        tmp_path / "vfr.mp4", 7, times=times, time_base=Fraction(1, 1000), rate=Fraction(25)
    )
    frames = list(video(str(path)))
    assert [frame.time for frame in frames] == [t / 1000 for t in times]


@pytest.mark.parametrize("codec", ["mjpeg", "libx264"])
def test_a_frame_that_cannot_be_decoded_keeps_its_place(
    codec: str, video: Open, tmp_path: Path
) -> None:
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    options = {} if codec == "mjpeg" else {"g": "1"}
    path = write_clip(tmp_path / "x.mkv", 12, codec=codec, pix_fmt=pix_fmt, options=options)
    spoil_frame(path, 5)
    frames = list(video(str(path)))
    assert [frame.index for frame in frames] == list(range(12))
    assert [f.index for f in frames if f.status is Status.DECODE_ERROR] == [5]
    assert frames[5].image is None
    assert frames[5].reason
    assert frames[5].time == pytest.approx(0.25, abs=0.001)
    for frame in frames[:5] + frames[6:]:
        assert frame.image is not None
        assert abs(float(frame.image.mean()) - level(frame.index)) < 4


def test_a_lost_frame_among_reordered_ones_keeps_its_place(video: Open, tmp_path: Path) -> None:
    options = {"bf": "2", "g": "30", "x264-params": "b-adapt=0:scenecut=0"}
    path = write_clip(tmp_path / "x.mp4", 24, options=options)
    spoil_frame(path, 11)
    frames = list(video(str(path)))
    assert [frame.index for frame in frames] == list(range(24))
    assert [frame.time for frame in frames] == [index / 20 for index in range(24)]
    assert Status.DECODE_ERROR in {frame.status for frame in frames[9:14]}


@needs_av
def test_a_truncated_file_gives_what_is_there_and_says_so(video: Open, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "x.avi", 20, codec="mjpeg", pix_fmt="yuvj420p")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    source = video(str(path))
    frames = [frame for frame in source if frame.status is Status.OK]
    assert 3 < len(frames) < 18
    assert "truncated" in " ".join(source.notes)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist"),
        (b"", "empty file"),
        (b"this is not a video" * 50, "not a video"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git-LFS"),
    ],
)
def test_what_is_no_video_is_named(
    content: object, words: str, video: Open, tmp_path: Path
) -> None:
    path = tmp_path / "x.mp4"
    if isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(ToolkitError) as caught:
        video(str(path))
    assert words in str(caught.value)


def test_an_mp4_without_its_index_is_named(video: Open, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "x.mp4")
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(FormatError, match="index"):
        video(str(path))


def test_sound_alone_is_no_video(video: Open, tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    with wave.open(str(path), "wb") as sound:
        sound.setparams((1, 2, 8000, 800, "NONE", ""))
        sound.writeframes(bytes(1600))
    with pytest.raises(FormatError, match="no video stream"):
        video(str(path))


def test_the_rotation_flag_makes_the_picture_upright(video: Open, tmp_path: Path) -> None:
    upright = np.zeros((96, 48, 3), np.uint8)  # bright at the top
    upright[:48] = 220
    stored = np.ascontiguousarray(np.rot90(upright, 1))  # as a camera held sideways stores it
    path = write_clip(tmp_path / "x.mp4", 2, height=48, width=96, pictures=[stored, stored])
    data = bytearray(path.read_bytes())
    identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    at = data.find(identity, data.find(b"tkhd"))
    data[at : at + 36] = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 48 << 16, 0, 1 << 30)
    path.write_bytes(bytes(data))
    frame = next(iter(video(str(path))))
    assert frame.image is not None
    assert frame.image.shape == (96, 48, 3)
    assert frame.image[:40].mean() > 200
    assert frame.image[56:].mean() < 20


def test_the_angle_of_a_display_matrix() -> None:
    # x' = a x + c y, y' = b x + d y, with y pointing down: (a, b) = (0, 1) turns clockwise.
    assert matrix_angle(struct.pack("=9i", 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)) == -90
    assert matrix_angle(struct.pack("=9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)) == 0


def test_the_real_clip(video: Open, shared: Path) -> None:
    source = video(str(shared / "data" / "deep_fake_video.avi"))
    frames = list(source)
    assert len(frames) == source.length == 300
    assert source.info.rate == 20
    assert [frame.time for frame in frames] == [round(i / 20, 6) for i in range(300)]
    assert {frame.status for frame in frames} == {Status.OK}


@needs_av
def test_both_decoders_see_the_same_in_the_real_clip(shared: Path) -> None:
    path = str(shared / "data" / "deep_fake_video.avi")
    for number, (one, other) in enumerate(zip(AvVideoSource(path), CvVideoSource(path))):
        assert one.image is not None
        assert other.image is not None
        assert (one.time, one.index) == (other.time, other.index)
        difference = np.abs(one.image.astype(int) - other.image.astype(int))
        assert difference.mean() < 2
        if number == 20:
            break


@needs_av
def test_pyav_is_taken_where_it_is(tmp_path: Path) -> None:
    source = open_video(str(write_clip(tmp_path / "x.mp4", 2)))
    assert isinstance(source, AvVideoSource)
    assert source.notes == []


def test_without_pyav_opencv_is_taken_and_the_reason_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_clip(tmp_path / "x.mp4", 2)
    monkeypatch.setitem(sys.modules, "av", None)
    source = open_video(str(path))
    assert isinstance(source, CvVideoSource)
    assert "OpenCV, as PyAV is missing" in source.notes[0]
    assert len(list(source)) == 2


def test_an_opencv_without_ffmpeg_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "x.mp4", 2)
    monkeypatch.setattr(cv2.videoio_registry, "getBackends", lambda: [cv2.CAP_IMAGES])
    with pytest.raises(UnsupportedError, match="without FFmpeg") as caught:
        CvVideoSource(str(path))
    assert "pip install av" in caught.value.next_step


def test_a_gif_is_read_without_pyav_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.eye(8, dtype=np.uint8)
    monkeypatch.setitem(sys.modules, "av", None)
    image, reason = decode(gif_bytes(mask))
    if image is None:  # OpenCV before 4.11
        assert "pip install av" in reason
    else:
        np.testing.assert_array_equal(image, np.repeat(mask[..., None] * 255, 3, axis=2))


@pytest.mark.parametrize(
    ("name", "options", "times"),
    [
        ("x.mp4", {"g": "5"}, None),
        ("x.mkv", {"g": "7", "bf": "2"}, None),
        ("x.avi", {"g": "5"}, None),
        ("x.ts", {"g": "5", "bf": "2"}, None),
        ("x.mp4", {"g": "4", "x264-params": "open-gop=1:bframes=3:b-adapt=0"}, None),
        ("vfr.mp4", {"g": "3"}, [0, 40, 50, 130, 131, 400, 900, 910, 950, 1000, 1500, 1501]),
    ],
)
@pytest.mark.parametrize("begin", [0.2, 0.40001, 0.52, 1.5, 99.0])
def test_beginning_later_gives_the_same_frames_with_the_same_numbers(
    name: str, options: Any, times: Any, begin: float, video: Open, tmp_path: Path
) -> None:
    path = write_clip(
        tmp_path / name, 12 if times else 40, options=options, times=times,
        time_base=Fraction(1, 1000) if times else None,
    )  # fmt: skip
    whole = {frame.index: frame for frame in video(str(path))}
    source = video(str(path))
    source.begin = begin
    frames = [frame for frame in source if frame.time is not None and frame.time >= begin]
    wanted = [index for index, frame in whole.items() if (frame.time or 0) >= begin]
    assert [frame.index for frame in frames] == wanted
    for frame in frames:
        other = whole[frame.index]
        assert (frame.time, frame.pts) == (other.time, other.pts)
        assert frame.image is not None
        assert other.image is not None
        np.testing.assert_array_equal(frame.image, other.image)


@needs_av
def test_beginning_later_does_not_decode_what_comes_before(tmp_path: Path) -> None:
    options = {"g": "10", "bf": "0", "x264-params": "scenecut=0"}
    path = write_clip(tmp_path / "x.mp4", 200, options=options)
    source = AvVideoSource(str(path))
    source.begin = 9.0
    first = next(iter(source))
    assert (first.index, first.time) == (180, 9.0)
    source.begin = 9.45
    assert next(iter(source)).index == 180  # the key frame before


def test_what_a_decoder_gives_from_before_a_key_frame_is_not_counted(tmp_path: Path) -> None:
    """After a seek into an open group of pictures its first frames refer to what was skipped."""

    def packet(pts: int) -> Any:
        return SimpleNamespace(size=9, pts=pts, is_discard=False)

    def frame(pts: int) -> Any:
        return SimpleNamespace(pts=pts, is_corrupt=False, rotation=0)

    base = Fraction(1, 100)
    info = VideoInfo(tmp_path, Fraction(10), base, Fraction(0), None)
    timeline = _Timeline(SimpleNamespace(info=info, name="x"))  # type: ignore[arg-type]
    timeline.skip(_Landing(pts=700, index=70))
    for pts in (700, 680, 690, 710):
        timeline.expect(packet(pts))
    assert list(timeline.failed(packet(680), "refers to nothing")) == []
    assert list(timeline.decoded(frame(690))) == []
    reads = [*timeline.decoded(frame(700)), *timeline.decoded(frame(710)), *timeline.finish()]
    assert [cast(TimedRead, read).time for read in reads] == [7.0, 7.1]
    assert timeline.index == 72
