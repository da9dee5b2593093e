"""Quantization-aware training: the same numbers as the quantizer, and less loss after it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deepfake_fpga.errors import UsageError  # noqa: E402
from deepfake_fpga.preprocessing import to_float  # noqa: E402
from deepfake_fpga.quantize import aware  # noqa: E402
from deepfake_fpga.quantize.aware import AwareNetwork, AwareTrainer, unfolded  # noqa: E402
from deepfake_fpga.quantize.model import UYNet  # noqa: E402
from deepfake_fpga.quantize.options import QuantizeOptions  # noqa: E402
from deepfake_fpga.quantize.quantizer import Quantizer  # noqa: E402
from deepfake_fpga.quantize.samples import Samples, draw_samples  # noqa: E402
from deepfake_fpga.quantize.training_plan import Plan  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_thread")]
PLAN = Plan(width=2, epochs=2, batch_size=4, warmup=1, learning_rate=1e-3, seed=5, augment=False)


@pytest.fixture(scope="module")
def samples() -> Samples:
    return draw_samples("train", videos=8, frames_per_video=1, seed=1)


@pytest.fixture(scope="module")
def network() -> UYNet:
    """Random weights, and batch norms that have seen something."""
    torch.manual_seed(3)
    model = UYNet(width=2)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, 0.0, 0.5)
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.3, 1.2)
    return model.eval()


def floats(samples: Samples) -> torch.Tensor:
    return torch.from_numpy(to_float(samples.images, samples.preprocessing))


class Tiny(torch.nn.Module):
    """Two convolutions with a batch norm and a linear layer, on 8x8 pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.one = torch.nn.Conv2d(3, 6, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(6)
        self.two = torch.nn.Conv2d(6, 4, 3, padding=1)
        self.last = torch.nn.Linear(4 * 8 * 8, 1)

    def forward(self, x):
        x = torch.relu(self.norm(self.one(x)))
        x = torch.relu(self.two(x))
        return self.last(torch.flatten(x, 1))


def test_forward_equals_the_quantized_model(network: UYNet, samples: Samples):
    pictures = floats(samples)
    for correct in (True, False):
        options = QuantizeOptions(bias_correction=correct)
        quantizer = Quantizer(network, pictures[:1], options)
        calibration = quantizer.calibrate([pictures])
        simulated = AwareNetwork(quantizer, calibration)
        wanted = quantizer.quantized(calibration)(pictures)
        found = simulated(pictures)
        for ours, theirs in zip(found, wanted):
            assert torch.equal(ours.detach(), theirs)
        assert found[0].detach().unique().numel() > 10


def test_gradients_pass_the_grid_but_not_saturation():
    x = torch.tensor([0.30, 1.4, -3.0, 0.99], requires_grad=True)
    y = aware._Straight.apply(x, 7, aware.Rounding.HALF_UP, 8)
    y.sum().backward()
    assert y.detach().tolist() == [38 / 128, 127 / 128, -1.0, 127 / 128]
    assert x.grad.tolist() == [1, 0, 0, 1]


def test_written_back_weights_fold_to_the_same_parameters(network: UYNet, samples: Samples):
    """Also the float network computes what the folded graph computes."""
    pictures = floats(samples)[:2]
    plain = QuantizeOptions(equalization=False)
    folded = Quantizer(network, pictures[:1], plain).graph.params
    norms = {n: m.eps for n, m in network.named_modules() if hasattr(m, "running_mean")}
    other = UYNet(width=2)
    other.load_state_dict(unfolded(network.state_dict(), folded, norms))
    again = Quantizer(other.eval(), pictures[:1], plain).graph.params
    assert again.keys() == folded.keys()
    assert all(np.array_equal(again[key], folded[key]) for key in folded)
    with torch.no_grad():
        for ours, theirs in zip(other(pictures), network(pictures)):
            assert torch.allclose(ours, theirs, atol=1e-4)


def test_a_foreign_parameter_is_refused(network: UYNet):
    with pytest.raises(UsageError, match="cannot be put back"):
        unfolded(network.state_dict(), {"UYNet::no.weight": np.zeros(3, np.float32)}, {})


def test_training_shrinks_the_loss_of_quantization():
    """On four bits, where rounding hurts: the error of the quantized network, before and after."""
    torch.manual_seed(0)
    x = torch.rand(64, 3, 8, 8)
    model = Tiny()
    target = (x[:, 0].mean((1, 2)) - x[:, 1, :4].mean((1, 2)))[:, None] * 4
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(150):
        optimiser.zero_grad()
        torch.nn.functional.mse_loss(model(x), target).backward()
        optimiser.step()
    model.eval()
    options = QuantizeOptions(bits=4)

    def error(of: torch.nn.Module) -> float:
        quantizer = Quantizer(of, x[:1], options)
        found = quantizer.quantized(quantizer.calibrate(list(x.split(16))))(x)
        return float(torch.nn.functional.mse_loss(found, target))

    before = error(model)
    with torch.no_grad():
        exact = float(torch.nn.functional.mse_loss(model(x), target))
    assert before > 2 * exact
    best = before
    for _ in range(4):
        quantizer = Quantizer(model, x[:1], options)
        simulated = AwareNetwork(quantizer, quantizer.calibrate(list(x.split(16))))
        optimiser = torch.optim.Adam(simulated.parameters(), 0.003)
        for _ in range(40):
            optimiser.zero_grad()
            torch.nn.functional.mse_loss(simulated(x), target).backward()
            optimiser.step()
        state = unfolded(model.state_dict(), simulated.parameter_arrays(), {"norm": model.norm.eps})
        model.load_state_dict(state)
        best = min(best, error(model))
    assert best < 0.6 * before


def test_the_trainer_resumes_exactly_and_its_export_is_what_it_simulated(
    network: UYNet, samples: Samples, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(aware, "CALIBRATION_IMAGES", 8)
    state = network.state_dict()
    through = AwareTrainer(PLAN, samples, samples, state)
    through.run()
    begun = AwareTrainer(PLAN, samples, samples, state)
    begun.run(tmp_path, until=3)  # in the middle of the second epoch
    resumed = AwareTrainer(PLAN, samples, samples, state)
    resumed.restore(tmp_path / "last.pth")
    assert resumed.step == 3
    resumed.run()
    one, other = through.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert any(not torch.equal(one[key], state[key]) for key in one)

    pictures = floats(samples)
    quantizer = Quantizer(through.model.eval(), pictures[:1])
    wanted = quantizer.quantized(quantizer.calibrate([pictures]))(pictures)
    with torch.no_grad():
        found = through.network(pictures)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, wanted))


@pytest.mark.parametrize(
    "change", [{"bfloat16": True}, {"recompute": True}, {"tail_limit": 6.0}], ids=str
)
def test_what_does_not_go_with_it(change, network: UYNet, samples: Samples):
    with pytest.raises(UsageError, match="goes without"):
        AwareTrainer(replace(PLAN, **change), samples, None, network.state_dict())
