"""Quantization search: legal shifts only, the least damage wins, stopped searches go on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, List, Optional

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from click.testing import CliRunner, Result  # noqa: E402

from deepfake_fpga.deploy import searching  # noqa: E402
from deepfake_fpga.deploy.build_folder import BuildFolder  # noqa: E402
from deepfake_fpga.deploy.cli import cli  # noqa: E402
from deepfake_fpga.deploy.commands import quant as quant_command  # noqa: E402
from deepfake_fpga.errors import DataError, UnsupportedError, UsageError  # noqa: E402
from deepfake_fpga.preprocessing import Preprocessing, to_float  # noqa: E402
from deepfake_fpga.quantize import search as search_module  # noqa: E402
from deepfake_fpga.quantize.candidates import (  # noqa: E402
    Floors,
    Judge,
    Recipe,
    Shift,
    shifted,
)
from deepfake_fpga.quantize.metrics import Scores  # noqa: E402
from deepfake_fpga.quantize.model import UYNet  # noqa: E402
from deepfake_fpga.quantize.quantizer import Quantizer  # noqa: E402
from deepfake_fpga.quantize.samples import Samples  # noqa: E402
from deepfake_fpga.quantize.search import Search  # noqa: E402
from deepfake_fpga.quantize.synthetic import make_dataset  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(autouse=True)
def lean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RATES", (4.0,)), ("SUBSETS", 1), ("LAYERS", 1), ("NOISE_IMAGES", 1)):
        monkeypatch.setattr(search_module, name, value)


@pytest.fixture(scope="module")
def network() -> UYNet:
    torch.manual_seed(3)
    model = UYNet(width=1)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.bias, 0.0, 0.5)
            torch.nn.init.uniform_(module.running_var, 0.3, 1.2)
    return model.eval()


@pytest.fixture(scope="module")
def samples() -> Samples:
    rng = np.random.RandomState(2)
    images = rng.randint(0, 256, (8, 224, 224, 3)).astype(np.uint8)
    masks = np.zeros((8, 224, 224), np.uint8)
    masks[4:, 60:160, 60:160] = 1
    real = np.array([1] * 4 + [0] * 4, np.float32)
    return Samples(images, masks, real, Preprocessing())


@pytest.fixture(scope="module")
def batches(samples: Samples) -> List[torch.Tensor]:
    floats = torch.from_numpy(to_float(samples.images, samples.preprocessing))
    return [torch.cat([floats[:4], floats[:4]]), torch.cat([floats[4:], floats[4:]])]


def made(network: UYNet, batches, samples: Samples, **more: Any) -> Search:
    return Search(network, batches, samples, finetune_images=0, **more)


def test_the_float_model_does_no_damage(network: UYNet, samples: Samples):
    judge = Judge(network, samples)
    scores, damage = judge(network)
    assert damage == 0
    assert scores == judge.exact

    def opposite(pictures):
        mask, real = network(pictures)
        return -mask, 1 - real

    scores, damage = judge(opposite)
    assert scores.auc == pytest.approx(1 - judge.exact.auc)
    lost = judge.exact.auc - scores.auc + judge.exact.iou - scores.iou
    with torch.no_grad():
        pictures = torch.from_numpy(to_float(samples.images, samples.preprocessing))
        fake = 1 - network(pictures)[1].numpy().astype(np.float64)
    moved = np.abs(2 * fake - 1).mean() + 1  # every pixel's class changes
    assert damage == pytest.approx(lost + 0.1 * moved, abs=1e-6)


def test_a_shift_moves_one_position_and_stays_legal(network: UYNet, batches):
    quantizer = Quantizer(network, batches[0][:1])
    info = quantizer.calibrate(batches).info
    name = next(key for key in info.params if key.endswith("up1.conv.double_conv.0.weight"))
    lower = shifted(quantizer, info, Shift("param", name, -1))
    assert lower is not None
    assert lower.params[name] == info.params[name] - 1
    assert {k for k in info.params if lower.params[k] != info.params[k]} <= {
        name, name.replace("weight", "bias"),
    }  # fmt: skip
    assert quantizer.quantized(lower) is not None
    assert shifted(quantizer, info, Shift("param", "no such", 1)) is None
    assert shifted(quantizer, info, Shift("output", "no such", 1)) is None
    # Finer than any fix position may be; and a weight so coarse that the DPU would have to shift
    # its result left makes the result coarser too.
    assert shifted(quantizer, info, Shift("param", name, 13)) is None
    coarse = shifted(quantizer, info, Shift("param", name, -20))
    assert coarse is not None
    assert any(coarse.outputs[k] < v for k, v in info.outputs.items())


def test_recipes_say_what_they_change(network: UYNet, batches, samples: Samples):
    held = made(network, batches, samples)
    assert [recipe.words() for recipe in held._first_recipes()] == [
        "default", "positions by range", "bias correction x4", "half of the pictures (seed 0)",
    ]  # fmt: skip
    default = held.calibration(Recipe())
    plain = Quantizer(network, batches[0][:1]).calibrate(batches)
    assert default is not None
    assert default.info == plain.info
    other = held.calibration(Recipe(rate=4.0))
    assert other is not None
    assert other.info.params == plain.info.params
    assert other.info.corrections != plain.info.corrections


def test_the_least_damage_wins_and_a_stopped_search_comes_to_the_same(
    network: UYNet, batches, samples: Samples, tmp_path: Path
):
    through = made(network, batches, samples, folder=tmp_path / "through").run()
    assert through.trials[0].recipe == Recipe()
    assert through.chosen.damage == min(trial.damage for trial in through.trials)
    assert len(through.trials) > 4
    assert any(trial.recipe.shifts for trial in through.trials)

    def stop(done: int, total: int) -> None:
        assert done <= total
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(network, batches, samples, folder=tmp_path / "two", on_trial=stop).run()
    journal = tmp_path / "two" / Search.JOURNAL
    assert len(journal.read_text().splitlines()) == 4
    again = made(network, batches, samples, folder=tmp_path / "two")
    measured: List[int] = []
    judge = again.judge
    again.judge = lambda model: (measured.append(1), judge(model))[1]  # type: ignore[assignment]
    again.judge.exact = judge.exact  # type: ignore[attr-defined]
    resumed = again.run()
    assert len(measured) == len(through.trials) - 3
    assert resumed.trials == through.trials
    assert resumed.calibration.info == through.calibration.info

    other = made(network, batches[:1], samples, folder=tmp_path / "two")
    assert other._known == {}  # other pictures, so nothing of it holds


def test_a_floor_out_of_reach_is_an_error(network: UYNet, batches, samples: Samples):
    held = made(network, batches, samples, floors=Floors(auc=0.9999, iou=0.9999))
    held._first_recipes = lambda: [Recipe()]  # type: ignore[method-assign]
    held._shifts = lambda recipe: iter(())  # type: ignore[method-assign]
    with pytest.raises(DataError, match="reaches the floor") as caught:
        held.run()
    assert "mask IoU" in caught.value.evidence


def test_floors():
    scores = Scores(4, 0.9, 0.5, 0.5, 0.6, 0.5)
    assert Floors().missed(scores) == []
    assert Floors(0.9, 0.6).missed(scores) == []
    assert Floors(0.91).missed(scores) == ["AUC 0.9000 is below 0.91"]
    assert len(Floors(0.95, 0.7).missed(replace(scores, auc=float("nan")))) == 2


def quant(*args: Any) -> Result:
    return CliRunner().invoke(
        cli, ["quant", *map(str, args)], catch_exceptions=False, standalone_mode=False
    )


def test_the_command(network: UYNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    weights = tmp_path / "tiny.pth"
    torch.save(network.state_dict(), str(weights))
    make_dataset(tmp_path / "calib", 12, 1, seed=1)
    make_dataset(tmp_path / "judge", 8, 1, seed=1, split="test")
    build = tmp_path / "build"
    arguments = ("--mode", "calib", "--data", tmp_path / "calib", "--checkpoint", weights, "-d",
                 build, "--backend", "sim", "--force")  # fmt: skip
    more = ("--search", "--judge", tmp_path / "judge")
    monkeypatch.setattr(
        searching.SearchRequest, "__init__", _without_finetune(searching.SearchRequest)
    )
    said = quant(*arguments, *more)
    text = said.output + (said.stderr if said.stderr_bytes is not None else "")
    assert "4 pictures of 2 people choose, 4 of 2 others report" in text
    assert "on people who chose nothing" in text
    manifest = json.loads((build / "quant_model" / "manifest.json").read_text())
    found = json.loads((build / "quant_model" / "search.json").read_text())
    assert manifest["results"]["search"]["reporting"] == found["reporting"]
    assert found["trials"][0]["words"] == "default"
    assert found["chosen"]["damage"] == min(trial["damage"] for trial in found["trials"])
    assert not searching.search_folder(BuildFolder(build)).exists()
    assert quant("--mode", "test", "--data", tmp_path / "judge", "-d", build, "--no-report")

    with pytest.raises(DataError, match="reaches the floor"):
        quant(*arguments, *more, "--floor-iou", "0.9999")


def _without_finetune(kind):
    plain = kind.__init__

    def make(self, *args: Any, **given: Any) -> None:
        plain(self, *args, **{"finetune_images": 0, **given})

    return make


def test_misuse(tmp_path: Path):
    data = ("--data", tmp_path)
    with pytest.raises(UsageError, match="needs labelled pictures"):
        quant("--mode", "calib", *data, "--search")
    with pytest.raises(UsageError, match="is a calibration"):
        quant("--mode", "test", *data, "--search", "--judge", tmp_path)
    with pytest.raises(UsageError, match="--floor-auc is for --search"):
        quant("--mode", "calib", *data, "--floor-auc", "0.9")
    with pytest.raises(UsageError, match="--judge-images is for --search"):
        quant("--mode", "calib", *data, "--judge-images", "600")
    with pytest.raises(UsageError, match="tries fast finetune by itself"):
        quant("--mode", "calib", *data, "--search", "--judge", tmp_path, "--fast-finetune")


def test_the_vendors_quantizer_cannot_search():
    class Theirs:
        name = "vitis"

    class Request:
        search = searching.SearchRequest(Path("judge"))

    with pytest.raises(UnsupportedError, match="cannot search"):
        searching.search(Request(), Theirs(), *[None] * 5)  # type: ignore[arg-type]


@pytest.mark.parametrize(("asked", "taken"), [(None, 200), (60, 60)])
def test_as_many_pictures_judge_as_are_asked_for(asked: Optional[int], taken: int):
    request = quant_command._search("calib", True, Path("judge"), asked, None, None, False)
    assert request is not None
    assert request.judge_images == taken
