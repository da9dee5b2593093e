"""Tar archives: what is in them without unpacking, and what is left of damaged ones."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Optional

import cv2
import numpy as np
import pytest

from deepfake_fpga.errors import FormatError
from deepfake_fpga.inference.records import Frame, Status
from deepfake_fpga.inference.sources import archive as archive_module
from deepfake_fpga.inference.sources import spool
from deepfake_fpga.inference.sources.archive import TarSource, label

from .clips import level, write_clip


def png(number: int, side: int = 8) -> bytes:
    good, data = cv2.imencode(".png", np.full((side, side, 3), level(number), np.uint8))
    assert good
    return bytes(data)


def noise(number: int) -> bytes:
    image = np.random.default_rng(number).integers(0, 255, (64, 64, 3), np.uint8)
    return bytes(cv2.imencode(".png", image)[1])


def pack(path: Path, files: Dict[str, Any], mode: str = "w") -> Path:
    options = {"compresslevel": 1} if mode == "w:bz2" else {}  # several blocks, not one
    with tarfile.open(str(path), mode, **options) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            if isinstance(data, str):
                member.type, member.linkname = tarfile.SYMTYPE, data
                tar.addfile(member)
            else:
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


def numbers(frames: List[Frame]) -> List[Optional[int]]:
    found: List[Optional[int]] = []
    for frame in frames:
        if frame.image is None:
            found.append(None)
            continue
        off = [abs(level(number) - float(frame.image.mean())) for number in range(100)]
        near = [number for number in range(100) if off[number] < 3]
        found.append(off.index(0) if 0 in off else near[0])
    return found


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_frames_come_in_the_order_of_the_archive(mode: str, tmp_path: Path) -> None:
    files = {f"faces/{n}.png": png(n) for n in (3, 1, 12)}
    files["faces/metadata.json"] = b"{}"
    source = TarSource("x.tar", pack(tmp_path / "x", files, mode))
    frames = list(source)
    assert [frame.source for frame in frames] == [f"x.tar/faces/{n}.png" for n in (3, 1, 12)]
    assert numbers(frames) == [3, 1, 12]
    assert source.notes == []
    assert list(source.places()) == [tmp_path / "x"]
    assert numbers(list(source)) == [3, 1, 12]  # a second time


def test_a_video_inside_is_read_and_its_temporary_file_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_clip(tmp_path / "c.avi", 5, codec="mjpeg", pix_fmt="yuvj420p")
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    files = {"a.png": png(40), "deep/c.avi": clip.read_bytes(), "b.png": png(41)}
    files["plain"] = clip.read_bytes()  # recognised by its content
    source = TarSource("x.tar", pack(tmp_path / "x.tar", files))
    reads = source.reads()
    first = [next(reads)() for _ in range(3)]
    assert len(os.listdir(str(folder))) == 1
    frames = first + [read() for read in reads]
    assert os.listdir(str(folder)) == []
    assert numbers(frames) == [40, 0, 1, 2, 3, 4, 41, 0, 1, 2, 3, 4]
    assert [f.index for f in frames] == [0, 0, 1, 2, 3, 4, 0, 0, 1, 2, 3, 4]
    video = frames[1].video
    assert video is not None
    assert (frames[1].source, video.path.stem) == ("x.tar/deep/c.avi", "c")
    assert not video.has_file


def test_closing_early_removes_the_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_clip(tmp_path / "c.avi", 5, codec="mjpeg", pix_fmt="yuvj420p")
    path = pack(tmp_path / "x.tar", {"c.avi": clip.read_bytes()})
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    reads: Any = TarSource("x.tar", path).reads()
    next(reads)
    reads.close()
    assert os.listdir(str(folder)) == []


def test_a_video_without_room_is_recorded_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_clip(tmp_path / "c.avi", 5, codec="mjpeg", pix_fmt="yuvj420p")
    path = pack(tmp_path / "x.tar", {"c.avi": clip.read_bytes(), "a.png": png(7)})
    monkeypatch.setattr(spool, "SPARE", 1 << 60)
    frames = list(TarSource("x.tar", path))
    assert numbers(frames) == [None, 7]
    assert "no room" in frames[0].reason
    assert "MB are free" in frames[0].reason


def test_names_lead_nowhere(tmp_path: Path) -> None:
    before = sorted(os.listdir(str(tmp_path)))
    files = {
        "../../etc/x.png": png(1), "/abs/y.png": png(2), "a/../..": png(3),
        "new\nline\x1b[1m.png": png(4),
        "link.png": "/etc/passwd", "._a.png": b"apple", "..": png(6),
    }  # fmt: skip
    source = TarSource("x.tar", pack(tmp_path / "x.tar", files))
    frames = list(source)
    assert [frame.source for frame in frames] == [
        "x.tar/etc/x.png", "x.tar/abs/y.png", "x.tar/a", "x.tar/new?line?[1m.png", "x.tar/unnamed"
    ]  # fmt: skip
    assert numbers(frames) == [1, 2, 3, 4, 6]
    assert "1 links were not followed" in source.notes[0]
    assert sorted(os.listdir(str(tmp_path))) == [*before, "x.tar"]
    assert label("../..") == "unnamed"


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_what_came_before_a_cut_is_kept_with_a_note(mode: str, tmp_path: Path) -> None:
    path = pack(tmp_path / "x", {f"{n}.png": noise(n) for n in range(40)}, mode)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    source = TarSource("x", path)
    frames = [frame for frame in source if frame.status is Status.OK]
    assert 5 < len(frames) < 30
    assert [frame.source for frame in frames] == [f"x/{n}.png" for n in range(len(frames))]
    assert "damaged or cut off after" in source.notes[0]


def test_a_cut_between_two_files_is_seen(tmp_path: Path) -> None:
    path = pack(tmp_path / "x", {f"{n}.png": png(n) for n in range(4)})
    path.write_bytes(path.read_bytes()[: 2 * 1024])
    source = TarSource("x", path)
    assert numbers(list(source)) == [0, 1]
    assert "end mark is missing" in source.notes[0]


def test_a_broken_header_in_the_middle_is_seen(tmp_path: Path) -> None:
    path = pack(tmp_path / "x", {f"{n}.png": png(n) for n in range(4)})
    data = bytearray(path.read_bytes())
    data[2 * 1024 : 2 * 1024 + 300] = b"\xa5" * 300
    path.write_bytes(bytes(data))
    source = TarSource("x", path)
    assert numbers(list(source)) == [0, 1]
    assert "after 2 files" in source.notes[0]


def test_damage_in_a_compressed_stream_is_seen(tmp_path: Path) -> None:
    path = pack(tmp_path / "x", {f"{n}.png": noise(n) for n in range(40)}, "w:gz")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 2000] = bytes(2000)
    path.write_bytes(bytes(data))
    source = TarSource("x", path)
    frames = list(source)
    assert len(frames) < 40
    assert source.notes


@pytest.mark.parametrize("data", [b"", b"no tar" * 200, b"\x1f\x8b\x08\x00 no gzip" * 50])
def test_what_is_no_tar_is_named(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(FormatError, match="not a tar"):
        TarSource("x", tmp_path / "x")


def test_a_tar_without_pictures_says_so(tmp_path: Path) -> None:
    source = TarSource("x", pack(tmp_path / "x", {"a.json": b"{}", "b.txt": b"x"}))
    assert list(source) == []
    assert source.notes == ["no image or video among 2 files"]


def test_an_image_of_absurd_size_is_recorded_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_module, "MOST_IMAGE_BYTES", 100)
    path = pack(tmp_path / "x", {"a.png": png(1), "b.png": bytes(5000), "c.png": png(2)})
    frames = list(TarSource("x", path))
    assert numbers(frames) == [1, None, 2]
    assert "5000 bytes" in frames[1].reason


def test_members_are_not_kept(tmp_path: Path) -> None:
    """``tarfile`` would hold an entry for each."""
    path = pack(tmp_path / "x", {f"{n}.png": png(1) for n in range(50)})
    held: List[int] = []
    members = archive_module._members

    def watch(tar: Any) -> Any:
        for member in members(tar):
            held.append(len(tar.members))
            yield member

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive_module, "_members", watch)
        assert len(list(TarSource("x", path))) == 50
    assert max(held) <= 2


class Pipe(io.RawIOBase):
    """Bytes that can be read once and come in small pieces."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self.data[self.at : self.at + min(len(buffer), 777)]
        buffer[: len(piece)] = piece
        self.at += len(piece)
        return len(piece)


def test_a_stream_of_bytes_is_read_as_it_comes(tmp_path: Path) -> None:
    path = pack(tmp_path / "x", {f"{n}.png": png(n) for n in range(30)}, "w:gz")
    source = TarSource("-", stream=io.BufferedReader(Pipe(path.read_bytes())))  # type: ignore[type-var]
    assert source.live
    assert numbers(list(source)) == list(range(30))
    bad = TarSource("-", stream=io.BytesIO(b"x" * 2000))
    with pytest.raises(FormatError, match="not a tar"):
        list(bad)
