"""Comparing two ways of computing a model: what is found, named and returned."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any, Callable, Dict, Optional

import cv2
import numpy as np
import pytest

from deepfake_fpga.compile.compiler import compile_graph
from deepfake_fpga.compile.targets import target_by_name
from deepfake_fpga.compile.xir.attributes import blob, int32, string
from deepfake_fpga.compile.xir.graph import Graph
from deepfake_fpga.compile.xir.xmodel import read_xmodel, write_xmodel
from deepfake_fpga.deploy.parity import ParityRequest, compare
from deepfake_fpga.errors import MismatchError, MissingError, UsageError
from deepfake_fpga.inference.artifact import load_artifact
from deepfake_fpga.inference.comparison import REACH, Comparison, Parity
from deepfake_fpga.inference.devices.handmade import GraphBuilder, uynet
from deepfake_fpga.inference.session import Session
from deepfake_fpga.inference.sides import Feeds, Side, Value
from deepfake_fpga.inference.wiring import Step, Wiring, align, common_name

from .calling import exit_code
from .needs import needs_sim

Change = Callable[[Graph], None]


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a small U-YNet, changed or not, and returns the file."""

    def made(change: Optional[Change] = None, seed: int = 0) -> Path:
        graph = uynet(4, size=112, seed=seed)
        if change is not None:
            change(graph)
        path = tmp_path_factory.mktemp("model") / "YNET.xmodel"
        write_xmodel(graph, path)
        return path

    return made


@pytest.fixture(scope="module")
def model(write: Callable[..., Path]) -> Path:
    return write()


def compared(left: Any, right: Any, **options: Any) -> Parity:
    return compare(ParityRequest(str(left), str(right), threads=1, **{"subset": 2, **options}))


# -- names and order ------------------------------------------------------------------------------


def test_names_of_one_tensor_are_one_name() -> None:
    assert common_name("a_fix_upload_0") == common_name("a_fix_download_0") == "a_fix"
    assert common_name("b_fix(MoveReshape)_download_0") == "b_fix"


def test_tensors_are_paired_by_name_and_then_without_trace_numbers() -> None:
    left = ["N__in_fix", "N__ReLU_relu__221_fix", "N__N_ret_5_fix", "N__N_ret_9_fix", "N__x_fix"]
    right = ["N__in_fix", "N__ReLU_relu__ret_3_fix", "N__N_ret_fix", "N__N_ret_11_fix", "N__y_fix"]
    assert align(left, right) == dict(zip(left[:4], right[:4]))
    # Two against three cannot be told apart.
    assert align(left, [*right, "N__N_ret_12_fix"]) == dict(zip(left[:2], right[:2]))


def test_what_a_tensor_is_made_from() -> None:
    wiring = Wiring(
        (
            Step("x", "data", (), "x"),
            Step("c", "conv2d", ("x",), None, ("w", "b")),
            Step("r", "relu", ("c",), None),
            Step("f", "fix", ("r",), "r"),
            Step("j", "concat", ("f", "x"), "j"),
        )
    )
    assert wiring.before("r", {"x", "r", "j"}) == (["x"], ["w", "b"], ["conv2d", "relu"])
    assert wiring.before("j", {"x", "r", "j"}) == (["x", "r"], [], ["concat"])
    # A tensor that was not compared is looked through.
    assert wiring.before("j", {"x", "j"})[0] == ["x"]


# -- statistics -----------------------------------------------------------------------------------


class Given(Side):
    """A side whose values the test gives."""

    kind = "given"

    def __init__(self, text: str) -> None:
        self.text = self.about = text

    def run(self, feeds: Feeds, batch: int) -> Dict[str, Value]:
        return {}


def test_differences_are_counted_in_codes() -> None:
    random = np.random.default_rng(1)
    first = random.integers(-128, 128, (2, 5, 5, 3)).astype(np.int8)
    second = random.integers(-128, 128, (2, 5, 5, 3)).astype(np.int8)
    second[0] = first[0]
    comparison = Comparison(Given("a"), Given("b"), tolerance=300)
    for at in range(2):  # in two batches
        comparison.add({"t": Value(first[at], 3)}, {"t": Value(second[at], 3)})
    result = comparison.result("x", 1)
    (tensor,) = result.tensors
    differences = second.astype(int) - first.astype(int)
    assert tensor.values == 150
    assert tensor.different == np.count_nonzero(differences)
    assert tensor.largest == np.abs(differences).max()
    assert tensor.mean == pytest.approx(np.abs(differences).mean())
    values, counts = np.unique(differences, return_counts=True)
    assert dict(tensor.histogram) == dict(zip(values.tolist(), counts.tolist()))
    assert not tensor.equal
    assert result.equal  # within the tolerance


