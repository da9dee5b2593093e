"""The vendor's quantizer driven: over a script that misbehaves in every way, over the drop-in."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")

from deepfake_fpga.board.vendor import State, VendorTool, find_package  # noqa: E402
from deepfake_fpga.compile.xir.diff import diff_graphs  # noqa: E402
from deepfake_fpga.compile.xir.xmodel import read_xmodel  # noqa: E402
from deepfake_fpga.deploy import calibration_report, simulate  # noqa: E402
from deepfake_fpga.deploy.build_folder import changed_files, read_manifest  # noqa: E402
from deepfake_fpga.deploy.cli import cli  # noqa: E402
from deepfake_fpga.errors import (  # noqa: E402
    DataError,
    FormatError,
    MismatchError,
    OrderError,
    ToolkitError,
    UnsupportedError,
    UsageError,
    WorkError,
)
from deepfake_fpga.quantize import results, vendor_checks, vitis  # noqa: E402
from deepfake_fpga.quantize.backend import (  # noqa: E402
    CalibrationSummary,
    Finetune,
    QuantizeBackend,
    SimBackend,
    select_backend,
)
from deepfake_fpga.quantize.model import UYNet  # noqa: E402
from deepfake_fpga.quantize.releases import release as release_rules  # noqa: E402
from deepfake_fpga.quantize.vendor_console import VendorConsole  # noqa: E402
from deepfake_fpga.quantize.vitis import VitisBackend, detect_release  # noqa: E402

from . import nets  # noqa: E402
from .faces import write_dataset  # noqa: E402
from .golden import MICRO, recording  # noqa: E402

pytestmark = pytest.mark.torch

RELEASES = ["1.4.1", "2.0", "2.5", "3.0", "3.5"]
EXAMPLE = torch.zeros(1, 3, 32, 32)


class TwoHeads(torch.nn.Module):
    """A map and a number per picture, as U-YNet; input 3x32x32."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, channels, 3, padding=1)
        self.relu = torch.nn.ReLU()
        self.out = torch.nn.Conv2d(channels, 2, 1)
        self.pool = torch.nn.MaxPool2d(32)
        self.linear = torch.nn.Linear(channels, 1)

    def forward(self, x: Any) -> Any:
        y = self.relu(self.conv(x))
        return self.out(y), torch.sigmoid(self.linear(torch.flatten(self.pool(y), 1)))


def model_of(kind: Callable[[], Any] = TwoHeads, seed: int = 3) -> Any:
    torch.manual_seed(seed)
    return kind().eval()


def pictures(count: int = 2, seed: int = 0) -> List[Any]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(4, 3, 32, 32, generator=generator) for _ in range(count)]


def nothing(*args: Any) -> None:
    del args


def calibrate(
    backend: QuantizeBackend, folder: Path, model: Any = None, batches: Optional[List[Any]] = None
) -> CalibrationSummary:
    folder.mkdir(exist_ok=True)
    given = pictures() if batches is None else batches
    return backend.calibrate(model or model_of(), EXAMPLE, given, folder, nothing)


def files(folder: Path) -> List[str]:
    return sorted(path.name for path in folder.iterdir())


# A scripted pytorch_nndct.

SCRIPT = '''
"""A quantizer that knows its answers; ``behave`` says how it misbehaves."""
import logging, os, shutil, sys
import torch
behave, calls, good = {}, [], None

handlers = []

def say(kind, code, text):
    if not handlers:  # a logger's handler keeps the stream it finds first
        handlers.append(logging.StreamHandler())
    code = "[%s]" % code if code else ""
    line = "\\n\\x1b[0;33m[VAIQ_%s]%s: %s\\x1b[0m" % (kind, code, text)
    handlers[0].emit(logging.LogRecord("nndct", 30, "", 0, line, (), None))

class torch_quantizer:
    def __init__(self, quant_mode, module, input_args=None, state_dict_file=None,
                 output_dir="quantize_result", bitwidth=None, device=torch.device("cuda"),
                 target=None, input_kwargs=None, dynamo=False):
        calls.append(("new", quant_mode, type(module).__name__, tuple(input_args[0].shape),
                      str(device), sorted(os.listdir(output_dir))))
        self.mode, self.folder, self.module = quant_mode, output_dir, module
        say("NOTE", "", "Quantization %s process start up..." % quant_mode)
        os.write(1, b"native kernels \\xff loaded\\n")
        act("new-" + quant_mode)
        with open(os.path.join(output_dir, type(module).__name__ + ".py"), "w") as file:
            file.write("# GENETARED BY NNDCT, DO NOT EDIT!\\n")

    @property
    def quant_model(self):
        def forward(x):
            calls.append(("forward", tuple(x.shape), torch.is_grad_enabled()))
            act("forward-" + self.mode)
            with torch.no_grad():
                out = self.module(x.clone())
                x.zero_()
            self.batch = len(x)
            return out
        return forward

    def fast_finetune(self, run_fn, run_args):
        losses = [run_fn(*run_args), run_fn(*run_args)]
        calls.append(("finetune", losses))
        put("param.pth", self.folder)

    def load_ft_param(self):
        calls.append(("load_ft_param",))

    def export_quant_config(self):
        calls.append(("export_quant_config",))
        act("config")
        for name in ("quant_info.json", "bias_corr.pth"):
            put(name, self.folder)

    def export_xmodel(self, output_dir="quantize_result", deploy_check=False):
        calls.append(("export_xmodel", self.batch))
        act("xmodel")
        put(type(self.module).__name__ + "_int.xmodel", output_dir)

def put(name, folder):
    source = behave.get("put", {}).get(name, os.path.join(good, name))
    if source is not None:
        shutil.copy(str(source), os.path.join(folder, name))

def act(point):
    if point in behave:
        behave[point]()
'''


