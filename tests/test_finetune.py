"""Fast finetune: the recorded run, one layer step by step, interruption, and refusals."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Callable, Dict, List, Tuple

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.autograd import Function  # noqa: E402

from deepfake_fpga.errors import (  # noqa: E402
    DataError,
    FormatError,
    MismatchError,
    OrderError,
    UnsupportedError,
)
from deepfake_fpga.quantize import finetune as finetune_module  # noqa: E402
from deepfake_fpga.quantize.finetune import Finetuned, bytes_per_image  # noqa: E402
from deepfake_fpga.quantize.finetune_journal import Layer  # noqa: E402
from deepfake_fpga.quantize.fixpoint import Rounding, quantize  # noqa: E402
from deepfake_fpga.quantize.graph import Node  # noqa: E402
from deepfake_fpga.quantize.model import UYNet  # noqa: E402
from deepfake_fpga.quantize.quantizer import Calibration, QuantizeOptions, Quantizer  # noqa: E402

from . import golden  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_thread")]


# --- the recorded run -----------------------------------------------------------------------------

TUNING_IMAGES = 16
TUNING_BATCH = 2


@pytest.fixture(scope="module")
def recorded(shared: Path) -> golden.Recording:
    return golden.Recording(
        "uynet_w8_ft_b2", shared / "golden" / "uynet_w8_ft_b2", shared / "golden" / "uynet_w8"
    )


@pytest.fixture(scope="module")
def uynet(recorded: golden.Recording) -> Quantizer:
    model = UYNet(width=8)
    with np.load(str(recorded.source / "weights.npz")) as archive:
        model.load_state_dict({key: torch.from_numpy(archive[key]) for key in archive.files})
    return Quantizer(model.eval(), torch.zeros(1, 3, 224, 224), QuantizeOptions(release="3.5"))


Split = Callable[..., List[Tensor]]


def split(images: Tensor, size: int) -> List[Tensor]:
    pieces: List[Tensor] = list(images.split(size))  # type: ignore[no-untyped-call]
    return pieces


def _compare(recorded: golden.Recording, quantizer: Quantizer, found: Calibration) -> List[str]:
    """What differs from the recording: text, tuned parameters, corrections, codes, outputs."""
    assert found.tuned is not None
    wrong = []
    ours, theirs = (json.loads(text) for text in (found.info.text(), recorded.quant_info))
    if {**ours, "version": ""} != {**theirs, "version": ""}:
        wrong.append("quant_info")
    wrong += golden._unequal(recorded.arrays("params_finetuned"), found.tuned)
    if found.info.corrections != recorded.json("bias_corr"):
        wrong.append("corrections")
    quantized = quantizer.quantized(found)
    wrong += golden._unequal(recorded.arrays("params_int8"), quantized.int8_parameters())
    results = [quantized(image) for image in split(recorded.inputs("test"), 1)]
    outputs = recorded.arrays("quant_outputs")
    if not np.array_equal(np.concatenate([r[0].numpy() for r in results]), outputs["logits"]):
        wrong.append("logits")
    real = np.concatenate([r[1].numpy() for r in results])
    if not np.abs(real - outputs["cls"]).max() <= golden.SIGMOID_TOLERANCE:
        wrong.append("classifier")
    return wrong


@pytest.mark.slow
def test_whole_run_equals_the_recording(recorded: golden.Recording, uynet: Quantizer) -> None:
    """16 images in batches of 2 tune; then 32 in batches of 8 calibrate with those fix points."""
    images = recorded.inputs("calib")
    tuned = uynet.finetune(split(images[:TUNING_IMAGES], TUNING_BATCH))
    assert [layer.kept > 0 for layer in tuned.layers].count(True) == 3
    found = uynet.calibrate(split(images, golden.BATCH), tuned=tuned)
    assert _compare(recorded, uynet, found) == []
    assert found.tuned is not None
    found.tuned["module_8.weight"].flat[0] += 2.0**-9
    assert len(_compare(recorded, uynet, found)) > 0


@pytest.fixture
def last_layer_only(monkeypatch: pytest.MonkeyPatch, recorded: golden.Recording) -> None:
    """Starts with all layers but the last as they were recorded, which saves most of the time."""
    theirs = recorded.arrays("params_finetuned")
    original = finetune_module._Tuning.layer

    def layer(self: finetune_module._Tuning, node: Node) -> Layer:
        if node.index == 56:
            self.losses = self._losses()
            return original(self, node)
        for role, tensor in self.tuned[node].items():
            tensor.copy_(torch.from_numpy(theirs[f"module_{node.index}.{role}"]))
        return Layer(self.graph.node_name(node), 0, 0, [])

    monkeypatch.setattr(finetune_module._Tuning, "layer", layer)


def test_last_layer_and_calibration_equal_the_recording(
    last_layer_only: None, recorded: golden.Recording, uynet: Quantizer
) -> None:
    """The layer that moves by two codes in 21 sweeps, from the recorded state before it."""
    images = recorded.inputs("calib")
    tuned = uynet.finetune(split(images[:TUNING_IMAGES], TUNING_BATCH))
    assert tuned.layers[-1].kept == 21
    found = uynet.calibrate(split(images, golden.BATCH), tuned=tuned)
    assert _compare(recorded, uynet, found) == []


# --- a chain whose weights move -------------------------------------------------------------------


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 4, 3, stride=2)
        self.last = nn.Linear(4 * 3 * 3, 3)
        with torch.no_grad():  # a few large weights leave a coarse grid for all others
            for layer in (self.first, self.second):
                layer.weight[:, 0, 0, 0] *= 16
            self.last.weight[:, 0] *= 16

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        x = F.relu(self.second(x))
        out: Tensor = self.last(torch.flatten(x, 1))
        return out


@pytest.fixture
def chain() -> Quantizer:
    torch.manual_seed(3)
    return Quantizer(Chain().eval(), torch.zeros(1, 3, 8, 8))


@pytest.fixture
def batches() -> List[Tensor]:
    images = torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(5)) * 2 - 1
    return split(images, 4)


def test_weights_move_and_outputs_come_closer(chain: Quantizer, batches: List[Tensor]) -> None:
    tuned = chain.finetune(batches)
    plain = chain.quantized(chain.calibrate(batches)).int8_parameters()
    quantized = chain.quantized(chain.calibrate(batches, tuned=tuned))
    moved = {
        key: int(np.count_nonzero(value != plain[key]))
        for key, value in quantized.int8_parameters().items()
        if key.endswith("weight")
    }
    assert sum(moved.values()) > 20
    losses = [layer.losses[0] for layer in tuned.layers]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > losses[-1]
    assert sum(layer.kept for layer in tuned.layers) > 0


def test_equals_the_rules_written_as_one_loop(chain: Quantizer, batches: List[Tensor]) -> None:
    """The whole procedure again with torch's own Adam and autograd, nothing cached or shared."""
    tuned = chain.finetune(batches)
    expected = _by_the_rules(chain, batches, tuned)
    for key, value in expected.items():
        assert np.abs(value.numpy() - tuned.params[key]).max() == 0, key


