"""The drop-in ``pytorch_nndct``: what it says, how it ends misuse, and how releases differ.

Held against the recorded console texts and exit statuses.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from deepfake_fpga.compile.xir.xmodel import read_xmodel  # noqa: E402
from deepfake_fpga.deploy.simulate.host import SimulatedHost  # noqa: E402
from deepfake_fpga.deploy.simulate.options import SimulateOptions  # noqa: E402
from deepfake_fpga.errors import UnsupportedError, UsageError  # noqa: E402
from deepfake_fpga.quantize import tuned_parameters  # noqa: E402
from deepfake_fpga.quantize.quantizer import QuantizeOptions, Quantizer  # noqa: E402

from . import golden, nets, nndct_scripts  # noqa: E402
from .nndct_scripts import (  # noqa: E402
    CPU,
    RELEASES,
    answered,
    calibrate,
    ends,
    noise,
    split,
)
from .zoo import Mobile  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_thread")]

chain = nndct_scripts.chain
micro = nndct_scripts.micro
nndct = nndct_scripts.nndct
release = nndct_scripts.release
said = nndct_scripts.said
start = nndct_scripts.start


# --- console --------------------------------------------------------------------------------------


def notes(text: str) -> List[str]:
    """The notes of a console text, which must hold nothing else."""
    found = re.findall(r"\n\x1b\[0;32m\[VAIQ_NOTE\]: (.*?)\x1b\[0m\n", text, re.S)
    assert "".join(f"\n\x1b[0;32m[VAIQ_NOTE]: {note}\x1b[0m\n" for note in found) == text
    return [note.splitlines()[0] for note in found]


def test_console_of_both_modes(
    nndct: Any, micro: golden.Recording, said: Callable[[], str]
) -> None:
    said()
    calibrate(nndct, micro.model(), micro.inputs("calib"))
    parsed = [
        "=>Quant Module is in 'cpu'.",
        "=>Parsing ConvBias...",
        "Start to trace and freeze model...",
        "The input model nndct_st_ConvBias_ed is torch.nn.Module.",
        "Finish tracing.",
        "Processing ops...",
        "=>Doing weights equalization...",
        "=>Quantizable module is generated.(quantize_result/ConvBias.py)",
        "=>Get module with quantization.",
    ]
    host = [
        "OS and CPU information:",
        "Tools version information:",
        "Quant config file is empty, use default quant configuration",
    ]
    assert notes(said()) == [
        *host,
        "Quantization calibration process start up...",
        *parsed,
        "=>Exporting quant config.(quantize_result/quant_info.json)",
    ]
    quantizer, _ = answered(nndct, micro.model(), micro.inputs("test"))
    quantizer.export_xmodel()
    assert notes(said()) == [
        *host,
        "Quantization test process start up...",
        *parsed,
        "=>Converting to xmodel ...",
        "=>Successfully convert 'ConvBias' to xmodel.(quantize_result/ConvBias_int.xmodel)",
    ]


@pytest.mark.parametrize("release", RELEASES)
def test_console_of_older_releases(
    release: str, nndct: Any, micro: golden.Recording, said: Callable[[], str]
) -> None:
    said()
    calibrate(nndct, micro.model(), micro.inputs("calib"))
    nndct.torch_quantizer("nonsense", micro.model(), (micro.inputs("test")[:1],))
    text = said()
    assert "\x1b" not in text
    assert "\n\n" not in text
    assert "QUANTIZER_TORCH" not in text
    assert "[VAIQ_NOTE]: Quantization calibration process start up...\n" in text
    assert "[VAIQ_WARN]: CUDA (HIP) is not available, change device to CPU\n" in text
    assert ("OS and CPU" in text, "config file" in text) == (False, release == "2.5")


@pytest.mark.parametrize("release", ["1.4.1"])
def test_a_sigmoid_without_a_position_is_nothing_to_warn_of(
    release: str, nndct: Any, data: Path, said: Callable[[], str]
) -> None:
    case = golden.recording("micro_d_pool_linear_sigmoid", data, Path)
    calibrate(nndct, case.model(), case.inputs("calib"))
    assert "[8,null]" in Path("quantize_result/quant_info.json").read_text()
    answered(nndct, case.model(), case.inputs("test"))
    assert "WARN" not in said()


# --- misuse ---------------------------------------------------------------------------------------


def test_files_that_are_missing_in_test(
    nndct: Any, micro: golden.Recording, start: Any, said: Callable[[], str]
) -> None:
    bias = (
        "Bias correction result file does not exist. Please check calibration with bias "
        "correction is done or not."
    )
    ends(2, "BIAS_CORRECTION", bias, lambda: start("test"), said)
    calibrate(nndct, micro.model(), micro.inputs("calib"))
    os.rename("quantize_result/quant_info.json", "kept")
    calib = "Quantization calibration result file does not exist. Please check calibration is done"
    ends(2, "NO_CALIB_RESULT", calib, lambda: start("test"), said)
    os.rename("kept", "quantize_result/quant_info.json")
    os.remove("quantize_result/bias_corr.pth")
    ends(2, "BIAS_CORRECTION", bias, lambda: start("test"), said)


def test_files_of_another_model_in_test(
    nndct: Any, micro: golden.Recording, start: Any, said: Callable[[], str]
) -> None:
    calibrate(nndct, nets.Cle(), noise(8, 3, 16, 16), output_dir="other")
    calibrate(nndct, micro.model(), micro.inputs("calib"))
    Path("quantize_result/bias_corr.pth").write_bytes(Path("other/bias_corr.pth").read_bytes())
    quantizer = start("test")
    ends(
        2,
        "BIAS_CORRECTION",
        "Bias correction file in quantization result directory does not match current model.",
        lambda: quantizer.quant_model(micro.inputs("test")[:1].clone()),
        said,
    )
    mismatch = "Node name mismatch is found when   loading quantization steps of tensors. "
    ends(0, "CALIB_RESULT_MISMATCH", mismatch, lambda: start("test", output_dir="other"), said)
    info = Path("quantize_result/quant_info.json")
    info.write_text(re.sub(r'"graph_md5":"..', '"graph_md5":"zz', info.read_text()))
    ends(0, "CALIB_RESULT_MISMATCH", mismatch, lambda: start("test"), said)


def test_exports_before_a_forward(
    nndct: Any, micro: golden.Recording, start: Any, said: Callable[[], str]
) -> None:
    quantizer = start("calib")
    said()
    quantizer.export_quant_config()
    assert said().startswith(
        "\n\x1b[0;31m[VAIQ_ERROR][QUANTIZER_TORCH_NO_CALIBRATION]: Quantization is not performed "
        "completely, check if module FORWARD function is called!"
    )
    assert os.listdir("quantize_result") == ["ConvBias.py"]
    calibrate(nndct, micro.model(), micro.inputs("calib")).export_xmodel()
    assert not Path("quantize_result/ConvBias_int.xmodel").exists(), "nothing in calibration"
    quantizer = start("test")
    for name in ("export_xmodel", "export_torch_script", "export_onnx_model"):
        said()
        getattr(quantizer, name)()
        assert said().startswith(
            "\n\x1b[0;31m[VAIQ_ERROR][QUANTIZER_TORCH_NO_FORWARD]: torch_quantizer.quant_model "
            "FORWARD function must be called before exporting quantization result."
        )
    left = ["ConvBias.py", "bias_corr.pth", "quant_info.json"]
    assert sorted(os.listdir("quantize_result")) == left


def test_an_xmodel_for_a_batch_is_written_with_an_error(
    nndct: Any, micro: golden.Recording, start: Any, said: Callable[[], str]
) -> None:
    calibrate(nndct, micro.model(), micro.inputs("calib"))
    quantizer = start("test")
    quantizer.quant_model(micro.inputs("test")[:2].clone())
    said()
    quantizer.export_xmodel()
    assert said().startswith(
        "\n\x1b[0;31m[VAIQ_ERROR][QUANTIZER_TORCH_XMODEL_BATCHSIZE]: Batch size must be 1 when "
        "exporting xmodel.\x1b[0m\n"
    )
    path = Path("quantize_result/ConvBias_int.xmodel")
    dims = {op.type: op.tensor.dims for op in read_xmodel(path).ops.values()}
    assert dims["data"] == (2, 32, 32, 3)
    assert dims["conv2d"] == (2, 32, 32, 6)
    # Traced with two and run with one is fine.
    example = micro.inputs("test")[:2].clone()
    quantizer = nndct.torch_quantizer("test", micro.model(), (example,), device=CPU)
    quantizer.quant_model(micro.inputs("test")[:1].clone())
    said()
    quantizer.export_xmodel()
    assert "ERROR" not in said()
    dims = {op.type: op.tensor.dims for op in read_xmodel(path).ops.values()}
    assert dims["data"] == (1, 32, 32, 3)


def test_an_xmodel_has_the_size_of_the_last_forward(
    nndct: Any, data: Path, said: Callable[[], str]
) -> None:
    case = golden.recording("micro_c_convt_concat", data, Path)
    calibrate(nndct, case.model(), case.inputs("calib"))
    quantizer, _ = answered(nndct, case.model(), case.inputs("test"))
    quantizer.export_xmodel(output_dir="small")
    quantizer.quant_model(noise(1, 3, 48, 40))
    quantizer.export_xmodel(output_dir="large", deploy_check=True)
    small, large = (read_xmodel(Path(f, "UpConcat_int.xmodel")) for f in ("small", "large"))
    dims = {op.type: op.tensor.dims for op in large.ops.values()}
    assert (dims["data"], dims["concat"]) == ((1, 48, 40, 3), (1, 48, 40, 12))
    for name, op in small.ops.items():
        for key in ("fix_point", "data"):
            assert op.get(key) == large.ops[name].get(key)


def test_shifts_out_of_range_are_told(nndct: Any, said: Callable[[], str]) -> None:
    class Cancelling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 1, 1, bias=False)
            with torch.no_grad():
                self.conv.weight.copy_(torch.tensor([100.0, -100.0]).reshape(1, 2, 1, 1))

        def forward(self, x: Tensor) -> Any:
            return self.conv(x)

    calibrate(nndct, Cancelling(), noise(8, 1, 4, 4).repeat(1, 2, 1, 1))
    # Zero everywhere: the output's 12 is more than 6 of the input and 0 of the weight.
    assert (
        "[VAIQ_WARN][QUANTIZER_TORCH_SHIFT_CHECK]: output Cancelling::nndct_conv2d_1 value is too "
        "small, so adjust the fix position from 12 to 6"
    ) in said()
    info = json.loads(Path("quantize_result/quant_info.json").read_text())
    assert info["output"]["Cancelling::nndct_conv2d_1"] == [[8, 6]]


def test_a_finetune_alone_is_a_calibration(nndct: Any, chain: nn.Module) -> None:
    images = noise(8, 3, 8, 8)
    quantizer = nndct.torch_quantizer("calib", chain, (images[:1].clone(),), device=CPU)
    quantizer.fast_finetune(lambda: quantizer.quant_model(images.clone()), ())
    quantizer.export_quant_config()
    info = json.loads(Path("quantize_result/quant_info.json").read_text())
    assert info["fast_finetuned"]
    assert all(pair[0][1] is not None for pair in info["output"].values())


def test_a_finetune_without_gradients(
    nndct: Any, chain: nn.Module, said: Callable[[], str]
) -> None:
    quantizer = nndct.torch_quantizer("calib", chain, (noise(1, 3, 8, 8),), device=CPU)
    with torch.no_grad():
        tune = lambda: quantizer.fast_finetune(pytest.fail, ("called",))  # noqa: E731
        ends(2, "FAST_FINETUNE", "Fast finetune must not be called", tune, said)


def test_the_result_is_written_again_in_test(nndct: Any, micro: golden.Recording) -> None:
    calibrate(nndct, micro.model(), micro.inputs("calib"))
    path = Path("quantize_result/quant_info.json")
    before = path.read_bytes()
    quantizer, _ = answered(nndct, micro.model(), micro.inputs("test"))
    path.unlink()
    quantizer.export_quant_config()
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("mode", "warned", "note"),
    [
        ("float", "quant_mode supported values are 'calib' and 'test'. Change it to 'calib'", True),
        (1, "quant_mode will not support integer value in future version. ", True),
        (2, "quant_mode will not support integer value in future version. ", False),
    ],
)
def test_other_modes(
    mode: Any, warned: str, note: bool, nndct: Any, micro: golden.Recording, start: Any,
    said: Callable[[], str],
) -> None:  # fmt: skip
    calibrate(nndct, micro.model(), micro.inputs("calib"))
    said()
    start(mode)
    text = said()
    assert f"\n\x1b[0;33m[VAIQ_WARN]: {warned}" in text
    assert ("Quantization calibration process" in text) is note
    assert ("Quantization test process" in text) is not note


def test_inputs_of_other_sizes(start: Any, said: Callable[[], str]) -> None:
    quantizer = start("calib")
    said()
    found = quantizer.quant_model(noise(2, 3, 48, 40))
    warning = (
        "The shape of input (torch.Size([3, 48, 40])) should be the same with that of dummy "
        "input ([3, 32, 32])"
    )
    assert found.shape == (2, 6, 48, 40)
    assert warning in said()
    with pytest.raises(RuntimeError, match="channels"):
        start("calib").quant_model(noise(1, 4, 32, 32))
    assert "torch.Size([4, 32, 32])" in said()


def test_arguments_of_other_kinds(nndct: Any, micro: golden.Recording) -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        nndct.torch_quantizer("calib", micro.model(), device=CPU)
    with pytest.raises(TypeError, match=r"'numpy\.float32' object is not iterable"):
        nndct.torch_quantizer("calib", micro.model(), np.zeros((1, 3, 32, 32), "f"), device=CPU)
    with pytest.raises(AttributeError, match="'function' object has no attribute 'to'"):
        nndct.torch_quantizer("calib", split, (noise(1, 3, 32, 32),), device=CPU)


def test_the_default_device(start: Any, said: Callable[[], str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("this host has CUDA")
    start("calib", device=torch.device("cuda"))
    warning = (
        "\n\x1b[0;33m[VAIQ_WARN][QUANTIZER_TORCH_CUDA_UNAVAILABLE]: CUDA (HIP) is not available, "
        "change device to CPU\x1b[0m\n"
    )
    assert said().count(warning) == 2


def test_values_that_are_not_finite(
    nndct: Any, micro: golden.Recording, start: Any, said: Callable[[], str]
) -> None:
    images = micro.inputs("calib")[:8].clone()
    images[3, 1, 5, 5] = float("nan")
    kept = images.clone()
    quantizer = start("calib")
    quantizer.quant_model(images)
    assert torch.equal(torch.nan_to_num(images), torch.nan_to_num(kept)), "left as it was"
    quantizer.export_quant_config()
    text = said()
    assert text.count("[VAIQ_WARN][QUANTIZER_TORCH_TENSOR_VALUE_INVALID]") == 2
    assert text.count("[VAIQ_WARN][QUANTIZER_TORCH_TENSOR_NOT_QUANTIZED]") == 2
    found = json.loads(Path("quantize_result/quant_info.json").read_text())
    assert list(found["output"].values()) == [[[8, None]]] * 2
    assert all(pair[0][1] is not None for pair in found["param"].values())
    # It is taken in test, and the tensors stay float.
    quantizer = start("test")
    assert said().count("TENSOR_NOT_QUANTIZED") == 2
    image = micro.inputs("test")[:1].clone()
    before = image.clone()
    answer = quantizer.quant_model(image)
    assert torch.equal(image, before)
    assert not torch.equal(answer * 2.0**12, (answer * 2.0**12).round())


def test_one_bad_batch_among_good_ones(nndct: Any, micro: golden.Recording, start: Any) -> None:
    quantizer = start("calib")
    for number, batch in enumerate(split(micro.inputs("calib"), 8)):
        if number == 1:
            quantizer.quant_model(torch.full_like(batch, float("inf")))
        quantizer.quant_model(batch)
    quantizer.export_quant_config()
    found, theirs = (
        json.loads(text)["output"]
        for text in (Path("quantize_result/quant_info.json").read_text(), micro.quant_info)
    )
    assert found == theirs


def test_operators_it_does_not_know_stay_float(nndct: Any, said: Callable[[], str]) -> None:
    class Summed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cumsum(self.conv(x), 1)

    nndct.torch_quantizer("calib", Summed(), (noise(1, 3, 4, 4),), device=CPU)
    assert (
        "[VAIQ_WARN][QUANTIZER_TORCH_FLOAT_OP]: The quantizer recognize new op `aten::cumsum` as "
        "a float operator by default."
    ) in said()
    nndct.torch_quantizer("calib", Mobile(), (noise(1, 3, 32, 32),), device=CPU)
    assert "[VAIQ_WARN]" not in said().replace("[VAIQ_WARN][", "")


def test_the_old_name_of_the_export(
    nndct: Any, micro: golden.Recording, said: Callable[[], str]
) -> None:
    calibrate(nndct, micro.model(), micro.inputs("calib"))
    quantizer, _ = answered(nndct, micro.model(), micro.inputs("test"))
    for act, folder in ((quantizer.dump_xmodel, "one"), (nndct.dump_xmodel, "two")):
        said()
        act(output_dir=folder, deploy_check=False)
        assert (
            "[VAIQ_WARN]: The function dump_xmodel() will retire in future version. "
            "Use torch_quantizer.export_xmodel() reversely."
        ) in said()
    one, two = (Path(f, "ConvBias_int.xmodel").read_bytes() for f in ("one", "two"))
    assert one == two
    assert quantizer.deploy_model is None
    assert "QUANTIZER_TORCH_DEPLOY_MODEL]: Only quant aware training process has" in said()


CONFIG = {
    "tensor_quantize_config": {"activation": {"round_mode": "half_up"}},
    "include_bias_corr": False,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"foo": 1}, "Unsupported keyword in quantization config: 'foo'. "),
        (
            {"tensor_quantize_config": {"activation": {"round_mode": "std_round"}}},
            "Only support half_up round method in activation quantization of DPU device if "
            "datatype is int",
        ),
        ({"overall_quantize_config": {"method": "mean"}}, "The method of input should be in the"),
        (
            {"overall_quantize_config": {"per_channel": True}},
            "Only support per_tensor quantization in DPU device if datatype is int",
        ),
        (
            {"overall_quantize_config": {"scale_type": "float"}},
            "Only support poweroftwo scale type in DPU device if datatype is int",
        ),
    ],
)
def test_config_files_that_are_refused(
    change: Dict[str, Any], message: str, start: Any, said: Callable[[], str]
) -> None:
    Path("config.json").write_text(json.dumps({**CONFIG, **change}))
    act = lambda: start("calib", quant_config_file="config.json")  # noqa: E731
    ends(2, "QUANT_CONFIG", message, act, said)


def test_config_files(
    nndct: Any, micro: golden.Recording, start: Any, said: Callable[[], str]
) -> None:
    with pytest.raises(FileNotFoundError):
        start("calib", quant_config_file="absent.json")
    Path("bad.json").write_text(json.dumps({**CONFIG, "target_device": "NPU"}))
    with pytest.raises(UnboundLocalError):
        start("calib", quant_config_file="bad.json")
    Path("config.json").write_text(json.dumps(CONFIG))
    calibrate(nndct, micro.model(), micro.inputs("calib"), quant_config_file="config.json")
    assert sorted(os.listdir("quantize_result")) == ["ConvBias.py", "quant_info.json"]
    text = Path("quantize_result/quant_info.json").read_text()
    assert '"bias_corrected":false' in text
    _, (answers,) = answered(
        nndct, micro.model(), micro.inputs("test"), quant_config_file="config.json"
    )
    options = QuantizeOptions(bias_correction=False, release="3.5")
    ours = Quantizer(micro.model(), micro.inputs("calib")[:1], options)
    model = ours.quantized(ours.calibrate(split(micro.inputs("calib"), 8)))
    assert np.array_equal(answers, model(micro.inputs("test")).numpy())
    ends(2, "BIAS_CORRECTION", "Bias correction result file", lambda: start("test"), said)


def test_four_bits(nndct: Any, micro: golden.Recording) -> None:
    images = micro.inputs("calib")
    calibrate(nndct, micro.model(), images, bitwidth=4)
    info = json.loads(Path("quantize_result/quant_info.json").read_text())
    pairs = [*info["param"].values(), *info["output"].values()]
    assert [pair[0][0] for pair in pairs] == [4] * 4
    # The input's by hand: the finest step at which -8.5 to 7.5 steps hold all values.
    steps = [max(float(b.min()) / -8.5, float(b.max()) / 7.5) for b in split(images, 8)]
    found = [int(np.floor(np.log2(1 / step))) for step in steps]
    assert info["output"]["ConvBias::nndct_input_0"][0][1] == max(set(found), key=found.count)
    quantizer, (answers,) = answered(nndct, micro.model(), micro.inputs("test"), bitwidth=4)
    codes = answers * 2.0 ** info["output"]["ConvBias::nndct_conv2d_1"][0][1]
    assert set(np.unique(codes)) == set(range(-8, 8))
    quantizer.export_xmodel()
    graph = read_xmodel(Path("quantize_result/ConvBias_int.xmodel"))
    assert {op.get("bit_width") for op in graph.ops.values() if op.type == "fix"} == {4}
    with pytest.raises(UnsupportedError, match="8 bits only"):
        nndct.torch_quantizer("calib", Mobile(), (noise(1, 3, 32, 32),), bitwidth=4)


def test_positions_from_the_range(
    monkeypatch: pytest.MonkeyPatch, nndct: Any, micro: golden.Recording
) -> None:
    change = {"overall_quantize_config": {"method": "maxmin", "round_mode": "half_up"}}
    Path("config.json").write_text(json.dumps(change))
    model, images = micro.model(), micro.inputs("calib")
    with torch.no_grad():
        model.conv.weight[0, 0, 0, 0] = 2.0  # type: ignore[union-attr,operator]
    calibrate(nndct, model, images, output_dir="searched")
    calibrate(nndct, model, images, quant_config_file="config.json", output_dir="ranged")
    searched, ranged = (
        json.loads(Path(f, "quant_info.json").read_text()) for f in ("searched", "ranged")
    )
    weight = "ConvBias::conv.weight"
    # 2 / 127.5 is more than 2**-6. The search clips that one weight for the others' sake.
    assert ranged["param"][weight] == [[8, 5]]
    assert searched["param"][weight] == [[8, 6]]
    option = importlib.import_module("nndct_shared.options").NndctOption.nndct_diffs_mode
    monkeypatch.setattr(option, "value", "maxmin")
    calibrate(nndct, model, images, output_dir="again")
    ours, theirs = (Path(f, "quant_info.json").read_text() for f in ("again", "ranged"))
    assert ours == theirs


@pytest.mark.parametrize("release", ["2.5", "3.0"])
def test_inputs_that_take_the_position_of_the_result(release: str, nndct: Any, data: Path) -> None:
    case = golden.recording("micro_c_convt_concat", data, Path)
    change = {**CONFIG, "include_bias_corr": True, "change_pool_input_fix": True}
    Path("config.json").write_text(json.dumps(change))
    images = case.inputs("calib")
    images[:, 0] *= 8
    act = lambda: calibrate(nndct, case.model(), images, quant_config_file="config.json")  # noqa: E731
    if release == "2.5":
        with pytest.raises(UnsupportedError, match="pool"):
            act()
        return
    act()
    found = json.loads(Path("quantize_result/quant_info.json").read_text())["output"]
    relu, pool = (found[name] for name in found if "ReLU" in name or "MaxPool" in name)
    assert relu == pool


# --- what the drop-in does not do -----------------------------------------------------------------


@pytest.mark.parametrize(
    "what", [{"bitwidth": 16}, {"bitwidth": 1}, {"mix_bit": True}, {"qat_proc": True}]
)
def test_what_it_does_not_do_is_refused(what: Dict[str, Any], start: Any) -> None:
    with pytest.raises(UnsupportedError):
        start("calib", **what)


def test_training_is_refused() -> None:
    package = importlib.import_module("pytorch_nndct")
    with pytest.raises(UnsupportedError, match="QatProcessor"):
        package.QatProcessor(None, None)


def test_stubs_are_passed_over(nndct: Any, said: Callable[[], str]) -> None:
    package = importlib.import_module("pytorch_nndct.nn")
    functional = importlib.import_module("pytorch_nndct.nn.modules").functional

    class Stubbed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.start, self.end = package.QuantStub(), package.DeQuantStub()
            self.conv, self.add = nn.Conv2d(3, 3, 3, padding=1), functional.Add()

        def forward(self, x: Tensor) -> Any:
            x = self.start(x)
            return self.end(self.add(x, self.conv(x)))

    model = Stubbed()
    found = calibrate(nndct, model, noise(8, 3, 8, 8))
    assert "QuantStub and DeQuantStub are passed over: the whole model" in said()
    assert [n.op for n in found.processor.quantizer.ours.graph.nodes][1:] == [
        "nndct_conv2d",
        "nndct_elemwise_add",
    ]


# --- options, releases, the other names -----------------------------------------------------------


def test_options_leave_the_command_line(
    monkeypatch: pytest.MonkeyPatch, nndct: Any, micro: golden.Recording, start: Any
) -> None:
    shared = importlib.import_module("nndct_shared.utils")
    options = importlib.import_module("nndct_shared.options")
    assert shared.NndctOption.nndct_param_corr_rate.value == 0.05
    monkeypatch.setattr(options.NndctOption.nndct_param_corr_rate, "given", None)
    for option in options.options().values():
        monkeypatch.setattr(option, "value", option.default)
    argv = ["quant.py", "--nndct_equalization=false", "--mode", "x", "--nndct_param_corr=False"]
    argv += ["--nndct_max_fix_position=5", "--nndct_own"]
    options.take_from_command_line(argv)
    assert argv == ["quant.py", "--mode", "x", "--nndct_own"]
    assert shared.NndctOption.nndct_max_fix_position.value == 5
    assert shared.get_option_value("nndct_equalization") is False
    calibrate(nndct, micro.model(), micro.inputs("calib"))
    plain = QuantizeOptions(False, False, max_fix_position=5, release="3.5")
    ours = Quantizer(micro.model(), micro.inputs("calib")[:1], plain)
    found = ours.calibrate(split(micro.inputs("calib"), 8))
    assert Path("quantize_result/quant_info.json").read_text() == found.info.text()
    options.take_from_command_line(["x", "--nndct_quant_off"])
    with pytest.raises(UnsupportedError, match="nndct_quant_off"):
        start("calib")
    with pytest.raises(UsageError, match="many"):
        options.take_from_command_line(["x", "--nndct_max_fix_position=many"])


@pytest.mark.parametrize("release", ["1.4.1", "2.0", "2.5", "3.0", "3.5"])
def test_arguments_and_methods_of_the_releases(release: str, nndct: Any, start: Any) -> None:
    arguments = set(inspect.signature(nndct.torch_quantizer).parameters)
    later = {"target", "input_kwargs", "dynamo"} - arguments
    expected = {
        "1.4.1": {"target", "input_kwargs", "dynamo"},
        "2.0": {"input_kwargs", "dynamo"},
        "2.5": {"input_kwargs", "dynamo"},
        "3.0": {"dynamo"},
        "3.5": set(),
    }
    assert later == expected[release]
    for name in later:
        with pytest.raises(TypeError, match=name):
            start("calib", **{name: None})
    with pytest.raises(TypeError, match="quant_moed"):
        start("calib", quant_moed="calib")
    quantizer = start("calib")
    exports = ("export_onnx_model", "export_traced_torch_script", "export_torch_script")
    found = [hasattr(quantizer, name) for name in exports]
    assert found == {"2.5": [True, True, False], "3.0": [True, False, True]}.get(
        release.replace("3.5", "3.0"), [False] * 3
    )
    assert hasattr(nndct, "Inspector") is (release not in ("1.4.1", "2.0"))
    version = importlib.import_module("pytorch_nndct").__version__
    assert version.startswith((f"{release}+", f"{release}.0+"))


def test_one_process_for_all_stages(nndct: Any, chain: nn.Module, said: Callable[[], str]) -> None:
    images = noise(64, 3, 8, 8)
    quantizer = nndct.torch_quantizer("calib", chain, (images[:1].clone(),), device=CPU)

    def evaluate(model: nn.Module, size: int) -> float:
        answers = [model(batch) for batch in split(images, size)]
        return float(torch.cat(answers).sum())

    model = quantizer.quant_model
    quantizer.quantize(evaluate, (model, 8), ft_run_args=(model, 4))
    assert "Model quantization calibration begin:" in said()
    quantizer.test(evaluate, (model, 4))
    ours = Quantizer(chain, images[:1], QuantizeOptions(release="3.5"))
    found = ours.calibrate(split(images, 8), tuned=ours.finetune(split(images, 4)))
    metric = float(ours.quantized(found)(images).sum())
    assert f"Quantized model evaluation returns metric:\n {metric}" in said()
    quantizer.deploy(evaluate, (model, 1), fmt="xmodel", output_dir="deploy")
    assert Path("deploy/Chain_int.xmodel").is_file()
    names = tuned_parameters.names(ours.graph)
    assert set(torch.load("quantize_result/param.pth")) == set(names)


def test_the_inspector_names_what_stays_on_the_cpu(
    nndct: Any, data: Path, said: Callable[[], str]
) -> None:
    case = golden.recording("micro_d_pool_linear_sigmoid", data, Path)
    inspector = nndct.Inspector("DPUCVDX8H_ISA1_F2W2_8PE")
    inspector.inspect(
        case.model(), (case.inputs("test")[:1],), CPU, output_dir="seen", image_format="svg"
    )
    text = Path("seen/inspect_DPUCVDX8H_ISA1_F2W2_8PE.txt").read_text()
    assert re.search(r"sigmoid  PoolLinear__\S+\n +operator \"sigmoid\" is not in the DPU", text)
    assert "is assigned to CPU: operator" in said()
    assert Path("seen/inspect_DPUCVDX8H_ISA1_F2W2_8PE.svg").read_text().startswith("<svg")
    with pytest.raises(UsageError, match="DPUCZ"):
        nndct.Inspector("DPUCZ")
    inspector.inspect(case.model(), case.inputs("test")[:1], output_dir="all", image_format="png")
    assert "A picture as png cannot be drawn here" in said()
    assert len(os.listdir("all")) == 2


# --- whole programs -------------------------------------------------------------------------------

SCRIPT = """
import argparse
import sys

