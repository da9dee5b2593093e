"""Splits by the faces in a data set: no shared face, balance, proof, links, tars."""

from __future__ import annotations

import hashlib
import json
import random
import tarfile
from pathlib import Path
from typing import Any, Dict, List, Set, Tuple

import numpy as np
import pytest

from deepfake_fpga.errors import DataError, FormatError, UsageError, WorkError
from deepfake_fpga.inference.corpus import splitting
from deepfake_fpga.inference.corpus.division import Part, divide, shares
from deepfake_fpga.inference.corpus.layout import take_inventory, video_of
from deepfake_fpga.inference.corpus.links import groups
from deepfake_fpga.inference.corpus.metadata import Metadata, Video, read_identities
from deepfake_fpga.inference.corpus.shelf import open_shelf
from deepfake_fpga.inference.corpus.splitting import (
    Split,
    SplitOptions,
    plan_split,
    write_split,
)
from deepfake_fpga.quantize.dataset import read_dataset

from .faces import face, gif_bytes, write_image

Records = Dict[str, Dict[str, Any]]


def dfdc(originals: int, seed: int = 0, people: int = 0) -> Records:
    """Originals with one to nine fakes each; every second original names its person."""
    rng = random.Random(seed)
    records: Records = {}
    for number in range(originals):
        name = f"r{number:03d}.mp4"
        records[name] = {"label": "REAL", "original": None}
        if people and number % 2 == 0:
            records[name]["identity"] = f"p{rng.randrange(people)}"
        for fake in range(rng.randint(1, 9)):
            records[f"f{number:03d}x{fake}.mp4"] = {"label": "FAKE", "original": name}
    return records


def write_crops(folder: Path, records: Records, crops: int = 1) -> Path:
    """Crops of one grey each: files small, no two alike."""
    for seed, (name, record) in enumerate(records.items()):
        for crop in range(crops):
            image = np.full((4, 4, 3), 1 + seed % 250, np.uint8)
            image[0, 0] = crop, seed // 250, 7
            stem = f"{name[:-4]}_{crop}"
            write_image(folder / "crops" / f"{stem}.png", image)
            if record["label"] == "FAKE":
                (folder / "masks").mkdir(exist_ok=True)
                (folder / "masks" / f"{stem}.gif").write_bytes(gif_bytes(np.ones((4, 4), int)))
    (folder / "metadata.json").write_text(json.dumps(records))
    return folder


def plan(folder: Path, options: SplitOptions = SplitOptions(), **people: List[str]) -> Split:  # noqa: B008
    inventory = take_inventory([open_shelf(str(folder))])
    inventory.metadata.identify(people)
    return plan_split(inventory, [str(folder)], options)


def reached(records: Records) -> List[Set[str]]:
    """The components by walking from video to video, without the code under test."""
    ties: Dict[str, Set[str]] = {}
    for name, record in records.items():
        nodes = [record.get("original"), record.get("identity")]
        for node in filter(None, nodes):
            ties.setdefault(name, set()).add(node)
            ties.setdefault(node, set()).add(name)
    left, found = set(records), []
    while left:
        start = left.pop()
        seen, todo = {start}, [start]
        while todo:
            for other in ties.get(todo.pop(), ()):
                if other not in seen:
                    seen.add(other)
                    todo.append(other)
        found.append(seen & set(records))
        left -= seen
    return found


@pytest.mark.parametrize("people", [0, 6])
def test_no_face_is_in_two_parts(tmp_path: Path, people: int) -> None:
    records = dfdc(40, people, people)
    split = plan(write_crops(tmp_path / "data", records))
    part_of = {v.name: part.name for part in split.parts for g in part.groups for v in g.videos}
    assert set(part_of) == set(records)
    components = reached(records)
    assert len(components) == sum(len(part.groups) for part in split.parts)
    for component in components:
        assert len({part_of[name] for name in component}) == 1