class Script:
    """The scripted package, imported in this process."""

    def __init__(self, apis: Any) -> None:
        self.apis, self.calls, self.behave = apis, apis.calls, apis.behave

    def fail(self, point: str, code: str, text: str, status: Optional[int]) -> None:
        """Prints an error and, unless ``status`` is ``None``, ends the process."""

        def act() -> None:
            self.apis.say("ERROR", f"QUANTIZER_TORCH_{code}", text)
            if status is not None:
                sys.exit(status)

        self.behave[point] = act

    def warn(self, point: str, code: str, text: str) -> None:
        self.behave[point] = lambda: self.apis.say("WARN", f"QUANTIZER_TORCH_{code}", text)

    def put(self, name: str, source: Optional[Path]) -> None:
        self.behave.setdefault("put", {})[name] = source


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a good run leaves, made by ours in the form of 3.5."""
    folder = tmp_path_factory.mktemp("good")
    _make(folder, model_of())
    shutil.copy(str(folder / "bias_corr.pth"), str(folder / "param.pth"))
    return folder


def _make(folder: Path, model: Any, release: str = "3.5") -> Path:
    backend = SimBackend(release)
    calibrate(backend, folder, model)
    name = f"{type(model).__name__}_int.xmodel"
    backend.load(model, EXAMPLE, folder).export_xmodel(folder / name)
    return folder


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good: Path) -> Iterator[Script]:
    site = tmp_path / "site"
    for name, text in {
        "pytorch_nndct/__init__.py": "__version__ = '3.5.0+unknown+torch1.13.1'\n",
        "pytorch_nndct/apis.py": SCRIPT,
        "xir/__init__.py": "# __drop_in__: stands for the genuine one\n",
    }.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    for name in [n for n in sys.modules if n.partition(".")[0] in ("pytorch_nndct", "xir")]:
        monkeypatch.delitem(sys.modules, name)
    import pytorch_nndct.apis as apis  # type: ignore[import-not-found]

    apis.good = str(good)
    yield Script(apis)
    for name in [n for n in sys.modules if n.partition(".")[0] in ("pytorch_nndct", "xir")]:
        del sys.modules[name]


def chosen() -> VitisBackend:
    backend = select_backend("vitis")[0]
    assert isinstance(backend, VitisBackend)
    return backend


def test_it_is_found_and_the_reason_says_how(script: Script) -> None:
    for wanted in ("auto", "vitis"):
        backend, reason = select_backend(wanted)
        assert (backend.name, backend.release) == ("vitis", "3.5")
        assert "pytorch_nndct" in reason
        assert "version 3.5.0+unknown" in reason
    assert select_backend("sim")[0].name == "sim"


def test_another_release_is_refused_or_done_by_ours(script: Script) -> None:
    with pytest.raises(MismatchError, match=r"is of release 3\.5, wanted is 2\.5"):
        select_backend("vitis", "2.5")
    backend, reason = select_backend("auto", "2.5")
    assert (backend.name, backend.release) == ("sim", "2.5")
    assert "is of release 3.5, wanted is 2.5" in reason
    assert select_backend("vitis", "3.5")[0].name == "vitis"


def test_calibration_is_called_in_the_order_that_works(
    script: Script, tmp_path: Path, good: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, batches = model_of(), pictures()
    before = [batch.clone() for batch in batches]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    folder, done = tmp_path / "out", []
    folder.mkdir()
    summary = chosen().calibrate(model, EXAMPLE, iter(batches), folder, done.append)
    assert [call[0] for call in script.calls] == [
        "new",
        "forward",
        "forward",
        "export_quant_config",
    ]
    assert script.calls[0][1:5] == ("calib", "TwoHeads", (1, 3, 32, 32), "cpu")
    assert done == [4, 4]
    assert summary.images == 8
    assert any("Only 8 images" in text for text in summary.warnings)
    # The tool writes over its input; the caller's stays.
    assert all(torch.equal(a, b) for a, b in zip(before, batches))
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert files(folder) == ["bias_corr.pth", "quant_info.json", "quantize.log"]
    for name in ("bias_corr.pth", "quant_info.json"):
        assert (folder / name).read_bytes() == (good / name).read_bytes()
    log = (folder / "quantize.log").read_bytes()
    assert b"Quantization calib process start up" in log
    assert b"native kernels \xff loaded" in log
    assert capfd.readouterr() == ("", "")
    assert not os.listdir(tempfile.gettempdir())


def test_tests_are_exported_after_a_forward_of_one_picture(
    script: Script, tmp_path: Path, good: Path
) -> None:
    quantized = chosen().load(model_of(), EXAMPLE, good)
    batch = pictures(1)[0]
    mask, real = quantized(batch)
    assert mask.shape == (4, 2, 32, 32)
    assert real.shape == (4, 1)
    assert float(batch.abs().sum()) > 0
    before = files(good)
    quantized.export_xmodel(tmp_path / "UYNet_int.xmodel")
    assert files(good) == before, "the calibration's folder is not written to"
    assert [call[0] for call in script.calls] == ["new", "forward", "forward", "export_xmodel"]
    assert script.calls[-2][1] == (1, 3, 32, 32)
    assert script.calls[-1][1] == 1
    assert not any(call[2] for call in script.calls if call[0] == "forward"), "gradients are off"
    assert {"UYNet_int.xmodel", "quantize_test.log"} <= set(files(tmp_path))
    log = (tmp_path / "quantize_test.log").read_text(errors="replace")
    assert log.count("Quantization test process start up") == 1
    again = read_xmodel(tmp_path / "UYNet_int.xmodel")
    assert diff_graphs(again, read_xmodel(good / "TwoHeads_int.xmodel")) == []
    del quantized
    assert not os.listdir(tempfile.gettempdir())


def test_finetune_runs_the_pictures_as_often_as_it_is_asked(
    script: Script, tmp_path: Path, good: Path
) -> None:
    tuned = tmp_path / "info.json"
    tuned.write_text(
        (good / "quant_info.json")
        .read_text()
        .replace('"fast_finetuned":false', '"fast_finetuned":true')
    )
    script.put("quant_info.json", tuned)
    layers: List[Tuple[int, int]] = []
    finetune = Finetune(
        iter(pictures(3, seed=1)), tmp_path / "state", lambda *args: layers.append(args)
    )
    folder = tmp_path / "out"
    folder.mkdir()
    chosen().calibrate(model_of(), EXAMPLE, pictures(), folder, nothing, finetune)
    names = [call[0] for call in script.calls]
    assert names == [
        "new",
        *["forward"] * 6,
        "finetune",
        "forward",
        "forward",
        "export_quant_config",
    ]
    # The script's network is the float one, so it differs by nothing, both times.
    assert script.calls[7][1] == [0.0, 0.0]
    assert layers[-1][0] == layers[-1][1]
    assert "param.pth" in files(folder)
    script.calls.clear()
    chosen().load(model_of(), EXAMPLE, folder)
    assert [call[0] for call in script.calls] == ["new", "load_ft_param"]
    assert "param.pth" in script.calls[0][5]


def refused(error: type, action: Callable[[], Any], folder: Path) -> ToolkitError:
    """Expects the error, and that nothing but a kept log is left."""
    before = files(folder) if folder.is_dir() else None
    with pytest.raises(error) as caught:
        action()
    assert (files(folder) if folder.is_dir() else None) == before
    left = os.listdir(tempfile.gettempdir())
    assert all(name.endswith(".log") for name in left), left
    found: ToolkitError = caught.value
    return found


def refused_calibration(error: type, folder: Path, **kwargs: Any) -> ToolkitError:
    folder.mkdir()
    return refused(error, lambda: calibrate(chosen(), folder, **kwargs), folder)


def kept_log(found: ToolkitError) -> str:
    path = Path(found.evidence.rpartition("console output in ")[2])
    return path.read_text(encoding="utf-8", errors="replace")


@pytest.mark.parametrize("status", [0, 2])
@pytest.mark.parametrize("point", ["new-calib", "forward-calib", "config"])
def test_an_exit_is_an_error_whatever_its_status(
    script: Script, tmp_path: Path, point: str, status: int
) -> None:
    script.fail(point, "SOMETHING", "It went wrong.", status)
    found = refused_calibration(WorkError, tmp_path / "out")
    assert f"status {status}" in found.evidence
    assert "QUANTIZER_TORCH_SOMETHING: It went wrong." in found.evidence
    assert "It went wrong." in kept_log(found)


def test_an_exception_names_its_last_error(script: Script, tmp_path: Path) -> None:
    def fail() -> None:
        script.apis.say("ERROR", "", "First this.")
        raise ValueError("then that")

    script.behave["forward-calib"] = fail
    found = refused_calibration(WorkError, tmp_path / "out")
    assert "calibration batch 0" in found.cause
    assert "ValueError: then that" in found.evidence
    assert "First this." in found.evidence


def test_ctrl_c_stays_ctrl_c(script: Script, tmp_path: Path) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    script.behave["forward-calib"] = stop
    streams = sys.stdout, sys.stderr
    with pytest.raises(KeyboardInterrupt):
        calibrate(chosen(), tmp_path / "out")
    assert (sys.stdout, sys.stderr) == streams
    assert files(tmp_path / "out") == []
    assert not os.listdir(tempfile.gettempdir())


@pytest.mark.parametrize("name", ["quant_info.json", "bias_corr.pth"])
def test_a_file_that_is_not_written(script: Script, tmp_path: Path, name: str) -> None:
    """``export_quant_config`` returns silently."""
    script.put(name, None)
    found = refused_calibration(WorkError, tmp_path / "out")
    assert name in found.evidence


def edited(good: Path, path: Path, change: Callable[[Dict[str, Any]], None]) -> Path:
    record = json.loads((good / "quant_info.json").read_text())
    change(record)
    path.write_text(json.dumps(record))
    return path


def _null(section: str) -> Callable[[Dict[str, Any]], None]:
    def change(record: Dict[str, Any]) -> None:
        record[section][next(iter(record[section]))] = [[8, None]]

    return change


@pytest.mark.parametrize("section", ["param", "output"])
def test_null_positions(script: Script, tmp_path: Path, good: Path, section: str) -> None:
    script.put("quant_info.json", edited(good, tmp_path / "null.json", _null(section)))
    found = refused_calibration(DataError, tmp_path / "out")
    assert "without a fix position" in found.cause
    refused(
        FormatError,
        lambda: chosen().load(
            model_of(), EXAMPLE, _with(good, tmp_path / "copy", tmp_path / "null.json")
        ),
        good,
    )


def _with(good: Path, folder: Path, info: Path) -> Path:
    """A copy of a calibration with another ``quant_info.json``."""
    shutil.copytree(str(good), str(folder))
    shutil.copyfile(str(info), str(folder / "quant_info.json"))
    return folder


def test_an_empty_result(script: Script, tmp_path: Path, good: Path) -> None:
    def empty(record: Dict[str, Any]) -> None:
        record["param"], record["output"] = {}, {}

    script.put("quant_info.json", edited(good, tmp_path / "empty.json", empty))
    with pytest.raises(ToolkitError):
        calibrate(chosen(), tmp_path / "out")
    assert files(tmp_path / "out") == []


def test_garbage_as_result(script: Script, tmp_path: Path) -> None:
    (tmp_path / "garbage").write_bytes(b"\x00\x01 not json")
    script.put("quant_info.json", tmp_path / "garbage")
    found = refused_calibration(FormatError, tmp_path / "out")
    assert "cannot be read" in found.cause


def test_another_models_names(script: Script, tmp_path: Path, good: Path) -> None:
    def rename(record: Dict[str, Any]) -> None:
        record["param"] = {k.replace("conv", "other"): v for k, v in record["param"].items()}

    script.put("quant_info.json", edited(good, tmp_path / "other.json", rename))
    found = refused_calibration(MismatchError, tmp_path / "out")
    assert "TwoHeads::other.weight" in found.evidence


def test_warnings_are_collected(script: Script, tmp_path: Path) -> None:
    calibrate(chosen(), tmp_path / "first")  # the tool's logger is made here, and used below
    script.warn(
        "config",
        "SHIFT_CHECK",
        "output X value is too small, so adjust the fix position from 9 to 8",
    )
    script.warn("forward-calib", "TENSOR_VALUE_INVALID", "Tensor has a value that is not valid.")
    summary = calibrate(chosen(), tmp_path / "out")
    assert summary.adjustments == [
        "QUANTIZER_TORCH_SHIFT_CHECK: output X value is too small, so adjust the fix position "
        "from 9 to 8"
    ]
    texts = [text for text in summary.warnings if "TENSOR_VALUE_INVALID" in text]
    assert len(texts) == 1, "once, though it is printed for each batch"


def test_an_operator_that_stays_float(script: Script, tmp_path: Path) -> None:
    script.warn(
        "new-calib",
        "FLOAT_OP",
        "The quantizer recognize new op `aten::cumsum` as a float operator by default.",
    )
    found = refused_calibration(UnsupportedError, tmp_path / "out")
    assert "aten::cumsum" in found.cause
    assert not [call for call in script.calls if call[0] == "forward"]


def test_the_crash_of_2_5_is_explained(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["pytorch_nndct"], "__version__", "2.5.0")
    kind = script.apis.torch_quantizer
    later = ("input_kwargs", "dynamo")
    known = [p for n, p in inspect.signature(kind).parameters.items() if n not in later]
    monkeypatch.setattr(kind, "__signature__", inspect.Signature(known), raising=False)
    _make(tmp_path / "made", model_of(), "2.5")

    def layout_tranform() -> None:
        raise IndexError("list index out of range")

    quantized = chosen().load(model_of(), EXAMPLE, tmp_path / "made")
    script.behave["xmodel"] = layout_tranform
    (tmp_path / "out").mkdir()
    found = refused_export(UnsupportedError, quantized, tmp_path / "out")
    assert "2.5 cannot export a network with two results" in found.cause
    assert "--backend sim" in found.next_step
    script.behave["xmodel"] = lambda: {}["x"]  # another crash is not called that
    assert "two results" not in refused_export(WorkError, quantized, tmp_path / "out").cause


def refused_export(error: type, quantized: Any, folder: Path) -> ToolkitError:
    with pytest.raises(error) as caught:
        quantized.export_xmodel(folder / "UYNet_int.xmodel")
    assert files(folder) == []
    found: ToolkitError = caught.value
    return found


BAD_XMODELS = {
    "not written": (None, WorkError, "did not write"),
    "a text": ("text", FormatError, ""),
    "two pictures": ("batch", FormatError, "batch of 2"),
    "another network": ("network", MismatchError, "of another network"),
    "another calibration": ("positions", MismatchError, "not of this calibration"),
    "another size": ("size", MismatchError, "another input"),
}


@pytest.mark.parametrize("case", list(BAD_XMODELS))
def test_bad_exports(script: Script, tmp_path: Path, good: Path, case: str) -> None:
    what, error, words = BAD_XMODELS[case]
    script.put("TwoHeads_int.xmodel", _bad_xmodel(what, tmp_path, good))
    quantized = chosen().load(model_of(), EXAMPLE, good)
    (tmp_path / "out").mkdir()
    assert words in refused_export(error, quantized, tmp_path / "out").cause


def _bad_xmodel(what: Optional[str], tmp_path: Path, good: Path) -> Optional[Path]:
    path = tmp_path / "bad.xmodel"
    if what is None:
        return None
    if what == "text":
        path.write_text("Traceback (most recent call last):\n")
    elif what == "batch":
        SimBackend("3.5").load(model_of(), EXAMPLE, good)._model.export_xmodel(path, 2)  # type: ignore[attr-defined]
    elif what == "network":
        shutil.copy(
            str(_make(tmp_path / "m", model_of(nets.UpConcat)) / "UpConcat_int.xmodel"), str(path)
        )
    elif what == "positions":
        model = model_of()
        with torch.no_grad():
            model.conv.weight.mul_(8)
        shutil.copy(str(_make(tmp_path / "m", model) / "TwoHeads_int.xmodel"), str(path))
    else:
        model, example = model_of(), torch.zeros(1, 3, 64, 64)
        model.pool = torch.nn.MaxPool2d(64)
        backend, folder = SimBackend("3.5"), tmp_path / "m"
        folder.mkdir()
        batches = [torch.rand(8, 3, 64, 64)]
        backend.calibrate(model, example, batches, folder, nothing)
        backend.load(model, example, folder).export_xmodel(path)
    return path


def test_an_export_of_several_files_or_another_name(
    script: Script, tmp_path: Path, good: Path
) -> None:
    """The only file is taken whatever its name, and checked like any other."""
    name = "TwoHeads_int.xmodel"
    script.behave["xmodel"] = lambda: script.behave.setdefault("put", {}).update({name: None})
    quantized = chosen().load(model_of(), EXAMPLE, good)
    (tmp_path / "out").mkdir()
    assert (
        "no TwoHeads_int.xmodel" in refused_export(WorkError, quantized, tmp_path / "out").evidence
    )


# Every row of the recorded list of misuses: refused before the tool, or impossible.

MISUSE_BEFORE = {
    "test, nothing calibrated": (OrderError, "quant_info.json"),
    "test, bias_corr.pth missing": (OrderError, "bias_corr.pth"),
    "test, only quant_info.json missing": (OrderError, "quant_info.json"),
    "quant_info of another model": (MismatchError, "another model"),
    "bias_corr.pth of another model": (MismatchError, "another model"),
    "load_ft_param without finetune": (OrderError, "param.pth"),
    "include_bias_corr false": (OrderError, "without bias correction"),
    "bitwidth=4": (FormatError, "4 bits"),
    "quant_info of another release": (MismatchError, "form of release 2.5"),
    "no xir": (UnsupportedError, "xir"),
}


@pytest.mark.parametrize("case", list(MISUSE_BEFORE))
def test_misuse_before_a_test(
    script: Script, tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    error, words = MISUSE_BEFORE[case]
    folder, model = tmp_path / "calibrated", model_of()
    shutil.copytree(str(good), str(folder))
    info = folder / "quant_info.json"
    if case == "test, nothing calibrated":
        for name in files(folder):
            (folder / name).unlink()
    elif case.endswith("missing"):
        (folder / case.split()[-2]).unlink()
    elif case == "quant_info of another model":
        model = model_of(nets.UpConcat)
    elif case == "bias_corr.pth of another model":
        model = model_of(lambda: TwoHeads(channels=8))
    elif case == "load_ft_param without finetune":
        info.write_text(info.read_text().replace('tuned":false', 'tuned":true'))
        (folder / "param.pth").unlink()
    elif case == "include_bias_corr false":
        info.write_text(info.read_text().replace('corrected":true', 'corrected":false'))
    elif case == "bitwidth=4":
        info.write_text(info.read_text().replace("[[8,", "[[4,"))
    elif case == "quant_info of another release":
        shutil.copy(str(_make(tmp_path / "m", model, "2.5") / "quant_info.json"), str(info))
    else:
        monkeypatch.setattr(
            vitis, "find_package", lambda name: VendorTool(name, State.ABSENT, None, "", "not here")
        )
    found = refused(error, lambda: chosen().load(model, EXAMPLE, folder), folder)
    assert words in f"{found.cause} {found.evidence}"
    assert found.next_step
    assert script.calls == [], "the tool was not called"


NAN, WIDE, DEEP = (torch.rand(4, 3, 32, 32) for _ in range(3))
NAN[2, 0, 0, 0] = float("nan")
MISUSE_PICTURES = {
    "export_quant_config before any forward": ([], "at least 8 images"),
    "too few": ([torch.rand(4, 3, 32, 32)], "at least 8 images"),
    "other H/W than the dummy input": ([torch.rand(8, 3, 48, 40)], "does not fit"),
    "wrong channels": ([torch.rand(8, 1, 32, 32)], "does not fit"),
    "bytes": ([torch.zeros(8, 3, 32, 32, dtype=torch.uint8)], "does not fit"),
    "NaN in input": ([torch.rand(4, 3, 32, 32), NAN], "calibration batch 1"),
    "empty": ([torch.rand(0, 3, 32, 32)], "empty"),
    "numpy": ([np.zeros((8, 3, 32, 32), np.float32)], "no tensor"),
}


@pytest.mark.parametrize("case", list(MISUSE_PICTURES))
def test_misuse_of_pictures(script: Script, tmp_path: Path, case: str) -> None:
    batches, words = MISUSE_PICTURES[case]
    found = refused_calibration(DataError, tmp_path / "out", batches=batches)
    assert words in found.cause
    forwards = [call for call in script.calls if call[0] == "forward"]
    assert len(forwards) <= len(batches) - ("few" not in case and bool(batches))
    assert not [call for call in script.calls if call[0] == "export_quant_config"]


def test_misuse_of_arguments(script: Script, tmp_path: Path) -> None:
    backend = chosen()
    for model, example in (
        (model_of().forward, EXAMPLE),
        (model_of(), EXAMPLE.numpy()),
        (model_of(), None),
        (model_of(), torch.zeros(1, 3, 32, 32, dtype=torch.int64)),
    ):
        with pytest.raises(UsageError):
            backend.calibrate(model, example, pictures(), tmp_path, nothing)
        with pytest.raises(UsageError):
            backend.load(model, example, tmp_path)
    assert script.calls == []


IMPOSSIBLE = {
    "export before a forward": "export_xmodel runs one itself",
    "export_xmodel in calib mode": "only load() exports, and its mode is test",
    "export_xmodel after a batch over 1": "the forward before the export is of one picture",
    "export_quant_config in test mode": "only calibrate() calls it",
    "fast_finetune in test mode": "only calibrate() calls it",
    "finetuned, not loaded in test": "load() loads what quant_info.json says",
    "quant_mode of another word": "both words are constants",
    "device default": "the processor is named",
    "dump_xmodel": "not called",
    "config file": "not given",
    ".deploy_model": "not used",
}


def test_the_rest_is_impossible_by_construction(script: Script, tmp_path: Path, good: Path) -> None:
    """The tool sees these calls and no others, in this order, in all of calibration and test."""
    calibrate(chosen(), tmp_path / "out")
    quantized = chosen().load(model_of(), EXAMPLE, good)
    quantized(pictures(1)[0])
    quantized.export_xmodel(tmp_path / "UYNet_int.xmodel")
    assert [call[:2] for call in script.calls] == [
        ("new", "calib"),
        ("forward", (4, 3, 32, 32)),
        ("forward", (4, 3, 32, 32)),
        ("export_quant_config",),
        ("new", "test"),
        ("forward", (4, 3, 32, 32)),
        ("forward", (1, 3, 32, 32)),
        ("export_xmodel", 1),
    ], IMPOSSIBLE
    assert all(call[4] == "cpu" for call in script.calls if call[0] == "new")


EXITS = {
    "CALIB_RESULT_MISMATCH": (
        "Node name mismatch is found when   loading quantization steps of tensors. ",
        0,
        MismatchError,
        "belongs to another model",
    ),
    "BIAS_CORRECTION": (
        "Bias correction file in quantization result directory does not match current model.",
        2,
        MismatchError,
        "bias correction belongs to another model",
    ),
    "NO_CALIB_RESULT": (
        "Quantization calibration result file does not exist. Please check calibration is done or"
        " not.",
        2,
        OrderError,
        "incomplete",
    ),
    "QUANT_CONFIG": (
        "Unsupported keyword in quantization config: 'foo'. ",
        2,
        UsageError,
        "configuration",
    ),
}


@pytest.mark.parametrize("code", list(EXITS))
def test_the_tools_own_errors_are_explained(
    script: Script, tmp_path: Path, good: Path, code: str
) -> None:
    """In the recorded words and with the recorded status, should a check before have missed it."""
    text, status, error, words = EXITS[code]
    script.fail("new-test", code, text, status)
    found = refused(error, lambda: chosen().load(model_of(), EXAMPLE, good), good)
    assert words in found.cause
    assert found.next_step


def test_a_tool_that_cannot_be_imported(script: Script, tmp_path: Path) -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] == "pytorch_nndct"]:
        del sys.modules[name]
    (tmp_path / "site/pytorch_nndct/apis.py").write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(UnsupportedError, match="cannot be imported"):
        select_backend("vitis")
    backend, reason = select_backend("auto")
    assert backend.name == "sim"
    assert "SystemExit: 3" in reason


def test_releases_are_told_by_version_or_arguments() -> None:
    tool = VendorTool("pytorch_nndct", State.GENUINE, Path("site"), "", "site")
    named = {"1.4.0": "1.4.1", "2.0.0": "2.0", "2.5.0+a": "2.5", "3.0.1": "3.0", "3.5.0": "3.5"}
    for version, wanted in named.items():
        assert detect_release(replace(tool, version=version), nothing)[0] == wanted

    class Old:
        def __init__(self, quant_mode: Any, module: Any, input_args: Any) -> None: ...

    class Later:
        def __init__(self, quant_mode: Any, module: Any, input_args: Any, target: Any) -> None: ...

    class Onnx(Later):
        def export_onnx_model(self) -> None: ...

    for kind, wanted in ((Old, "1.4.1"), (Later, "2.0"), (Onnx, "2.5")):
        found, evidence = detect_release(replace(tool, version="0.9"), kind)
        assert found == wanted
        assert "told by its arguments" in evidence
    # A version that the arguments contradict is not believed.
    assert detect_release(replace(tool, version="1.4.0"), Onnx)[0] == "2.5"
    with pytest.raises(UnsupportedError, match="not known"):
        detect_release(replace(tool, version="9.9"), len)


def test_the_console_is_given_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    console = VendorConsole(tmp_path / "log")
    print("before")

    def run() -> None:
        with console.capture():
            print("[VAIQ_WARN]: an old warning")
            os.write(2, b"[VAIQ_ERROR]: caf\xe9\n")
            sys.stdout.close()
            sys.exit(0)

    with pytest.raises(SystemExit):
        run()
    print("after")
    os.write(2, b"and this\n")
    assert capfd.readouterr() == ("before\nafter\n", "and this\n")
    assert console.warnings == ["an old warning"]
    assert console.errors == ["caf\ufffd"]


# Genuine recordings pass.


RECORDED = ["micro_c_convt_concat", "micro_d_pool_linear_sigmoid", "uynet_w8"]
GENUINE = [(release, name) for release in ("1.4.1", "2.0", "2.5") for name in RECORDED]
GENUINE += [("3.5", name) for name in (*MICRO, "uynet_w8")]


@pytest.mark.parametrize(("release", "name"), GENUINE)
def test_genuine_results_are_not_refused(
    request: pytest.FixtureRequest, data: Path, tmp_path: Path, release: str, name: str
) -> None:
    """What the genuine tool left has nothing that the checks hold against it."""
    case = recording(name, data, lambda: request.getfixturevalue("shared"), release)
    model, rules = case.model(), release_rules(release)
    (tmp_path / "quant_info.json").write_text(case.quant_info)
    torch.save(case.json("bias_corr"), str(tmp_path / "bias_corr.pth"))
    info = vendor_checks.check_calibrated(tmp_path, model, rules, tuned=False)
    assert vendor_checks.check_before_test(tmp_path, model, rules) == info
    for xmodel in case.folder.rglob("*_int.xmodel"):
        vendor_checks.check_xmodel(xmodel, model, case.inputs("calib"), info)
    other = model_of(nets.Cle if name != "micro_f_cle" else nets.ConvBias)
    with pytest.raises(MismatchError):
        vendor_checks.check_owner(info, other, "here")


# The drop-in module.


@pytest.fixture
def drop_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Installs the drop-in of a release in this process."""

    def become(release: str) -> None:
        options = simulate.SimulateOptions(release=release)
        for name, value in options.to_environment().items():
            monkeypatch.setenv(name, value)
        simulate.uninstall()
        simulate.install()

    yield become
    simulate.uninstall()