import torch
from torch import nn
from pytorch_nndct.apis import torch_quantizer, dump_xmodel

DEVICE = torch.device("cpu")


class Digits(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 10, 13), nn.Flatten(),
        )

    def forward(self, x):
        return self.network(x)


def test(model, loader):
    model.eval()
    with torch.no_grad():
        return [int(model(images.to(DEVICE)).argmax(1).sum()) for images, _ in loader]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quant_mode", default="calib", choices=["float", "calib", "test"])
    args = parser.parse_args()
    torch.manual_seed(1)
    torch.set_num_threads(1)
    model = Digits().to(DEVICE)
    data = torch.utils.data.TensorDataset(torch.rand(24, 1, 28, 28), torch.zeros(24))
    size = 1 if args.quant_mode == "test" else 8
    loader = torch.utils.data.DataLoader(data, batch_size=size, shuffle=False)
    quantizer = torch_quantizer(
        args.quant_mode, model, (torch.randn([size, 1, 28, 28])), output_dir="quant_model"
    )
    print("answers", test(quantizer.quant_model, loader))
    if args.quant_mode == "calib":
        quantizer.export_quant_config()
    else:
        quantizer.export_xmodel(deploy_check=False, output_dir="quant_model")
"""


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Runs the script above on a simulated host; returns the completed process."""
    (tmp_path / "quantize.py").write_text(SCRIPT)

    with SimulatedHost(SimulateOptions(release="3.5")) as host:
        yield lambda mode, *words: subprocess.run(
            [sys.executable, "quantize.py", "--quant_mode", mode, *words],
            env=host.environment(),
            cwd=str(tmp_path),
            capture_output=True,
            text=True,
        )


