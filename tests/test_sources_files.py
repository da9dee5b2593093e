"""Folders, patterns and text lists: which files, in which order, and never all of them at once."""

from __future__ import annotations

import glob
import os
import tracemalloc
from pathlib import Path
from typing import Any, Iterator, List

import cv2
import numpy as np
import pytest

from deepfake_fpga.errors import MissingError, UsageError
from deepfake_fpga.inference.records import Status
from deepfake_fpga.inference.sources import listing, open_images
from deepfake_fpga.inference.sources.content import Content, recognise
from deepfake_fpga.inference.sources.files import open_folder, open_list, open_pattern
from deepfake_fpga.inference.sources.listing import Names, matching

from .clips import level, write_clip

MANY = 200_000


def grey(path: Path, number: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((8, 8, 3), level(number), np.uint8))
    return path


class Fabricated:
    """Stands for ``os.scandir`` of a folder with ``MANY`` pictures; counts what was taken."""

    def __init__(self) -> None:
        self.taken = self.most = 0
        self.walks = 0

    def __call__(self, folder: str = ".") -> Fabricated:
        self.walks += 1
        self.taken = 0
        return self

    def __enter__(self) -> Iterator[Any]:
        return self.names()

    def __exit__(self, *problem: Any) -> None:
        pass

    def names(self) -> Iterator[Any]:
        for number in range(MANY):
            self.taken += 1
            yield Entry(f"a_crop_with_a_rather_long_name_{number * 7919 % MANY:06d}.png")


class Entry:
    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def is_file(self) -> bool:
        return True

    def is_dir(self) -> bool:
        return False