class _Rounded(Function):
    @staticmethod
    def forward(ctx: object, x: Tensor, position: int) -> Tensor:
        return quantize(x, position, Rounding.HALF_UP)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tuple[Tensor, None]:
        return gradient, None


def _round(x: Tensor, position: int) -> Tensor:
    rounded: Tensor = _Rounded.apply(x, position)  # type: ignore[no-untyped-call]
    return rounded


def _by_the_rules(chain: Quantizer, batches: List[Tensor], tuned: Finetuned) -> Dict[str, Tensor]:
    fixed = {f"{node.op}_{node.index}": p for node, p in tuned.found.outputs.items()}
    source, relu1, relu2, out = (
        fixed[name] for name in ("nndct_input_0", "nndct_relu_2", "nndct_relu_4", "nndct_dense_6")
    )
    floats = {key.split("::")[1]: torch.from_numpy(v) for key, v in chain.graph.params.items()}
    places = {key.split("::")[1]: p for key, p in tuned.found.params.items()}

    def on_grid(key: str, value: Tensor) -> Tensor:
        return quantize(value, places[key], Rounding.HALF_AWAY)

    now = {key: on_grid(key, value) for key, value in floats.items()}

    def walk(x: Tensor, p: Dict[str, Tensor], rounded: bool) -> Dict[str, Tensor]:
        grid = (lambda t, at: _round(t, at)) if rounded else (lambda t, at: t)
        found = {"first": x}
        found["second"] = grid(F.relu(F.conv2d(x, p["first.weight"], p["first.bias"], 1, 1)), relu1)
        last = F.conv2d(found["second"], p["second.weight"], p["second.bias"], 2)
        found["last"] = torch.flatten(grid(F.relu(last), relu2), 1)
        found["out"] = grid(F.linear(found["last"], p["last.weight"], p["last.bias"]), out)
        return found

    wanted = [walk(x, floats, False)["out"] for x in batches]
    inputs = [quantize(x, source, Rounding.HALF_UP) for x in batches]

    def network_loss() -> float:
        return sum(
            float((walk(x, now, True)["out"] - y).pow(2).mean().sqrt())
            for x, y in zip(inputs, wanted)
        ) / len(inputs)

    reached = network_loss()
    for name, after in (("first", "second"), ("second", "last"), ("last", "out")):
        keys = (f"{name}.weight", f"{name}.bias")
        noise = float((floats[keys[0]] - now[keys[0]]).pow(2).mean())
        efficiency = 1.25 * np.log10(float(floats[keys[0]].pow(2).mean()) / noise)
        factor = 0.01 if efficiency <= 4.5 else 0.001
        leaves = {key: nn.Parameter(now[key].clone()) for key in keys}
        adams = [torch.optim.Adam([leaves[k]], lr=factor * float(now[k].std())) for k in keys]
        best = {key: now[key].clone() for key in keys}
        previous = 1000.0
        for _ in range(100):
            for x in inputs:
                ours = walk(x, now, True)[name].detach()
                theirs = walk(x, floats, False)[after].detach()
                weight, bias = (leaves[key] for key in keys)
                # Rounded before the ReLU, which gives the same numbers, and no gradient to what
                # rounds to zero.
                if name == "first":
                    y = F.relu(_round(F.conv2d(ours, weight, bias, 1, 1), relu1))
                elif name == "second":
                    y = torch.flatten(F.relu(_round(F.conv2d(ours, weight, bias, 2), relu2)), 1)
                else:
                    y = _round(F.linear(ours, weight, bias), out)
                loss = F.mse_loss(y, theirs) + F.mse_loss(weight, floats[keys[0]])
                for adam in adams:
                    adam.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                for adam in adams:
                    adam.step()
            for key in keys:
                leaves[key].data.copy_(on_grid(key, leaves[key].data))
                now[key] = leaves[key].data.clone()
            loss_now = network_loss()
            if loss_now < reached:
                reached, best = loss_now, {key: now[key].clone() for key in keys}
                continue
            for key in keys:
                leaves[key].data.copy_(best[key])
                now[key] = best[key].clone()
            for adam in adams:
                adam.param_groups[0]["lr"] /= 2
            slow = all(adam.param_groups[0]["lr"] < 1e-5 for adam in adams)
            if slow or abs(loss_now - previous) <= 1e-6 * max(loss_now, previous):
                break
            previous = loss_now
    return {f"Chain::{key}": value for key, value in now.items()}


