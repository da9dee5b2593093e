"""The journal of a collection: resumed, shared, and true whatever ended the work before."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import cv2
import numpy as np
import pytest

from deepfake_fpga.errors import FormatError, UsageError, WorkError
from deepfake_fpga.inference import collection as collection_module
from deepfake_fpga.inference.collection import CollectionOptions, run_collection
from deepfake_fpga.inference.collection_inputs import inputs_of
from deepfake_fpga.inference.faces.options import FaceOptions, Kind
from deepfake_fpga.inference.faces.results import NO_FACE, summed_up
from deepfake_fpga.inference.journal import (
    Input,
    base,
    blocks,
    final,
    open_journal,
    parts,
    plan,
    planning,
    progress_of,
    reading,
    status,
    tables,
    workers,
)
from deepfake_fpga.inference.labels import Accuracy
from deepfake_fpga.inference.records import (
    Face,
    Frame,
    FrameResult,
    Status,
    Verdict,
    VideoInfo,
)
from deepfake_fpga.inference.run import RunOptions, run
from deepfake_fpga.inference.selection import Selection
from deepfake_fpga.inference.sinks import Format
from deepfake_fpga.inference.sources import open_images
from deepfake_fpga.inference.summary import Summary, Tally
from deepfake_fpga.inference.verdicts.gallery import Gallery
from deepfake_fpga.preprocessing import Square

from .clips import write_clip
from .fakes import FakeSession


class Judge(FakeSession):
    """Says that a picture is REAL to the degree that it is bright; counts what it is asked."""

    def __init__(self, folder: Path, name: str = "sim") -> None:
        super().__init__(size=32)
        self.device_name = name
        self.asked = 0
        self.artifact.path = folder / "YNET.xmodel"
        self.artifact.mask, self.artifact.classifier = "mask", "class"
        if not self.artifact.path.exists():
            self.artifact.path.write_bytes(b"stands for the model")
        self.reals = self.bright

    def bright(self, images: np.ndarray) -> np.ndarray:
        self.asked += len(images)
        return (images.mean(axis=(1, 2, 3)) / 255).astype(np.float32)


def write_images(folder: Path, count: int, first: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(first, first + count):
        picture = np.full((20, 20, 3), number % 251, np.uint8)
        assert cv2.imwrite(str(folder / f"i_{number}.png"), picture)
    return folder


def images_of(folder: Path) -> Input:
    def files() -> Iterator[Tuple[str, str]]:
        for name in sorted(os.listdir(str(folder)), key=lambda name: (len(name), name)):
            yield "image", str(folder / name)

    return Input(str(folder), "images", files)


def videos_of(*paths: Path) -> List[Input]:
    def one(path: Path) -> Input:
        return Input(str(path), "video", lambda: iter([("video", str(path))]))

    return [one(path) for path in paths]


def go(
    inputs: Any,
    output: Path,
    session: Optional[Judge] = None,
    said: Optional[List[str]] = None,
    *,
    fresh: bool = False,
    retry: bool = False,
    progress: Any = None,
    **options: Any,
) -> Summary:
    session = session or Judge(output.parent)
    inputs = [inputs] if isinstance(inputs, Input) else inputs
    collection = CollectionOptions(fresh=fresh, retry_failed=retry)
    say = (lambda text: None) if said is None else said.append
    return run_collection(
        inputs, session.as_session(), output, RunOptions(threads=2, **options), collection,
        progress, say,
    )  # fmt: skip


def records_of(output: Path) -> List[Dict[str, Any]]:
    return [json.loads(line) for line in (output / "records.jsonl").read_text().splitlines()]


def names_of(output: Path) -> List[str]:
    return [Path(record["source"]).name for record in records_of(output)]


def items_of(output: Path, what: str = "state") -> List[Any]:
    base = sqlite3.connect(str(output / "journal.sqlite"))
    try:
        return [row[0] for row in base.execute(f"SELECT {what} FROM items ORDER BY number")]
    finally:
        base.close()


def strays(output: Path) -> List[str]:
    return [
        str(path.relative_to(output))
        for path in output.rglob("*")
        if path.name.startswith(".") or "part." in path.name or path.name.endswith("-journal")
    ]


def test_the_results_are_those_of_a_run_without_a_journal(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", 100)
    (folder / "i_40.png").write_text("no picture")
    (folder / "I_3.png").write_bytes((folder / "i_4.png").read_bytes())
    with_it = tmp_path / "with"
    formats = (Format.CSV, Format.RLE)
    summary = go(images_of(folder), with_it, formats=formats)
    source = open_images(str(folder))
    plain_order = [(folder / name).name for name in names_of(with_it)]
    source._names.held = [str(folder / name) for name in plain_order]  # type: ignore[attr-defined]
    without = tmp_path / "without"
    plain = run([source], Judge(tmp_path).as_session(), without, RunOptions(formats=formats))
    for name in ("records.jsonl", "records.csv", "masks.rle.jsonl"):
        assert (with_it / name).read_bytes() == (without / name).read_bytes()
    for name in ("masks", "overlays"):
        pictures = sorted(path.name for path in (without / name).iterdir())
        assert sorted(path.name for path in (with_it / name).iterdir()) == pictures
        for picture in pictures:
            assert (with_it / name / picture).read_bytes() == (
                without / name / picture
            ).read_bytes()
    ours, theirs = summary.to_json(), plain.to_json()
    for name in ("verdict", "frames", "verdicts", "sources", "frames_by_device", "complete"):
        assert ours[name] == theirs[name]
    assert json.loads((with_it / "summary.json").read_text()) == json.loads(json.dumps(ours))
    assert ours["journal"]["items"] == {
        "total": 101, "new": 0, "claimed": 0, "done": 100, "failed": 1
    }  # fmt: skip
    assert ours["journal"]["complete"] is True
    [failure] = ours["journal"]["failed"]
    assert Path(failure["source"]).name == "i_40.png"
    assert failure["reason"].startswith("decode_error")
    assert not strays(with_it)


def test_a_database_is_made_of_the_records(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", 12)
    (folder / "i_4.png").write_text("no picture")
    output = tmp_path / "out"

    def rows() -> List[Any]:
        connection = sqlite3.connect(str(output / "records.sqlite"))
        try:
            return connection.execute(
                "SELECT run, source, status, fake_probability FROM frames ORDER BY run, number"
            ).fetchall()
        finally:
            connection.close()

    session = Judge(tmp_path)
    go(images_of(folder), output, session)
    summary = go(images_of(folder), output, session, formats=(Format.SQLITE,))
    assert session.asked == 11  # it needs nothing that is not in the records
    assert str(output / "records.sqlite") in summary.outputs
    wanted = [(1, r["source"], r["status"], r["fake_probability"]) for r in records_of(output)]
    assert rows() == wanted
    go(images_of(folder), output, session, formats=(Format.SQLITE,))
    assert rows() == wanted  # nothing new, no new run


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", 30)
    output, said = tmp_path / "out", []
    session = Judge(tmp_path)
    go(images_of(folder), output, session)
    before = (output / "records.jsonl").read_bytes()
    summary = go(images_of(folder), output, session, said)
    assert session.asked == 30
    assert summary.overall.judged == 30
    assert summary.meter.done == 0
    assert (output / "records.jsonl").read_bytes() == before
    assert said == ["30 of 30 files are done already"]


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", 3)
    output = tmp_path / "out"
    go(images_of(folder), output)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (output / f".records.{gone.pid}.part.jsonl").write_text("half a li")
    mine = output / f".records.{os.getpid()}.part.jsonl"  # of a process that lives
    mine.write_text("half a li")
    go(images_of(folder), output)
    assert strays(output) == [mine.name]


def test_items_know_what_was_read(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", 3)
    clip = write_clip(tmp_path / "clip.mp4", 3)
    output = tmp_path / "out"
    go([images_of(folder), *videos_of(clip)], output)
    wanted = [
        hashlib.sha256(path.read_bytes()).hexdigest()
        for path in [*(folder / f"i_{n}.png" for n in range(3)), clip]
    ]
    assert items_of(output, "sha256") == wanted
    assert items_of(output, "size")[-1] == clip.stat().st_size
    assert items_of(output, "mtime")[-1] == clip.stat().st_mtime_ns
    assert items_of(output, "frames") == [1, 1, 1, 3]


def test_changed_new_and_missing_files_are_told_apart(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", 20)
    output, said = tmp_path / "out", []
    session = Judge(tmp_path)
    go(images_of(folder), output, session)
    write_images(folder, 1, first=100)
    os.utime(str(folder / "i_5.png"), (1, 1))  # another time, the same bytes
    assert cv2.imwrite(str(folder / "i_7.png"), np.full((20, 20, 3), 255, np.uint8))
    (folder / "i_9.png").unlink()
    go(images_of(folder), output, session, said)
    assert session.asked == 22
    assert said[0].startswith("1 files have changed and are done again")
    assert "i_7.png" in said[0]
    assert said[1].startswith("1 files are new")
    assert said[2].startswith("1 files of the journal are no longer there")
    records = {Path(r["source"]).name: r for r in records_of(output)}
    assert len(records) == 21
    assert records["i_7.png"]["fake_probability"] == 0.0
    assert names_of(output)[7] == "i_7.png"
    assert names_of(output)[-1] == "i_100.png"


def test_failures_are_tried_again_only_when_asked(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", 20)
    good = (folder / "i_3.png").read_bytes()
    (folder / "i_3.png").write_bytes(b"")
    status = (folder / "i_3.png").stat()
    output, said = tmp_path / "out", []
    session = Judge(tmp_path)
    go(images_of(folder), output, session)
    assert items_of(output)[3] == "failed"
    go(images_of(folder), output, session, said)
    assert "1 failed; --retry-failed" in said[0]
    assert session.asked == 19
    go(images_of(folder), output, session, retry=True)
    assert items_of(output)[3] == "failed"
    (folder / "i_3.png").write_bytes(good)
    os.utime(str(folder / "i_3.png"), ns=(status.st_atime_ns, status.st_mtime_ns))
    summary = go(images_of(folder), output, session, retry=True)
    assert session.asked == 20
    assert items_of(output) == ["done"] * 20
    assert {name for name, count in summary.statuses.items() if count} == {"ok"}
    assert [r["status"] for r in records_of(output)] == ["ok"] * 20


def test_another_option_begins_a_new_journal_and_keeps_the_old(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", 10)
    output, said = tmp_path / "out", []
    session = Judge(tmp_path)
    go(images_of(folder), output, session)
    old = (output / "records.jsonl").read_bytes()
    with reading(output) as journal:
        key = journal.key
    go(images_of(folder), output, session, said, threshold=0.9)
    assert session.asked == 20
    assert "another threshold" in said[0]
    aside = output / f"journal-{key[:8]}"
    assert (aside / "records.jsonl").read_bytes() == old
    assert sorted(p.name for p in aside.iterdir()) == [
        "journal.sqlite", "parts", "records.jsonl", "summary.json"
    ]  # fmt: skip
    session.artifact.path.write_bytes(b"another model")
    go(images_of(folder), output, session, said, threshold=0.9)
    assert "another model" in said[1]
    assert session.asked == 30


def test_the_device_counts_only_by_what_it_answers(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", 10)
    said: List[str] = []
    go(images_of(folder), tmp_path / "out", Judge(tmp_path, "sim"))
    card = Judge(tmp_path, "card")
    go(images_of(folder), tmp_path / "out", card, said)
    assert card.asked == 0
    null = Judge(tmp_path, "null")
    go(images_of(folder), tmp_path / "out", null, said)
    assert null.asked == 10
    assert "another kind of device" in said[-1]


def test_fresh_begins_anew(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", 10)
    session = Judge(tmp_path)
    go(images_of(folder), tmp_path / "out", session)
    go(images_of(folder), tmp_path / "out", session, fresh=True)
    assert session.asked == 20
    (tmp_path / "out" / "journal.sqlite").write_text("not SQLite at all" * 100)
    with pytest.raises(FormatError, match="--fresh"):
        go(images_of(folder), tmp_path / "out", session)
    go(images_of(folder), tmp_path / "out", session, fresh=True)
    assert items_of(tmp_path / "out") == ["done"] * 10


def test_videos_have_a_block_each_and_a_bad_one_stops_nothing(tmp_path: Path) -> None:
    good = write_clip(tmp_path / "a.mp4", 7)
    (tmp_path / "b.mp4").write_text("no video")
    (tmp_path / "other").mkdir()
    last = write_clip(tmp_path / "other" / "a.mp4", 5)
    output = tmp_path / "out"
    inputs = videos_of(good, tmp_path / "b.mp4", last, tmp_path / "gone.mp4")
    summary = go(inputs, output)
    assert items_of(output) == ["done", "failed", "done", "failed"]
    assert sorted(p.name for p in output.glob("*.mp4")) == ["overlay-a-2.mp4", "overlay-a.mp4"]
    assert summary.overlays == {
        str(good): str(output / "overlay-a.mp4"), str(last): str(output / "overlay-a-2.mp4")
    }  # fmt: skip
    assert [(r["source"], r["frame"]) for r in records_of(output)] == [
        *((str(good), n) for n in range(7)), (str(tmp_path / "b.mp4"), 0),
        *((str(last), n) for n in range(5)), (str(tmp_path / "gone.mp4"), 0),
    ]  # fmt: skip
    assert [source.frames for source in summary.sources] == [7, 1, 5, 1]
    assert items_of(output, "block") == [1, 2, 3, 4]


def test_records_lead_back_to_their_results() -> None:
    """Whatever is counted of results is the same of what their records tell."""
    video = VideoInfo(Path("v.mp4"), Fraction(25), Fraction(1, 25), Fraction(0), 9)

    def frame(status: Status = Status.OK, reason: str = "") -> Frame:
        return Frame("v.mp4", 3, 0.12, None, status, reason, video)

    mask = np.zeros((10, 10), np.uint8)
    mask[:3] = 1
    faces = [
        FrameResult(at, real, None if real is None else mask, "sim", 0.4, 2, face=face)
        for at, real, face in (
            (frame(), 0.9, Face(1, (1.0, 2.0, 3.0, 4.5), Square(0, 0, 1))),
            (frame(), 0.25, Face(2, (5.0, 6.0, 7.0, 8.0), Square(0, 0, 1))),
            (
                frame(Status.BLURRED, "blurred"),
                None,
                Face(3, (0.0, 0.0, 9.0, 9.0), Square(0, 0, 1)),
            ),
        )
    ]
    whole = [
        FrameResult(frame(), 0.3, mask, "card", 0.4, 2),
        FrameResult(frame(), float("nan"), None, "sim", 0.4, 2),
        FrameResult(frame(Status.DECODE_ERROR, "torn"), None, None, "sim", 0.4, 2),
        FrameResult(frame(Status.NO_FACE, NO_FACE), None, None, "sim", 0.4, 2),
        FrameResult(replace(frame(), same_as=1), 0.3, mask, "sim", 0.4, 2),
        FrameResult(Frame("a.png", 0, None, None), 1.0, mask, "sim", 0.4, 2),
        summed_up(frame(), faces, FrameResult(frame(), None, None, "sim", 0.4, 2)),
        summed_up(
            frame(Status.BLURRED, "blurred"),
            faces[2:],
            FrameResult(frame(), None, None, "sim", 0.4, 2),
        ),
    ]
    sources = [open_images(__file__)] * 3
    for result in whole:
        records = [json.loads(json.dumps(part.to_json())) for part in result.parts]
        again = final.result_of(records, 0.4, 2)
        assert [part.to_json() for part in again.parts] == records
        before, after = Tally(sources), Tally(sources)
        before.write(result, None)
        after.write(again, None)
        assert after.statuses == before.statuses
        assert after.devices == before.devices
        ours, theirs = after.sources[2], before.sources[2]
        assert list(ours.clips) == list(theirs.clips)
        for name, scores in theirs.clips.items():
            assert list(ours.clips[name]) == list(scores)
        ours.clips = theirs.clips = {}
        assert ours == theirs


def test_every_face_has_its_record(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    noise = np.random.default_rng(1)
    for number in range(30):
        picture = noise.integers(0, 255, (300, 500, 3), np.uint8)
        assert cv2.imwrite(str(folder / f"i_{number}.png"), picture)
    boxes = tmp_path / "boxes.jsonl"
    faces = [[20, 20, 140, 140], [300, 50, 420, 200]]
    boxes.write_text(
        "".join(
            json.dumps({"source": f"i_{number}.png", "frame": 0, "box": box}) + "\n"
            for number in range(20)
            for box in faces[: 1 + number % 2]
        )
    )
    options = FaceOptions(Kind.BOXES, boxes=boxes)
    with_it, without = tmp_path / "with", tmp_path / "without"
    go(images_of(folder), with_it, faces=options, pictures=False)
    summary = go(images_of(folder), with_it, faces=options, pictures=False)
    records = records_of(with_it)
    assert [record["track"] for record in records[:3]] == [1, 1, 2]
    assert {record["status"] for record in records[30:]} == {"no_face"}
    assert len(records) == 40
    source = open_images(str(folder))
    plain = run(
        [source],
        Judge(tmp_path).as_session(),
        without,
        RunOptions(faces=options, pictures=False),
    )
    assert (with_it / "records.jsonl").read_bytes() == (without / "records.jsonl").read_bytes()
    ours, theirs = summary.to_json(), plain.to_json()
    for name in ("verdict", "frames", "verdicts", "sources", "frames_by_device"):
        assert ours[name] == theirs[name]
    fresh = go(images_of(folder), with_it, faces=options, pictures=False, fresh=True)
    assert fresh.to_json()["faces"] == theirs["faces"]


def test_a_selection_holds_for_each_video(tmp_path: Path) -> None:
    clips = [write_clip(tmp_path / f"{n}.mp4", 7) for n in range(2)]
    selection = Selection(every=3)
    summary = go(videos_of(*clips), tmp_path / "out", selection=selection)
    assert [(Path(r["source"]).name, r["frame"]) for r in records_of(tmp_path / "out")] == [
        (name, frame) for name in ("0.mp4", "1.mp4") for frame in (0, 3, 6)
    ]
    assert [source.left_out for source in summary.sources] == [4, 4]
    said: List[str] = []
    go(videos_of(*clips), tmp_path / "out", said=said)
    assert "another selection" in said[0]
    listed = open_images(str(write_images(tmp_path / "in", 3)))
    assert inputs_of([listed], RunOptions())[1] == ""
    assert "selection" in inputs_of([listed], RunOptions(selection=selection))[1]


def test_frames_kept_of_a_video_outlive_the_run_that_kept_them(tmp_path: Path) -> None:
    clips = [write_clip(tmp_path / f"{n}.mp4", 20) for n in range(4)]
    wanted = Gallery()
    go(videos_of(*clips), tmp_path / "wanted", viewers=(wanted,))
    output, session = tmp_path / "out", Judge(tmp_path)

    def fail(ticket: int) -> None:
        if ticket == 6:  # in the third video
            raise WorkError("The device burned")

    session.on_result = fail
    with pytest.raises(WorkError, match="burned"):
        go(videos_of(*clips), output, session, viewers=(Gallery(),))
    assert items_of(output)[3] == "new"
    assert "done" in items_of(output)
    session.on_result = lambda ticket: None
    found = Gallery()
    go(videos_of(*clips), output, session, viewers=(found,))
    assert sorted(found.clips) == sorted(str(clip) for clip in clips)
    for name, clip in wanted.clips.items():
        assert found.clips[name].to_json() == clip.to_json()
        assert found.clips[name].video == clip.video
        assert found.clips[name].chosen()[0].plain == clip.chosen()[0].plain


def test_batches_stay_full_across_blocks(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", 150)
    session = Judge(tmp_path)
    clips = [write_clip(tmp_path / f"{n}.mp4", 3) for n in range(3)]
    summary = go([images_of(folder), *videos_of(*clips)], tmp_path / "out", session)
    assert session.sizes[:-1] == [8] * (159 // 8)
    assert summary.meter.batches == -(-159 // 8)


def kill_commits(monkeypatch: pytest.MonkeyPatch, after: int, error: BaseException) -> None:
    """The ``after``-th commit puts its part into place and then dies."""
    count = [0]
    settle = base.Journal._settle

    def dying(self: Any, *words: Any) -> None:
        count[0] += 1
        if count[0] == after:
            raise error
        settle(self, *words)

    monkeypatch.setattr(base.Journal, "_settle", dying)


def test_a_part_without_its_row_is_taken_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_images(tmp_path / "in", 60)
    session, output = Judge(tmp_path), tmp_path / "out"
    with monkeypatch.context() as patch:
        kill_commits(patch, 2, WorkError("The power failed"))
        patch.setattr(base.Journal, "release", lambda self: None)
        with pytest.raises(WorkError, match="power"):
            go(images_of(folder), output, session)
    done = items_of(output).count("done")
    assert items_of(output).count("claimed") > 0
    assert len(list((output / "parts").iterdir())) >= 2
    asked, session.asked = session.asked, 0
    assert asked >= done + 16
    with reading(output) as journal:  # the worker said that it ended
        journal.take_over()
        assert items_of(output).count("done") >= done + 8
        left = items_of(output).count("new")
        assert "was finished and is kept" in journal.incidents[0]
    go(images_of(folder), output, session)
    assert session.asked == left
    assert sorted(names_of(output)) == sorted(p.name for p in folder.iterdir())
    assert not strays(output)


@pytest.mark.parametrize("where", ["picture", "line", "sync", "rename", "journal"])
def test_a_full_disk_keeps_what_is_done_and_goes_on_when_there_is_room(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_images(tmp_path / "in", 80)
    session, output = Judge(tmp_path), tmp_path / "out"
    full = [False]

    def refusing(call: Callable[..., Any], sqlite: bool = False) -> Callable[..., Any]:
        calls = [0]

        def wrapped(*words: Any, **options: Any) -> Any:
            calls[0] += 1
            full[0] = full[0] or calls[0] == (40 if where in ("picture", "line") else 2)
            if full[0]:
                if sqlite:
                    raise sqlite3.OperationalError("database or disk is full")
                raise OSError(28, "No space left on device")
            return call(*words, **options)

        return wrapped

    with monkeypatch.context() as patch:
        if where == "picture":
            sink = collection_module.MaskSink
            patch.setattr(sink, "write", refusing(sink.write))
        elif where == "line":
            patch.setattr(blocks._Work, "write", refusing(blocks._Work.write))
        elif where == "sync":
            patch.setattr(blocks, "sync_all", refusing(blocks.sync_all))
        elif where == "rename":
            patch.setattr(blocks._Work, "_publish", refusing(blocks._Work._publish))
        else:
            patch.setattr(base.Journal, "_settle", refusing(base.Journal._settle, sqlite=True))
        with pytest.raises(WorkError, match=r"No space left|disk is full") as caught:
            go(images_of(folder), output, session)
    assert "same command again" in str(caught.value)
    assert set(items_of(output)) <= {"new", "done", "claimed"}
    done = items_of(output).count("done")
    assert done > 0
    session.asked = 0
    go(images_of(folder), output, session)
    assert session.asked <= 80 - done
    assert names_of(output) == [f"i_{n}.png" for n in range(80)]
    assert items_of(output) == ["done"] * 80
    assert len(list((output / "masks").iterdir())) == 80
    assert not strays(output)


def test_a_failing_device_keeps_whole_images_of_a_block_begun(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", 60)
    session, output = Judge(tmp_path), tmp_path / "out"

    def fail(ticket: int) -> None:
        if ticket == 3:
            raise WorkError("The device burned", "smoke", "buy another")

    session.on_result = fail
    with pytest.raises(WorkError, match="burned"):
        go(images_of(folder), output, session)
    assert items_of(output) == ["done"] * 24 + ["new"] * 36
    session.on_result = lambda ticket: None
    go(images_of(folder), output, session)
    assert names_of(output) == [f"i_{n}.png" for n in range(60)]


def test_three_workers_do_each_image_once(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", 300)
    output = tmp_path / "out"
    sessions = [Judge(tmp_path) for _ in range(3)]
    outcomes: List[Any] = []

    def work(session: Judge) -> None:
        try:
            outcomes.append(go(images_of(folder), output, session, pictures=False))
        except BaseException as error:
            outcomes.append(error)

    threads = [threading.Thread(target=work, args=(session,)) for session in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert [outcome.overall.judged for outcome in outcomes] == [300] * 3
    assert sum(session.asked for session in sessions) == 300
    assert names_of(output) == [f"i_{n}.png" for n in range(300)]
    assert not strays(output)


def test_a_claim_is_lost_when_another_took_it_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_images(tmp_path / "in", 10)
    output = tmp_path / "out"
    first, second = (open_journal(output, {"input": 1}) for _ in range(2))
    with first, second:
        for journal in (first, second):
            journal.enter("sim")
        plan(first, [images_of(folder)], lambda text: None)
        block = first.claim(4)
        assert block is not None
        assert [Path(item.path).name for item in block.items] == [f"i_{n}.png" for n in range(4)]
        assert second.take_over() == 0  # it lives
        monkeypatch.setattr(workers.Worker, "lives", lambda self, seen: False)
        assert second.take_over() == 1
        again = second.claim(4)
        assert again is not None
        assert again.items == block.items
        published: List[int] = []
        outcomes = [parts.Outcome(item.number, frames=1, judged=1) for item in block.items]
        with pytest.raises(base.LostClaimError):
            first.commit(block, outcomes, lambda: published.append(1))
        assert not published
        second.commit(again, outcomes, lambda: published.append(2))
        assert published == [2]


def test_workers_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    me = workers.this_worker()
    assert workers.worker_of(me.key) == me
    assert me.lives(0)
    assert not workers.Worker(me.host, me.pid, me.started - 1, 1).lives(1e12)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        other = workers.Worker(me.host, child.pid, workers.start_of(child.pid), 1)
        assert other.lives(0)
        child.kill()
    assert not other.lives(1e12)
    now = 1_000_000.0
    monkeypatch.setattr(workers.time, "time", lambda: now)
    elsewhere = workers.Worker("elsewhere/1/2", 1, 1, 1)
    assert elsewhere.lives(now - workers.LEASE + 1)
    assert not elsewhere.lives(now - workers.LEASE - 1)
    name, _, space = me.host.split("/")
    assert not workers.Worker(f"{name}/earlier/{space}", 1, 1, 1).lives(now)  # before a restart


def test_another_process_with_other_options_is_not_disturbed(tmp_path: Path) -> None:
    with open_journal(tmp_path, {"input": 1}) as first:
        first.enter("sim")
        with pytest.raises(UsageError, match="Another process works"):
            open_journal(tmp_path, {"input": 2})
        with pytest.raises(UsageError, match="Another process works"):
            open_journal(tmp_path, {"input": 1}, fresh=True)
    open_journal(tmp_path, {"input": 2}).close()


def test_a_torn_part_is_none(tmp_path: Path) -> None:
    path = tmp_path / "00000004.jsonl"
    outcome = parts.Outcome(7, "", 5, 6, "ab", 1, 1, 0, ["a note"], [(0, 12)])
    whole = b'{"frame":0}\n' + parts.trailer(4, [outcome])
    path.write_bytes(whole)
    assert parts.read_part(path, 4) == [outcome]
    assert parts.read_part(path, 5) is None
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert parts.read_part(path, 4) is None
    path.write_bytes(bytes(len(whole)))
    assert parts.read_part(path, 4) is None
    many = [parts.Outcome(number, sha256="0" * 64) for number in range(2000)]
    path.write_bytes(b"x" * 200_000 + b"\n" + parts.trailer(4, many))
    assert parts.read_part(path, 4) == many


def test_the_status_says_what_is_left_and_how_long(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", 30)
    with open_journal(tmp_path / "out", {"input": 1}) as journal:
        journal.enter("sim")
        plan(journal, [images_of(folder)], lambda text: None)
        for _ in range(2):
            block = journal.claim(10)
            assert block is not None
        with journal.tables.transaction():
            journal.tables.change(
                "UPDATE blocks SET state = 'done', seconds = 4, frames = 10 WHERE number = 1"
            )
            journal.tables.change(
                "UPDATE items SET state = 'done', frames = 1, judged = 1 WHERE block = 1"
            )
            journal.tables.change(
                "UPDATE items SET state = 'failed', reason = 'cut' WHERE number = 1"
            )
        with reading(tmp_path / "out") as other:
            progress = progress_of(other)
        assert progress.counts == {"new": 10, "claimed": 10, "done": 9, "failed": 1}
        assert progress.speeds == {"image": 2.5}
        assert progress.frames_left == 20
        assert progress.seconds_left == 8.0
        assert [(c.pid, c.alive, c.items) for c in progress.claims] == [(os.getpid(), True, 10)]
        record = progress.to_json()
        assert record["failed"] == [{"source": str(folder / "i_0.png"), "reason": "cut"}]
        text = "\n".join(progress.lines())
        assert "9 of 30 files done, 1 failed, 10 under way, 10 waiting" in text
        assert "about 0:00:08 left" in text
        assert f"pid {os.getpid()} (at work)" in text


def test_names_are_unique_whatever_their_case(tmp_path: Path) -> None:
    listed = [("image", f"{n}/{name}.png") for n in range(3) for name in ("a", "A", "a-2", "b")]
    with open_journal(tmp_path, {"input": 1}) as journal:
        given = Input("list", "images", lambda: iter(listed + listed[:1]))
        said: List[str] = []
        plan(journal, [given], said.append)
        assert said == ["list: 1 files are listed more than once, each is done once"]
        names = [name for (name,) in journal.tables.rows("SELECT name FROM items ORDER BY number")]
    assert len({name.lower() for name in names}) == 12
    assert names[:4] == ["a", "A-2", "a-2-2", "b"]


def test_file_names_that_are_no_text_are_kept(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", 1)
    name = os.fsdecode(b"odd\xff.png")
    os.rename(str(folder / "i_0.png"), str(folder / name))
    output = tmp_path / "out"
    go(images_of(folder), output)
    assert items_of(output) == ["done"]
    assert [path.name for path in (output / "masks").iterdir()] == [name]
    again = Judge(tmp_path)
    go(images_of(folder), output, again)
    assert again.asked == 0


def test_results_never_replace_inputs(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "masks", 3)
    with pytest.raises(UsageError, match="replace"):
        go(images_of(folder), tmp_path)
    assert not (tmp_path / "journal.sqlite").exists()


def test_results_among_the_inputs_are_not_judged_when_it_goes_on(tmp_path: Path) -> None:
    """A pattern that descends finds the masks of the first run."""
    write_images(tmp_path / "in", 5)

    def files() -> Iterator[Tuple[str, str]]:
        for path in sorted(tmp_path.glob("in/**/*.png")):
            yield "image", str(path)

    output, said = tmp_path / "in" / "out", []
    session = Judge(tmp_path)
    go(Input("in/**/*.png", "images", files), output, Judge(tmp_path / "in"))
    write_images(tmp_path / "in", 1, first=50)
    go(Input("in/**/*.png", "images", files), output, session, said)
    assert session.asked == 1
    assert [line.split(":")[0] for line in said] == [
        "1 files are new", "5 of 6 files are done already"
    ]  # fmt: skip


def test_videos_left_count_as_the_others_did(tmp_path: Path) -> None:
    listed = [("video", f"{n}.mp4") for n in range(4)] + [("image", "a.png")]
    with open_journal(tmp_path, {"input": 1}) as journal:
        journal.enter("sim")
        plan(journal, [Input("list", "mixed", lambda: iter(listed))], lambda text: None)
        assert status.measure(journal) == (0, {}, None)  # nobody knows how long videos are
        for frames in (10, 16):
            block = journal.claim(8)
            assert block is not None
            assert len(block.items) == 1
            outcome = parts.Outcome(block.items[0].number, frames=frames, judged=frames)
            journal.commit(block, [outcome], lambda: None)
        frames_done, speeds, left = status.measure(journal)
        assert frames_done == 26
        assert left == {"video": 26, "image": 1}
        assert set(speeds) == {"video"}
        assert status.seconds_left({"video": 2.0, "image": 1.0}, left, 2) == 7.0
        assert status.seconds_left(speeds, left, 1) is None  # no image has been measured


def test_progress_ends_with_what_was_done(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", 20)
    clips = [write_clip(tmp_path / f"{n}.mp4", 6) for n in range(3)]
    calls: List[Tuple[int, Optional[int]]] = []
    inputs = [images_of(folder), *videos_of(*clips)]
    go(inputs, tmp_path / "out", progress=lambda *call: calls.append(call))
    assert calls[-1][0] == 38
    clips[1].write_bytes(write_clip(tmp_path / "new.mp4", 9).read_bytes())
    go(inputs, tmp_path / "out", progress=lambda *call: calls.append(call))
    assert calls[-1][0] == 9


def test_a_listing_is_never_held_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are entered as the listing goes on; claiming looks at no more than it takes."""
    monkeypatch.setattr(planning, "CHUNK", 10)
    with open_journal(tmp_path, {"input": 1}) as journal:
        entered: List[int] = []

        def files() -> Iterator[Tuple[str, str]]:
            for number in range(5000):
                if number % 1000 == 0:
                    entered.append(journal.tables.rows("SELECT count(*) FROM items")[0][0])
                yield "image", f"{number}.png"

        plan(journal, [Input("many", "images", files)], lambda text: None)
        assert entered == [0, 1000, 2000, 3000, 4000]
        query = (
            "EXPLAIN QUERY PLAN SELECT number, source, kind, path, name FROM items "
            "WHERE state = 'new' ORDER BY number LIMIT 5"
        )
        [row] = journal.tables.rows(query)
        assert "items_by_state" in row[-1]


