"""The drop-in ``pytorch_nndct``, driven as scripts for the vendor's drive it.

What it leaves and answers is held against the vendor's recordings; what it says and how it ends
against the recorded console texts.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from deepfake_fpga.compile.xir.diff import diff_graphs  # noqa: E402
from deepfake_fpga.compile.xir.xmodel import read_xmodel  # noqa: E402
from deepfake_fpga.deploy import simulate  # noqa: E402
from deepfake_fpga.deploy.simulate.host import SimulatedHost  # noqa: E402
from deepfake_fpga.deploy.simulate.options import VARIABLE, SimulateOptions  # noqa: E402
from deepfake_fpga.errors import UnsupportedError, UsageError  # noqa: E402
from deepfake_fpga.quantize import tuned_parameters  # noqa: E402
from deepfake_fpga.quantize.execution import float_tensors, run, tensors_of  # noqa: E402
from deepfake_fpga.quantize.quantizer import QuantizeOptions, Quantizer  # noqa: E402

from . import golden, nets  # noqa: E402
from .zoo import Mobile, Scalars, shaken  # noqa: E402

pytestmark = pytest.mark.torch

CPU = torch.device("cpu")
RELEASES = ("1.4.1", "2.0", "2.5")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As the recordings were made."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def release() -> str:
    return "3.5"


@pytest.fixture(autouse=True)
def nndct(
    release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> Iterator[Any]:  # type: ignore[type-arg]
    """``pytorch_nndct.apis`` in an empty working directory."""
    monkeypatch.setenv(VARIABLE, SimulateOptions(release=release).to_environment()[VARIABLE])
    monkeypatch.chdir(tmp_path)
    simulate.install()
    yield importlib.import_module("pytorch_nndct.apis")
    simulate.uninstall()


@pytest.fixture
def said(capsys: pytest.CaptureFixture) -> Callable[[], str]:  # type: ignore[type-arg]
    """What standard error got since the last call."""
    return lambda: str(capsys.readouterr().err)


def split(images: Tensor, size: int) -> List[Tensor]:
    """Batches that share no memory with ``images``, as a data loader gives them."""
    pieces: Tuple[Tensor, ...] = images.split(size)  # type: ignore[no-untyped-call]
    return [piece.clone() for piece in pieces]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 0.9


def calibrate(api: Any, model: nn.Module, images: Tensor, size: int = 8, **more: Any) -> Any:
    """The first half of every script; returns the quantizer."""
    quantizer = api.torch_quantizer("calib", model, (images[:1].clone(),), device=CPU, **more)
    for batch in split(images, size):
        quantizer.quant_model(batch)
    quantizer.export_quant_config()
    return quantizer


def answered(api: Any, model: nn.Module, images: Tensor, **more: Any) -> Tuple[Any, List[Any]]:
    """The second half: the quantizer and the answers to one image after the other."""
    quantizer = api.torch_quantizer("test", model, (images[:1].clone(),), device=CPU, **more)
    results = [quantizer.quant_model(image) for image in split(images, 1)]
    results = [r if isinstance(r, tuple) else (r,) for r in results]
    return quantizer, [np.concatenate([head.numpy() for head in heads]) for heads in zip(*results)]


@pytest.fixture
def micro(data: Path) -> golden.Recording:
    """One convolution, the smallest recorded case."""
    return golden.recording("micro_b_conv_bias", data, Path)


# --- the recordings -------------------------------------------------------------------------------


def recorded(case: golden.Recording, api: Any) -> Tuple[golden.Ours, Any]:
    model, images = case.model(), case.inputs("test")
    calib = calibrate(api, model, case.inputs("calib"))
    quantizer, outputs = answered(api, model, images)
    engine = quantizer.processor.quantizer
    quantized = engine.quantized()
    ours = golden.Ours(
        engine.ours,
        calib.processor.quantizer.calibration(),
        quantized,
        outputs,
        quantized.codes(images[:1]),
    )
    return ours, quantizer


def compare(case: golden.Recording, api: Any) -> Any:
    """Runs the script and compares with the recording; returns the quantizer in test."""
    ours, quantizer = recorded(case, api)
    assert {k: v for k, v in golden.differences(case, ours).items() if v} == {}
    text = Path("quantize_result/quant_info.json").read_text(encoding="utf-8")
    assert golden.comparable(text, case.release) == golden.comparable(case.quant_info, case.release)
    return quantizer


@pytest.mark.parametrize("name", [*golden.MICRO, "uynet_w8"])
def test_a_script_gives_the_recorded_numbers(
    name: str, nndct: Any, data: Path, request: pytest.FixtureRequest
) -> None:
    compare(golden.recording(name, data, lambda: Path(request.getfixturevalue("shared"))), nndct)


@pytest.mark.parametrize("name", ["micro_c_convt_concat", "micro_d_pool_linear_sigmoid"])
@pytest.mark.parametrize("release", RELEASES)
def test_an_older_release_gives_its_recorded_numbers(
    name: str, release: str, nndct: Any, data: Path
) -> None:
    compare(golden.recording(name, data, Path, release), nndct)


@pytest.mark.parametrize("release", ["1.4.1", "2.0", "2.5", "3.5"])
def test_exports_the_recorded_xmodel(
    release: str, nndct: Any, data: Path, shared: Path, said: Callable[[], str]
) -> None:
    name = "micro_d_pool_linear_sigmoid"
    case = golden.recording(name, data, Path, release)
    folder = shared / "golden"
    folder = (
        folder / name / "quantize_result"
        if release == "3.5"
        else folder / f"release_{release}" / name
    )
    (theirs,) = folder.glob("*_int.xmodel")
    quantizer = compare(case, nndct)
    quantizer.export_xmodel(output_dir="deploy")
    ours = Path("deploy") / theirs.name
    found = diff_graphs(read_xmodel(theirs), read_xmodel(ours), ignore_trace_numbers=True)
    assert [str(difference) for difference in found] == []
    assert f"Successfully convert 'PoolLinear' to xmodel.({ours})" in said()


def test_files_are_those_of_our_own_command(nndct: Any, data: Path, tmp_path: Path) -> None:
    case = golden.recording("micro_f_cle", data, Path)
    golden.run(case).calibration.save(tmp_path / "ours")
    calibrate(nndct, case.model(), case.inputs("calib"), output_dir="theirs")
    for name in ("quant_info.json", "bias_corr.pth"):
        ours, theirs = (Path(folder, name).read_bytes() for folder in ("ours", "theirs"))
        assert ours.replace(b"deepfake_fpga0", b"x") == theirs.replace(b"deepfake_fpga0", b"x")
    assert sorted(os.listdir("theirs")) == ["Cle.py", "bias_corr.pth", "quant_info.json"]


def test_batches_act_at_once(nndct: Any, data: Path) -> None:
    """Every calibration forward answers by the positions in force then, and moves the biases."""
    case = golden.recording("micro_c_convt_concat", data, Path)
    images = case.inputs("calib")
    quantizer = nndct.torch_quantizer("calib", case.model(), (images[:1],), device=CPU)
    engine = quantizer.processor.quantizer
    answers = [quantizer.quant_model(images[:8].clone()) for _ in range(3)]
    history = case.json("calib_fixpos_history")
    assert isinstance(history, dict)
    first = [table[0][0] for table in history["output"].values()]
    found = engine.calibrator().result()
    assert list(found.histories.values()) == [[p] * 3 for p in first]
    # The concat's result lies on the grid of the first batch; later ones differ by the biases.
    grid = answers[0] * 2.0 ** first[-1]
    assert torch.equal(grid, grid.round())
    assert not torch.equal(answers[0], answers[1])


# --- fast finetune --------------------------------------------------------------------------------


class Chain(nn.Module):
    """Layers whose weights a tuning moves: a few large ones leave a coarse grid for the others."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 6, 3, padding=1)
        self.two = nn.Conv2d(6, 4, 3, stride=2)
        self.head = nn.Linear(4 * 9, 3)
        with torch.no_grad():
            for layer in (self.one, self.two):
                layer.weight[:, 0, 0, 0] *= 16
            self.head.weight[:, 0] *= 16

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.two(torch.relu(self.one(x))))
        out: Tensor = self.head(torch.flatten(x, 1))
        return out