# --- interruption ---------------------------------------------------------------------------------


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("after", [0, 1, 2])
def test_stopped_run_goes_on_to_the_same_result(
    chain: Quantizer, batches: List[Tensor], tmp_path: Path, after: int
) -> None:
    whole = chain.finetune(batches)
    state = tmp_path / "state.npz"
    seen: List[Tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        seen.append((done, total))
        if done == after:
            raise StoppedError

    with pytest.raises(StoppedError):
        chain.finetune(batches, stop, state)
    again: List[Tuple[int, int]] = []
    resumed = chain.finetune(batches, lambda done, total: again.append((done, total)), state)
    assert seen == [(n, 3) for n in range(after + 1)]
    assert again == [(n, 3) for n in range(after, 4)]
    assert resumed.layers == whole.layers
    assert list(resumed.params) == list(whole.params)
    assert all(np.array_equal(resumed.params[k], whole.params[k]) for k in whole.params)
    ours, theirs = (chain.calibrate(batches, tuned=tuned) for tuned in (resumed, whole))
    assert ours.info == theirs.info
    assert ours.histories == theirs.histories


def test_state_of_other_data_or_weights_is_not_used(
    chain: Quantizer, batches: List[Tensor], tmp_path: Path
) -> None:
    state = tmp_path / "state.npz"
    chain.finetune(batches[:2], state=state)
    begun: List[int] = []
    chain.finetune(batches[:3], lambda done, total: begun.append(done), state)
    assert begun[0] == 0
    torch.manual_seed(4)
    other = Quantizer(Chain().eval(), torch.zeros(1, 3, 8, 8))
    begun.clear()
    other.finetune(batches[:3], lambda done, total: begun.append(done), state)
    assert begun[0] == 0


@pytest.mark.parametrize("damage", ["cut", "text"])
def test_damaged_state_is_refused(
    chain: Quantizer, batches: List[Tensor], tmp_path: Path, damage: str
) -> None:
    state = tmp_path / "state.npz"
    chain.finetune(batches[:2], state=state)
    whole = state.read_bytes()
    state.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"something else")
    with pytest.raises(FormatError, match=r"delete .*state\.npz") as caught:
        chain.finetune(batches[:2], state=state)
    assert "state of a fast finetune" in str(caught.value)


