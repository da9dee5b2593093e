"""The report's page and its drawings say what the records say."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Dict, List
from xml.etree import ElementTree

from deepfake_fpga.deploy.report import Section, picture, write_page
from deepfake_fpga.deploy.timeline import curve_svg, judged

SVG = "{http://www.w3.org/2000/svg}"


def record(frame: int, score: Any, status: str = "ok") -> Dict[str, Any]:
    verdict = None if score is None else ("FAKE" if score >= 0.5 else "REAL")
    return {
        "frame": frame,
        "time": frame / 10,
        "fake_probability": score,
        "verdict": verdict,
        "status": status,
    }


RECORDS = [record(0, 0.1), record(1, None, "decode_error"), record(2, 0.9), record(3, 0.8)]


def test_a_frame_that_was_not_judged_has_no_point() -> None:
    assert judged(RECORDS) == [(0.0, 0.1), (0.2, 0.9), (0.3, 0.8)]


def test_the_curve_joins_the_judged_frames_and_shades_the_truth() -> None:
    root = ElementTree.fromstring(curve_svg(RECORDS, truth=[(0.15, 0.35)]))
    curve = [line for line in root.iter(f"{SVG}line") if line.get("stroke-width") == "2"]
    assert len(curve) == 2
    # Higher scores stand higher, that is at a smaller y.
    assert float(curve[0].attrib["y2"]) < float(curve[0].attrib["y1"])
    assert [r.get("fill-opacity") for r in root.iter(f"{SVG}rect")] == ["0.25"]


def test_a_video_without_a_judged_frame_says_so() -> None:
    text = curve_svg([record(0, None, "decode_error")])
    assert "no frame could be judged" in text
    ElementTree.fromstring(text)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: List[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_escaped_and_self_contained(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_page(
        path,
        "A <clip>",
        ("manipulated", "3 of 4 & more"),
        "Not proof.",
        [Section("T", "x < y", picture(b"png", 'a "p"'), ("a", "b"), [("1", "<2>")])],
    )
    text = path.read_text(encoding="utf-8")
    parser = Tags()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    assert "A &lt;clip&gt;" in text
    assert "&lt;2&gt;" in text
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