@pytest.fixture
def chain() -> nn.Module:
    torch.manual_seed(3)
    return Chain().eval()


def tuned_files(
    api: Any, model: nn.Module, images: Tensor, size: int = 2, calib: Optional[Tensor] = None
) -> List[List[Tensor]]:
    """Tunes as scripts do; returns what the tuning function's forwards answered, per call."""
    quantizer = api.torch_quantizer("calib", model, (images[:1].clone(),), device=CPU)
    answers: List[List[Tensor]] = []

    def evaluate(net: nn.Module, factor: int) -> None:
        net.eval()
        with torch.no_grad():
            answers.append([net(batch) for batch in split(images, size)])
        assert factor == 7

    quantizer.fast_finetune(evaluate, (quantizer.quant_model, 7))
    for batch in split(images if calib is None else calib, golden.BATCH):
        quantizer.quant_model(batch)
    quantizer.export_quant_config()
    return answers


def test_fast_finetune_equals_our_own(
    nndct: Any, chain: nn.Module, said: Callable[[], str]
) -> None:
    images = noise(64, 3, 8, 8)
    answers = tuned_files(nndct, chain, images, 4)
    ours = Quantizer(chain, images[:1], QuantizeOptions(release="3.5"))
    tuned = ours.finetune(split(images, 4))
    found = ours.calibrate(split(images, golden.BATCH), tuned=tuned)
    assert any(layer.kept for layer in tuned.layers)
    assert Path("quantize_result/quant_info.json").read_text() == found.info.text()
    assert '"fast_finetuned":true' in found.info.text()
    content = torch.load("quantize_result/param.pth")
    assert found.tuned is not None
    assert list(content) == list(found.tuned)
    assert all(np.array_equal(content[key].numpy(), found.tuned[key]) for key in content)
    # The first pass is float, the second quantized.
    assert len(answers) == 2
    with torch.no_grad():
        assert torch.allclose(answers[0][0], chain(images[:4]), atol=1e-5)
    assert not torch.allclose(answers[1][0], chain(images[:4]), atol=1e-5)
    notes = [
        "=>Preparing data for fast finetuning module parameters ...",
        "=>Find initial quantization steps for fast finetuning...",
        "=>Fast finetuning module parameters for better quantization accuracy...",
        "=>Export fast finetuned parameters ...",
        "=>Exporting quant model parameters.(quantize_result/param.pth)",
    ]
    text = said()
    assert [note in text for note in notes] == [True] * 5

    quantizer = nndct.torch_quantizer("test", chain, (images[:1].clone(),), device=CPU)
    quantizer.load_ft_param()
    assert "=>Loading quant model parameters.(quantize_result/param.pth)" in said()
    answer = quantizer.quant_model(images.clone())
    assert torch.equal(answer, ours.quantized(found)(images))
    # Not loaded, it runs the untuned parameters and says nothing.
    quantizer = nndct.torch_quantizer("test", chain, (images[:1].clone(),), device=CPU)
    assert not torch.equal(quantizer.quant_model(images.clone()), answer)
    assert "WARN" not in said()