def test_parts_have_their_shares_of_files_and_of_labels(tmp_path: Path) -> None:
    records = dfdc(60, 3)
    split = plan(write_crops(tmp_path / "data", records))
    record = split.to_json()["parts"]
    fakes = sum(one["label"] == "FAKE" for one in records.values()) / len(records)
    for part in record.values():
        assert part["got"] == pytest.approx(part["wanted"], abs=0.01)
        assert part["labels"]["FAKE"]["files"] / part["files"] == pytest.approx(fakes, abs=0.05)


def test_the_same_seed_gives_the_same_split(tmp_path: Path) -> None:
    folder = write_crops(tmp_path / "data", dfdc(30))
    first = plan(folder, SplitOptions(seed=5)).to_json()
    assert plan(folder, SplitOptions(seed=5)).to_json() == first
    other = plan(folder, SplitOptions(seed=6)).to_json()
    assert other["parts"]["test"]["sha256"] != first["parts"]["test"]["sha256"]


def test_ties_of_several_steps_hold(tmp_path: Path) -> None:
    # a and c share nobody; b, of which there is no file, ties them.
    videos = [
        Video("a.mp4", "REAL", None, ("anna",)),
        Video("b.mp4", "FAKE", "c", ("anna",)),
        Video("c.mp4", "REAL"),
        Video("d.mp4", "REAL"),
    ]
    assert [[v.name for v in group.videos] for group in groups(videos)] == [
        ["a.mp4", "b.mp4", "c.mp4"],
        ["d.mp4"],
    ]
    records: Records = {v.name: {"label": v.label} for v in videos}
    records["a.mp4"]["identity"] = records["b.mp4"]["identity"] = "anna"
    records["b.mp4"]["original"] = "c.mp4"
    folder = write_crops(tmp_path / "data", records)
    for path in [*folder.glob("crops/b_*"), *folder.glob("masks/b_*")]:
        path.unlink()
    split = plan(folder, SplitOptions(shares("train=50,test=50")))
    part_of = {v.name: part.name for part in split.parts for g in part.groups for v in g.videos}
    assert part_of["a.mp4"] == part_of["c.mp4"] != part_of["d.mp4"]
    assert "b.mp4" not in part_of


def test_people_may_come_from_a_table(tmp_path: Path) -> None:
    table = tmp_path / "people.csv"
    table.write_text("video,identity\nr000.mp4,anna;berta\nr001.mp4,berta\nr002,anna\n")
    people = read_identities(table)
    assert people == {"r000": ["anna", "berta"], "r001": ["berta"], "r002": ["anna"]}
    folder = write_crops(tmp_path / "data", {f"r{n:03d}.mp4": {"label": "REAL"} for n in range(9)})
    split = plan(folder, SplitOptions(), **people)
    where = [p.name for p in split.parts for g in p.groups for v in g.videos if v.stem in people]
    assert len(set(where)) == 1
    table.write_text("name,person\na,b\n")
    with pytest.raises(FormatError, match="identities"):
        read_identities(table)


def test_fakes_of_nobody_known_are_left_out_or_kept_by_word(tmp_path: Path) -> None:
    records = dict(dfdc(20), **{"lost.mp4": {"label": "FAKE"}})
    folder = write_crops(tmp_path / "data", records)
    write_image(folder / "crops" / "unlisted_0.png", np.zeros((4, 4, 3), np.uint8))
    split = plan(folder)
    assert {Path(name).name for name in split.left_out} == {"lost_0.png", "unlisted_0.png"}
    assert not any("lost_0" in split.listing(part.name) for part in split.parts)
    kept = plan(folder, SplitOptions(keep_unlinked=True))
    assert [Path(name).name for name in kept.left_out] == ["unlisted_0.png"]
    assert any("nothing is proved" in line for line in kept.assumptions)


