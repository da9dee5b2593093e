"""The two arrays of the DeepYNet scripts, against the device's own numbers."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import cv2
import numpy as np
import pytest

from deepfake_fpga.errors import DeviceError
from deepfake_fpga.inference.artifact import artifact_of
from deepfake_fpga.inference.devices.handmade import uynet
from deepfake_fpga.inference.pipeline import run_pipeline
from deepfake_fpga.inference.run import RunOptions, run
from deepfake_fpga.inference.session import Prediction
from deepfake_fpga.inference.session import Session as RealSession
from deepfake_fpga.inference.sinks import ArraySink, Format, arrays
from deepfake_fpga.inference.sources import open_images

from .fakes import FakeSession, ListSink, PaintedSource
from .needs import needs_sim
from .sink_cases import SIZE, fill, results

MASKS, SCORES = "segmentation_output_array.npy", "classification_output_array.npy"


@needs_sim
def test_a_run_gives_what_the_original_wrote(tmp_path: Path) -> None:
    """As its loop makes them: each output's codes times 1 / 2**fix_point, one row per picture."""
    random = np.random.default_rng(1)
    (tmp_path / "in").mkdir()
    pictures = random.integers(0, 256, (11, 112, 112, 3)).astype(np.uint8)
    for number, picture in enumerate(pictures):
        assert cv2.imwrite(str(tmp_path / "in" / f"{number}.png"), picture[..., ::-1])
    graph = uynet(4, size=112)
    artifact = artifact_of(graph, Path("YNET.xmodel"))
    mask, scores = graph.producer(artifact.mask), graph.producer(artifact.classifier)
    assert mask is not None
    assert scores is not None
    while mask.tensor.fix_point is None:
        mask = graph.input_ops(mask)[0]
    while scores.tensor.fix_point is None:
        scores = graph.input_ops(scores)[0]
    options = RunOptions(formats=(Format.NPY,), pictures=False)
    with RealSession(artifact, "sim", threads=1) as session:
        summary = run([open_images(str(tmp_path / "in"))], session, tmp_path / "out", options)
        codes = np.concatenate([session.run(part).logits for part in (pictures[:8], pictures[8:])])
        real = np.concatenate([session.run(part).real for part in (pictures[:8], pictures[8:])])
    masks = np.load(str(tmp_path / "out" / MASKS))
    assert masks.shape == (11, 112, 112, 2)
    assert masks.dtype == np.float64
    np.testing.assert_array_equal(masks, codes * (1 / 2**mask.tensor.fix_point))
    found = np.load(str(tmp_path / "out" / SCORES))
    assert found.shape == (11, 1)
    assert found.dtype == np.float64
    assert len(np.unique(found)) > 1
    steps = found * 2**scores.tensor.fix_point
    np.testing.assert_array_equal(steps, np.clip(np.round(steps), -128, 127))
    # The original's verdict: 1 is REAL.
    np.testing.assert_allclose(1 / (1 + np.exp(-found[:, 0])), real, atol=1e-6)
    assert [str(tmp_path / "out" / name) in summary.outputs for name in (MASKS, SCORES)] == [
        True,
        True,
    ]


class Session(FakeSession):
    """One that gives logits; the third batch fails."""

    def result(self, ticket: int) -> Prediction:
        if ticket == 2:
            raise DeviceError("The device burned", "smoke")
        plain = super().result(ticket)
        codes = np.ones((*plain.mask.shape, 2), np.int8)
        score = np.full(len(plain.mask), float(ticket))
        return Prediction(plain.mask, plain.real, codes, scale=0.5, score=score)


@pytest.mark.parametrize("wanted", [False, True])
def test_logits_are_carried_only_where_a_sink_wants_them(wanted: bool) -> None:
    sink = ListSink()
    sink.needs_logits = wanted
    run_pipeline([PaintedSource(16, broken={3})], Session().as_session(), [sink])
    given = [result.logits for result in sink.results]
    assert [logits is not None for logits in given] == [
        wanted and number != 3 for number in range(16)
    ]
    if wanted:
        assert [logits.classifier for logits in given if logits] == [0.0] * 8 + [1.0] * 7
        assert {logits.scale for logits in given if logits} == {0.5}


def test_a_run_that_fails_leaves_every_form_as_far_as_it_came(tmp_path: Path) -> None:
    options = RunOptions(formats=tuple(Format), pictures=False)
    with pytest.raises(DeviceError):
        run([PaintedSource(40)], Session().as_session(), tmp_path, options)
    files = {name for form in Format for name in form.files}
    assert {path.name for path in tmp_path.iterdir()} == files | {"records.jsonl", "summary.json"}
    for name in ("records.jsonl", "masks.rle.jsonl", "masks.counts.jsonl"):
        assert len((tmp_path / name).read_text().splitlines()) == 16
    assert len((tmp_path / "records.csv").read_text().splitlines()) == 17
    assert np.load(str(tmp_path / MASKS)).shape == (16, 32, 32, 2)
    assert np.load(str(tmp_path / SCORES))[:, 0].tolist() == [0.0] * 8 + [1.0] * 8
    base = sqlite3.connect(str(tmp_path / "records.sqlite"))
    assert base.execute("SELECT complete FROM runs").fetchall() == [(0,)]
    assert base.execute("SELECT count(*) FROM frames").fetchone() == (16,)
    base.close()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["complete"] is False
    assert {Path(path).name for path in summary["outputs"]} >= files


def test_a_file_can_be_loaded_while_it_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "FLUSH_SECONDS", -1.0)
    sink = ArraySink(tmp_path)
    sink.open()
    given = results(6)
    for count, result in enumerate(given, 1):
        fill(sink, [result])
        rows = np.load(str(tmp_path / MASKS.replace(".npy", ".part.npy")), mmap_mode="r")
        assert rows.shape == (count, SIZE, SIZE, 2)
    sink.close(complete=True)
    assert len(np.load(str(tmp_path / MASKS))) == 6


def test_frames_before_the_first_judged_have_their_rows(tmp_path: Path) -> None:
    lost, *_ = [result for result in results(5) if not result.judged]
    judged = results(1)[0]
    with ArraySink(tmp_path) as sink:
        fill(sink, [lost, lost, judged, lost])
    found = np.load(str(tmp_path / SCORES))[:, 0]
    assert np.isnan(found).tolist() == [True, True, False, True]
    assert np.isnan(np.load(str(tmp_path / MASKS))).all(axis=(1, 2, 3)).tolist() == [
        True,
        True,
        False,
        True,
    ]


def test_where_nothing_was_judged_that_is_said(tmp_path: Path) -> None:
    lost = [result for result in results(20) if not result.judged]
    sink = ArraySink(tmp_path)
    with sink:
        fill(sink, lost)
    assert list(tmp_path.iterdir()) == []
    assert sink.outputs() == []
    assert "nothing was judged" in sink.notes[0]


def test_the_header_is_that_of_the_format(tmp_path: Path) -> None:
    """As NumPy's own reader takes it apart, for few rows and for many."""
    for rows in (0, 7, 10**15):
        path = tmp_path / "header.npy"
        path.write_bytes(arrays.header((rows, 224, 224, 2)))
        assert path.stat().st_size % 64 == 0
        with path.open("rb") as file:
            assert np.lib.format.read_magic(file) == (1, 0)
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
            assert file.read() == b""
        assert (shape, fortran, dtype) == ((rows, 224, 224, 2), False, np.dtype("<f8"))
