"""What a user's word means, and what standard input holds."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path
from typing import Any, List

import cv2
import numpy as np
import pytest

from deepfake_fpga.errors import FormatError, MissingError, ToolkitError, UsageError
from deepfake_fpga.inference.records import Frame, Status
from deepfake_fpga.inference.selection import Selection, select
from deepfake_fpga.inference.sources import OpenOptions, Source, open_source, opening
from deepfake_fpga.inference.sources.jpegs import split
from deepfake_fpga.inference.sources.live import LiveOptions

from .clips import EITHER, level, write_clip
from .needs import needs_av


def grey(number: int) -> np.ndarray:
    return np.full((32, 48, 3), level(number), np.uint8)


def encoded(number: int, suffix: str = ".png") -> bytes:
    return bytes(cv2.imencode(suffix, grey(number))[1])


def numbers(frames: Any) -> List[Any]:
    """The number painted into each frame, of those below 27."""
    found: List[Any] = []
    for frame in frames:
        if frame.image is None:
            found.append(None)
            continue
        off = [abs(level(number) - float(frame.image.mean())) for number in range(27)]
        assert min(off) < 4
        found.append(off.index(min(off)))
    return found


class Pipe(io.RawIOBase):
    """Bytes that come in small pieces and can be read once."""

    def __init__(self, data: bytes, piece: int = 700) -> None:
        super().__init__()
        self.data, self.at, self.piece = data, 0, piece

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self.data[self.at : self.at + min(len(buffer), self.piece)]
        buffer[: len(piece)] = piece
        self.at += len(piece)
        return len(piece)


def piped(data: bytes, form: str = "auto", piece: int = 700) -> Source:
    stdin: Any = io.BufferedReader(Pipe(data, piece))
    return open_source("-", OpenOptions(stdin=stdin, stdin_format=form))


@pytest.fixture
def things(tmp_path: Path) -> Path:
    """One of each kind, most without a suffix that would help."""
    (tmp_path / "faces").mkdir()
    for number in (1, 2):
        (tmp_path / "faces" / f"{number}.png").write_bytes(encoded(number))
    (tmp_path / "picture").write_bytes(encoded(3))
    clip = write_clip(tmp_path / "c.avi", 4, codec="mjpeg", pix_fmt="yuvj420p")
    (tmp_path / "clip").write_bytes(clip.read_bytes())
    with tarfile.open(str(tmp_path / "packed"), "w:gz") as tar:
        tar.add(str(tmp_path / "faces"), "faces")
    (tmp_path / "names").write_text("# two\nfaces/2.png\nfaces/1.png\n")
    return tmp_path


@pytest.mark.parametrize(
    ("word", "kind", "reason", "found"),
    [
        ("faces", "images", "a folder", [1, 2]),
        ("faces/*.png", "images", "a pattern", [1, 2]),
        ("picture", "images", "PNG by its first bytes", [3]),
        ("clip", "video", "AVI by its first bytes", [0, 1, 2, 3]),
        ("c.avi", "video", "AVI by its first bytes", [0, 1, 2, 3]),
        ("packed", "mixed", "gzip by its first bytes", [1, 2]),
        ("names", "images", "text by its first bytes", [2, 1]),
    ],
)
def test_a_word_is_taken_for_what_is_there(
    word: str, kind: str, reason: str, found: List[int], things: Path
) -> None:
    source = open_source(str(things / word))
    assert source.kind == kind
    assert reason in source.reason
    assert numbers(source) == found
    assert not source.live
    filed = open_source(f"file://{things / word}") if "*" not in word else source
    assert filed.kind == kind


@pytest.mark.parametrize(
    ("expect", "word", "found"),
    [
        ("images", "faces", [1, 2]),
        ("images", "names", [2, 1]),
        ("images", "packed", [1, 2]),
        ("images", "faces/*.png", [1, 2]),
        ("video", "clip", [0, 1, 2, 3]),
        ("video", "names", [2, 1]),
    ],
)
def test_the_options_for_one_kind_take_what_fits(
    expect: str, word: str, found: List[int], things: Path
) -> None:
    assert numbers(open_source(str(things / word), OpenOptions(expect=expect))) == found


def test_a_damaged_file_keeps_its_kind_by_its_suffix(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("no picture")
    (frame,) = open_source(str(tmp_path / "x.png"))
    assert frame.status is Status.DECODE_ERROR


LFS = b"version https://git-lfs.github.com/spec/v1\n"
BYTES = bytes(range(1, 256)) * 9


def fill(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def zipped(path: Path) -> Path:
    with zipfile.ZipFile(str(path), "w") as file:
        file.writestr("a.png", b"x")
    return path


@pytest.mark.parametrize(
    ("make", "expect", "kind", "words"),
    [
        (lambda d: d / "absent.png", "", MissingError, "no file, folder, pattern"),
        (lambda d: d / "*.png", "", MissingError, "No image or video matches"),
        (lambda d: "gopher://x/y", "", UsageError, "gopher:// is none of"),
        (lambda d: "rtsp://x/y", "images", UsageError, "--video rtsp://x/y"),
        (lambda d: "camera:0", "images", UsageError, "a camera"),
        (lambda d: d, "video", UsageError, "a folder"),
        (lambda d: d, "", UsageError, "holds no images or videos"),
        (lambda d: fill(d / "x.mp4", b"ftyp"), "images", UsageError, "--video"),
        (lambda d: fill(d / "x.txt", b"hello\n"), "", UsageError, "no list"),
        (lambda d: fill(d / "x.tar", b"no tar" * 99), "", FormatError, "not a tar"),
        (lambda d: fill(d / "x.tar", b""), "", FormatError, "empty file"),
        (lambda d: fill(d / "x", LFS), "", FormatError, "git lfs"),
        (lambda d: zipped(d / "x"), "", UsageError, "unpack"),
        (lambda d: fill(d / "x", BYTES), "", UsageError, "nothing that can be read"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(
    make: Any, expect: str, kind: type, words: str, tmp_path: Path
) -> None:
    with pytest.raises(kind) as caught:
        open_source(str(make(tmp_path)), OpenOptions(expect=expect))
    assert words in str(caught.value)


def test_streams_and_cameras_are_told_by_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: List[Any] = []

    def note(kind: str) -> Any:
        def opened(text: str, live: LiveOptions) -> Source:
            asked.append((kind, text, live.silence))
            return piped(b"x.png\n", "list")

        return opened

    monkeypatch.setattr(opening, "open_stream", note("stream"))
    monkeypatch.setattr(opening, "open_camera", note("camera"))
    monkeypatch.chdir(tmp_path)
    options = OpenOptions(live=LiveOptions(silence=7))
    words = [
        "rtsp://u:p@cam/1",
        "HTTP://host/x.mp4",
        "udp://@:1234",
        "0",
        "camera:3",
        "/dev/video9",
    ]
    for word in words:
        assert "by its" in open_source(word, options).reason
    kinds = ["stream"] * 3 + ["camera"] * 3
    assert asked == [(kind, word, 7) for kind, word in zip(kinds, words)]
    fill(tmp_path / "0", encoded(5))  # a file of that name comes first
    assert numbers(open_source("0", options)) == [5]


# Standard input


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
@pytest.mark.parametrize("form", ["auto", "tar"])
def test_a_tar_comes_through_a_pipe(mode: str, form: str) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as tar:  # type: ignore[call-overload]
        for number in range(9):
            member = tarfile.TarInfo(f"{number}.png")
            member.size = len(encoded(number))
            tar.addfile(member, io.BytesIO(encoded(number)))
    source = piped(packed.getvalue(), form)
    assert source.live
    assert "tar" in source.reason
    assert numbers(source) == list(range(9))


def test_names_come_through_a_pipe(things: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(things)
    text = b"# names\nfaces/2.png\nclip\nabsent.png\nfaces/1.png\n"
    for form in ("auto", "list"):
        source = piped(text, form)
        assert numbers(source) == [2, 0, 1, 2, 3, None, 1]
        assert source.kind == "mixed"


@pytest.mark.parametrize("decoder", EITHER)
@pytest.mark.parametrize("form", ["auto", "video"])
def test_a_video_comes_through_a_pipe(
    decoder: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_clip(tmp_path / "c.avi", 12, codec="mjpeg", pix_fmt="yuvj420p")
    if decoder == "cv":
        monkeypatch.setitem(sys.modules, "av", None)
    source = piped(clip.read_bytes(), form, piece=5000)
    frames = list(select(source, Selection(start=0.2)))
    assert numbers(frames) == list(range(4, 12))
    assert [frame.index for frame in frames] == list(range(4, 12))
    assert {frame.source for frame in frames} == {"stdin"}
    video = frames[0].video
    assert video is not None
    assert not video.has_file


@needs_av
def test_an_interruption_while_a_video_is_looked_at_is_not_lost(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "c.avi", 12, codec="mjpeg", pix_fmt="yuvj420p")

    class Interrupted(Pipe):
        def readinto(self, buffer: Any) -> int:
            if self.at > 2000:
                raise KeyboardInterrupt
            return super().readinto(buffer)

    stdin: Any = io.BufferedReader(Interrupted(clip.read_bytes()))
    with pytest.raises(KeyboardInterrupt):
        open_source("-", OpenOptions(stdin=stdin, stdin_format="video"))


@needs_av
def test_an_mp4_with_its_index_at_the_end_is_explained(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)  # more than FFmpeg keeps of what it has read
    noise = [rng.integers(0, 255, (256, 256, 3), np.uint8) for _ in range(24)]
    clip = write_clip(tmp_path / "c.mp4", 24, height=256, width=256, pictures=noise)
    assert clip.read_bytes().find(b"moov") > clip.read_bytes().find(b"mdat")
    source = piped(clip.read_bytes())
    assert list(source) == []
    assert "faststart" in source.notes[-1]


def test_jpegs_come_through_a_pipe() -> None:
    data = b"".join(encoded(number, ".jpg") for number in range(12))
    for form in ("auto", "mjpeg"):
        source = piped(data, form)
        frames = list(source)
        assert numbers(frames) == list(range(12))
        assert [frame.time for frame in frames] == [n / 25 for n in range(12)]
        assert "25 is assumed" in source.notes[0]


def test_an_image_comes_through_a_pipe() -> None:
    assert numbers(piped(encoded(7))) == [7]


@pytest.mark.parametrize("piece", [1, 7, 1000, 100_000])
def test_jpegs_are_told_apart_wherever_the_pieces_are_cut(piece: int) -> None:
    rng = np.random.default_rng(3)
    noise = [rng.integers(0, 255, (40, 56, 3), np.uint8) for _ in range(6)]
    whole = [bytes(cv2.imencode(".jpg", image)[1]) for image in noise]
    whole[1] = bytes(cv2.imencode(".jpg", noise[1], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1])
    whole[2] = bytes(cv2.imencode(".jpg", noise[2], [cv2.IMWRITE_JPEG_RST_INTERVAL, 2])[1])
    thumb = whole[0]
    segment = b"\xff\xe5" + (len(thumb) + 2).to_bytes(2, "big") + thumb
    whole[3] = whole[3][:2] + segment + whole[3][2:]
    parts = [b"junk", whole[0], whole[1]]
    for data in whole[2:]:
        parts += [b"\r\n--frame\r\n", data]
    assert list(split(Pipe(b"".join(parts), piece))) == whole  # type: ignore[arg-type]


def test_a_jpeg_that_is_cut_off_is_recorded_and_the_next_is_read() -> None:
    one, two, three = (encoded(number, ".jpg") for number in (1, 2, 3))
    frames = list(piped(one + two[: len(two) // 2] + three + one[:-30]))
    assert numbers(frames) == [1, None, 3, None]
    assert [frame.index for frame in frames] == [0, 1, 2, 3]
    assert "truncated" in frames[1].reason


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"<html><body>404", "HTML page"),
        (b"PK\x03\x04" + bytes(600), "zip"),
        (BYTES, "neither a tar, a video"),
    ],
)
@needs_av
def test_what_comes_through_and_is_nothing_is_named(data: bytes, words: str) -> None:
    with pytest.raises(ToolkitError, match=words):
        list(piped(data))


def test_a_terminal_is_no_input(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    with pytest.raises(UsageError, match="terminal"):
        open_source("-")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_is_read_like_standard_input(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(str(path))
    assert stat.S_ISFIFO(path.stat().st_mode)
    data = b"".join(encoded(number, ".jpg") for number in range(5))
    writer = threading.Thread(target=path.write_bytes, args=(data,), daemon=True)
    writer.start()
    source = open_source(str(path))
    assert numbers(source) == list(range(5))
    assert "a pipe" in source.reason
    writer.join(5)


def test_a_thread_left_in_standard_input_does_not_spoil_the_end() -> None:
    code = (
        "import sys, threading, time\n"
        "from deepfake_fpga.inference.sources.pipe import standard_input\n"
        "pipe = standard_input()\n"
        "threading.Thread(target=pipe.read, daemon=True).start()\n"
        "time.sleep(0.2)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdin is not None
    assert child.stderr is not None
    with child.stdin, child.stderr:
        assert child.wait(30) == 0
        assert child.stderr.read() == b""


def test_frames_of_a_pipe_are_frames() -> None:
    (frame,) = piped(encoded(7))
    assert isinstance(frame, Frame)
    assert (frame.source, frame.index, frame.time) == ("stdin", 0, None)
