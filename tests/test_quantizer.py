"""The quantizer's public face: worked arithmetic, files, refusals, inputs left alone."""

from __future__ import annotations

import math
import pickle
import zipfile
from pathlib import Path
from typing import Dict, List

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from deepfake_fpga.errors import (  # noqa: E402
    DataError,
    FormatError,
    MismatchError,
    OrderError,
    UsageError,
)
from deepfake_fpga.quantize import graph as g  # noqa: E402
from deepfake_fpga.quantize.calibration import BiasCorrection, calibrate  # noqa: E402
from deepfake_fpga.quantize.execution import compute  # noqa: E402
from deepfake_fpga.quantize.factors import pool_factor  # noqa: E402
from deepfake_fpga.quantize.graph import Node  # noqa: E402
from deepfake_fpga.quantize.groups import entries  # noqa: E402
from deepfake_fpga.quantize.quantizer import QuantizeOptions, Quantizer  # noqa: E402
from deepfake_fpga.quantize.releases import V3_5  # noqa: E402
from deepfake_fpga.quantize.results import BIAS_CORR, QUANT_INFO, QuantInfo  # noqa: E402
from deepfake_fpga.quantize.trace import trace  # noqa: E402

from . import nets  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_thread")]


class OneNeuron(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1)
        nn.init.constant_(self.linear.weight, 0.9)
        nn.init.constant_(self.linear.bias, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x)
        return out


def test_one_neuron_by_hand() -> None:
    """Every number here was worked out with pen and paper from the rules."""
    graph = trace(OneNeuron(), [torch.zeros(1, 1)])
    batches = [[torch.tensor([[-1.0], [0.5]])], [torch.tensor([[0.25], [0.75]])]]
    found = calibrate(graph, entries(graph), batches, rate=0.05)
    source, dense = graph.nodes
    assert found.params == {"OneNeuron::linear.weight": 7, "OneNeuron::linear.bias": 10}
    assert found.histories == {source: [7, 7], dense: [7, 7]}
    correction = found.corrections[dense]
    assert correction is not None
    assert correction.item() == pytest.approx(0.00042969, abs=1e-8)

    quantizer = Quantizer(OneNeuron(), torch.zeros(1, 1), QuantizeOptions(release="3.5"))
    info = QuantInfo(
        found.params,
        {"OneNeuron::nndct_input_0": 7, "OneNeuron::nndct_dense_1": 7},
        {"OneNeuron::nndct_dense_1": [correction.item()]},
        graph.md5(),
        "",
        release=V3_5,
    )
    quantized = quantizer.quantized(info)
    assert {key: value.item() for key, value in quantized.int8_parameters().items()} == {
        "OneNeuron::linear.weight": 115,
        "OneNeuron::linear.bias": 102,
    }
    x = torch.tensor([[0.5]])
    assert quantized(x).item() == 70 / 128
    assert [code.item() for code in quantized.codes(x).values()] == [64, 70]


def test_bias_correction_averages() -> None:
    # Rows -1, 0.5 and then 0.25, 0.75 of the neuron above; efficiency and deviation by hand.
    layer = BiasCorrection(0.05)
    bias = torch.tensor([0.099609375])
    layer.update(torch.tensor([[-0.796875], [0.546875]]), torch.tensor([[-0.8], [0.55]]), bias, -1)
    assert layer.efficiency == pytest.approx(1.170889, abs=2e-5)
    assert layer.deviation == pytest.approx(1.170889, abs=2e-5)
    assert bias.item() == pytest.approx(0.099609375, abs=1e-8)
    layer.update(
        torch.tensor([[0.328125], [0.7734375]]), torch.tensor([[0.325], [0.775]]), bias, -1
    )
    assert layer.efficiency == pytest.approx(2.127298, abs=2e-5)
    assert layer.deviation == pytest.approx(1.893120, abs=2e-5)
    assert bias.item() == pytest.approx(0.0995703, abs=1e-7)
    assert not layer.stopped


def test_bias_correction_stops_without_noise() -> None:
    layer, bias = BiasCorrection(0.05), torch.zeros(2)
    same = torch.randn(4, 2, 3, 3)
    layer.update(same, same, bias, 1)
    assert layer.stopped
    assert not bias.any()


