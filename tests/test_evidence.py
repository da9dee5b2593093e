"""The evidence of a run: what is in the folder, what the page says, and to whom."""

from __future__ import annotations

import html
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import cv2
import pytest

from deepfake_fpga.deploy.defaults import DEMO_CHECKPOINT, default_model
from deepfake_fpga.deploy.evidence import clips as clips_module
from deepfake_fpga.deploy.evidence.clips import folder_name
from deepfake_fpga.deploy.evidence.drawings import curve_points
from deepfake_fpga.deploy.evidence.origin import model_record
from deepfake_fpga.deploy.evidence.page import WHY, Story, clock, report
from deepfake_fpga.deploy.evidence.verification import verify
from deepfake_fpga.files import sha256
from deepfake_fpga.inference.artifact import load_artifact
from deepfake_fpga.inference.verdicts.calibration import Calibration
from deepfake_fpga.inference.verdicts.gallery import Gallery
from deepfake_fpga.inference.verdicts.judgement import Rules, judge_video
from deepfake_fpga.inference.verdicts.records import FrameScore, Reason
from deepfake_fpga.inference.verdicts.scores import Scores
from deepfake_fpga.inference.verdicts.timeline import IntervalRules, find_intervals

from .evidence import BRIGHT, DARK, grey_clip, judged

FOLDER = [
    "contact.png", "evidence.json", "overlay.mp4", "records.jsonl", "report.html", "summary.json",
    "timeline.json", "timeline.png", "timeline.vtt",
]  # fmt: skip
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Reads a page strictly: everything that is opened is closed, nothing is from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: List[str] = []
        self.text: List[str] = []
        self.links: List[str] = []
        self.tags: Dict[str, int] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: List[Tuple[str, Optional[str]]]) -> None:
        self.look(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: List[Tuple[str, Optional[str]]]) -> None:
        self.look(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    def look(self, tag: str, attrs: List[Tuple[str, Optional[str]]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        assert tag not in ("script", "iframe", "object", "link", "base", "form")
        for name, value in attrs:
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "action", "data", "srcset"):
                self.links.append(value or "")

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))


def story(values: List[Optional[float]], **change: Any) -> Story:
    scores = Scores(
        FrameScore(n / 10, n, 0, v, None if v is None else 0.2, "ok" if v else "no_face")
        for n, v in enumerate(values)
    )
    rules = change.pop("rules", Rules(aggregation="mean"))
    fields: Dict[str, Any] = {
        "name": "clip.mp4", "verdict": judge_video(scores, rules), "scores": scores,
        "intervals": find_intervals(scores, IntervalRules()), "worst": (), "rules": rules,
        "demonstration": False, "notes": (), "facts": [("video", "clip.mp4")],
        "check": "deepfake-fpga verify out",
    }  # fmt: skip
    fields.update(change)
    return Story(**fields)


def test_one_video_has_everything_in_its_folder(tmp_path: Path) -> None:
    clip = grey_clip(tmp_path / "clip.mp4", [BRIGHT] * 20 + [DARK] * 40)
    output = tmp_path / "out"
    done = judged([clip], output, options={"threads": 1, "model": Path("x")})
    assert sorted(path.name for path in output.iterdir()) == FOLDER
    summary = json.loads((output / "summary.json").read_text())
    assert sorted(Path(path).name for path in summary["outputs"]) == FOLDER
    assert summary["verdict"] == "manipulated"
    mean = (BRIGHT * 20 + DARK * 40) / 60 / 255
    assert summary["fake_probability"] == pytest.approx(1 - mean, abs=0.02)  # the codec's colours
    for name in ("contact.png", "timeline.png"):
        assert cv2.imread(str(output / name)) is not None
    timeline = json.loads((output / "timeline.json").read_text())
    (interval,) = timeline["tracks"][0]["intervals"]
    assert (interval["start"], interval["end"]) == pytest.approx((1.0, 3.0))
    manifest = json.loads((output / "evidence.json").read_text())
    listed = {entry["path"]: entry["sha256"] for entry in manifest["files"]}
    assert sorted(listed) == [name for name in FOLDER if name != "evidence.json"]
    assert all(sha256(output / name) == digest for name, digest in listed.items())
    assert manifest["input"]["sha256"] == sha256(clip)
    assert manifest["input"]["bytes"] == clip.stat().st_size
    model = manifest["model"]
    assert model["xmodel"]["sha256"] == sha256(default_model())
    assert model["checkpoint"]["sha256"] == sha256(DEMO_CHECKPOINT)
    taken = json.loads(default_model().with_name("manifest.json").read_text())["taken"][0]
    assert model["quantization"]["UYNet_int.xmodel"]["sha256"] == taken["sha256"]
    assert set(model["quantization"]) == {"quant_info.json", "bias_corr.pth", "UYNet_int.xmodel"}
    assert manifest["device"]["fingerprint"] == "0x501000000140fee"
    assert manifest["device"]["name"] == "fake"
    assert manifest["preprocessing"]["interpolation"] == "bilinear"
    assert manifest["options"] == {"threads": 1, "model": "x"}
    assert {"deepfake-fpga", "python", "numpy", "cv2"} <= set(manifest["versions"])
    assert manifest["verdict"]["tracks"][0]["frames"] == 60
    assert done.sha256 == manifest["manifest_sha256"]
    assert verify(output).intact