def test_other_fix_points_and_floats_are_compared_by_value() -> None:
    codes = np.array([[4, -8, 7]], np.int8)
    comparison = Comparison(Given("a"), Given("b"))
    comparison.add(
        {"same": Value(codes[:, :2], 3), "half": Value(codes, 3), "float": Value(codes, 3)},
        {
            "same": Value(np.array([[2, -4]], np.int8), 2),
            "half": Value(np.array([[2, -4, 3]], np.int8), 2),
            "float": Value(np.array([[0.5, -1.0, np.nan]], np.float32), None),
        },
    )
    same, half, floats = comparison.result("x", 1).tensors
    assert same.equal
    assert (half.different, half.largest) == (1, 0.5)
    assert floats.different == 1
    assert floats.largest > 1e18
    assert dict(floats.histogram) == {0: 2, REACH: 1}
    json.dumps(comparison.result("x", 1).to_json(), allow_nan=False)


def test_sides_without_a_common_tensor_are_refused() -> None:
    value = Value(np.zeros((1, 2), np.int8), 0)
    with pytest.raises(MismatchError, match="no tensor in common"):
        Comparison(Given("a"), Given("b")).add({"x": value}, {"y": value})
    other = Value(np.zeros((1, 3), np.int8), 0)
    with pytest.raises(MismatchError, match="Tensor 'x' has two shapes"):
        Comparison(Given("a"), Given("b")).add({"x": value}, {"x": other})


# -- compiled models ------------------------------------------------------------------------------


def test_two_devices_are_equal_in_every_tensor(model: Path) -> None:
    result = compared(f"sim:{model}", f"reference:{model}")
    assert result.equal
    assert result.divergence is None
    assert {side["kind"] for side in result.sides} == {"sim", "reference"}
    assert len(result.tensors) > 25
    assert result.alone == ((), ())
    assert result.verdicts is not None
    assert (result.verdicts.images, result.verdicts.flips) == (2, 0)
    assert result.verdicts.mean_iou == 1.0


def test_a_changed_parameter_is_found(model: Path, write: Callable[..., Path]) -> None:
    def change(graph: Graph) -> None:
        op = graph.ops["down2_1_bias"]
        codes = np.frombuffer(op.get("data"), np.int8).copy()
        codes[0] = -128 if codes[0] >= 0 else 127
        op.attrs["data"] = blob(codes.tobytes())

    result = compared(model, write(change))
    assert not result.equal
    found = result.divergence
    assert found is not None
    assert found.tensor == "down2_1_fix"
    assert found.operators == ("conv2d-fix",)
    assert found.inputs == (("down2_0_fix", True),)
    assert dict(found.constants) == {"down2_1_weight": True, "down2_1_bias": False}
    assert "its parameters are not: down2_1_bias" in found.conclusion
    assert result.constants == ("down2_1_bias",)
    states = {tensor.name: tensor.equal for tensor in result.tensors}
    assert states["image_fix"]
    assert states["down1_1_fix"]
    assert not states["down3_pool_fix"]


def test_an_operator_computed_otherwise_is_found(model: Path, write: Callable[..., Path]) -> None:
    def change(graph: Graph) -> None:
        graph.ops["up1_0"].attrs["nonlinear"] = string("NONE")

    result = compared(model, write(change))
    assert result.divergence is not None
    assert result.divergence.tensor == "up1_0_fix"
    assert "the operator itself is computed otherwise" in result.divergence.conclusion
    # Without the ReLU the codes can only be lower.
    tensor = next(t for t in result.tensors if t.name == "up1_0_fix")
    assert max(at for at, _ in tensor.histogram) == 0
    assert min(at for at, _ in tensor.histogram) < 0