def test_a_folder_may_be_one_group(tmp_path: Path) -> None:
    shelves = []
    for number in range(4):
        records = {f"s{number}r{n}.mp4": {"label": "REAL"} for n in range(5)}
        shelves.append(open_shelf(str(write_crops(tmp_path / f"part_{number}", records))))
    inventory = take_inventory(shelves)
    options = SplitOptions(by_folder=True)
    split = plan_split(inventory, [shelf.text for shelf in shelves], options)
    for part in split.parts:
        for group in part.groups:
            assert len({video.stem[:2] for video in group.videos}) == 1
            assert len(group.videos) == 5


@pytest.mark.parametrize("how", ["auto", "link", "copy", "list"])
def test_what_is_written(tmp_path: Path, how: str) -> None:
    records = dfdc(12, 1)
    folder = write_crops(tmp_path / "data", records, 2)
    inventory = take_inventory([open_shelf(str(folder))])
    target = tmp_path / "out"
    split = plan_split(inventory, [str(folder)], SplitOptions(how=how))
    done = write_split(split, inventory, target, 2)
    record = json.loads((target / "split.json").read_text())
    assert record["how"]["way"] == {"auto": "link"}.get(how, how)
    assert done.to_json() == record
    listed: List[str] = []
    for name, part in record["parts"].items():
        text = (target / f"{name}.txt").read_bytes()
        assert hashlib.sha256(text).hexdigest() == part["sha256"]
        lines = text.decode().split()
        listed += lines
        if how == "list":
            assert not (target / name).exists()
            continue
        dataset = read_dataset(target / name)
        assert len(dataset) == len(lines) == part["files"]
        assert dataset.problems == []
        for line in lines:
            ours = target / name / "crops" / Path(line).name
            assert ours.read_bytes() == Path(line).read_bytes()
            assert (ours.stat().st_ino == Path(line).stat().st_ino) == (how != "copy")
    assert sorted(listed) == sorted(str(path) for path in folder.glob("crops/*"))
    page = (target / "split.html").read_text()
    assert all(part["sha256"] in page for part in record["parts"].values())
    assert "No two parts share" in page
    assert not (target / "split.plan.json").exists()


def test_an_interrupted_split_goes_on_and_another_is_refused(tmp_path: Path) -> None:
    folder = write_crops(tmp_path / "data", dfdc(12, 1))
    inventory = take_inventory([open_shelf(str(folder))])
    target = tmp_path / "out"
    split = plan_split(inventory, [str(folder)], SplitOptions(how="copy"))

    def stop(done: int, total: int) -> None:
        if done == total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_split(split, inventory, target, 1, stop)
    assert not (target / "split.json").exists()
    other = plan_split(inventory, [str(folder)], SplitOptions(how="copy", seed=1))
    with pytest.raises(UsageError, match="another split"):
        write_split(other, inventory, target)
    write_split(split, inventory, target)
    files = [path for path in target.glob("*/crops/*") if path.is_file()]
    assert len(files) == len(list(folder.glob("crops/*")))
    with pytest.raises(UsageError, match="another split"):
        write_split(other, inventory, target)


def test_tar_in_tar_out(tmp_path: Path) -> None:
    folder = write_crops(tmp_path / "data", dfdc(12, 1))
    archive = tmp_path / "data.tar.gz"
    with tarfile.open(str(archive), "w:gz") as tar:
        tar.add(str(folder), arcname=".")
    with open_shelf(str(archive)) as shelf:
        inventory = take_inventory([shelf])
        split = plan_split(inventory, [str(archive)], SplitOptions())
        done = write_split(split, inventory, tmp_path / "out.tar")
        assert done.how == ("copy", "a tar holds copies")
        linked = plan_split(inventory, [str(archive)], SplitOptions(how="link"))
        with pytest.raises(UsageError, match="cannot be linked"):
            write_split(linked, inventory, tmp_path / "linked")
    with tarfile.open(str(tmp_path / "out.tar")) as tar:
        names = tar.getnames()
    crops = [name for name in names if "/crops/" in name]
    assert len(crops) == len(list(folder.glob("crops/*")))
    assert {"split.json", "split.html", "train.txt", "test/metadata.json"} <= set(names)


