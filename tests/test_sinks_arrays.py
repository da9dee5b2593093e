"""The two arrays of the DeepYNet scripts, against the device's own numbers."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from deepfake_fpga.inference.artifact import artifact_of
from deepfake_fpga.inference.devices.handmade import uynet
from deepfake_fpga.inference.run import RunOptions, run
from deepfake_fpga.inference.session import Session
from deepfake_fpga.inference.sinks import ArraySink, Format, arrays
from deepfake_fpga.inference.sources import open_images

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
    with Session(artifact, "sim", threads=1) as session:
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