def test_bias_correction_stops_when_accurate() -> None:
    layer, bias = BiasCorrection(0.05), torch.zeros(1)
    expected = torch.ones(1, 1, 8, 8)
    for exponent in range(1, 10):
        layer.update(expected + 10.0**-exponent, expected, bias, 1)
    assert layer.stopped
    assert layer.efficiency > 4.3


@pytest.mark.parametrize(
    ("kernel", "factor"),
    [
        ((3, 3), 0.984375),
        ((5, 5), 0.9765625),
        ((3, 6), 0.984375),
        ((6, 3), 0.984375),
        ((7, 7), 1.0048828125),
        ((14, 14), 1.0048828125),
        ((2, 2), 1.0),
        ((8, 8), 1.0),
        ((2, 3), 0.99609375),
        ((1, 7), 0.998046875),
        ((9, 9), 0.9986572265625),
        ((10, 10), 1.0009765625),
        ((13, 13), 1.00054931640625),
    ],
)
def test_pool_factors(kernel: tuple, factor: float) -> None:  # type: ignore[type-arg]
    assert pool_factor(kernel) == factor


def test_dpu_activations() -> None:
    x = torch.tensor([[-4.0, -1.0, 0.5, 4.0]])
    node = Node(g.INPUT, "", [], (1, 4))

    def result(op: str) -> List[float]:
        return compute(Node(op, "", [node], (1, 4)), [x], {}).flatten().tolist()  # type: ignore[no-any-return]

    assert result(g.LEAKY_RELU) == [-0.40625, -0.1015625, 0.5, 4.0]
    assert result(g.HARDSIGMOID) == [0.0, 2 * 2731 / 16384, 3.5 * 2731 / 16384, 6 * 2731 / 16384]
    # Inner codes at position 7: 42.67 -> 43, 74.67 -> 75, and 128 saturates to 127.
    assert result(g.HARDSWISH) == [0.0, -43 / 128, 0.5 * 75 / 128, 4 * 127 / 128]


@pytest.fixture
def quantizer() -> Quantizer:
    torch.manual_seed(0)
    return Quantizer(nets.UpConcat(), torch.zeros(1, 3, 32, 32))


@pytest.fixture
def images() -> Tensor:
    return torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_inputs_and_model_are_left_alone(images: Tensor) -> None:
    torch.manual_seed(0)
    model = nets.UpConcat()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    before = images.clone()
    quantizer = Quantizer(model, images[:1])
    quantized = quantizer.quantized(quantizer.calibrate([images]))
    quantized(images)
    quantized.codes(images)
    assert torch.equal(images, before)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in state.items())


def test_progress_and_warnings(quantizer: Quantizer, images: Tensor) -> None:
    seen = []
    found = quantizer.calibrate(
        [images[:10], images[10:]], on_batch=lambda number, count: seen.append((number, count))
    )
    assert seen == [(0, 10), (1, 6)]
    assert found.images == 16
    assert ["16 images" in warning for warning in found.warnings] == [True]
    assert all(0 <= share < 0.01 for share in found.saturation.values())
    assert {len(history) for history in found.histories.values()} == {2}


def test_enough_images_give_no_warning(quantizer: Quantizer, images: Tensor) -> None:
    found = quantizer.calibrate([images] * 6 + [images[:4]])
    assert found.images == 100
    assert found.warnings == []


def test_too_few_images(quantizer: Quantizer, images: Tensor) -> None:
    with pytest.raises(DataError, match="at least 8") as caught:
        quantizer.calibrate([images[:7]])
    assert "7 images" in caught.value.evidence
    with pytest.raises(DataError, match="at least 8"):
        quantizer.calibrate([])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_not_finite(quantizer: Quantizer, images: Tensor, bad: float) -> None:
    images[11, 1, 2, 3] = bad
    with pytest.raises(DataError, match=r"calibration batch 1 .*not finite") as caught:
        quantizer.calibrate(images.split(8))  # type: ignore[no-untyped-call]
    assert caught.value.evidence.startswith("image 3 of 8")