@pytest.mark.slow
def test_fast_finetune_equals_the_recording(nndct: Any, shared: Path) -> None:
    folder = shared / "golden"
    case = golden.Recording("uynet_w8", folder / "uynet_w8_ft_b2", folder / "uynet_w8")
    images = case.inputs("calib")
    tuned_files(nndct, case.model(), images[:16], 2, images)
    theirs = case.arrays("params_finetuned")
    content = torch.load("quantize_result/param.pth")
    assert list(content) == list(theirs)
    assert all(np.array_equal(content[key].numpy(), theirs[key]) for key in theirs)
    quantizer = nndct.torch_quantizer("test", case.model(), (images[:1].clone(),), device=CPU)
    quantizer.load_ft_param()
    results = [quantizer.quant_model(image) for image in split(case.inputs("test"), 1)]
    logits = np.concatenate([result[0].numpy() for result in results])
    assert np.array_equal(logits, case.arrays("quant_outputs")["logits"])


def test_finetune_in_test_mode_is_ignored(
    nndct: Any, micro: golden.Recording, said: Callable[[], str]
) -> None:
    calibrate(nndct, micro.model(), micro.inputs("calib"))
    quantizer, _ = answered(nndct, micro.model(), micro.inputs("test"))
    said()
    quantizer.fast_finetune(pytest.fail, ("it was called",))
    assert said() == (
        "\n\x1b[0;33m[VAIQ_WARN][QUANTIZER_TORCH_FINETUNE_IGNORED]: Finetune function will be "
        "ignored in test mode!\x1b[0m\n\n\x1b[0;32m[VAIQ_NOTE]: =>Export fast finetuned "
        "parameters ...\x1b[0m\n"
    )
    assert not Path("quantize_result/param.pth").exists()