# --- files ----------------------------------------------------------------------------------------


@pytest.fixture
def saved(chain: Quantizer, batches: List[Tensor], tmp_path: Path) -> Calibration:
    found = chain.calibrate(batches, tuned=chain.finetune(batches[:4]))
    found.save(tmp_path)
    return found


def test_files_bring_the_tuned_model_back(
    chain: Quantizer, saved: Calibration, batches: List[Tensor], tmp_path: Path
) -> None:
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["bias_corr.pth", "param.pth", "quant_info.json"]
    assert json.loads((tmp_path / "quant_info.json").read_text())["fast_finetuned"] is True
    state = torch.load(str(tmp_path / "param.pth"), weights_only=True)
    assert list(state) == [f"module_{n}.{role}" for n in (1, 3, 6) for role in ("weight", "bias")]
    direct, read = chain.quantized(saved), chain.quantized(tmp_path)
    untuned = chain.quantized(chain.calibrate(batches)).int8_parameters()
    ours, theirs = direct.int8_parameters(), read.int8_parameters()
    assert all(np.array_equal(ours[key], theirs[key]) for key in ours)
    assert any(not np.array_equal(ours[key], untuned[key]) for key in ours)
    assert torch.equal(direct(batches[0]), read(batches[0]))


def test_plain_calibration_removes_tuned_parameters(
    chain: Quantizer, saved: Calibration, batches: List[Tensor], tmp_path: Path
) -> None:
    chain.calibrate(batches).save(tmp_path)
    assert not (tmp_path / "param.pth").exists()
    chain.quantized(tmp_path)


def test_missing_or_foreign_parameters_are_refused(
    chain: Quantizer, saved: Calibration, tmp_path: Path
) -> None:
    with pytest.raises(MismatchError, match="fast finetune"):
        chain.quantized(saved.info)
    state = torch.load(str(tmp_path / "param.pth"), weights_only=True)
    torch.save({**state, "module_3.bias": torch.zeros(5)}, str(tmp_path / "param.pth"))
    with pytest.raises(MismatchError, match="another model") as caught:
        chain.quantized(tmp_path)
    assert "module_3.bias: [5] in the file, [4] for Chain::second.bias" in str(caught.value)
    (tmp_path / "param.pth").write_bytes(b"PK not a zip")
    with pytest.raises(FormatError):
        chain.quantized(tmp_path)
    (tmp_path / "param.pth").unlink()
    with pytest.raises(OrderError, match=r"param\.pth is missing") as missing:
        chain.quantized(tmp_path)
    assert "--fast-finetune" in missing.value.next_step


# --- refusals -------------------------------------------------------------------------------------


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(F.relu(self.linear(x)))
        return out


def test_layer_used_twice_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="used twice"):
        Quantizer(Shared().eval(), torch.zeros(1, 4)).finetune([torch.rand(8, 4)])


def test_no_images_are_refused(chain: Quantizer) -> None:
    with pytest.raises(DataError, match="needs images"):
        chain.finetune([])


def test_memory_for_an_image(chain: Quantizer) -> None:
    # Both networks hold the first layer's input and its two results, the layer's target comes on
    # top: 3x8x8, 6x8x8 and 6x8x8 numbers; later layers need less.
    assert bytes_per_image(chain.graph) == 4 * (2 * (6 * 64 + 6 * 64) + 6 * 64)


def test_more_images_than_memory_are_refused(
    chain: Quantizer, batches: List[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    each = bytes_per_image(chain.graph)
    monkeypatch.setattr(finetune_module, "_free_memory", lambda: 10 * each)
    with pytest.raises(DataError, match="of 12 images") as caught:
        chain.finetune(batches[:3])
    assert caught.value.next_step.endswith("--finetune-images 8")
    chain.finetune(batches[:2])


def test_data_and_model_are_left_alone(chain: Quantizer, batches: List[Tensor]) -> None:
    before, params = copy.deepcopy(batches), copy.deepcopy(chain.graph.params)
    tuned = chain.finetune(batches[:4])
    chain.calibrate(batches[:4], tuned=tuned)
    assert all(torch.equal(a, b) for a, b in zip(before, batches))
    assert all(np.array_equal(params[key], chain.graph.params[key]) for key in params)