def test_inputs_of_another_kind(quantizer: Quantizer, images: Tensor) -> None:
    with pytest.raises(DataError, match="another shape"):
        quantizer.calibrate([torch.zeros(8, 3, 16, 16)])
    with pytest.raises(DataError, match="float32"):
        quantizer.calibrate([images.double()])
    with pytest.raises(UsageError, match="1 input"):
        quantizer.calibrate([(images, images)])


def test_overflow_inside_the_network(images: Tensor) -> None:
    model = nets.ConvBias()
    nn.init.constant_(model.conv.weight, 3e38)
    with pytest.raises(DataError, match=r"nndct_conv2d_1.*not finite"):
        Quantizer(model, images[:1]).calibrate([images])


def test_test_before_calibration(quantizer: Quantizer, images: Tensor, tmp_path: Path) -> None:
    with pytest.raises(OrderError, match=QUANT_INFO) as caught:
        quantizer.quantized(tmp_path)
    assert caught.value.next_step == "deepfake-fpga quant --mode calib"
    quantizer.calibrate([images]).save(tmp_path)
    (tmp_path / BIAS_CORR).unlink()
    with pytest.raises(OrderError, match=BIAS_CORR):
        quantizer.quantized(tmp_path)


def test_round_trip_through_files(quantizer: Quantizer, images: Tensor, tmp_path: Path) -> None:
    found = quantizer.calibrate([images])
    assert found.save(tmp_path / "new") == [tmp_path / "new" / n for n in (QUANT_INFO, BIAS_CORR)]
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [BIAS_CORR, QUANT_INFO]
    assert quantizer.load(tmp_path / "new") == found.info
    # As the vendor's tool would read it.
    loaded = torch.load(str(tmp_path / "new" / BIAS_CORR))
    assert loaded == found.info.corrections
    direct, read = quantizer.quantized(found), quantizer.quantized(tmp_path / "new")
    for a, b in zip(direct.int8_parameters().values(), read.int8_parameters().values()):
        assert np.array_equal(a, b)


def test_without_bias_correction(images: Tensor, tmp_path: Path) -> None:
    corrected = Quantizer(nets.UpConcat(), images[:1])
    plain = Quantizer(nets.UpConcat(), images[:1], QuantizeOptions(bias_correction=False))
    corrected.calibrate([images]).save(tmp_path)
    plain.calibrate([images]).save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [QUANT_INFO]
    assert '"bias_corrected":false' in (tmp_path / QUANT_INFO).read_text()
    assert plain.load(tmp_path).corrections is None
    with pytest.raises(MismatchError, match="without bias correction"):
        corrected.load(tmp_path)


class OtherGraph(nets.UpConcat):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(super().forward(x))


OtherGraph.__name__ = "UpConcat"


class Narrower(nets.UpConcat):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(8, 3, kernel_size=2, stride=2)


Narrower.__name__ = "UpConcat"


@pytest.mark.parametrize(
    ("model", "evidence"),
    [
        (nets.ConvBias(), "ConvBias::conv.weight"),
        (OtherGraph(), "graph_md5"),
        (Narrower(), "nndct_conv_transpose_2d_4, which has 3"),
    ],
)
def test_calibration_of_another_model(
    model: nn.Module, evidence: str, images: Tensor, tmp_path: Path
) -> None:
    options = QuantizeOptions(release="3.5")
    Quantizer(nets.UpConcat(), images[:1], options).calibrate([images]).save(tmp_path)
    with pytest.raises(MismatchError, match="another model") as caught:
        Quantizer(model, images[:1], options).quantized(tmp_path)
    assert evidence in caught.value.evidence


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"param": {}}', '{"param": {"a": [[8, null]]}, "output": {}}', "<html>"],
)
def test_damaged_quant_info(text: str, quantizer: Quantizer, tmp_path: Path) -> None:
    (tmp_path / QUANT_INFO).write_text(text)
    with pytest.raises(FormatError, match=QUANT_INFO):
        quantizer.load(tmp_path)