def test_tuned_parameters_that_are_not_there(
    nndct: Any, micro: golden.Recording, said: Callable[[], str]
) -> None:
    quantizer = calibrate(nndct, micro.model(), micro.inputs("calib"))
    quantizer.load_ft_param()
    quantizer, _ = answered(nndct, micro.model(), micro.inputs("test"))
    said()
    ends(
        2,
        "FAST_FINETINE",
        "Fast finetuned parameter file does not exist. Please check calibration with fast "
        "finetune is done or not.",
        quantizer.load_ft_param,
        said,
    )


@pytest.mark.parametrize("release", ["1.4.1"])
def test_the_oldest_finetune_is_refused(release: str, nndct: Any, chain: nn.Module) -> None:
    quantizer = nndct.torch_quantizer("calib", chain, (noise(1, 3, 8, 8),), device=CPU)
    with pytest.raises(UnsupportedError, match=r"1\.4\.1"):
        quantizer.fast_finetune(pytest.fail, ("it was called",))


# --- what it does to its caller -------------------------------------------------------------------


def test_inputs_are_quantized_in_place(nndct: Any, micro: golden.Recording) -> None:
    images = micro.inputs("calib")[:8].clone()
    quantizer = nndct.torch_quantizer("calib", micro.model(), (images[:1],), device=CPU)
    kept = images.clone()
    quantizer.quant_model(images[:4])
    assert torch.equal(images, kept), "a view is spared"
    quantizer.quant_model(images)
    codes = images * 2.0**7 if float(kept.max()) < 0.997 else images * 2.0**6
    assert torch.equal(codes, codes.round())
    assert not torch.equal(images, kept)
    assert float((images - kept).abs().max()) <= 2.0**-7
    turned = kept.permute(0, 1, 3, 2)
    quantizer.quant_model(turned)
    assert torch.equal(kept, images), "the whole of a memory is overwritten, whatever its order"
    quantizer.export_quant_config()
    quantizer = nndct.torch_quantizer("test", micro.model(), (images[:1],), device=CPU)
    image = micro.inputs("test")[:1].clone()
    before = image.clone()
    quantizer.quant_model(image)
    assert not torch.equal(image, before)
    codes = image * 2.0**7
    assert torch.equal(codes, codes.round())


def test_the_model_and_its_mode_are_left_alone(nndct: Any, data: Path) -> None:
    case = golden.recording("micro_a_conv_bn_relu", data, Path)
    model = case.model().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    calibrate(nndct, model, case.inputs("calib"))
    assert model.training
    assert model.bn.training  # type: ignore[union-attr]
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_the_quantized_model_is_a_module(nndct: Any, data: Path) -> None:
    case = golden.recording("micro_a_conv_bn_relu", data, Path)
    calibrate(nndct, case.model(), case.inputs("calib"))
    quantizer, (answers,) = answered(nndct, case.model(), case.inputs("test"))
    model = quantizer.quant_model
    assert isinstance(model, nn.Module)
    assert model.eval().to(CPU).train().cpu() is model
    batch = case.inputs("test")[:3].clone()
    assert np.array_equal(model(batch).numpy(), answers[:3])
    inner = quantizer.processor.quantizer.quant_model
    assert [name for name, _ in inner.named_children()] == ["module_0", "module_1", "module_2"]
    state = inner.state_dict()
    info = json.loads(Path("quantize_result/quant_info.json").read_text())["param"]
    positions = dict(zip(state, (pair[0][1] for pair in info.values())))
    theirs = case.arrays("params_int8")
    assert len(state) == len(theirs)
    for (key, value), code in zip(state.items(), theirs.values()):
        assert np.array_equal(value.numpy() * 2.0 ** positions[key], code)