def test_several_videos_have_a_folder_each_and_an_index(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    clips = [
        grey_clip(tmp_path / "a.mp4", [DARK] * 8),
        grey_clip(tmp_path / "b" / "a.mp4", [BRIGHT] * 9),
        grey_clip(tmp_path / "<i>.mp4", [BRIGHT] * 10),
    ]
    output = tmp_path / "out"
    done = judged(clips, output)
    assert sorted(path.name for path in output.iterdir()) == [
        "_i_", "a", "a-2", "evidence.json", "index.html", "records.jsonl", "summary.json"
    ]  # fmt: skip
    states = []
    for name, count in (("a", 8), ("a-2", 9), ("_i_", 10)):
        folder = output / name
        assert sorted(path.name for path in folder.iterdir()) == FOLDER
        lines = (folder / "records.jsonl").read_text().splitlines()
        assert len(lines) == count
        assert len({json.loads(line)["source"] for line in lines}) == 1
        states.append(json.loads((folder / "summary.json").read_text())["verdict"])
    assert states == ["manipulated", "authentic", "authentic"]
    assert len((output / "records.jsonl").read_text().splitlines()) == 27
    page = Page((output / "index.html").read_text())
    assert page.links == ["a/report.html", "a-2/report.html", "_i_/report.html"]
    assert all((output / link).is_file() for link in page.links)
    assert "<i>.mp4" in page.words
    assert "demonstration model" in page.words
    result = verify(output)
    assert result.intact, result.findings
    assert set(done.summary.overlays.values()) == {
        str(output / name / "overlay.mp4") for name in ("a", "a-2", "_i_")
    }
    for path in json.loads((output / "summary.json").read_text())["outputs"]:
        assert Path(path).exists()


def test_less_can_be_asked_for(tmp_path: Path) -> None:
    clip = grey_clip(tmp_path / "clip.mp4", [DARK] * 8)
    judged([clip], tmp_path / "one", report=False)
    assert not (tmp_path / "one" / "report.html").exists()
    judged([clip], tmp_path / "two", pictures=False)
    names = sorted(path.name for path in (tmp_path / "two").iterdir())
    assert names == [
        "evidence.json", "records.jsonl", "report.html", "summary.json", "timeline.json",
        "timeline.vtt",
    ]  # fmt: skip
    assert "data:image" not in (tmp_path / "two" / "report.html").read_text()
    assert verify(tmp_path / "one").intact
    assert verify(tmp_path / "two").intact


def test_an_input_that_changes_meanwhile_is_told(tmp_path: Path) -> None:
    clip = grey_clip(tmp_path / "clip.mp4", [DARK] * 8)
    judged([clip], tmp_path / "out", before={str(clip): (1, 2)})
    manifest = json.loads((tmp_path / "out" / "evidence.json").read_text())
    assert any("changed while it was read" in note for note in manifest["notes"])


@pytest.mark.parametrize(
    ("stem", "folder"),
    [
        ("clip.mp4", "clip"), ("..mp4", "video"), ("../../x.mp4", "x"), (".hidden.mp4", "hidden"),
        ("a\\b.mp4", "a_b"), ("a\nb.mp4", "a_b"), ("caf\udce9.mp4", "caf?".replace("?", "_")),
        ("é ü.mp4", "é ü"), ("x" * 200 + ".mp4", "x" * 100),
    ],
)  # fmt: skip
def test_folder_names_lead_nowhere_else(stem: str, folder: str) -> None:
    assert folder_name(stem) == folder


def test_the_page_is_whole_and_alone(tmp_path: Path) -> None:
    clip = grey_clip(tmp_path / "a<b>&'\"c.mp4", [BRIGHT] * 20 + [DARK] * 60)
    judged([clip], tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert all(link.startswith("data:image/jpeg;base64,") for link in page.links)
    assert page.tags["img"] == len(page.links) >= 2
    assert "http" not in re.sub(r"http-equiv", "", re.sub(r"base64,[^\"]*", "", text))
    assert "a<b>&'\"c.mp4" in page.words
    assert text.count("<b>") == text.count("</b>") == 1  # ours: the demonstration's warning
    assert "url(" not in text
    assert "@media print" in text
    assert page.tags["body"] == page.tags["head"] == page.tags["h1"] == 1


def test_the_page_says_what_where_and_how_sure() -> None:
    page = Page(report(story([0.05] * 20 + [0.97] * 60)))
    words = page.words
    assert "Signs of manipulation were found" in words
    assert "probability of manipulation at 74 %" in words
    assert "The face looks manipulated in one stretch of the video, 6.0 of 8.0 seconds" in words
    assert "0:02.0" in words
    assert "0:08.0" in words
    assert "97 of 100" in words
    assert "80 of the 80 single pictures of the video (100 %)" in words
    assert "not a proof" in words
    assert "does not mean that the video is genuine" in words
    assert "deepfake-fpga verify out" in words
    # Nobody measured this model.
    assert "Read the number as a score" in words


def test_the_page_of_an_authentic_video_does_not_promise() -> None:
    words = Page(report(story([0.05] * 40))).words
    assert "No signs of manipulation were found" in words
    assert "probability of manipulation at 5 %" in words
    assert "No stretch of the video stands out" in words
    assert "does not mean that the video is genuine" in words


def test_nothing_is_ever_sure() -> None:
    page = report(story([1.0] * 40))
    sure = Page(page).words
    assert 'aria-label="more than 99 %"' in page
    assert sure.count("more than 99 %") == 2, "the answer and the drawing"
    assert "probability of manipulation at more than 99 %" in sure
    assert "The face looks manipulated in the whole video, 4.0 seconds" in sure
    assert "probability of manipulation at less than 1 %" in Page(report(story([0.0] * 40))).words


def test_short_moments_in_an_authentic_video_are_told() -> None:
    words = Page(report(story([0.05] * 90 + [0.95] * 5))).words
    assert "No signs of manipulation were found" in words
    assert "these moments deserve a look" in words


def test_no_answer_has_its_reason_and_no_number() -> None:
    words = Page(report(story([None] * 12))).words
    assert "No answer can be given" in words
    assert "No face was found" in words
    assert "could not be judged" in words
    assert "0 of the 12 single pictures of the video (0 %)" in words
    assert "50 %" not in words
    assert not re.search(r"probability of manipulation at", words)


def test_every_reason_has_its_words() -> None:
    assert set(WHY) == set(Reason)
    assert all(reason.words for reason in Reason)


def test_a_calibrated_model_says_how_often_it_was_wrong() -> None:
    calibration = Calibration(
        0.7, "mean", 0.1, "fitted", {"held_out": {"false_alarms": 0.05, "missed": 0.12}}
    )
    rules = Rules(aggregation="mean", calibration=calibration)
    words = Page(report(story([0.95] * 20, rules=rules))).words
    assert "about 5 of 100 genuine videos were taken for manipulated" in words
    assert "about 12 of 100 manipulated ones were missed" in words
    assert "Read the number as a score" not in words


def test_the_demonstration_model_is_named_as_such(tmp_path: Path) -> None:
    clip = grey_clip(tmp_path / "clip.mp4", [DARK] * 8)
    judged([clip], tmp_path / "out")
    words = Page((tmp_path / "out" / "report.html").read_text()).words
    assert "Made with the demonstration model" in words
    assert "Do not pass its answer on as a finding" in words
    assert sha256(clip) in words


def test_notes_and_names_are_escaped() -> None:
    wild = "<script>alert(1)</script>\udcff"
    text = report(
        story([0.9] * 9, name=wild, notes=[wild], facts=[(wild, wild)], check=f"verify {wild}")
    )
    assert "<script>" not in text
    assert html.escape("<script>") in text
    text.encode("utf-8")
    Page(text)


def test_long_videos_keep_the_page_small() -> None:
    values: List[Optional[float]] = [0.05 if (n // 20) % 2 else 0.95 for n in range(20000)]
    text = report(story(values))
    assert len(text) < 400_000
    assert "And 470 more, in timeline.json" in Page(text).words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00.0"), (59.96, "1:00.0"), (75.25, "1:15.2"), (3661.5, "1:01:01.5")],
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_a_model_of_ones_own_has_its_whole_origin(tmp_path: Path) -> None:
    """Checkpoint, calibration and quantized model, also where the build folder is gone."""
    build = tmp_path / "build"
    quantized = build / "quant_model" / "UYNet_int.xmodel"
    quantized.parent.mkdir(parents=True)
    made = {}
    for name in ("quant_info.json", "bias_corr.pth", "UYNet_int.xmodel"):
        (quantized.parent / name).write_text(name)
        made[name] = sha256(quantized.parent / name)
    model = build / "compiled" / "YNET.xmodel"
    model.parent.mkdir()
    model.write_bytes(default_model().read_bytes())
    manifest = json.loads(default_model().with_name("manifest.json").read_text())
    manifest["taken"] = [{"path": str(quantized), "sha256": made[quantized.name], "bytes": 1}]
    manifest["results"]["quantization"] = made
    (model.parent / "manifest.json").write_text(json.dumps(manifest))
    found = model_record(load_artifact(model))["quantization"]
    assert {name: entry["sha256"] for name, entry in found.items()} == made
    assert all(entry["reason"] is None for entry in found.values())
    # The calibration is changed: what the model was made from stands in its manifest.
    quantized.write_text("another")
    found = model_record(load_artifact(model))["quantization"]
    assert {name: entry["sha256"] for name, entry in found.items()} == made
    assert all("another one" in entry["reason"] for entry in found.values())
    shutil.rmtree(str(quantized.parent))
    found = model_record(load_artifact(model))["quantization"]
    assert {name: entry["sha256"] for name, entry in found.items()} == made


def test_the_curve_of_several_faces_shows_the_strongest_of_each_moment() -> None:
    faces = [FrameScore(n / 10, n, 1, 0.1, 0.0) for n in range(40)]
    faces += [FrameScore(n / 10, n, 2, 0.9 if n >= 20 else 0.05, 0.3) for n in range(10, 40)]
    scores = Scores(faces)
    points = curve_points(scores)
    assert [point["time"] for point in points] == [n / 10 for n in range(40)]
    assert [point["fake_probability"] for point in points] == [0.1] * 20 + [0.9] * 20
    rules = Rules(aggregation="mean")
    told = story(
        [], verdict=judge_video(scores, rules), scores=scores, rules=rules,
        intervals=find_intervals(scores, IntervalRules()),
    )  # fmt: skip
    words = Page(report(told)).words
    assert "face 2" in words
    assert "Face 1: no signs of manipulation. Face 2: signs of manipulation." in words
    assert "At least one of the faces looks manipulated in one stretch" in words


def test_without_pictures_nothing_is_drawn_or_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = grey_clip(tmp_path / "clip.mp4", [DARK] * 8)
    monkeypatch.setattr(Gallery, "write", lambda *words: None)
    monkeypatch.setattr(clips_module, "open_video", None)
    judged([clip], tmp_path / "out", pictures=False)
    assert verify(tmp_path / "out").intact


def test_frames_that_this_run_did_not_see_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = grey_clip(tmp_path / "clip.mp4", [DARK] * 8)
    monkeypatch.setattr(Gallery, "write", lambda *words: None)
    judged([clip], tmp_path / "out")
    page = Page((tmp_path / "out" / "report.html").read_text())
    assert page.tags["img"] >= 2
    assert cv2.imread(str(tmp_path / "out" / "contact.png")).shape[0] > 400


def test_files_of_another_run_are_told_and_not_listed(tmp_path: Path) -> None:
    clip = grey_clip(tmp_path / "clip.mp4", [DARK] * 8)
    output = tmp_path / "out"
    output.mkdir()
    (output / "overlay-old.mp4").write_text("old")
    (output / "trace.json").write_text("of this run")
    done = judged([clip], output, also=[output / "trace.json", tmp_path / "elsewhere"])
    assert done.summary.notes[-1].endswith("files that are not of this run: overlay-old.mp4")
    assert [(f.kind, f.path) for f in verify(output).findings] == [("added", "overlay-old.mp4")]
    (output / "overlay-old.mp4").unlink()
    assert verify(output).intact
    again = judged([clip], output, also=[output / "trace.json"])
    assert not [note for note in again.summary.notes if "not of this run" in note]