NETS: Dict[str, Tuple[Callable[[], Any], Tuple[int, ...]]] = {
    "two heads": (TwoHeads, (3, 32, 32)),
    "up, concat": (nets.UpConcat, (3, 32, 32)),
}


def contents(folder: Path) -> Tuple[Dict[str, Any], Any]:
    """``quant_info.json`` but for the version, and ``bias_corr.pth``."""
    record = json.loads((folder / "quant_info.json").read_text())
    record.pop("version", None)
    return record, results.load(folder).corrections


@pytest.mark.parametrize("net", list(NETS))
@pytest.mark.parametrize("release", RELEASES)
def test_both_leave_the_same(
    drop_in: Callable[[str], None], tmp_path: Path, release: str, net: str
) -> None:
    drop_in(release)
    kind, shape = NETS[net]
    example = torch.zeros(1, *shape)
    batches = [torch.rand(4, *shape, generator=torch.Generator().manual_seed(n)) for n in (1, 2)]
    found: Dict[str, Any] = {}
    for name in ("vitis", "sim"):
        folder, model = tmp_path / name, model_of(kind)
        folder.mkdir()
        backend, _ = select_backend(name, release)
        assert (backend.name, backend.release) == (name, release)
        backend.calibrate(model, example, batches, folder, nothing)
        backend.load(model, example, folder).export_xmodel(folder / "UYNet_int.xmodel")
        found[name] = (*contents(folder), read_xmodel(folder / "UYNet_int.xmodel"))
    assert found["vitis"][:2] == found["sim"][:2]
    assert diff_graphs(found["vitis"][2], found["sim"][2]) == []
    extra = {"quantize.log", "quantize_test.log"}
    assert set(files(tmp_path / "vitis")) - extra == set(files(tmp_path / "sim"))


