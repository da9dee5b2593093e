"""Crops and masks from pairs of videos: alignment, bad input, resuming, tars."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from fractions import Fraction
from pathlib import Path
from typing import Any, Dict, List, Sequence

import cv2
import numpy as np
import pytest

from deepfake_fpga.errors import DataError, FormatError, MissingError, UsageError
from deepfake_fpga.inference.corpus import extraction
from deepfake_fpga.inference.corpus.alignment import (
    SEARCH,
    align,
    best_offset,
    chosen,
    frames_at,
    frames_near,
)
from deepfake_fpga.inference.corpus.cutting import CropOptions, cut_video
from deepfake_fpga.inference.corpus.difference import overlap
from deepfake_fpga.inference.corpus.extraction import Extraction, extract
from deepfake_fpga.inference.corpus.parcel import Journal
from deepfake_fpga.inference.corpus.shelf import open_shelf
from deepfake_fpga.inference.faces import FaceOptions, Kind, Limits
from deepfake_fpga.inference.sources import open_video
from deepfake_fpga.quantize.dataset import read_dataset
from deepfake_fpga.quantize.pictures import read_image, read_mask
from deepfake_fpga.quantize.synthetic_pairs import Pair, make_pair, make_pairs

from .clips import level, write_clip
from .needs import needs_av

SIZE, FRAMES = 128, 6
OPTIONS = CropOptions(frames=3)
OFTEN = CropOptions(frames=None)


@pytest.fixture(scope="module")
def pairs() -> List[Pair]:
    return [make_pair("test", 7, number, FRAMES + 4, SIZE) for number in range(3)]


def write(path: Path, pictures: Sequence[np.ndarray], rate: int = 15) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = pictures[0].shape[:2]
    return write_clip(
        path, len(pictures), height=height, width=width, pictures=pictures, rate=Fraction(rate)
    )


def write_videos(folder: Path, pairs: Sequence[Pair]) -> Path:
    metadata: Dict[str, Any] = {}
    for number, pair in enumerate(pairs):
        write(folder / f"real{number}.mp4", pair.original[:FRAMES])
        write(folder / f"fake{number}.mp4", pair.fake[:FRAMES])
        metadata[f"real{number}.mp4"] = {"label": "REAL", "split": "train"}
        metadata[f"fake{number}.mp4"] = {
            "label": "FAKE", "split": "train", "original": f"real{number}.mp4",
        }  # fmt: skip
    (folder / "metadata.json").write_text(json.dumps(metadata))
    return folder


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, pairs: List[Pair]) -> Path:
    return write_videos(tmp_path_factory.mktemp("videos") / "set", pairs)


@pytest.fixture
def videos(tmp_path: Path, kept: Path) -> Path:
    """A copy that may be spoilt."""
    return Path(shutil.copytree(str(kept), str(tmp_path / "videos")))


def make(source: Path, target: Path, options: CropOptions = OPTIONS, **more: Any) -> Extraction:
    with open_shelf(str(source)) as shelf:
        return extract([shelf], target, options, **more)


def contents(folder: Path) -> Dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent.name in ("crops", "masks")
    }


def test_frames_are_spread_over_a_video() -> None:
    assert chosen(100, 1, 4) == [12, 37, 62, 87]
    assert chosen(10, 3, None) == [0, 3, 6, 9]
    assert chosen(5, 1, 9) == [0, 1, 2, 3, 4]
    assert chosen(None, 1, 4) is None


def test_masks_are_those_that_were_drawn(kept: Path, tmp_path: Path, pairs: List[Pair]) -> None:
    result = make(kept, tmp_path / "out", jobs=2)
    assert (result.videos, result.done, result.skipped) == (6, 6, {})
    assert result.crops == 18
    numbers = chosen(FRAMES, 1, 3)
    assert numbers is not None
    found = []
    for number, pair in enumerate(pairs):
        for n, frame in enumerate(numbers):
            mask = read_mask(tmp_path / "out" / "masks" / f"fake{number}_{n}.gif")
            found.append(overlap(mask.astype(bool), pair.masks[frame]))
            crop = read_image(tmp_path / "out" / "crops" / f"fake{number}_{n}.png")
            assert np.abs(crop.astype(int) - pair.fake[frame]).mean() < 8
            empty = read_mask(tmp_path / "out" / "masks" / f"real{number}_{n}.gif")
            assert not empty.any()
    assert np.mean(found) > 0.8
    dataset = read_dataset(tmp_path / "out")
    batches = list(dataset.batches(32))
    assert dataset.problems == []
    assert all(batch.mask_known.all() for batch in batches)
    assert sum(int((batch.labels == 0).sum()) for batch in batches) == 9
    lines = [
        json.loads(line) for line in (tmp_path / "out" / "videos.jsonl").read_text().splitlines()
    ]
    one = next(line for line in lines[1:] if line["video"].endswith("fake0.mp4"))
    assert [crop["frame"] for crop in one["crops"]] == numbers
    assert [crop["original_frame"] for crop in one["crops"]] == numbers


def test_crops_alone_need_no_original(videos: Path, tmp_path: Path) -> None:
    (videos / "metadata.json").unlink()
    options = CropOptions(masks=False, frames=2, size=64)
    result = make(videos, tmp_path / "out", options)
    assert (result.crops, result.skipped) == (12, {})
    assert any("no labels" in note for note in result.notes)
    assert not (tmp_path / "out" / "masks").exists()
    assert read_image(tmp_path / "out" / "crops" / "fake1_1.png").shape == (64, 64, 3)


def test_boxes_from_a_file_are_cut_out(kept: Path, tmp_path: Path, pairs: List[Pair]) -> None:
    boxes = tmp_path / "boxes.jsonl"
    line = {"box": [40, 40, 100, 100]}
    boxes.write_text("\n".join(json.dumps({"frame": n, **line}) for n in range(FRAMES)))
    faces = FaceOptions(Kind.BOXES, boxes=boxes, limits=Limits(least_sharpness=0))
    options = CropOptions(frames=1, faces=faces, margin=0.1, keep_unchanged=True)
    result = make(kept, tmp_path / "out", options)
    assert result.crops == 6
    frame = (chosen(FRAMES, 1, 1) or [0])[0]
    crop = read_image(tmp_path / "out" / "crops" / "fake0_0.png")
    assert crop.shape == (72, 72, 3)
    truth = pairs[0].fake[frame][34:106, 34:106]
    assert np.abs(crop.astype(int) - truth).mean() < 8
    mask = read_mask(tmp_path / "out" / "masks" / "fake0_0.gif").astype(bool)
    assert mask.shape == (72, 72)
    assert overlap(mask, pairs[0].masks[frame][34:106, 34:106]) > 0.7


def test_faces_in_a_wide_picture_are_found_and_cut_out(tmp_path: Path) -> None:
    pair = make_pair("test", 3, 0, 3, 224)
    rng = np.random.RandomState(0)
    wall = cv2.GaussianBlur(rng.randint(60, 200, (360, 640, 3)).astype(np.uint8), (0, 0), 9)
    wide = {}
    for name, pictures in (("real", pair.original), ("fake", pair.fake)):
        frames = [wall.copy() for _ in pictures]
        for frame, picture in zip(frames, pictures):
            frame[80:304, 200:424] = picture
        wide[name] = write(tmp_path / f"{name}.mp4", frames)
    cutting = cut_video(wide["fake"], "fake.mp4", OFTEN, True, wide["real"])
    assert cutting.faces.startswith("cascade, ")
    assert len(cutting.crops) == 3
    for crop in cutting.crops:
        x, y, side = crop.about["square"]
        assert crop.picture.shape == (side, side, 3)
        truth = np.zeros((360, 640), bool)
        truth[80:304, 200:424] = pair.masks[crop.about["frame"]]
        assert crop.mask is not None
        assert overlap(crop.mask, truth[y : y + side, x : x + side]) > 0.8


def spoil(videos: Path) -> Dict[str, str]:
    """Spoils all pairs but the first; gives a part of the reason of each."""
    metadata = json.loads((videos / "metadata.json").read_text())
    (videos / "real1.mp4").write_bytes(b"")
    whole = (videos / "fake2.mp4").read_bytes()
    (videos / "fake2.mp4").write_bytes(whole[: len(whole) // 2])
    for name, changes in (
        ("lost", {"label": "FAKE", "original": "elsewhere.mp4"}),
        ("loose", {"label": "FAKE"}),
        ("odd", {"label": "PERHAPS"}),
    ):
        shutil.copy(str(videos / "fake0.mp4"), str(videos / f"{name}.mp4"))
        metadata[f"{name}.mp4"] = changes
    shutil.copy(str(videos / "real0.mp4"), str(videos / "unknown.mp4"))
    shutil.copy(str(videos / "real0.mp4"), str(videos / "same.mp4"))
    metadata["same.mp4"] = {"label": "FAKE", "original": "real0.mp4"}
    (videos / "twice").mkdir()
    shutil.copy(str(videos / "real0.mp4"), str(videos / "twice" / "real0.mp4"))
    (videos / "metadata.json").write_text(json.dumps(metadata))
    return {
        "real1.mp4": "an empty file",
        "fake1.mp4": "an empty file",
        "fake2.mp4": "",
        "lost.mp4": "its original elsewhere is not among the videos",
        "loose.mp4": "names no original",
        "odd.mp4": "'PERHAPS'",
        "unknown.mp4": "not in metadata.json",
        "same.mp4": "3 times nothing differs from the original",
        "twice/real0.mp4": "has the same name",
    }


def test_bad_videos_are_listed_and_the_others_done(videos: Path, tmp_path: Path) -> None:
    expected = spoil(videos)
    said: List[str] = []
    result = make(videos, tmp_path / "out", jobs=3, say=said.append)
    assert set(result.skipped) == {f"{videos}/{name}" for name in expected}
    for name, reason in expected.items():
        assert reason in result.skipped[f"{videos}/{name}"]
    assert result.done == 3  # both of the first pair, and the original whose fake is damaged
    labels = json.loads((tmp_path / "out" / "metadata.json").read_text())
    assert set(labels) == {"real0.mp4", "fake0.mp4", "real2.mp4"}
    assert json.loads((tmp_path / "out" / "data.json").read_text())["skipped"] == result.skipped
    assert sum("is left out" in line for line in said) == len(expected)
    assert read_dataset(tmp_path / "out").problems == []


def test_links_to_nowhere_and_odd_names(kept: Path, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    shutil.copy(str(kept / "real0.mp4"), str(folder / "na\udcefve.mp4"))
    (folder / "gone.mp4").symlink_to("/nowhere/at/all.mp4")
    result = make(folder, tmp_path / "out", CropOptions(masks=False, frames=1))
    assert list(result.skipped) == [f"{folder}/gone.mp4"]
    assert (tmp_path / "out" / "crops" / "na\udcefve_0.png").is_file()
    again = make(folder, tmp_path / "out", CropOptions(masks=False, frames=1))
    assert again.resumed == 1


def test_an_interrupted_run_goes_on(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(kept, tmp_path / "whole")
    target = tmp_path / "out"

    def stop(done: int, total: int) -> None:
        assert total == 6
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(kept, target, advance=stop)
    assert not (target / "metadata.json").exists()
    journal = target / "videos.jsonl"
    journal.write_text(journal.read_text() + '{"video": "cut o')  # killed while it wrote
    (target / "masks" / "fake0_1.gif").unlink()
    calls: List[str] = []

    def counted(path: Path, name: str, *rest: Any) -> Any:
        calls.append(name)
        return cut_video(path, name, *rest)

    monkeypatch.setattr(extraction, "cut_video", counted)
    result = make(kept, target)
    assert sorted(calls) == ["fake0.mp4", "real1.mp4", "real2.mp4"]
    assert (result.resumed, result.done) == (3, 6)
    assert contents(target) == contents(tmp_path / "whole")
    calls.clear()
    assert make(kept, target).resumed == 6
    assert calls == []


def test_a_video_that_changed_is_done_again(
    videos: Path, tmp_path: Path, pairs: List[Pair]
) -> None:
    target = tmp_path / "out"
    make(videos, target)
    before = contents(target)
    write(videos / "fake0.mp4", pairs[0].fake[:2])
    result = make(videos, target)
    assert result.resumed == 5
    after = contents(target)
    assert set(before) - set(after) == {"crops/fake0_2.png", "masks/fake0_2.gif"}
    assert after["crops/real0_0.png"] == before["crops/real0_0.png"]


def test_other_settings_need_another_folder(kept: Path, tmp_path: Path) -> None:
    make(kept, tmp_path / "out")
    with pytest.raises(UsageError, match="other settings") as caught:
        make(kept, tmp_path / "out", CropOptions(frames=2))
    assert "frames was 3, now 2" in caught.value.evidence
    (tmp_path / "foreign" / "crops").mkdir(parents=True)
    with pytest.raises(UsageError, match="other crops"):
        make(kept, tmp_path / "foreign")


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_tar_in_and_tar_out_hold_the_same(kept: Path, tmp_path: Path, suffix: str) -> None:
    archive = tmp_path / f"videos.{suffix}"
    with tarfile.open(str(archive), f"w:{suffix[4:]}") as tar:
        tar.add(str(kept), arcname="set")
    make(kept, tmp_path / "plain")
    target = tmp_path / f"out.{suffix}"
    killed = tmp_path / f".out.{suffix}.work" / "crops"
    killed.mkdir(parents=True)
    (killed.parent / "videos.jsonl").write_text("")
    (killed / ".fake0_0.123.part.png").write_bytes(b"half")
    result = make(archive, target, jobs=2)
    assert result.done == 6
    with tarfile.open(str(target)) as tar:
        members = {m.name: tar.extractfile(m) for m in tar.getmembers()}
        packed = {name: file.read() for name, file in members.items() if file is not None}
    plain = contents(tmp_path / "plain")
    assert {n: c for n, c in packed.items() if n in plain} == plain
    assert {"metadata.json", "videos.jsonl", "data.json"} == set(packed) - set(plain)
    assert [path.name for path in tmp_path.glob(".*")] == []  # nothing temporary is left
    again = tmp_path / "again" / target.name
    make(archive, again)
    with tarfile.open(str(again)) as tar:
        assert [m.mtime for m in tar.getmembers()] == [0] * len(packed)
    with pytest.raises(UsageError, match="is there already"):
        make(archive, target)


def test_a_damaged_tar_gives_what_is_whole(kept: Path, tmp_path: Path) -> None:
    archive = tmp_path / "videos.tar"
    with tarfile.open(str(archive), "w") as tar:
        for name in ("metadata.json", "real0.mp4", "fake0.mp4", "real1.mp4"):
            tar.add(str(kept / name), arcname=name)
        link = tarfile.TarInfo("../outside.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        up = tarfile.TarInfo("../../real2.mp4")
        data = (kept / "real2.mp4").read_bytes()
        up.size = len(data)
        tar.addfile(up, io.BytesIO(data))
    whole = archive.read_bytes()
    cut = whole.rindex(data) + len(data) // 2
    archive.write_bytes(whole[:cut])
    result = make(archive, tmp_path / "out")
    assert result.done == 3
    assert any("real2.mp4 is cut off" in note for note in result.notes)
    assert any("1 links were not followed" in note for note in result.notes)
    (tmp_path / "no.tar").write_bytes(b"no tar at all")
    with pytest.raises(FormatError, match="neither a folder nor a tar"):
        open_shelf(str(tmp_path / "no.tar"))
    with pytest.raises(MissingError):
        open_shelf(str(tmp_path / "absent"))


def test_a_source_without_videos_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no videos"):
        make(tmp_path / "empty", tmp_path / "out")


def test_a_planted_offset_is_found() -> None:
    rng = np.random.RandomState(5)
    series = np.cumsum(rng.normal(0, 5, (100, 8, 8)), axis=0)
    for offset in (-SEARCH, -3, 0, 1, 7, SEARCH):
        start = max(0, -offset)
        theirs = series[start:90]
        ours = series[start + offset : start + offset + 48]
        assert best_offset(ours, theirs)[0] == offset
    still = rng.normal(0, 0.5, (2, 40, 64, 64))
    assert best_offset(still[0], still[1]) == (0, 1.0)
    assert best_offset(series[5:8], series) == (0, 1.0)  # too few to tell


@pytest.mark.parametrize("begin", [0, 3])
def test_a_fake_that_begins_later_is_aligned(
    tmp_path: Path, pairs: List[Pair], begin: int
) -> None:  # fmt: skip
    pair = pairs[0]
    original = write(tmp_path / "real.mp4", pair.original)
    fake = write(tmp_path / "fake.mp4", pair.fake[begin : begin + FRAMES])
    how = align(open_video(str(fake)), open_video(str(original)))
    assert how.offset == begin
    assert f"{FRAMES} and {FRAMES + 4} frames" in how.reason
    cutting = cut_video(fake, "fake.mp4", OFTEN, True, original)
    assert [crop.about["original_frame"] for crop in cutting.crops] == list(
        range(begin, begin + FRAMES)
    )
    scores = [
        overlap(crop.mask, pair.masks[begin + n])
        for n, crop in enumerate(cutting.crops)
        if crop.mask is not None
    ]
    assert len(scores) == FRAMES
    assert np.mean(scores) > 0.8


def test_what_was_chosen_for_single_videos_is_said(
    videos: Path, tmp_path: Path, pairs: List[Pair]
) -> None:
    write(videos / "fake0.mp4", pairs[0].fake[1:5])
    write(videos / "fake1.mp4", pairs[1].fake[:5])
    said: List[str] = []
    result = make(videos, tmp_path / "out", say=said.append)
    assert any(f"{videos}/fake0.mp4: 4 and 6 frames: offset 1" in line for line in said)
    assert any("5 and 6 frames: no other offset is better" in line for line in said)
    assert len([note for note in result.notes if "fake0.mp4: 4 and 6 frames" in note]) == 1


def test_what_many_videos_have_to_say_is_said_once(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noted(path: Path, name: str, *rest: Any) -> Any:
        cutting = cut_video(path, name, *rest)
        cutting.notes = ["all say this"] + [f"{name} says this"] * (name == "fake1.mp4")
        return cutting

    monkeypatch.setattr(extraction, "cut_video", noted)
    result = make(kept, tmp_path / "out")
    said = ["6 videos: all say this", f"{kept}/fake1.mp4: fake1.mp4 says this"]
    assert result.notes == said
    monkeypatch.setattr(extraction, "MOST_NOTES", 1)
    assert make(kept, tmp_path / "out").notes == [said[0], "1 more notes are in videos.jsonl"]


def test_equal_counts_are_no_proof(tmp_path: Path) -> None:
    rng = np.random.RandomState(9)
    noise = [
        cv2.GaussianBlur(rng.randint(0, 256, (96, 96, 3)).astype(np.uint8), (0, 0), 3)
        for _ in range(12)
    ]
    noise = [cv2.normalize(n, None, 0, 255, cv2.NORM_MINMAX) for n in noise]
    fakes = [picture.copy() for picture in noise]
    for picture in fakes:
        picture[30:60, 30:60] = 255 - picture[30:60, 30:60]
    original = write(tmp_path / "real.mp4", noise[:10])
    fake = write(tmp_path / "fake.mp4", fakes[2:])
    cutting = cut_video(fake, "fake.mp4", OFTEN, True, original)
    assert [crop.about["original_frame"] for crop in cutting.crops] == list(range(2, 10))
    assert any("frames do not match: offset 2" in note for note in cutting.notes)
    other = write(tmp_path / "other.mp4", [255 - noise[0]] * 10)
    with pytest.raises(DataError) as caught:
        cut_video(fake, "fake.mp4", OFTEN, True, other)
    assert "10 times the original shows another moment" in caught.value.evidence


def test_other_rates_go_by_time(tmp_path: Path) -> None:
    original = write_clip(tmp_path / "real.mp4", 24, rate=Fraction(30))
    fake = write_clip(
        tmp_path / "fake.mp4",
        12,
        rate=Fraction(15),
        pictures=[np.full((64, 64, 3), level(2 * n), np.uint8) for n in range(12)],
    )
    how = align(open_video(str(fake)), open_video(str(original)))
    assert how.by_time
    assert "15 and 30" in how.reason
    options = CropOptions(frames=None, keep_unchanged=True)
    cutting = cut_video(fake, "fake.mp4", options, True, original)
    assert [crop.about["original_frame"] for crop in cutting.crops] == list(range(0, 24, 2))


def test_frames_are_taken_by_number_and_by_time(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 12, rate=Fraction(20))
    source = open_video(str(clip))
    assert [frame.index for frame in frames_at(source, [1, 5, 40])] == [1, 5]
    assert [frame.index for frame in frames_at(source, None, 5, 2)] == [0, 5]
    near = frames_near(source, [0.0, 0.06, 0.13, 9.0])
    assert [frame.index for frame in near] == [0, 1, 3, 11]


def test_an_original_of_another_size_is_fitted(tmp_path: Path, pairs: List[Pair]) -> None:
    pair = pairs[1]
    larger = [
        cv2.resize(one, (2 * SIZE, 2 * SIZE), interpolation=cv2.INTER_CUBIC)
        for one in pair.original[:FRAMES]
    ]
    original = write(tmp_path / "real.mp4", larger)
    fake = write(tmp_path / "fake.mp4", pair.fake[:FRAMES])
    cutting = cut_video(fake, "fake.mp4", OPTIONS, True, original)
    assert f"the original is {2 * SIZE}x{2 * SIZE}, resized to {SIZE}x{SIZE}" in cutting.notes
    scores = [
        overlap(c.mask, pair.masks[c.about["frame"]]) for c in cutting.crops if c.mask is not None
    ]
    assert np.mean(scores) > 0.7


def test_a_journal_keeps_lines_that_json_lines_allow(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, {"a": 1}) as journal:
        journal.add({"video": "b\udcff", "n": 1})
        journal.add({"video": "a", "n": 2})
        journal.add({"video": "a", "n": 3})
    assert Journal(path, {"a": 1}).done["a"] == {"video": "a", "n": 3}
    assert [json.loads(line).get("video") for line in path.read_text().splitlines()] == [
        None,
        "a",
        "b\udcff",
    ]
    with pytest.raises(UsageError):
        Journal(path, {"a": 2})


@needs_av
def test_pairs_are_written_as_dfdc_has_them(tmp_path: Path) -> None:
    metadata = make_pairs(tmp_path / "pairs", 2, 4, seed=1, size=96)
    assert [entry["label"] for entry in metadata.values()] == ["REAL", "FAKE"] * 2
    assert metadata["train000003.mp4"]["original"] == "train000002.mp4"
    result = make(tmp_path / "pairs", tmp_path / "out", CropOptions(frames=2))
    assert result.skipped == {}
    with np.load(str(tmp_path / "pairs" / "truth.npz")) as truth:
        masks = truth["train000001.mp4"]
    mask = read_mask(tmp_path / "out" / "masks" / "train000001_0.gif").astype(bool)
    assert overlap(mask, masks[1]) > 0.75
