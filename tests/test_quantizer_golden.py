"""Our quantizer gives the numbers of the vendor's on every recorded case."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Tuple

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deepfake_fpga.compile.xir.diff import diff_graphs  # noqa: E402
from deepfake_fpga.compile.xir.xmodel import read_xmodel  # noqa: E402
from deepfake_fpga.quantize import results  # noqa: E402

from . import golden  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_thread")]

Case = Tuple[golden.Recording, golden.Ours]


@pytest.fixture(scope="module", params=[*golden.MICRO, *golden.UYNETS])
def case(request: pytest.FixtureRequest, data: Path, one_thread: None) -> Case:
    recording = golden.recording(
        request.param, data, lambda: Path(request.getfixturevalue("shared"))
    )
    return recording, golden.run(recording)


def test_equals_the_recording(case: Case) -> None:
    recording, ours = case
    assert {k: v for k, v in golden.differences(recording, ours).items() if v} == {}


def test_exports_the_recorded_xmodel(case: Case, shared: Path, tmp_path: Path) -> None:
    recording, ours = case
    folder = shared / "golden" / recording.name / "quantize_result"
    if not folder.is_dir():
        pytest.skip("no xmodel was recorded for this case")
    (theirs,) = folder.glob("*_int.xmodel")
    ours.quantized.export_xmodel(tmp_path / theirs.name)
    found = diff_graphs(
        read_xmodel(theirs), read_xmodel(tmp_path / theirs.name), ignore_trace_numbers=True
    )
    assert [str(difference) for difference in found] == []


@pytest.mark.parametrize("name", golden.MICRO)
def test_reads_the_vendors_calibration(name: str, data: Path) -> None:
    recording = golden.recording(name, data, Path)
    options = golden.QuantizeOptions(release="3.5")
    quantizer = golden.Quantizer(recording.model(), recording.inputs("calib")[:1], options)
    quantized = quantizer.quantized(recording.folder)
    theirs = recording.arrays("params_int8")
    ours = quantized.int8_parameters()
    assert list(theirs) == list(ours)
    assert all(np.array_equal(theirs[key], ours[key]) for key in theirs)


def test_correction_file_is_the_recorded_one(data: Path, tmp_path: Path) -> None:
    recording = golden.recording("micro_a_conv_bn_relu", data, Path)
    golden.run(recording).calibration.save(tmp_path)
    assert results.load(tmp_path).corrections == results.load(recording.folder).corrections


def test_results_do_not_depend_on_threads(data: Path) -> None:
    recording = golden.recording("micro_f_cle", data, Path)
    one = golden.run(recording)
    torch.set_num_threads(2)
    try:
        two = golden.run(recording)
    finally:
        torch.set_num_threads(1)
    assert one.calibration.info.text() == two.calibration.info.text()
    theirs, ours = one.quantized.int8_parameters(), two.quantized.int8_parameters()
    assert all(np.array_equal(theirs[key], ours[key]) for key in theirs)
    assert all(np.array_equal(one.codes[key], two.codes[key]) for key in one.codes)


@pytest.fixture(scope="module")
def cle(data: Path, one_thread: None) -> Case:
    recording = golden.recording("micro_f_cle", data, Path)
    return recording, golden.run(recording)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("params_int8", "int8 parameters"),
        ("inter_img0_int8", "codes"),
        ("quant_outputs", "outputs"),
        ("params_folded_equalized", "folded"),
    ],
)
def test_a_flipped_byte_in_an_array_is_seen(
    name: str, kind: str, cle: Case, tmp_path: Path
) -> None:
    recording, ours = cle
    spoiled = _copy(recording, tmp_path)
    arrays = spoiled.arrays(name)
    values = arrays[list(arrays)[-1]]
    values.view(np.uint8).reshape(-1)[values.nbytes // 2] ^= 0x40
    np.savez(str(spoiled.folder / f"{name}.npz"), **arrays)
    assert [k for k, v in golden.differences(spoiled, ours).items() if v] == [kind]


@pytest.mark.parametrize(
    ("name", "kind", "before", "after"),
    [
        ("quant_info", "quant_info", b"[[8,7]]", b"[[8,6]]"),
        ("quant_info", "quant_info", b'"graph_md5":"e', b'"graph_md5":"d'),
        ("calib_fixpos_history", "histories", b"4", b"5"),
        ("cle_pairs", "pairs", b"1.2296", b"1.2297"),
        ("bias_corr", "corrections", b"0.00029", b"0.00028"),
    ],
)
def test_a_changed_byte_in_a_text_is_seen(
    name: str, kind: str, before: bytes, after: bytes, cle: Case, tmp_path: Path
) -> None:
    recording, ours = cle
    spoiled = _copy(recording, tmp_path)
    path = spoiled.folder / f"{name}.json"
    text = path.read_bytes()
    assert before in text
    path.write_bytes(text.replace(before, after, 1))
    assert [k for k, v in golden.differences(spoiled, ours).items() if v] == [kind]


def _copy(recording: golden.Recording, folder: Path) -> golden.Recording:
    shutil.copytree(str(recording.folder), str(folder / "case"))
    return golden.Recording(recording.name, folder / "case", folder / "case")