@pytest.mark.parametrize("release", ["1.4.1", "3.0"])
def test_a_stage_of_one_is_followed_by_a_stage_of_the_other(
    drop_in: Callable[[str], None], tmp_path: Path, release: str
) -> None:
    drop_in(release)
    outputs = []
    for first, second in (("sim", "vitis"), ("vitis", "sim")):
        folder = tmp_path / first
        calibrate(select_backend(first, release)[0], folder)
        quantized = select_backend(second, release)[0].load(model_of(), EXAMPLE, folder)
        outputs.append([part.numpy() for part in quantized(pictures(1, seed=9)[0])])
    for ours, theirs in zip(*outputs):
        np.testing.assert_array_equal(ours, theirs)


def test_finetune_over_the_drop_in(drop_in: Callable[[str], None], tmp_path: Path) -> None:
    drop_in("3.0")
    states = []
    for name in ("vitis", "sim"):
        folder = tmp_path / name
        folder.mkdir()
        finetune = Finetune(iter(pictures(2, seed=1)), tmp_path / f"{name}.npz", nothing)
        backend = select_backend(name)[0]
        backend.calibrate(model_of(), EXAMPLE, iter(pictures()), folder, nothing, finetune)
        tuned = torch.load(str(folder / "param.pth"), weights_only=True)
        states.append({key: value.numpy() for key, value in tuned.items()})
        assert contents(folder)[0]["fast_finetuned"] is True
        assert backend.load(model_of(), EXAMPLE, folder) is not None
    assert list(states[0]) == list(states[1])
    for key, value in states[0].items():
        np.testing.assert_array_equal(value, states[1][key])
    assert contents(tmp_path / "vitis") == contents(tmp_path / "sim")