def test_flipped_verdicts_are_counted(model: Path, write: Callable[..., Path]) -> None:
    def biased(code: int) -> Change:
        def change(graph: Graph) -> None:
            graph.ops["linear_2_weight"].attrs["data"] = blob(bytes(32))
            graph.ops["linear_2_bias"].attrs["data"] = blob(np.int8(code).tobytes())

        return change

    result = compared(write(biased(100)), write(biased(-100)), threshold=0.5)
    assert result.verdicts is not None
    assert result.verdicts.flips == 2
    assert result.verdicts.flipped == ("generated 0", "generated 1")
    assert 0 < result.verdicts.largest_change <= 1
    assert result.verdicts.mean_iou == 1.0


def test_models_that_take_no_picture_are_compared_on_codes(tmp_path: Path) -> None:
    def small(path: Path, weight: int) -> Path:
        build = GraphBuilder()
        weights = np.full((2, 1, 1, 5), weight, np.int8)
        source = build.input((1, 4, 4, 5), 4)
        build.output(build.convolution("conv", source, weights, None, (0, 0, 4), (1, 4, 4, 2)))
        write_xmodel(build.finish(), path)
        return path

    one, two = small(tmp_path / "a.xmodel", 1), small(tmp_path / "b.xmodel", 2)
    result = compared(one, f"reference:{one}")
    assert result.equal
    assert result.stimulus == "random codes at image_fix"
    assert result.verdicts is None
    assert not compared(one, two).equal
    with pytest.raises(UsageError, match="Pictures cannot be compared on"):
        compared(one, two, images=["x.png"])


# -- recordings -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "run.rec"
    (model.parent / "manifest.json").write_text('{"preprocessing": {"height": 112, "width": 112}}')
    images = np.random.default_rng(5).integers(0, 256, (11, 112, 112, 3)).astype(np.uint8)
    with Session(load_artifact(model), "sim", threads=1, record=path) as session:
        session.run(images[:8])
        session.run(images[8:])
    return path


def test_a_recording_is_compared_on_what_it_recorded(
    model: Path, recorded: Path, write: Callable[..., Path]
) -> None:
    result = compared(recorded, f"reference:{model}")
    assert result.equal
    assert result.images == 11
    assert "2 recorded batches" in result.stimulus
    assert "image_fix" in {tensor.name for tensor in result.tensors}
    assert len(result.tensors) == 3
    assert result.verdicts is not None
    assert result.verdicts.images == 11
    assert compared(recorded, recorded).equal
    # The other way round, and another model.
    other = compared(write(seed=1), recorded)
    assert not other.equal
    assert other.divergence is not None
    with pytest.raises(UsageError, match="is a recording"):
        compared(recorded, model, images=["x.png"])


# -- quantized models -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compiled(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorded U-YNet of width 8, compiled."""
    target = target_by_name("8pe_normal")
    assert target is not None
    path = tmp_path_factory.mktemp("compiled") / "YNET.xmodel"
    write_xmodel(compile_graph(read_xmodel(genuine(shared)), target), path)
    return path


def genuine(shared: Path) -> Path:
    return shared / "golden" / "uynet_w8" / "quantize_result" / "UYNet_int.xmodel"


def test_the_vendors_quantized_file_and_its_compilation_are_equal(
    shared: Path, compiled: Path
) -> None:
    result = compared(genuine(shared), compiled, subset=1)
    assert result.equal
    assert len(result.tensors) == 32
    assert result.constants == ()
    assert result.verdicts is not None


def test_another_fix_point_is_named(shared: Path, compiled: Path, tmp_path: Path) -> None:
    graph = read_xmodel(genuine(shared))
    fix = next(op for op in graph.ops.values() if "outc" in op.name and op.name.endswith("ret_fix"))
    fix.attrs["fix_point"] = int32(fix.get("fix_point") - 1)
    path = tmp_path / "other_int.xmodel"
    write_xmodel(graph, path)
    result = compared(path, compiled, subset=1)
    assert result.divergence is not None
    assert result.divergence.tensor == fix.name
    assert "kept at another fix point" in result.divergence.conclusion
    (tensor,) = (tensor for tensor in result.tensors if not tensor.equal)
    # Half a code of the coarser grid, but where the finer one saturates.
    assert dict(tensor.histogram)[0] > 0.99 * tensor.values
    assert tensor.different > 0.1 * tensor.values


