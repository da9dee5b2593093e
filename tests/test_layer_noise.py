"""Noise, saturation and codes of single layers whose quantization is known beforehand."""

from __future__ import annotations

import math
from typing import Dict, List

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from deepfake_fpga.quantize.layer_noise import (  # noqa: E402
    Interior,
    TensorNoise,
    decibels,
    measure_tensors,
    try_in_float,
    weight_ranges,
)
from deepfake_fpga.quantize.quantizer import QuantizeOptions, Quantizer  # noqa: E402
from deepfake_fpga.quantize.results import QuantInfo  # noqa: E402

pytestmark = pytest.mark.torch
PLAIN = QuantizeOptions(equalization=False, bias_correction=False)


class Chain(nn.Module):
    """Two convolutions of one tap each, the first followed by a ReLU."""

    def __init__(self, first: float, second: float) -> None:
        super().__init__()
        self.a = nn.Conv2d(1, 1, 1)
        self.relu = nn.ReLU()
        self.b = nn.Conv2d(1, 1, 1)
        with torch.no_grad():
            for layer, value in ((self.a, first), (self.b, second)):
                layer.weight.fill_(value)
                layer.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.relu(self.a(x)))


def opened(model: nn.Module, positions: List[int], size: int = 16) -> Interior:
    """A quantized model whose tensors have the given fix positions; weights all at 6, biases 6."""
    quantizer = Quantizer(model, torch.zeros(1, 1, size, size), PLAIN)
    name = quantizer.graph.file_name
    info = QuantInfo(
        dict.fromkeys(quantizer.entries.params, 6),
        dict(zip(map(name, quantizer.entries.outputs), positions)),
        None,
        quantizer.graph.md5(),
        "",
    )
    floats = quantizer.graph.params
    return Interior(quantizer.quantized(info), floats, floats)


def by_scope(records: List[TensorNoise]) -> Dict[str, TensorNoise]:
    return {record.scope.split("/")[-1]: record for record in records}


