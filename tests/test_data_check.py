"""Faults planted in a sound data set: each is found, and nothing else."""

from __future__ import annotations

import json
import shutil
import tarfile
from fractions import Fraction
from pathlib import Path
from typing import Any, Callable, Dict, List, Set, Tuple

import cv2
import numpy as np
import pytest

from deepfake_fpga.errors import DataError, UsageError
from deepfake_fpga.inference.corpus import checking
from deepfake_fpga.inference.corpus.checking import CheckOptions, check
from deepfake_fpga.inference.corpus.faults import Examination, Fault, Kind
from deepfake_fpga.inference.corpus.probing import cut_off, looks, probe

from .clips import spoil_frame, write_clip
from .faces import face, gif_bytes, write_image
from .needs import needs_av

SIZE = 48


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two parts of three pairs each, two crops of each video."""
    root = tmp_path_factory.mktemp("sound") / "set"
    for offset, part in ((0, "train"), (10, "test")):
        metadata: Dict[str, Any] = {}
        for number in range(offset, offset + 3):
            metadata[f"r{number}.mp4"] = {"label": "REAL", "identity": f"p{number}"}
            metadata[f"f{number}.mp4"] = {"label": "FAKE", "original": f"r{number}.mp4"}
            for crop in range(2):
                for letter in "rf":
                    seed = 1000 * number + 10 * crop + ord(letter)
                    image, mask = face(seed, SIZE, letter == "f")
                    name = f"{letter}{number}_{crop}"
                    write_image(root / part / "crops" / f"{name}.png", image)
                    (root / part / "masks").mkdir(exist_ok=True)
                    (root / part / "masks" / f"{name}.gif").write_bytes(gif_bytes(mask))
        (root / part / "metadata.json").write_text(json.dumps(metadata))
    return root


@pytest.fixture
def data(tmp_path: Path, kept: Path) -> Path:
    return Path(shutil.copytree(str(kept), str(tmp_path / "set")))


def examine(*sources: Path, **options: Any) -> Examination:
    return check([str(source) for source in sources], CheckOptions(**options), 2)


def kinds(found: Examination) -> Set[Kind]:
    return {fault.kind for fault in found.faults}


def rewrite(part: Path, change: Callable[[Dict[str, Any]], None]) -> None:
    path = part / "metadata.json"
    metadata = json.loads(path.read_text())
    change(metadata)
    path.write_text(json.dumps(metadata))


def test_a_sound_set_gives_nothing(data: Path) -> None:
    found = examine(data)
    assert found.faults == []
    assert found.sound
    assert found.files == 24
    assert found.parts == {part: {"REAL": 6, "FAKE": 6} for part in ("test", "train")}
    assert found.by == "folder: the folders have such names"


def same_original(data: Path) -> None:
    rewrite(data / "test", lambda m: m["f10.mp4"].update(original="r1.mp4"))


def same_person(data: Path) -> None:
    rewrite(data / "test", lambda m: m["r11.mp4"].update(identity="p2"))


def same_person_in_steps(data: Path) -> None:
    """A video without files ties r0 and r12: made of the one, showing the person of the other."""
    entry = {"label": "FAKE", "original": "r0.mp4", "identity": "p12"}
    rewrite(data / "train", lambda m: m.update({"gone.mp4": entry}))


def same_video(data: Path) -> None:
    for suffix in ("crops/r0_0.png", "masks/r0_0.gif"):
        shutil.copy(str(data / "train" / suffix), str(data / "test" / suffix))
    pixel = cv2.imread(str(data / "test/crops/r0_0.png"))
    cv2.imwrite(str(data / "test/crops/r0_0.png"), cv2.flip(pixel, 1))
    rewrite(data / "test", lambda m: m.update({"r0.mp4": {"label": "REAL"}}))


def same_file(data: Path) -> None:
    shutil.copy(str(data / "train/crops/r2_1.png"), str(data / "test/crops/r10_1.png"))


def alike(data: Path) -> None:
    image = cv2.imread(str(data / "train/crops/r2_1.png"))
    bright = np.clip(image.astype(float) * 1.1 + 6, 0, 255).astype(np.uint8)
    cv2.imwrite(str(data / "test/crops/r10_1.png"), bright)


def duplicate(data: Path) -> None:
    shutil.copy(str(data / "train/crops/r1_0.png"), str(data / "train/crops/r2_0.png"))


def truncated(data: Path) -> None:
    path = data / "train/crops/r1_1.png"
    path.write_bytes(path.read_bytes()[:-300])


def truncated_jpeg(data: Path) -> None:
    path = data / "train/crops/r1_1.png"
    image = cv2.imread(str(path))
    path.unlink()
    coded = cv2.imencode(".jpg", image)[1].tobytes()
    path.with_suffix(".jpg").write_bytes(coded[: len(coded) // 2])


def empty(data: Path) -> None:
    (data / "train/crops/f1_1.png").write_bytes(b"")


def no_picture(data: Path) -> None:
    (data / "train/crops/f1_1.png").write_text("<html>404</html>")


def no_mask(data: Path) -> None:
    (data / "train/masks/f1_1.gif").unlink()


def mask_of_another_size(data: Path) -> None:
    mask = np.zeros((SIZE // 2, SIZE), int)
    mask[:9, :9] = 1
    (data / "train/masks/f1_1.gif").write_bytes(gif_bytes(mask))


def soft_mask(data: Path) -> None:
    path = data / "train/masks/f1_1"
    ramp = np.tile(np.linspace(0, 255, SIZE).astype(np.uint8), (SIZE, 1))
    cv2.imwrite(f"{path}.png", ramp)
    path.with_suffix(".gif").unlink()


def damaged_mask(data: Path) -> None:
    path = data / "train/masks/f1_1.gif"
    path.write_bytes(path.read_bytes()[:-20])


def empty_mask(data: Path) -> None:
    mask = np.zeros((SIZE, SIZE), int)
    (data / "train/masks/f1_1.gif").write_bytes(gif_bytes(mask))


def marked_real(data: Path) -> None:
    mask = np.ones((SIZE, SIZE), int)
    (data / "train/masks/r1_1.gif").write_bytes(gif_bytes(mask))


def stray_mask(data: Path) -> None:
    shutil.copy(str(data / "train/masks/r1_1.gif"), str(data / "train/masks/r1_7.gif"))


def unlisted(data: Path) -> None:
    shutil.move(str(data / "test/crops/r10_0.png"), str(data / "test/crops/new_0.png"))
    shutil.move(str(data / "test/masks/r10_0.gif"), str(data / "test/masks/new_0.gif"))


def odd_label(data: Path) -> None:
    rewrite(data / "test", lambda m: m["r10.mp4"].update(label="genuine"))


def two_words(data: Path) -> None:
    """What train says of its own fake, test says otherwise."""
    entry = {"label": "REAL"}
    rewrite(data / "test", lambda m: m.update({"f1.mp4": entry}))


def without_file(data: Path) -> None:
    rewrite(data / "test", lambda m: m.update({"r13.mp4": {"label": "REAL"}}))


def unlinked(data: Path) -> None:
    rewrite(data / "test", lambda m: m["f11.mp4"].pop("original"))


def odd_name(data: Path) -> None:
    shutil.move(str(data / "test/crops/r10_0.png"), str(data / "test/crops/r10_left.png"))
    shutil.move(str(data / "test/masks/r10_0.gif"), str(data / "test/masks/r10_left.gif"))


def few_real(data: Path) -> None:
    for path in [*(data / "test").glob("*/r1[0-2]_*")]:
        path.unlink()


def no_metadata(data: Path) -> None:
    for path in data.glob("*/metadata.json"):
        path.unlink()


def broken_metadata(data: Path) -> None:
    (data / "test" / "metadata.json").write_text("{")


def link_to_nowhere(data: Path) -> None:
    path = data / "train/crops/r1_0.png"
    path.unlink()
    path.symlink_to("/nowhere/at/all.png")


K = Kind
PLANTED: List[Tuple[Callable[[Path], None], Dict[Kind, str]]] = [
    (same_original, {K.LEAK_ORIGINAL: "r1"}),
    (same_person, {K.LEAK_IDENTITY: "p2"}),
    (same_person_in_steps, {K.LEAK_IDENTITY: "p0, p12, r0, r12", K.NO_FILE: "gone.mp4"}),
    (same_video, {K.LEAK_VIDEO: "r0"}),
    (same_file, {K.LEAK_FILE: "train/crops/r2_1.png"}),
    (alike, {K.LEAK_PICTURE: "train/crops/r2_1.png"}),
    (duplicate, {K.DUPLICATE: "train/crops/r2_0.png"}),
    (truncated, {K.TRUNCATED: "train/crops/r1_1.png"}),
    (truncated_jpeg, {K.TRUNCATED: "train/crops/r1_1.jpg"}),
    (empty, {K.UNREADABLE: "train/crops/f1_1.png"}),
    (no_picture, {K.UNREADABLE: "train/crops/f1_1.png"}),
    (link_to_nowhere, {K.UNREADABLE: "train/crops/r1_0.png"}),
    (no_mask, {K.MASK_MISSING: "train/crops/f1_1.png"}),
    (mask_of_another_size, {K.MASK_SIZE: "train/masks/f1_1.gif"}),
    (soft_mask, {K.MASK_VALUES: "train/masks/f1_1.png"}),
    (damaged_mask, {K.MASK_UNREADABLE: "train/masks/f1_1.gif"}),
    (empty_mask, {K.MASK_EMPTY: "train/masks/f1_1.gif"}),
    (marked_real, {K.MASK_OF_REAL: "train/masks/r1_1.gif"}),
    (stray_mask, {K.STRAY_MASK: "train/masks/r1_7.gif"}),
    (unlisted, {K.NOT_IN_METADATA: "test/crops/new_0.png"}),
    (odd_label, {K.LABEL: "r10.mp4"}),
    (two_words, {K.CONFLICT: "f1.mp4"}),
    (without_file, {K.NO_FILE: "r13.mp4"}),
    (unlinked, {K.NO_ORIGINAL: "f11.mp4"}),
    (odd_name, {K.NAME: "test/crops/r10_left.png"}),
    (few_real, {K.IMBALANCE: "test", K.NO_FILE: "r10.mp4"}),
    (no_metadata, {K.NO_METADATA: "test"}),
]


@pytest.mark.parametrize(("plant", "expected"), PLANTED, ids=lambda v: getattr(v, "__name__", ""))
def test_a_planted_fault_is_found_and_nothing_else(
    data: Path, plant: Callable[[Path], None], expected: Dict[Kind, str]
) -> None:
    plant(data)
    found = examine(data)
    assert kinds(found) == set(expected)
    for kind, where in expected.items():
        first = found.of(kind)[0].where
        assert first == where or first == f"{data}/{where}"
    assert found.sound == (not any(kind.value.must for kind in expected))
    record = json.loads(json.dumps(found.to_json()))
    assert {one["what"] for one in record["faults"].values()} == {k.value.text for k in expected}
    assert all(one["fix"] for one in record["faults"].values())


def test_metadata_that_cannot_be_read_is_a_fault_not_an_end(data: Path) -> None:
    broken_metadata(data)
    found = examine(data)
    assert Kind.BAD_METADATA in kinds(found)


def test_the_fixes_mend_it(data: Path, tmp_path: Path) -> None:
    import subprocess

    for plant in (same_file, truncated, marked_real, stray_mask, odd_name):
        plant(data)
    found = examine(data)
    assert not found.sound
    script = tmp_path / "mend.sh"
    script.write_text(found.script())
    subprocess.run(["sh", "-e", str(script)], check=True)
    assert {fault.kind for fault in examine(data).faults} <= {Kind.STRAY_MASK}


def test_parts_are_told_by_sources_and_by_metadata(data: Path, tmp_path: Path) -> None:
    same_person(data)
    named = check([f"a={data / 'train'}", f"b={data / 'test'}"], CheckOptions())
    assert set(named.parts) == {"a", "b"}
    assert kinds(named) == {Kind.LEAK_IDENTITY}
    assert "a: r2.mp4; b: r11.mp4" in named.faults[0].detail
    assert kinds(examine(data, by="none")) == set()
    merged = tmp_path / "merged"
    metadata: Dict[str, Any] = {}
    for part in ("train", "test"):
        for path in (data / part).glob("*/*.*"):
            target = merged / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(path), str(target))
        for name, entry in json.loads((data / part / "metadata.json").read_text()).items():
            metadata[name] = dict(entry, split=part)
    (merged / "metadata.json").write_text(json.dumps(metadata))
    found = examine(merged)
    assert found.by == "metadata: split in metadata.json has several values"
    assert kinds(found) == {Kind.LEAK_IDENTITY}
    people = {"r0": ["dora"], "r10": ["dora"]}
    told = check([str(merged)], CheckOptions(), identities=people)
    assert {fault.where for fault in told.of(Kind.LEAK_IDENTITY)} == {"p2", "dora"}
    with pytest.raises(UsageError):
        CheckOptions(by="moon")


def test_a_tar_is_checked_as_it_is(data: Path, tmp_path: Path) -> None:
    truncated(data)
    archive = tmp_path / "set.tar"
    with tarfile.open(str(archive), "w") as tar:
        tar.add(str(data), arcname=".")
    found = examine(archive)
    assert kinds(found) == {Kind.TRUNCATED}
    assert found.files == 24
    assert found.faults[0].command == ""  # nothing can be removed from a tar
    whole = archive.read_bytes()
    # In a file, in a header, and where only the end mark is missing.
    for length in (len(whole) // 2, len(whole) // 2 // 512 * 512, len(whole.rstrip(b"\0")) + 600):
        archive.write_bytes(whole[:length])
        damaged = examine(archive)
        assert {Kind.PLACE, Kind.TRUNCATED} <= kinds(damaged)
        assert str(archive) in {fault.where for fault in damaged.of(Kind.TRUNCATED)}


def test_what_was_seen_is_kept(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = tmp_path / "seen.jsonl"
    truncated(data)
    first = check([str(data)], CheckOptions(), 1, journal)
    looked: List[str] = []

    def counted(entry: Any, *rest: Any) -> Any:
        looked.append(entry.place.base)
        return probe(entry, *rest)

    monkeypatch.setattr(checking, "probe", counted)
    second = check([str(data)], CheckOptions(), 1, journal)
    assert (looked, second.resumed) == ([], 24)
    assert second.faults == first.faults
    no_picture(data)
    third = check([str(data)], CheckOptions(), 1, journal)
    assert looked == ["f1_1.png"]
    assert kinds(third) == {Kind.TRUNCATED, Kind.UNREADABLE}


def test_pictures_without_features_are_not_compared() -> None:
    assert looks(np.full((64, 64, 3), 90, np.uint8)) is None
    assert looks(face(1, 10, False)[0]) is None
    assert looks(face(1, 64, False)[0]) is not None


def write_videos(folder: Path) -> Path:
    folder.mkdir()
    rng = np.random.RandomState(4)
    metadata = {}
    for number, name in enumerate(("r0", "f0", "r1", "f1")):
        start = face(number, 64, False)[0].astype(int)
        frames = [np.clip(start + rng.randint(-9, 9), 0, 255).astype(np.uint8) for _ in range(8)]
        write_clip(folder / f"{name}.mp4", 8, pictures=frames, rate=Fraction(10))
        label = "REAL" if name[0] == "r" else "FAKE"
        metadata[f"{name}.mp4"] = {"label": label, "identity": f"p{name[1]}"}
    (folder / "metadata.json").write_text(json.dumps(metadata))
    return folder


def test_videos_are_looked_at(tmp_path: Path) -> None:
    folder = write_videos(tmp_path / "videos")
    assert examine(folder).faults == []
    assert examine(folder, deep=True).faults == []
    data = (folder / "f1.mp4").read_bytes()
    (folder / "f1.mp4").write_bytes(data[:-40])
    (folder / "r1.mp4").write_bytes(b"\0" * 4096)
    shutil.copy(str(folder / "r0.mp4"), str(folder / "f0.mp4"))
    found = examine(folder)
    faults = {Path(fault.where).name: fault.kind for fault in found.faults}
    assert faults["r1.mp4"] is Kind.UNREADABLE
    assert faults["r0.mp4"] is Kind.DUPLICATE  # the later name
    assert faults["f1.mp4"] in (Kind.TRUNCATED, Kind.UNREADABLE)
    assert len(faults) == 3


@needs_av
def test_every_frame_is_decoded_if_asked(tmp_path: Path) -> None:
    folder = write_videos(tmp_path / "videos")
    spoil_frame(folder / "f1.mp4", 5)
    assert examine(folder).faults == []
    found = examine(folder, deep=True)
    assert kinds(found) == {Kind.UNREADABLE}
    assert "of 8 frames cannot be decoded" in found.faults[0].detail


def test_the_end_of_a_file_is_looked_for(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 4)
    assert cut_off(clip) == ""
    whole = clip.read_bytes()
    clip.write_bytes(whole[:-7])
    assert cut_off(clip) == "7 bytes are missing"
    clip.write_bytes(whole + b"\0\0\0\0junk")
    assert cut_off(clip) == ""  # a box of size 0 reaches to the end
    avi = tmp_path / "clip.avi"
    avi.write_bytes(b"RIFF" + (100).to_bytes(4, "little") + b"AVI " + bytes(60))
    assert cut_off(avi) == "36 of 108 bytes are missing"
    other = tmp_path / "clip.mkv"
    other.write_bytes(b"\x1aE\xdf\xa3" + bytes(60))
    assert cut_off(other) == ""


def test_nothing_to_look_at_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no crops and no videos"):
        examine(tmp_path / "empty")


def test_a_script_names_each_command_once() -> None:
    faults = [Fault(Kind.UNREADABLE, "a", "", "rm a"), Fault(Kind.DUPLICATE, "a", "", "rm a")]
    script = Examination(["x"], {}, "none", 1, faults).script()
    assert script.count("rm a") == 1