def test_videos_are_divided_like_crops(tmp_path: Path) -> None:
    records = dfdc(10, 2)
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in records:
        (folder / name).write_bytes(name.encode())
    (folder / "metadata.json").write_text(json.dumps(records))
    inventory = take_inventory([open_shelf(str(folder))])
    split = plan_split(inventory, [str(folder)], SplitOptions())
    write_split(split, inventory, tmp_path / "out")
    placed = [path.name for path in (tmp_path / "out").glob("*/*.mp4")]
    assert sorted(placed) == sorted(records)
    for part in ("train", "validation", "test"):
        labels = json.loads((tmp_path / "out" / part / "metadata.json").read_text())
        assert set(labels) == {path.name for path in (tmp_path / "out" / part).glob("*.mp4")}
        assert {one["split"] for one in labels.values()} == {part}


def test_what_cannot_be_divided_is_said(tmp_path: Path) -> None:
    few = write_crops(tmp_path / "few", dfdc(2))
    with pytest.raises(DataError, match="too many show the same faces") as caught:
        plan(few)
    assert "2 groups that belong together, 3 parts" in caught.value.evidence
    bare = tmp_path / "bare"
    write_image(bare / "crops" / "a_0.png", face(1, 8, False)[0])
    with pytest.raises(DataError, match="Nothing says which videos"):
        plan(bare)
    lost = write_crops(tmp_path / "lost", {"a.mp4": {"label": "FAKE"}})
    with pytest.raises(DataError, match="No video can be placed"):
        plan(lost)
    for text in ("train", "train=1", "a=0,b=1", "a=1,a=2", "../a=1,b=2", "a=x,b=1"):
        with pytest.raises(UsageError):
            shares(text)
    assert shares("a=3, b=1") == (("a", 0.75), ("b", 0.25))


def test_every_part_gets_something_however_uneven_the_groups() -> None:
    videos = [Video("r.mp4", "REAL", None, ("x",))]
    videos += [Video(f"f{n}.mp4", "FAKE", "r") for n in range(50)]
    videos += [Video("s.mp4", "REAL"), Video("t.mp4", "REAL")]
    wanted = (("train", 0.9), ("validation", 0.05), ("test", 0.05))
    parts = divide(groups(videos), {}, wanted)
    assert sorted(len(part.groups) for part in parts) == [1, 1, 1]


def test_the_proof_is_no_formality(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_crops(tmp_path / "data", dfdc(6))

    def careless(held: List[Any], *_: Any) -> List[Part]:
        """Takes groups apart: every second video to the other part."""
        halves: Tuple[List[Any], List[Any]] = ([], [])
        for group in held:
            for number, video in enumerate(group.videos):
                halves[number % 2].extend(groups([video]))
        return [Part(name, 0.5, tuple(half)) for name, half in zip(("train", "test"), halves)]

    monkeypatch.setattr(splitting, "divide", careless)
    with pytest.raises(WorkError, match="not sound") as caught:
        plan(folder)
    assert "train and test share the original r0" in caught.value.evidence


def test_names_of_crops_lead_to_videos() -> None:
    known = {"a_1": 0, "a": 0}
    assert video_of("a_1_2", known) == "a_1"
    assert video_of("a_2", known) == "a"
    assert video_of("b_c_2", known) == "b_c"
    assert video_of("b", known) == "b"


def test_metadata_of_one_video_in_two_files_is_noticed() -> None:
    metadata = Metadata()
    metadata.add(b'{"a.mp4": {"label": "REAL", "identity": ["x", 7]}}', "one", "one")
    metadata.add(b'{"a.mp4": {"label": "FAKE"}}', "two", "two")
    assert metadata.videos["a"].label == "REAL"
    assert metadata.videos["a"].identities == ("x", "7")
    assert metadata.twice == [("a.mp4", "one", "two")]
    assert metadata.conflicts == [("a.mp4", "one: REAL, original None; two: FAKE, original None")]
    with pytest.raises(FormatError):
        metadata.add(b'["a.mp4"]', "three", "three")
