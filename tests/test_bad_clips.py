"""Bad clips: each ends in a labelled result or a clear error, and a batch of them completes."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np
import pytest

from deepfake_fpga.deploy.cli import main
from deepfake_fpga.deploy.evidence.verification import verify

from .clips import spoil_frame, write_clip
from .needs import needs_av, needs_sim

pytestmark = [needs_av, needs_sim]

STATES = {"manipulated", "authentic", "inconclusive"}
EVIDENCE = {"evidence.json", "records.jsonl", "report.html", "summary.json", "timeline.vtt"}


def moving(count: int, size: int = 64) -> List[np.ndarray]:
    """Pictures that compress badly enough to be cut in the middle."""
    rng = np.random.RandomState(2)
    return [rng.randint(0, 255, (size, size, 3)).astype(np.uint8) for _ in range(count)]


def one_frame(path: Path) -> None:
    write_clip(path, 1)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zeros(path: Path) -> None:
    path.write_bytes(bytes(4096))


def text(path: Path) -> None:
    path.write_text("This is no video.\n" * 40)


def sound_only(path: Path) -> None:
    import av

    with av.open(str(path), "w", format="mp4") as container:
        stream: Any = container.add_stream("aac", rate=48000)
        stream.codec_context.layout = "mono"
        for number in range(12):
            silence = np.zeros((1, 1024), np.float32)
            frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48000, number * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def animated_gif(path: Path) -> None:
    write_clip(path, 8, codec="gif", pix_fmt="rgb8")


def still_gif(path: Path) -> None:
    write_clip(path, 1, codec="gif", pix_fmt="rgb8")


def ten_bits(path: Path) -> None:
    write_clip(path, 8, pix_fmt="yuv420p10le")


def lying_length(path: Path) -> None:
    """An AVI whose headers claim 5,000 frames, of which it has 12."""
    write_clip(path, 12, codec="mjpeg", pix_fmt="yuvj420p")
    data = bytearray(path.read_bytes())
    header, stream = data.index(b"avih") + 8, data.index(b"strh") + 8
    assert struct.unpack_from("<I", data, header + 16)[0] == 12
    assert struct.unpack_from("<I", data, stream + 32)[0] == 12
    struct.pack_into("<I", data, header + 16, 5000)
    struct.pack_into("<I", data, stream + 32, 5000)
    path.write_bytes(bytes(data))


def cut_short(path: Path) -> None:
    """A Matroska file of which the second half is missing."""
    write_clip(path, 30, pictures=moving(30))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def no_index(path: Path) -> None:
    """An MP4 without its index, which stands at the end."""
    write_clip(path, 12, pictures=moving(12))
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 4])


def all_damaged(path: Path) -> None:
    write_clip(path, 6, codec="mjpeg", pix_fmt="yuvj420p", pictures=moving(6))
    for number in range(6):
        spoil_frame(path, number)


def mostly_damaged(path: Path) -> None:
    write_clip(path, 10, codec="mjpeg", pix_fmt="yuvj420p", pictures=moving(10))
    for number in range(7):
        spoil_frame(path, number)


def tiny(path: Path) -> None:
    write_clip(path, 8, height=16, width=16)


def long_and_flat(path: Path) -> None:
    write_clip(path, 6, height=16, width=640)


LABELLED: Dict[str, Tuple[Any, int, str]] = {
    # name: how it is made, frames judged, reason ("" where an answer is given)
    "one.mp4": (one_frame, 1, "too_few_frames"),
    "still.gif": (still_gif, 1, "too_few_frames"),
    "animated.gif": (animated_gif, 8, ""),
    "ten.mp4": (ten_bits, 8, ""),
    "lying.avi": (lying_length, 12, ""),
    "damaged.mkv": (all_damaged, 0, "decode_error"),
    "mostly.mkv": (mostly_damaged, 3, "too_few_frames"),
    "tiny.mp4": (tiny, 8, ""),
    "flat.mp4": (long_and_flat, 0, "no_face"),
}

REFUSED = {
    "empty.mp4": (empty, "an empty file"),
    "zeros.mp4": (zeros, "zero bytes"),
    "text.mp4": (text, "not a video"),
    "sound.m4a": (sound_only, "no video stream"),
    "noindex.mp4": (no_index, "not a video"),
}


def call(*words: Any) -> int:
    with pytest.raises(SystemExit) as exit_info:
        main([str(word) for word in words])
    return int(exit_info.value.code or 0)


def run(output: Path, *clips: Path) -> int:
    words = [word for clip in clips for word in ("--video", clip)]
    return call("run", *words, "-o", output, "--device", "sim", "--threads", 1, "-q")


def check_labelled(folder: Path, judged: int, reason: str) -> Dict[str, Any]:
    summary: Dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["verdict"] in STATES
    (track,) = (summary.get("sources") or [summary])[0]["tracks"]
    assert track["judged"] == judged
    if reason:
        assert (summary["verdict"], summary["reason"]) == ("inconclusive", reason)
    assert (summary["fake_probability"] is None) == (judged == 0)
    assert {path.name for path in folder.iterdir()} >= EVIDENCE
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.rstrip().endswith("</html>")
    assert verify(folder).intact
    return summary


@pytest.mark.parametrize("name", sorted(LABELLED))
def test_a_bad_clip_has_a_labelled_result(name: str, tmp_path: Path) -> None:
    make, judged, reason = LABELLED[name]
    make(tmp_path / name)
    assert run(tmp_path / "out", tmp_path / name) == (0 if judged else 1)
    summary = check_labelled(tmp_path / "out", judged, reason)
    assert summary["complete"] is True


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_is_no_video_is_a_clear_error(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, words = REFUSED[name]
    make(tmp_path / name)
    assert run(tmp_path / "out", tmp_path / name) == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: ")
    assert words in error
    assert name in error
    assert not (tmp_path / "out" / "evidence.json").exists()


def test_a_clip_that_is_cut_short_says_so(tmp_path: Path) -> None:
    cut_short(tmp_path / "cut.mkv")
    assert run(tmp_path / "out", tmp_path / "cut.mkv") == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert 5 <= summary["frames"]["total"] < 30
    assert verify(tmp_path / "out").intact


def test_a_lying_length_is_told(tmp_path: Path) -> None:
    lying_length(tmp_path / "lying.avi")
    assert run(tmp_path / "out", tmp_path / "lying.avi") == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert summary["frames"]["total"] == 12
    assert any("the header states 5000 frames, 12 are there" in note for note in summary["notes"])
    assert "12 are there" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_a_batch_of_all_of_them_completes(tmp_path: Path) -> None:
    clips = []
    for name, (make, *_) in [*LABELLED.items(), *REFUSED.items()]:
        make(tmp_path / name)
        clips.append(tmp_path / name)
    output = tmp_path / "out"
    assert run(output, *clips) == 0
    summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    assert summary["complete"] is True
    assert [Path(source["source"]).name for source in summary["sources"]] == [
        clip.name for clip in clips
    ]
    for name, (_, judged, reason) in LABELLED.items():
        check_labelled(output / Path(name).stem, judged, reason)
    by_name = {Path(source["source"]).name: source for source in summary["sources"]}
    for name, (_, words) in REFUSED.items():
        assert by_name[name]["verdict"] == "inconclusive"
        assert by_name[name]["reason"] == "decode_error"
        assert by_name[name]["fake_probability"] is None
        assert words in by_name[name]["explanation"]
        page = (output / Path(name).stem / "report.html").read_text(encoding="utf-8")
        assert "No answer can be given" in page
    index = (output / "index.html").read_text(encoding="utf-8")
    assert all(f"{Path(name).stem}/report.html" in index for name in [*LABELLED, *REFUSED])
    assert verify(output).intact


def test_a_batch_that_goes_on_later_has_whole_evidence(tmp_path: Path) -> None:
    """What an earlier run judged is in the evidence of the later one, as it was."""
    clips = [tmp_path / "one.mp4", tmp_path / "ten.mp4", tmp_path / "empty.mp4"]
    one_frame(clips[0])
    ten_bits(clips[1])
    empty(clips[2])
    output = tmp_path / "out"
    assert run(output, *clips) == 0
    assert verify(output).intact
    before = (output / "ten" / "records.jsonl").read_bytes()
    (output / "ten" / "contact.png").unlink()
    assert not verify(output).intact
    assert run(output, *clips) == 0
    result = verify(output)
    assert result.intact, result.findings
    assert (output / "ten" / "records.jsonl").read_bytes() == before
    assert {path.name for path in (output / "ten").iterdir()} >= EVIDENCE | {"overlay.mp4"}
    assert (output / "ten" / "contact.png").stat().st_size > 10_000