@pytest.mark.parametrize("word", ["", "*.png"])
def test_a_huge_folder_is_never_held(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = Fabricated()
    monkeypatch.setattr(listing.os, "scandir", entries)
    monkeypatch.setattr(listing, "SORTED", 1000)
    text = str(tmp_path / word) if word else str(tmp_path)
    source = open_pattern(text) if word else open_folder(text)
    assert entries.taken == 1001  # one more than are sorted, and no further
    assert source.length is None
    assert "not sorted" in source.notes[0]
    assert "1000" in source.notes[0]
    names, peak = [], 0
    for seen, read in enumerate(source.reads(), 1):
        assert entries.taken <= seen + 1  # nothing is read ahead
        if seen == MANY // 2:
            names = [Path(read().source).name]
        if seen == MANY - 20_000:  # slow, so only the last part is watched
            tracemalloc.start()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen == MANY
    assert peak < 200_000  # the last 20,000 names alone would take 2 MB
    assert names == [f"a_crop_with_a_rather_long_name_{(MANY // 2 - 1) * 7919 % MANY:06d}.png"]


def test_up_to_the_limit_names_are_sorted_naturally() -> None:
    walk = [f"f_{number}" for number in (10, 2, 33, 1)]
    names = Names(lambda: iter(walk), limit=4)
    assert list(names) == ["f_1", "f_2", "f_10", "f_33"]
    assert names.note == ""
    beyond = Names(lambda: iter(walk), limit=3)
    assert list(beyond) == walk == list(beyond)
    assert beyond.held is None
    assert "3 files" in beyond.note
    listed = Names(lambda: iter(walk), ordered=True, limit=3)
    assert (list(listed), listed.note) == (walk, "")


PATTERNS = ["*", "*.png", "a/*", "**/*.png", "**", "a/**/x_?.png", "*/x_[12].png", "a/b/x_1.png",
            "[ab]/**", "**/.h*", ".hidden/*", "a/../a/*.png", "**/b/*",
            "a/absent/*", "no*"]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_means_what_it_means_to_the_library(pattern: str, tmp_path: Path) -> None:
    for name in ("x_1.png", "x_2.PNG", "a/x_1.png", "a/x_12.png", "a/b/x_1.png", "a/b/c/x_3.png",
                 ".hidden/x_1.png", "a/.h.png", "b/note.txt"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for whole in (str(tmp_path / pattern), os.path.relpath(tmp_path / pattern)):
        wanted = sorted(p for p in set(glob.glob(whole, recursive=True)) if os.path.isfile(p))
        found = list(matching(whole))
        assert sorted(map(os.path.normpath, found)) == sorted(map(os.path.normpath, wanted))
        assert len(found) == len(set(found))


def test_a_link_that_leads_round_is_no_trap(tmp_path: Path) -> None:
    grey(tmp_path / "a" / "x.png")
    (tmp_path / "a" / "again").symlink_to(tmp_path, target_is_directory=True)
    assert list(matching(f"{tmp_path}/**/*.png")) == [str(tmp_path / "a" / "x.png")]


def test_a_folder_of_images_and_videos_is_read_in_order(tmp_path: Path) -> None:
    grey(tmp_path / "f_2.png", 50)
    write_clip(tmp_path / "f_10.avi", 3, codec="mjpeg", pix_fmt="yuvj420p")
    grey(tmp_path / "f_11.png", 51)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "f_3.png").mkdir()
    source = open_folder(str(tmp_path))
    assert (source.kind, source.length) == ("mixed", None)
    frames = list(source)
    assert [(Path(f.source).name, f.index) for f in frames] == [
        ("f_2.png", 0), ("f_10.avi", 0), ("f_10.avi", 1), ("f_10.avi", 2), ("f_11.png", 0)
    ]  # fmt: skip
    for frame, number in zip(frames, [50, 0, 1, 2, 51]):
        assert frame.image is not None
        assert abs(float(frame.image.mean()) - level(number)) < 4
        assert (frame.video is None) == frame.source.endswith(".png")


def test_a_list_names_files_relative_to_its_folder_and_keeps_its_order(tmp_path: Path) -> None:
    grey(tmp_path / "in" / "b.png", 1)
    grey(tmp_path / "in" / "deep" / "a.png", 2)
    far = grey(tmp_path / "far.png", 3)
    write_clip(tmp_path / "in" / "c.avi", 2, codec="mjpeg", pix_fmt="yuvj420p")
    (tmp_path / "in" / "notes.dat").write_text("no picture")
    lines = ["# faces", "b.png", "", "deep/a.png\r", str(far), "absent.png", "absent.mp4", "c.avi",
             "notes.dat", "b.png", "deep"]  # fmt: skip
    path = tmp_path / "in" / "list.txt"
    path.write_text("\n".join(lines))
    source = open_list(str(path))
    frames = list(source)
    names = ["b.png", "a.png", "far.png", "absent.png", "absent.mp4", "c.avi", "c.avi",
             "notes.dat", "b.png", "deep"]  # fmt: skip
    assert [Path(frame.source).name for frame in frames] == names
    bad = [Path(frame.source).name for frame in frames if frame.status is Status.DECODE_ERROR]
    assert bad == ["absent.png", "absent.mp4", "notes.dat", "deep"]
    assert all(frame.reason for frame in frames if frame.image is None)
    greys = [int(frame.image.mean()) for frame in frames if frame.image is not None]
    wanted = [level(1), level(2), level(3), level(0), level(1), level(1)]
    assert np.abs(np.subtract(greys, wanted)).max() < 4


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "no line names a file"), ("# x\n\n", "no line names"), ("hello\nworld\n", "hello")],
)
def test_a_text_that_is_no_list_is_named(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text(text)
    with pytest.raises(UsageError, match="no list") as caught:
        open_list(str(path))
    assert words in str(caught.value)


def test_a_list_of_images_knows_its_length(tmp_path: Path) -> None:
    for number in range(3):
        grey(tmp_path / f"{number}.png")
    path = tmp_path / "list.txt"
    path.write_text("2.png\n0.png\n1.png\n")
    source = open_list(str(path))
    assert (source.kind, source.length) == ("images", 3)
    assert [Path(frame.source).stem for frame in source] == ["2", "0", "1"]


def test_notes_of_many_files_are_counted_not_kept(tmp_path: Path) -> None:
    source = open_folder(str(grey(tmp_path / "x.png").parent))
    for number in range(1000):
        source.note(f"note {number}")
    assert len(source.notes) == 51
    assert source.notes[-1] == "950 more notes like these"


def test_empty_folders_and_patterns_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no images or videos"):
        open_folder(str(tmp_path))
    with pytest.raises(MissingError, match="No image or video matches"):
        open_pattern(str(tmp_path / "*"))
    (tmp_path / "clip.avi").touch()
    with pytest.raises(UsageError, match=r"clip\.avi"):
        open_images(str(tmp_path))


HEADS: List[Any] = [
    (b"\x89PNG\r\n\x1a\n", "x", Content.IMAGE),
    (b"\xff\xd8\xff\xe0", "", Content.IMAGE),
    (b"RIFF\x00\x00\x00\x00WEBP", "", Content.IMAGE),
    (b"RIFF\x00\x00\x00\x00AVI ", "x.png", Content.VIDEO),
    (b"\x00\x00\x00\x20ftypisom", "", Content.VIDEO),
    (b"\x00\x00\x00\x20ftypavif", "", Content.IMAGE),
    (b"\x1aE\xdf\xa3", "x.tar", Content.VIDEO),
    (bytes(257) + b"ustar\x0000", "", Content.ARCHIVE),
    (b"\x1f\x8b\x08\x00", "list.txt", Content.ARCHIVE),
    (bytes(400), "x.tar", Content.ARCHIVE),
    (b"P6\n2 2\n255\n", "", Content.IMAGE),
    (b"PNG is a format\n", "", Content.TEXT),
    ("ünïcode.png\n".encode(), "", Content.TEXT),
    (b"no picture", "x.png", Content.IMAGE),
    (b"\x00\x01\x02", "", Content.UNKNOWN),
    (b"", "", Content.UNKNOWN),
    (b"PK\x03\x04", "x.zip", Content.ZIP),
    ((b"\x47" + bytes(187)) * 3, "", Content.VIDEO),
    (("a" * 511 + "ü").encode()[:512], "", Content.TEXT),
]


@pytest.mark.parametrize(("head", "name", "content"), HEADS)
def test_content_is_told_by_bytes_then_by_suffix(head: bytes, name: str, content: Content) -> None:
    found, how = recognise(head, name)
    assert found is content
    assert how
