"""``quant --fast-finetune``: what it leaves, going on after a stop, and every misuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, List, Tuple

import pytest
from click.exceptions import Abort
from click.testing import CliRunner, Result

torch = pytest.importorskip("torch")

from deepfake_fpga.deploy.build_folder import BuildFolder, changed_files, read_manifest  # noqa: E402
from deepfake_fpga.deploy.cli import cli  # noqa: E402
from deepfake_fpga.deploy.finetuning import LateProgress, LayerProgress, state_path  # noqa: E402
from deepfake_fpga.errors import MismatchError, OrderError, UsageError  # noqa: E402
from deepfake_fpga.quantize import finetune  # noqa: E402
from deepfake_fpga.quantize.model import UYNet  # noqa: E402

from .faces import write_dataset  # noqa: E402

pytestmark = pytest.mark.torch


def quant(*args: Any) -> Result:
    """Runs the command; an error of ours is raised as it is."""
    return CliRunner().invoke(
        cli, ["quant", *map(str, args)], catch_exceptions=False, standalone_mode=False
    )


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "faces", videos=4, crops=2)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.manual_seed(1)
    torch.save(UYNet(width=1).state_dict(), str(path))
    return path


@pytest.fixture(scope="module", autouse=True)
def few_sweeps() -> Any:
    """Whether a change stays is decided as ever, only the tries are fewer."""
    before = finetune.SWEEPS
    finetune.SWEEPS = 1
    yield
    finetune.SWEEPS = before


def calib_args(build: Path, faces: Path, weights: Path) -> Tuple[Any, ...]:
    return (
        *("--mode", "calib", "-d", build, "--checkpoint", weights, "--data", faces, "--force"),
        *("--fast-finetune", "--finetune-images", 2, "-b", 4),
    )


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, faces: Path, weights: Path) -> Path:
    build = tmp_path_factory.mktemp("calib") / "build"
    result = quant(*calib_args(build, faces, weights))
    assert "fast finetune on 2 images" in result.output
    assert "quant --mode test" in result.output
    assert "--fast-finetune" in result.output
    return build


@pytest.fixture
def build(tuned: Path, tmp_path: Path) -> Path:
    shutil.copytree(str(tuned), str(tmp_path / "build"))
    return tmp_path / "build"


def test_calibration_is_marked_and_whole(build: Path) -> None:
    folder = build / "quant_model"
    assert json.loads((folder / "quant_info.json").read_text())["fast_finetuned"] is True
    manifest = read_manifest(folder)
    assert "param.pth" in [record.path for record in manifest.made]
    assert manifest.options["fast_finetune"] is True
    assert changed_files(folder, manifest) == []
    assert not state_path(BuildFolder(build)).exists()


def test_test_must_ask_for_it(build: Path, faces: Path) -> None:
    with pytest.raises(MismatchError, match="made with fast finetune") as caught:
        quant("--mode", "test", "-d", build, "--data", faces)
    assert "--fast-finetune" in caught.value.next_step


def test_test_uses_what_was_tuned(build: Path, faces: Path) -> None:
    quant(*("--mode", "test", "-d", build, "--data", faces), "--fast-finetune", "--no-report")
    assert (build / "quant_model" / "UYNet_int.xmodel").is_file()
    (build / "quant_model" / "param.pth").unlink()
    with pytest.raises((OrderError, MismatchError), match=r"param\.pth|manifest describes"):
        quant("--mode", "test", "-d", build, "--data", faces, "--fast-finetune")


def test_plain_calibration_takes_its_place(build: Path, faces: Path, weights: Path) -> None:
    args = ("-d", build, "--data", faces)
    quant("--mode", "calib", *args, "--checkpoint", weights, "--force", "-q")
    assert not (build / "quant_model" / "param.pth").exists()
    with pytest.raises(OrderError, match="made without fast finetune"):
        quant("--mode", "test", *args, "--fast-finetune")


@pytest.mark.parametrize("args", [("calib",), ("test",), ("test", "--fast-finetune")])
def test_number_of_images_needs_its_stage(tmp_path: Path, args: Tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="--finetune-images is for"):
        quant("--mode", *args, "--finetune-images", 3, "-d", tmp_path, "--data", tmp_path)


def test_stopped_run_goes_on_to_the_same_files(
    tuned: Path, faces: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = tmp_path / "build"
    original, seen = finetune._Tuning.layer, []

    def layer(self: Any, node: Any) -> Any:
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(node)
        return original(self, node)

    monkeypatch.setattr(finetune._Tuning, "layer", layer)
    with pytest.raises(Abort):
        quant(*calib_args(build, faces, weights))
    assert state_path(BuildFolder(build)).is_file()
    assert not (build / "quant_model").exists()
    monkeypatch.setattr(finetune._Tuning, "layer", original)
    result = quant(*calib_args(build, faces, weights))
    assert "going on after 3 of 25 layers" in result.output
    assert not state_path(BuildFolder(build)).exists()
    theirs, ours = (
        torch.load(str(folder / "quant_model" / "param.pth"), weights_only=True)
        for folder in (tuned, build)
    )
    assert list(theirs) == list(ours)
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
    for name in ("quant_info.json",):
        assert (tuned / "quant_model" / name).read_bytes() == (
            build / "quant_model" / name
        ).read_bytes()


def test_layers_are_counted_from_where_it_goes_on() -> None:
    opened: List[Tuple[str, int, str]] = []
    advanced: List[int] = []
    said: List[str] = []

    def progress(title: str, total: int, unit: str = "image") -> Any:
        opened.append((title, total, unit))
        return advanced.append

    bar = LayerProgress(progress, said.append)
    for done in (3, 4, 5):
        bar(done, 5)
    assert opened == [("fast finetune", 2, "layer")]
    assert advanced == [1, 1]
    assert said == ["fast finetune: going on after 3 of 5 layers"]
    late = LateProgress(progress, "calibrate", 8)
    assert len(opened) == 1
    late(6)
    late(2)
    assert opened[1:] == [("calibrate", 8, "image")]
    assert advanced[2:] == [6, 2]