def test_structures_names_and_defaults(nndct: Any) -> None:
    class Sides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(
            self, x: Tensor, pair: Tuple[Tensor, Tensor], flip: bool = False, more: Any = None
        ) -> Dict[str, Any]:
            y = self.conv(x + pair[0] * pair[1])
            return {"all": (y if not flip else -y), "also": [torch.relu(y)], "none": more}

    x, pair = noise(8, 3, 6, 6), (noise(8, 3, 6, 6, seed=1), noise(8, 3, 6, 6, seed=2))
    example = (x[:1], (pair[0][:1], pair[1][:1]))
    by_name = nndct.torch_quantizer(
        "calib", Sides(), (x[:1],), {"pair": example[1]}, device=CPU, output_dir="named"
    )
    found = by_name.quant_model(x=x.clone(), pair=tuple(p.clone() for p in pair))
    assert list(found) == ["all", "also", "none"]
    assert found["none"] is None
    assert found["all"].shape == (8, 4, 4, 4)
    assert torch.equal(found["also"][0], torch.relu(found["all"]))
    with pytest.raises(TypeError, match="pair"):
        by_name.quant_model(x)


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [nets.UpConcat, nets.PoolLinear, nets.Cle, Scalars])
def test_the_generated_module_needs_nothing_but_torch(kind: Any, nndct: Any) -> None:
    shape = {nets.UpConcat: (3, 32, 32), nets.PoolLinear: (16, 14, 14), Scalars: (3, 8, 8)}
    images = noise(8, *shape.get(kind, (3, 16, 16)))
    quantizer = calibrate(nndct, shaken(kind()), images)
    path = Path("quantize_result") / f"{kind.__name__}.py"
    text = path.read_text()
    assert "GENERATED" in text.splitlines()[0]
    assert "DO NOT EDIT" in text.splitlines()[0]
    assert re.findall(r"^(?:import|from) (\S+)", text, re.M) == ["torch", "torch.nn.functional"]
    namespace: Dict[str, Any] = {}
    exec(compile(text, str(path), "exec"), namespace)
    module = namespace[kind.__name__]()
    graph = quantizer.processor.quantizer.ours.graph
    state = {
        f"module_{node.index}.{role}": torch.from_numpy(graph.params[key])
        for node in graph.nodes
        for role, key in node.params.items()
    }
    assert module.load_state_dict(state).missing_keys == []
    floats = float_tensors(graph)
    wanted = run(graph, [images], lambda n: tensors_of(n, floats), lambda n, raw, x: raw)
    assert torch.equal(module(images), wanted[graph.outputs])


def test_deploy_check_data(nndct: Any, data: Path, said: Callable[[], str]) -> None:
    case = golden.recording("micro_c_convt_concat", data, Path)
    calibrate(nndct, case.model(), case.inputs("calib"))
    quantizer, _ = answered(nndct, case.model(), case.inputs("test"))
    said()
    quantizer.export_xmodel(deploy_check=True, output_dir="deploy")
    folder = Path("deploy/deploy_check_data_int/UpConcat")
    text = said()
    assert "=>Dumping 'UpConcat'' checking data..." in text
    assert f"=>Finish dumping data.({folder})" in text
    weights = np.fromfile(folder / "UpConcat__conv_weight_fix.bin", np.int8)
    theirs = case.arrays("params_int8")
    assert np.array_equal(weights, theirs["UpConcat::conv.weight"].transpose(0, 2, 3, 1).ravel())
    turned = np.fromfile(folder / "UpConcat__up_weight_fix.bin", np.int8)
    up = theirs["UpConcat::up.weight"].transpose(1, 2, 3, 0)[:, ::-1, ::-1, :]
    assert np.array_equal(turned, up.ravel())
    lines = (folder / "shape.txt").read_text().splitlines()
    assert lines[0] == "[1, 32, 32, 3]: UpConcat::input_0"
    assert len(lines) == 6
    graph = read_xmodel(Path("deploy/UpConcat_int.xmodel"))
    concat = next(op for op in graph.ops.values() if op.type == "concat")
    codes = np.fromfile(folder / f"{concat.name}_fix.bin", np.int8)
    values = np.fromfile(folder / f"{concat.name}.bin", np.float32)
    scale = 2.0 ** graph.ops[f"{concat.name}_fix"].get("fix_point")
    assert np.array_equal(codes, values * scale)
    assert codes.size == int(np.prod(concat.tensor.dims))