def test_an_unmodified_script(script: Callable[..., Any]) -> None:
    done = script("calib", "--nndct_param_corr_rate=0.1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("answers [")
    assert "[VAIQ" not in done.stdout
    assert done.stderr.startswith("\n\x1b[0;32m[VAIQ_NOTE]: Loading NNDCT kernels...\x1b[0m\n")
    left = ["Digits.py", "bias_corr.pth", "quant_info.json"]
    assert sorted(os.listdir("quant_model")) == left
    done = script("test")
    assert done.returncode == 0, done.stderr
    graph = read_xmodel(Path("quant_model/Digits_int.xmodel"))
    assert [o.tensor.dims for o in graph.ops.values() if o.type == "data"] == [(1, 28, 28, 1)]


@pytest.mark.slow
def test_exit_statuses_of_a_script(script: Callable[..., Any]) -> None:
    missing = script("test")
    assert missing.returncode == 2
    assert "[VAIQ_ERROR][QUANTIZER_TORCH_BIAS_CORRECTION]: Bias correction" in missing.stderr
    calibrate(
        importlib.import_module("pytorch_nndct.apis"),
        nets.ConvBias(),
        noise(8, 3, 32, 32),
        output_dir="quant_model",
    )
    foreign = script("test")
    assert foreign.returncode == 0
    assert "[VAIQ_ERROR][QUANTIZER_TORCH_CALIB_RESULT_MISMATCH]" in foreign.stderr
    assert foreign.stdout == ""
