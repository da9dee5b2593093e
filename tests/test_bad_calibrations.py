"""Calibration files that are damaged or of another model: refused with the tensor's name."""

from __future__ import annotations

import collections
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any, Dict

import numpy as np
import pytest

from deepfake_fpga.errors import FormatError, ToolkitError
from deepfake_fpga.quantize import results


def written(folder: Path, params: Dict[str, Any], corrections: Any = None) -> Path:
    info = {
        "param": params,
        "output": {"Net::nndct_input_0": [[8, 6]]},
        "input": {},
        "fast_finetuned": False,
        "bias_corrected": corrections is not None,
        "version": "3.5.0",
        "graph_md5": "0",
    }
    (folder / results.QUANT_INFO).write_text(json.dumps(info))
    if corrections is not None:
        with zipfile.ZipFile(str(folder / results.BIAS_CORR), "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(corrections, 2))
    return folder


def test_a_sound_calibration_is_read(tmp_path: Path) -> None:
    corrections = collections.OrderedDict(conv=[0.5, -0.25], pool=None)
    info = results.load(written(tmp_path, {"Net::conv.weight": [[8, -3]]}, corrections))
    assert info.params == {"Net::conv.weight": -3}
    assert info.corrections == {"conv": [0.5, -0.25], "pool": None}


@pytest.mark.parametrize(
    "pair",
    [[[8, 400]], [[8, -32]], [[8, 2.5]], [[8, True]], [[16, 3]], [[8]], [], 7, None, "x", {}],
)
def test_an_impossible_fix_position_is_refused_by_name(tmp_path: Path, pair: Any) -> None:
    with pytest.raises(FormatError, match=results.QUANT_INFO) as error:
        results.load(written(tmp_path, {"Net::conv.weight": pair}))
    assert "'Net::conv.weight'" in error.value.evidence
    assert error.value.next_step == "deepfake-fpga quant --mode calib"


def test_a_correction_that_is_not_finite_is_refused_by_name(tmp_path: Path) -> None:
    for value in (float("nan"), float("inf")):
        with pytest.raises(FormatError, match=results.BIAS_CORR) as error:
            results.load(written(tmp_path, {}, {"Net::nndct_conv2d_1": [0.0, value]}))
        assert "'Net::nndct_conv2d_1'" in error.value.evidence


def words(folder: Path) -> str:
    """What our error says; empty where there is none."""
    try:
        results.load(folder)
    except ToolkitError as error:
        return str(error)
    return ""


def test_damaged_files_end_in_our_errors(tmp_path: Path) -> None:
    written(tmp_path, {"Net::conv.weight": [[8, 7]]}, {"conv": [0.5, 1.5]})
    random = np.random.default_rng(4)
    for name in (results.QUANT_INFO, results.BIAS_CORR):
        path = tmp_path / name
        whole = path.read_bytes()
        refused = 0
        for attempt in range(150):
            changed = bytearray(whole)
            at = int(random.integers(0, len(changed)))
            if attempt % 3 == 0:
                del changed[at:]
            else:
                changed[at] = int(random.integers(0, 256))
            path.write_bytes(bytes(changed))
            said = words(tmp_path)
            refused += bool(said)
            assert not said or str(path) in said
        path.write_bytes(whole)
        assert refused > 50
    (tmp_path / results.QUANT_INFO).write_text("[" * 100_000)
    with pytest.raises(FormatError, match=results.QUANT_INFO):
        results.load(tmp_path)