def test_torch_script_gives_the_quantized_models_answers(
    nndct: Any, data: Path, said: Callable[[], str]
) -> None:
    case = golden.recording("micro_d_pool_linear_sigmoid", data, Path)
    calibrate(nndct, case.model(), case.inputs("calib"))
    quantizer, (answers,) = answered(nndct, case.model(), case.inputs("test"))
    quantizer.export_torch_script(output_dir="script")
    assert "PoolLinear_int.pt is generated.(script/PoolLinear_int.pt)" in said()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        script = torch.jit.load("script/PoolLinear_int.pt")
    assert np.array_equal(script(case.inputs("test")).numpy(), answers)


def test_onnx_rounds_half_to_even(nndct: Any, data: Path, said: Callable[[], str]) -> None:
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    case = golden.recording("micro_f_cle", data, Path)
    calibrate(nndct, case.model(), case.inputs("calib"))
    quantizer, (answers,) = answered(nndct, case.model(), case.inputs("test"))
    said()
    quantizer.export_onnx_model(output_dir="nowhere")
    assert said().startswith(
        "\n\x1b[0;31m[VAIQ_ERROR][QUANTIZER_TORCH_EXPORT_ONNX]: [Errno 2] No such file or directory"
    )
    assert not Path("nowhere").exists()
    Path("onnx").mkdir()
    quantizer.export_onnx_model(output_dir="onnx", dynamic_batch=True, check_model=True)
    assert "Cle_int.onnx is generated.(onnx/Cle_int.onnx)" in said()
    kinds = {node.op_type for node in onnx.load("onnx/Cle_int.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear", "Conv", "ConvTranspose"} <= kinds
    session = runtime.InferenceSession("onnx/Cle_int.onnx")
    (found,) = session.run(None, {"input_0": case.inputs("test").numpy()})
    model = quantizer.processor.quantizer.quantized()

    def even(node: Any, raw: Tensor, operands: Any) -> Tensor:
        position = model.node_positions.get(node)
        if position is None:
            return raw
        return torch.round(raw * 2.0**position).clamp(-128, 127) * 2.0**-position

    expected = run(model.graph, [case.inputs("test")], model.node_parameters, even)
    step = 2.0 ** -model.node_positions[model.graph.outputs]
    assert np.array_equal(found, expected[model.graph.outputs].numpy())
    off = np.abs(found - answers)
    assert 0 < np.count_nonzero(off) < off.size / 4
    assert off.max() <= 4 * step


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


# --- misuse ---------------------------------------------------------------------------------------


def ends(
    status: int, code: str, message: str, act: Callable[[], Any], said: Callable[[], str]
) -> None:
    """``act`` must end the process with ``status`` after an error that starts with ``message``."""
    said()
    with pytest.raises(SystemExit) as stop:
        act()
    assert stop.value.code == status
    assert f"\n\x1b[0;31m[VAIQ_ERROR][QUANTIZER_TORCH_{code}]: {message}" in said()


@pytest.fixture
def start(nndct: Any, micro: golden.Recording) -> Callable[..., Any]:
    """Makes a quantizer of the smallest case in a mode."""
    return lambda mode, **more: nndct.torch_quantizer(
        mode, micro.model(), (micro.inputs("calib")[:1].clone(),), **{"device": CPU, **more}
    )


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
        quantizer.quant_model(noise(1, 4, 32, 32))
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