def ramp() -> Tensor:
    """The codes 0 to 127 twice each, at fix position 7: evenly from 0 to nearly 1."""
    return (torch.arange(256) // 2).to(torch.float32).reshape(1, 1, 16, 16) / 128


def test_noise_of_rounding_a_ramp() -> None:
    """Weights of one are exact, so only the coarsest rounding is left: its steps are 1/8."""
    interior = opened(Chain(1.0, 1.0), [7, 3, 6])
    x = ramp()
    found = by_scope(measure_tensors(interior, [x]))
    values = x.numpy().reshape(-1).astype(np.float64)
    coarse = np.floor(values * 8 + 0.5) / 8
    expected = 10 * math.log10((values**2).sum() / ((values - coarse) ** 2).sum())
    relu = found["ReLU[relu]"]
    assert relu.own_snr == pytest.approx(expected, abs=0.05)
    assert relu.snr == pytest.approx(expected, abs=0.05)
    assert relu.over_rounding == pytest.approx(1.0, abs=0.02)  # a ramp fills every step evenly
    assert relu.values == 256
    assert list(relu.histogram[128:137]) == [16, 32, 32, 32, 32, 32, 32, 32, 16]
    assert relu.histogram.sum() == 256
    assert relu.codes == (0, 8)
    assert relu.unused_bits == 3  # 8 takes four of seven bits
    # The next layer adds nothing of its own, but inherits the noise.
    after = found["Conv2d[b]"]
    assert math.isinf(after.own_snr)
    assert after.snr == pytest.approx(relu.snr)


def test_noise_of_a_rounded_weight() -> None:
    """0.505 is 32/64 on the grid: the second layer's error is 1 % of its output, the rest 0."""
    interior = opened(Chain(1.0, 0.505), [7, 7, 8])
    x = ramp()
    found = by_scope(measure_tensors(interior, [x, x]))
    assert math.isinf(found["ReLU[relu]"].snr)
    wanted = 20 * math.log10(0.505 / 0.005)
    assert found["Conv2d[b]"].own_snr == pytest.approx(wanted, abs=0.01)
    assert found["Conv2d[b]"].snr == pytest.approx(wanted, abs=0.01)
    assert found["Conv2d[b]"].values == 512
    assert found["Conv2d[b]"].weights == ("Chain::b.weight",)
    assert found["ReLU[relu]"].weights == ("Chain::a.weight",)


def test_saturated_values_are_counted() -> None:
    interior = opened(Chain(1.0, 1.0), [8, 8, 6])
    found = by_scope(measure_tensors(interior, [ramp()]))
    # At position 8 every code doubles: from 64 on they are over 127.
    start = found["input_0"]
    assert start.clipped == 128
    assert start.saturated_share == 0.5
    assert start.codes == (0, 127)
    assert start.histogram[255] == 128
    assert start.unused_bits == 0


def test_keeping_the_guilty_layer_in_float_helps() -> None:
    """All noise is the first layer's rounded weight; without it only the last rounding is left."""
    interior = opened(Chain(0.505, 1.0), [7, 8, 8])
    x = ramp()
    names = [r.name for r in measure_tensors(interior, [x]) if r.operator != "input"]
    whole, first, second = try_in_float(interior, names, [x])
    (output,) = whole.noise
    exact = 0.505 * x.double().numpy()
    with_it = float(((0.005 * x.double()) ** 2).sum())
    grid = np.minimum(np.floor(exact * 256 + 0.5), 127) / 256
    without = float(((exact - grid) ** 2).sum())
    assert whole.noise[output] == pytest.approx(with_it, rel=1e-3)
    assert first.noise[output] == pytest.approx(without, rel=1e-2)
    assert first.gain[output] == pytest.approx(10 * math.log10(with_it / without), abs=0.05)
    assert second.gain[output] == pytest.approx(0.0, abs=1e-6)


def test_the_quantized_pass_is_that_of_the_model() -> None:
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.ConvTranspose2d(4, 3, 2, 2), nn.Conv2d(3, 2, 3, padding=1),
    ).eval()  # fmt: skip
    x = torch.rand(9, 1, 16, 16)
    quantizer = Quantizer(model, x[:1])
    quantized = quantizer.quantized(quantizer.calibrate([x]))
    before = Quantizer(model, x[:1], QuantizeOptions(equalization=False)).graph.params
    interior = Interior(quantized, quantizer.graph.params, before)
    told: List[int] = []
    found = measure_tensors(interior, [x], told.append)
    assert told == [4, 4, 1]
    codes = quantized.codes(x)
    with torch.no_grad():
        exact = model(x).double().numpy()
    assert [record.name for record in found] == list(codes)
    for record in found:
        counts = np.bincount(codes[record.name].reshape(-1).astype(int) + 128, minlength=256)
        assert (record.histogram == counts).all()
    last = found[-1]
    grid = codes[last.name] * 2.0**-last.position
    expected = decibels(float((exact**2).sum()), float(((exact - grid) ** 2).sum()))
    assert last.snr == pytest.approx(expected, abs=0.02)
    whole = try_in_float(interior, [], [x])[0]
    assert whole.noise[last.name] == pytest.approx(((exact - grid) ** 2).sum(), rel=0.01)


def test_weight_ranges_before_and_after_equalization() -> None:
    """Two layers whose channels are unequal, with the divisor worked out by its rule."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(2, 1, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([8.0, 0.5]).reshape(2, 1, 1, 1))
        model[1].weight.copy_(torch.tensor([0.5, 2.0]).reshape(1, 2, 1, 1))
    example = torch.zeros(1, 1, 4, 4)
    quantizer = Quantizer(model, example)
    quantized = quantizer.quantized(quantizer.calibrate([torch.rand(8, 1, 4, 4)]))
    before = Quantizer(model, example, QuantizeOptions(equalization=False)).graph.params
    first, second = weight_ranges(Interior(quantized, quantizer.graph.params, before))
    # Channel 0: sqrt(8 * 0.5) = 2 in both layers; channel 1: sqrt(0.5 * 2) = 1 in both.
    assert (first.before, first.after) == (8.0, pytest.approx(2.0))
    assert (second.before, second.after) == (2.0, pytest.approx(2.0))
    assert (first.spread_before, first.spread_after) == (16.0, pytest.approx(2.0))
    assert second.spread_after == 1.0


def test_decibels() -> None:
    assert decibels(100.0, 1.0) == pytest.approx(20.0)
    assert decibels(1.0, 0.0) == math.inf
    assert math.isnan(decibels(0.0, 0.0))
    assert decibels(0.0, 1.0) == -math.inf
