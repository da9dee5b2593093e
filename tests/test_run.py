"""A whole run: what is in the folder, what the summary says, and what is kept of a failed one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Dict, List

import cv2
import numpy as np
import pytest

from deepfake_fpga.errors import FormatError, MissingError, UsageError, WorkError
from deepfake_fpga.inference import run as run_module
from deepfake_fpga.inference.labels import read_labels
from deepfake_fpga.inference.run import RunOptions, run
from deepfake_fpga.inference.sources import open_images, open_video
from deepfake_fpga.inference.summary import Summary

from .clips import EITHER, frame_times, spoil_frame, write_clip
from .fakes import FakeSession


def grey_session() -> FakeSession:
    """Says that a picture is REAL to the degree that it is bright."""
    session = FakeSession(size=224)
    session.reals = lambda images: (images.mean(axis=(1, 2, 3)) / 255).astype(np.float32)
    return session


def write_grey(folder: Path, values: Dict[str, int]) -> Path:
    folder.mkdir()
    for name, value in values.items():
        assert cv2.imwrite(str(folder / name), np.full((40, 30, 3), value, np.uint8))
    return folder


def records_of(output: Path) -> List[Dict[str, Any]]:
    return [json.loads(line) for line in (output / "records.jsonl").read_text().splitlines()]


def go(sources: Any, output: Path, session: Any = None, **options: Any) -> Summary:
    session = session or grey_session()
    return run(sources, session.as_session(), output, RunOptions(**options))


def test_images_give_records_masks_overlays_and_a_summary(tmp_path: Path) -> None:
    folder = write_grey(tmp_path / "in", {"a_2.png": 51, "a_10.png": 204, "b.jpg": 0})
    (folder / "c.png").write_text("no picture")
    output = tmp_path / "out"
    summary = go([open_images(str(folder))], output, model_reason="for a test")
    assert sorted(p.name for p in output.iterdir()) == [
        "masks", "overlays", "records.jsonl", "summary.json"
    ]  # fmt: skip
    assert sorted(p.name for p in (output / "masks").iterdir()) == ["a_10.png", "a_2.png", "b.png"]
    assert sorted(p.name for p in (output / "overlays").iterdir()) == [
        "a_10.png", "a_2.png", "b.png"
    ]  # fmt: skip
    records = records_of(output)
    assert [Path(record["source"]).name for record in records] == [
        "a_2.png", "a_10.png", "b.jpg", "c.png"
    ]  # fmt: skip
    assert [record["verdict"] for record in records] == ["FAKE", "REAL", "FAKE", None]
    np.testing.assert_allclose(
        [record["fake_probability"] for record in records[:3]], [0.8, 0.2, 1], atol=1e-6
    )
    written = json.loads((output / "summary.json").read_text())
    assert written == json.loads(json.dumps(summary.to_json()))
    assert written["complete"] is True
    assert written["frames"] == {"total": 4, "ok": 3, "decode_error": 1, "no_result": 0}
    assert written["verdicts"] == {"FAKE": 2, "REAL": 1, "not_judged": 1}
    assert written["fake_probability"] == pytest.approx(2 / 3, abs=1e-6)
    assert written["verdict"] == "manipulated"
    assert "1 of 4 images not judged (decode_error" in written["explanation"]
    assert written["reason"] is None
    assert written["batch"] == {"size": 8, "submitted": 1, "fill": 0.375}
    assert set(written["seconds"]) == {"total", "decode", "pre", "device", "post", "write"}
    assert set(written["frames_per_second"]) == set(written["seconds"])
    assert written["device"] == "fake"
    assert written["device_reason"] == "for a test"
    assert written["model_reason"] == "for a test"
    assert written["accuracy"] is None
    assert written["outputs"][0] == str(output / "records.jsonl")


def test_nothing_judged_is_inconclusive_and_never_a_half(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("no picture")
    summary = go([open_images(str(tmp_path / "x.png"))], tmp_path / "out")
    record = summary.to_json()
    assert record["verdict"] == record["sources"][0]["verdict"] == "inconclusive"
    assert record["fake_probability"] is record["sources"][0]["fake_probability"] is None
    assert record["reason"] == "decode_error"
    assert "0.5" not in (tmp_path / "out" / "records.jsonl").read_text()


def test_without_pictures_only_the_records_and_the_summary(tmp_path: Path) -> None:
    folder = write_grey(tmp_path / "in", {"a.png": 51})
    clip = write_clip(tmp_path / "clip.mp4", 3)
    go([open_images(str(folder))], tmp_path / "one", pictures=False)
    go([open_video(str(clip))], tmp_path / "two", pictures=False)
    for name in ("one", "two"):
        names = sorted(p.name for p in (tmp_path / name).iterdir())
        assert names == ["records.jsonl", "summary.json"]


@pytest.mark.parametrize("decoder", EITHER)
def test_the_real_clip_gives_300_records_and_300_frames(
    decoder: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if decoder == "cv":
        monkeypatch.setitem(sys.modules, "av", None)
    path = shared / "data" / "deep_fake_video.avi"
    summary = go([open_video(str(path))], tmp_path)
    records = records_of(tmp_path)
    assert [record["frame"] for record in records] == list(range(300))
    assert {record["status"] for record in records} == {"ok"}
    overlay = open_video(str(tmp_path / "overlay.mp4"))
    assert overlay.info.rate == 20
    shown = [frame.image.shape for frame in overlay if frame.image is not None]
    assert shown == [(256, 256, 3)] * 300
    # Without PyAV the summary says why twice: how it was read, and how it was written.
    assert ["OpenCV" in note for note in summary.notes] == [True] * 2 * (decoder == "cv")
    assert summary.meter.batches == 38
    assert summary.to_json()["frames"]["total"] == 300


def test_a_damaged_frame_keeps_its_place_in_everything(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "in.mkv", 20, codec="mjpeg", pix_fmt="yuvj420p")
    spoil_frame(clip, 9)
    summary = go([open_video(str(clip))], tmp_path / "out")
    records = records_of(tmp_path / "out")
    assert [record["frame"] for record in records] == list(range(20))
    assert [r["frame"] for r in records if r["status"] == "decode_error"] == [9]
    assert len(frame_times(tmp_path / "out" / "overlay.mp4")) == 20
    assert summary.meter.images == 19
    assert summary.complete


def test_several_videos_have_a_verdict_each(tmp_path: Path) -> None:
    light, dark = (np.full((64, 64, 3), value, np.uint8) for value in (230, 20))
    clips = [
        write_clip(tmp_path / "light.mp4", 5, pictures=[light] * 5),
        write_clip(tmp_path / "dark.mp4", 6, pictures=[dark] * 6),
    ]
    summary = go([open_video(str(clip)) for clip in clips], tmp_path / "out")
    verdicts = [(s["verdict"], s["frames"]) for s in summary.to_json()["sources"]]
    assert verdicts == [("authentic", 5), ("manipulated", 6)]
    names = sorted(p.name for p in (tmp_path / "out").glob("*.mp4"))
    assert names == ["overlay-dark.mp4", "overlay-light.mp4"]


def test_a_failure_keeps_what_is_done_and_says_so(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "in.mp4", 40)
    session = grey_session()

    def fail(ticket: int) -> None:
        if ticket == 2:
            raise WorkError("The device burned", "smoke", "buy another")

    session.on_result = fail
    with pytest.raises(WorkError, match="burned"):
        go([open_video(str(clip))], tmp_path / "out", session)
    assert [record["frame"] for record in records_of(tmp_path / "out")] == list(range(16))
    assert len(frame_times(tmp_path / "out" / "overlay.mp4")) == 16
    written = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert written["complete"] is False
    assert "burned" in written["error"]
    assert written["frames"]["total"] == 16
    assert not list((tmp_path / "out").glob("*part*"))


def test_a_disk_that_refuses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_grey(tmp_path / "in", {"a.png": 51})

    def full(self: Any, result: Any, rendered: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_module.MaskSink, "write", full)
    with pytest.raises(WorkError, match="No space left"):
        go([open_images(str(folder))], tmp_path / "out")


def test_inputs_are_never_overwritten(tmp_path: Path) -> None:
    folder = write_grey(tmp_path / "masks", {"a.png": 51})
    with pytest.raises(UsageError, match="replace"):
        go([open_images(str(folder))], tmp_path)
    clip = write_clip(tmp_path / "overlay.mp4", 2)
    with pytest.raises(UsageError, match="replace"):
        go([open_video(str(clip))], tmp_path)


def test_accuracy_counts_frames_of_known_videos(tmp_path: Path) -> None:
    folder = write_grey(
        tmp_path / "crops",
        {"a_0.png": 20, "a_1.png": 230, "b_c_0.png": 230, "new_0.png": 9, "new_1.png": 9},
    )
    (folder / "b_c_1.png").write_text("no picture")
    labels = tmp_path / "metadata.json"
    labels.write_text(
        json.dumps({"a.mp4": {"label": "FAKE", "split": "x"}, "b_c.mp4": {"label": "REAL"}})
    )
    summary = go([open_images(str(folder))], tmp_path / "out", accuracy=read_labels(labels))
    assert summary.to_json()["accuracy"] == {
        "labels": str(labels), "judged": 3, "correct": 2, "accuracy": 0.666667,
        "not_judged": 1, "unknown_videos": ["new"], "unknown_frames": 2,
    }  # fmt: skip


def test_a_video_is_looked_up_by_its_own_name(tmp_path: Path) -> None:
    dark = [np.full((64, 64, 3), 20, np.uint8)] * 4
    clip = write_clip(tmp_path / "my_clip.mkv", 4, pictures=dark)
    labels = tmp_path / "metadata.json"
    labels.write_text('{"my_clip.mp4": {"label": "FAKE"}, "my.mp4": {"label": "REAL"}}')
    summary = go([open_video(str(clip))], tmp_path / "out", accuracy=read_labels(labels))
    assert summary.accuracy is not None
    assert summary.accuracy.accuracy == 1.0


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"a.mp4": {}}', '{"a.mp4": {"label": "fake"}}'])
def test_wrong_labels_are_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "metadata.json"
    with pytest.raises(MissingError):
        read_labels(path)
    path.write_text(text)
    with pytest.raises(FormatError):
        read_labels(path)
