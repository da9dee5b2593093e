"""The drop-in ``pytorch_nndct``, driven as scripts for the vendor's drive it: numbers and files.

What it leaves and answers is held against the vendor's recordings.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import warnings
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from deepfake_fpga.compile.xir.diff import diff_graphs  # noqa: E402
from deepfake_fpga.compile.xir.xmodel import read_xmodel  # noqa: E402
from deepfake_fpga.errors import UnsupportedError  # noqa: E402
from deepfake_fpga.quantize.execution import float_tensors, run, tensors_of  # noqa: E402
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
from .zoo import Scalars, shaken  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_thread")]

chain = nndct_scripts.chain
micro = nndct_scripts.micro
nndct = nndct_scripts.nndct
release = nndct_scripts.release
said = nndct_scripts.said


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


@pytest.mark.parametrize("name", golden.MICRO)
def test_takes_a_calibration_of_the_genuine_tool(name: str, nndct: Any, data: Path) -> None:
    case = golden.recording(name, data, Path)
    for file in ("quant_info.json", "bias_corr.pth"):
        shutil.copy(str(case.folder / file), file)
    quantizer, (answers,) = answered(nndct, case.model(), case.inputs("test"), output_dir=".")
    (theirs,) = case.arrays("quant_outputs").values()
    float_end = name == "micro_d_pool_linear_sigmoid"
    assert np.abs(answers - theirs).max() <= (golden.SIGMOID_TOLERANCE if float_end else 0)
    os.remove("quant_info.json")
    quantizer.export_quant_config()
    assert Path("quant_info.json").read_bytes() == (case.folder / "quant_info.json").read_bytes()


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
    with torch.inference_mode():
        held = noise(1, 3, 32, 32)
    quantizer.quant_model(held)
    assert not torch.equal(held, noise(1, 3, 32, 32))
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


def test_copies_and_wrapped_models(
    nndct: Any, micro: golden.Recording, said: Callable[[], str]
) -> None:
    calibrate(nndct, nn.DataParallel(micro.model()), micro.inputs("calib"))
    assert "[VAIQ_WARN][QUANTIZER_TORCH_DATA_PARALLEL]" in said()
    quantizer, (answers,) = answered(nndct, micro.model(), micro.inputs("test"))
    twin = copy.deepcopy(quantizer.quant_model)
    assert np.array_equal(twin(micro.inputs("test")).numpy(), answers)


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