def test_misuse_over_the_drop_in(drop_in: Callable[[str], None], tmp_path: Path) -> None:
    """The same refusals as over the script: the checks do not lean on the tool's own."""
    drop_in("3.0")
    backend = chosen()
    (tmp_path / "out").mkdir()
    with pytest.raises(OrderError):
        backend.load(model_of(), EXAMPLE, tmp_path / "out")
    with pytest.raises(DataError, match="at least 8"):
        calibrate(backend, tmp_path / "out", batches=[])
    calibrate(backend, tmp_path / "out")
    with pytest.raises(MismatchError):
        backend.load(model_of(lambda: TwoHeads(8)), EXAMPLE, tmp_path / "out")
    assert find_package("pytorch_nndct").state is State.SIMULATED


def test_the_command_by_both(
    drop_in: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build folder each, of a tiny U-YNet: the same files, the same content, the same scores."""
    for name in ("LAYER_IMAGES", "TRIED_IMAGES", "TRIED_LAYERS"):
        monkeypatch.setattr(calibration_report, name, 1)
    drop_in("3.0")
    faces = write_dataset(tmp_path / "faces", videos=4, crops=2)
    torch.manual_seed(5)
    torch.save(UYNet(width=2).state_dict(), str(tmp_path / "tiny.pth"))
    for backend in ("vitis", "sim"):
        build = tmp_path / backend
        words = ["quant", "-d", str(build), "--data", str(faces), "--backend", backend, "-q"]
        quant(*words, "--mode", "calib", "--checkpoint", str(tmp_path / "tiny.pth"))
        # A report needs the network's interior, which ours has; the other's must do without.
        quant(*words, "--mode", "test", *(["--no-report"] if backend == "sim" else []))
        manifest = read_manifest(build / "quant_model")
        assert manifest.backend == backend
        assert manifest.options["release"] == "3.0"
        assert changed_files(build / "quant_model", manifest) == []
    theirs, ours = tmp_path / "vitis" / "quant_model", tmp_path / "sim" / "quant_model"
    assert contents(theirs) == contents(ours)
    graphs = [read_xmodel(folder / "UYNet_int.xmodel") for folder in (theirs, ours)]
    assert diff_graphs(*graphs) == []
    assert set(files(theirs)) - set(files(ours)) == {
        "quantize.log",
        "quantize_test.log",
        "report.html",
        "report.json",
    }
    assert set(files(ours)) <= set(files(theirs))
    scores = [json.loads((folder / "evaluation.json").read_text()) for folder in (theirs, ours)]
    assert scores[0] == scores[1]


def quant(*words: str) -> None:
    CliRunner().invoke(cli, list(words), catch_exceptions=False, standalone_mode=False)


def test_the_command_over_another_release(drop_in: Callable[[str], None], tmp_path: Path) -> None:
    drop_in("2.5")
    faces = write_dataset(tmp_path / "faces", videos=4, crops=2)
    torch.manual_seed(5)
    torch.save(UYNet(width=2).state_dict(), str(tmp_path / "tiny.pth"))
    words = ["quant", "-d", str(tmp_path / "b"), "--data", str(faces), "-q"]
    words += ["--checkpoint", str(tmp_path / "tiny.pth")]
    with pytest.raises(MismatchError, match=r"release 2\.5, wanted is 3\.0"):
        quant(*words, "--mode", "calib", "--backend", "vitis", "--release", "3.0")
    assert not (tmp_path / "b").exists()
    quant(*words, "--mode", "calib", "--backend", "sim", "--release", "3.0")
    before = files(tmp_path / "b" / "quant_model")
    with pytest.raises(MismatchError, match=r"release 2\.5, wanted is 3\.0"):
        quant(*words, "--mode", "test", "--backend", "vitis")
    assert files(tmp_path / "b" / "quant_model") == before