@pytest.mark.torch
def test_checkpoint_and_calibration_in_torch(shared: Path, compiled: Path, tmp_path: Path) -> None:
    import torch

    torch.set_num_threads(1)
    golden = shared / "golden" / "uynet_w8"
    (tmp_path / "float_model").mkdir()
    (tmp_path / "quant_model").mkdir()
    checkpoint = tmp_path / "float_model" / "m.pth"
    with np.load(golden / "weights.npz") as weights:
        torch.save({k: torch.from_numpy(weights[k]) for k in weights.files}, str(checkpoint))
    for name in ("quant_info.json", "bias_corr.pth"):
        shutil.copy(str(golden / "quantize_result" / name), str(tmp_path / "quant_model"))
    # Names differ in the numbers of two torch releases' tracing.
    for right in (genuine(shared), compiled):
        result = compared(tmp_path, right, subset=1)
        assert result.equal
        assert len(result.tensors) == 32
    floats = compared(checkpoint, tmp_path, subset=1)
    assert not floats.equal
    assert len(floats.tensors) == 32
    assert floats.divergence is not None
    assert "here the rounding to codes begins" in floats.divergence.conclusion
    source = floats.tensors[0]
    assert source.fix_points == (None, 6)
    # Rounding moves an input by half a code at most.
    assert 0.4 < source.largest <= 0.5
    assert compared(checkpoint, checkpoint, subset=1).equal
    (tmp_path / "float_model" / "second.pth").write_bytes(checkpoint.read_bytes())
    with pytest.raises(MissingError, match="checkpoint of the calibration"):
        compared(tmp_path, compiled)


# -- the command ----------------------------------------------------------------------------------


def call(*words: Any) -> int:
    return exit_code("parity", *words)


@needs_sim
def test_equal_is_status_0(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = tmp_path / "faces"
    images.mkdir()
    for number in range(3):
        picture = np.random.default_rng(number).integers(0, 256, (50, 60, 3)).astype(np.uint8)
        assert cv2.imwrite(str(images / f"{number}.png"), picture)
    (images / "broken.png").write_bytes(b"\x89PNG nothing")
    assert call(model, f"sim:{model}", "--images", images, "-t", 1) == 0
    out = capsys.readouterr().out
    assert "all equal" in out
    assert "3 pictures" in out
    assert "broken.png" in out
    assert "verdicts that flip: 0 of 3" in out


def test_different_is_status_1_with_a_page_and_json(
    model: Path, write: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "parity.html"
    other = write(seed=3)
    assert call(model, other, "--subset", 1, "-t", 1, "--html", page, "--json") == 1
    record = json.loads(capsys.readouterr().out)
    assert record["equal"] is False
    assert record["divergence"]["tensor"] == "inc_0_fix"
    assert record["divergence"]["inputs"] == [["image_fix", True]]
    assert len(record["constants"]) > 20
    tensor = record["tensors"][1]
    assert sum(count for _, count in tensor["histogram"]) == tensor["values"]
    text = page.read_text(encoding="utf-8")
    assert "inc_0_fix" in text
    assert "<svg" in text
    assert not re.search(r"(src|href)=|https?:|<script|@import", text)
    assert call(model, other, "--subset", 1, "-t", 1) == 1
    out = capsys.readouterr().out
    assert "first to diverge: inc_0_fix" in out
    assert "input image_fix: equal" in out
    assert call(model, other, "--subset", 1, "-q", "--tolerance", 255) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nowhere.xmodel", "MODEL"), "There is no nowhere.xmodel"),
        (("MODEL", "FOLDER"), "holds no calibration"),
        (("sim:FOLDER", "MODEL"), "is no compiled model"),
        (("card:MODEL", "MODEL"), "card cannot be used"),
        (("MODEL", "MODEL", "--images", "x", "--data", "FOLDER"), "cannot both be given"),
    ],
)
def test_wrong_use_is_said(
    words: Any, said: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = [w.replace("MODEL", str(model)).replace("FOLDER", str(tmp_path)) for w in words]
    assert call(*typed) in (1, 2)
    assert said in capsys.readouterr().err