def test_damaged_bias_correction(quantizer: Quantizer, images: Tensor, tmp_path: Path) -> None:
    quantizer.calibrate([images]).save(tmp_path)
    path = tmp_path / BIAS_CORR
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"<html>"):
        path.write_bytes(damaged)
        with pytest.raises(FormatError, match=BIAS_CORR):
            quantizer.load(tmp_path)


def test_bias_correction_file_executes_nothing(
    quantizer: Quantizer, images: Tensor, tmp_path: Path
) -> None:
    quantizer.calibrate([images]).save(tmp_path)
    with zipfile.ZipFile(str(tmp_path / BIAS_CORR), "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": Path}))
    with pytest.raises(FormatError, match=BIAS_CORR):
        quantizer.load(tmp_path)


def test_fingerprint_follows_the_weights() -> None:
    def fingerprint(change: Dict[str, float]) -> str:
        torch.manual_seed(0)
        model = nets.ConvBnRelu()
        with torch.no_grad():
            for name, amount in change.items():
                model.state_dict()[name].add_(amount)
        return Quantizer(model, torch.zeros(1, 3, 32, 32)).weights_fingerprint()

    same = fingerprint({})
    assert same == fingerprint({})
    assert len({same, fingerprint({"conv.bias": 1e-6}), fingerprint({"bn.running_var": 1e-3})}) == 3


def test_unknown_release() -> None:
    with pytest.raises(UsageError, match=r"9\.9"):
        QuantizeOptions(release="9.9")


def test_fix_positions_are_capped(images: Tensor) -> None:
    model = nets.ConvBias()
    options = QuantizeOptions(max_fix_position=4)
    found = Quantizer(model, images[:1], options).calibrate([images])
    assert max(*found.info.params.values(), *found.info.outputs.values()) == 4


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(torch.relu(self.fc(x)))
        return out


def test_linear_layer_used_twice_is_corrected_for_each_use() -> None:
    torch.manual_seed(2)
    x = torch.randn(64, 6)
    quantizer = Quantizer(Twice(), x[:1], QuantizeOptions(release="3.5"))
    found = quantizer.calibrate(x.split(16))  # type: ignore[no-untyped-call]
    assert found.info.corrections is not None
    assert list(found.info.corrections) == ["Twice::nndct_dense_1", "Twice::nndct_dense_3"]
    quantized = quantizer.quantized(found)
    last = quantized.node_parameters(quantizer.graph.nodes[-1])["bias"]
    assert last is not None
    position = found.info.params["Twice::fc.bias"]
    codes = quantized.int8_parameters()["Twice::fc.bias"]
    assert np.array_equal(codes, np.rint(last.numpy() * 2.0**position))


def test_entry_that_is_never_filled_is_written_and_read(tmp_path: Path) -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(4), nn.Conv2d(4, 2, 1)).eval()
    x = torch.randn(8, 3, 6, 6)
    quantizer = Quantizer(model, x[:1], QuantizeOptions(release="3.5"))
    quantizer.calibrate([x]).save(tmp_path)
    text = (tmp_path / QUANT_INFO).read_text()
    assert '"Sequential::nndct_adaptive_avg_pool2d_2":[[8,null]]' in text
    quantized = quantizer.quantized(tmp_path)
    assert len(quantized.positions) == 3
    # The pool's result is on no grid of 8 bits, the last convolution reads it as it is.
    assert quantized(x).shape == (8, 2, 4, 4)


class Named(nn.Module):
    def forward(self, batch: Dict[str, Tensor]) -> Dict[str, Tensor]:
        return {"sum": batch["a"] + batch["b"]}


def test_arguments_and_results_by_name() -> None:
    a, b = torch.rand(8, 3), torch.rand(8, 3)
    quantizer = Quantizer(Named(), {"a": a[:1], "b": b[:1]}, QuantizeOptions(release="3.5"))
    found = quantizer.calibrate([{"a": a, "b": b}])
    assert list(found.info.outputs) == [
        "Named::nndct_input_0", "Named::nndct_input_1", "Named::nndct_elemwise_add_2",
    ]  # fmt: skip
    result = quantizer.quantized(found)({"a": a, "b": b})
    assert list(result) == ["sum"]
    torch.testing.assert_close(result["sum"], a + b, atol=0.05, rtol=0)