def test_a_version_from_elsewhere_is_named(tmp_path: Path) -> None:
    connection = sqlite3.connect(str(tmp_path / "journal.sqlite"))
    connection.execute("CREATE TABLE t (x)")
    connection.commit()
    connection.close()
    with pytest.raises(FormatError, match="not a journal of this version"):
        tables.Tables(tmp_path / "journal.sqlite")


def test_who_is_told_to_do_some_again_meanwhile_does_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process gives an item back just when this one has made the final files."""
    folder = write_images(tmp_path / "in", 10)
    session, output = Judge(tmp_path), tmp_path / "out"
    left_out = collection_module.left_out
    given: List[int] = []

    def meanwhile(journal: Any) -> Any:
        if not given:
            given.append(1)
            with reading(output) as other, other.tables.transaction():
                other.tables.change("UPDATE items SET state = 'new' WHERE number = 3")
                other.changed()
        return left_out(journal)

    monkeypatch.setattr(collection_module, "left_out", meanwhile)
    labels = Accuracy({"i": Verdict.FAKE}, "labels")
    summary = go(images_of(folder), output, session, accuracy=labels)
    assert session.asked == 11
    assert summary.overall.frames == 10
    assert summary.accuracy is not None
    assert summary.accuracy.judged == 10
    assert names_of(output) == [f"i_{n}.png" for n in range(10)]
