"""``quant``: calibrate, test, and every misuse, on a tiny network and a few small faces."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest
from click.testing import CliRunner, Result

torch = pytest.importorskip("torch")

from deepfake_fpga.compile.xir.xmodel import read_xmodel  # noqa: E402
from deepfake_fpga.deploy import calibration_report, quantization  # noqa: E402
from deepfake_fpga.deploy.build_folder import changed_files, read_manifest  # noqa: E402
from deepfake_fpga.deploy.cli import cli  # noqa: E402
from deepfake_fpga.errors import (  # noqa: E402
    DataError,
    MismatchError,
    MissingError,
    OrderError,
    ToolkitError,
    UnsupportedError,
    UsageError,
)
from deepfake_fpga.quantize.model import UYNet  # noqa: E402

from .faces import write_dataset, write_image  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture(autouse=True)
def lean_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """What reports hold is tested elsewhere."""
    for name in ("LAYER_IMAGES", "TRIED_IMAGES", "TRIED_LAYERS"):
        monkeypatch.setattr(calibration_report, name, 1)


def quant(*args: Any) -> Result:
    """Runs the command; an error of ours is raised as it is."""
    return CliRunner().invoke(
        cli, ["quant", *map(str, args)], catch_exceptions=False, standalone_mode=False
    )


def snapshot(folder: Path) -> Dict[str, bytes]:
    """Every file below a folder and its content."""
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def save_model(path: Path, seed: int, width: int = 2) -> Path:
    torch.manual_seed(seed)
    torch.save(UYNet(width=width).state_dict(), str(path))
    return path


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "faces", videos=4, crops=3)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("weights") / "tiny.pth", seed=5)


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory, faces: Path, weights: Path) -> Path:
    build = tmp_path_factory.mktemp("calib") / "build"
    quant("--mode", "calib", "-d", build, "--checkpoint", weights, "--data", faces, "-q")
    return build


@pytest.fixture
def build(calibrated: Path, tmp_path: Path) -> Path:
    """A calibrated build folder of its own."""
    shutil.copytree(str(calibrated), str(tmp_path / "build"))
    return tmp_path / "build"


def test_calib_leaves_the_calibration_and_says_how(
    tmp_path: Path, faces: Path, weights: Path
) -> None:
    build = tmp_path / "build"
    result = quant(
        "--mode", "calib", "-d", build, "--checkpoint", weights, "--data", faces, "-b", 5
    )
    assert sorted(snapshot(tmp_path)) == [
        "build/float_model/manifest.json",
        "build/float_model/tiny.pth",
        "build/quant_model/bias_corr.pth",
        "build/quant_model/manifest.json",
        "build/quant_model/quant_info.json",
    ]
    assert (build / "float_model" / "tiny.pth").read_bytes() == weights.read_bytes()
    info = json.loads((build / "quant_model" / "quant_info.json").read_text())
    assert "UYNet::inc.double_conv.0.weight" in info["param"]
    manifest = read_manifest(build / "quant_model")
    assert manifest.stage == "calib"
    assert manifest.backend == "sim"
    assert manifest.model["width"] == 2
    assert manifest.results["images"] == 12
    assert manifest.options["batch_size"] == 5
    assert changed_files(build / "quant_model", manifest) == []
    assert any("12 images" in warning for warning in manifest.warnings)
    assert "Warning: Only 12 images" in result.output
    assert "quant --mode test" in result.output
    assert "U-YNet of width 2" in result.output


def test_calib_from_files_gives_the_recorded_fix_points(shared: Path, tmp_path: Path) -> None:
    """The vendor quantizer's recorded run, its arrays written to files and read by the command."""
    case = shared / "golden" / "uynet_w8"
    arrays = np.load(str(case / "weights.npz"))
    torch.save(
        {key: torch.from_numpy(arrays[key].copy()) for key in arrays.files},
        str(tmp_path / "w8.pth"),
    )
    pictures = np.load(str(case / "calib_u8.npz"))
    for n, image in enumerate(pictures[pictures.files[0]]):
        write_image(tmp_path / "plain" / f"{n}.png", image)
    quant(
        *("--mode", "calib", "-d", tmp_path / "build", "--checkpoint", tmp_path / "w8.pth"),
        *("--data", tmp_path / "plain", "-b", 8, "-q", "--release", "3.5"),
    )
    recorded = json.loads((case / "quantize_result" / "quant_info.json").read_text())
    ours = json.loads((tmp_path / "build" / "quant_model" / "quant_info.json").read_text())
    for part in ("param", "output"):
        assert ours[part] == recorded[part]
        assert len(ours[part]) > 20


def test_test_measures_and_exports(build: Path, faces: Path) -> None:
    before = snapshot(build)
    result = quant("--mode", "test", "-d", build, "--data", faces)
    for title in ("mask Dice", "mask IoU", "verdict accuracy", "verdict AUC", "Agreement on 12"):
        assert title in result.output
    after = snapshot(build)
    assert set(after) - set(before) == {
        "quant_model/UYNet_int.xmodel",
        "quant_model/evaluation.json",
        "quant_model/report.html",
        "quant_model/report.json",
    }
    assert after["quant_model/quant_info.json"] == before["quant_model/quant_info.json"]
    folder = build / "quant_model"
    manifest = read_manifest(folder)
    assert manifest.stage == "test"
    assert changed_files(folder, manifest) == []
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert evaluation == manifest.results["test"]
    assert evaluation["labelled"] == evaluation["masked"] == 12
    graph = read_xmodel(folder / "UYNet_int.xmodel")
    tensors = {op.tensor.name: op.tensor for op in graph.ops.values()}
    assert tuple(tensors[manifest.outputs["mask"]].dims) == (1, 224, 224, 2)
    assert tuple(tensors[manifest.outputs["classifier"]].dims) == (1, 1)


def test_the_float_column_is_the_float_network(build: Path, faces: Path) -> None:
    """The float scores, from the network and the files by means of their own."""
    import cv2

    quant("--mode", "test", "-d", build, "--data", faces, "-q")
    evaluation = json.loads((build / "quant_model" / "evaluation.json").read_text())
    model = UYNet(width=2).eval()
    model.load_state_dict(torch.load(str(build / "float_model" / "tiny.pth"), weights_only=True))
    right = 0
    for path in sorted((faces / "crops").iterdir()):
        image = cv2.resize(cv2.imread(str(path))[..., ::-1], (224, 224))
        x = torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32) / 255)
        with torch.no_grad():
            real = bool(model(x)[1] >= 0.5)
        right += real == (int(path.stem[5]) % 2 == 0)
    assert evaluation["float"]["accuracy"] == pytest.approx(right / 12, abs=1e-6)


def test_json_is_all_of_standard_output(build: Path, faces: Path) -> None:
    result = quant("--mode", "test", "-d", build, "--data", faces, "--json")
    record = json.loads(result.stdout)
    assert record["stage"] == "test"
    assert record["preprocessing"]["height"] == 224
    assert set(record["outputs"]) == {"mask", "classifier"}


def test_a_plain_folder_gives_agreement_and_the_reason(build: Path, tmp_path: Path) -> None:
    for n in range(3):
        image = np.random.RandomState(n).randint(0, 256, (40, 40, 3)).astype(np.uint8)
        write_image(tmp_path / "plain" / f"{n}.png", image)
    result = quant("--mode", "test", "-d", build, "--data", tmp_path / "plain")
    assert "No Dice or accuracy: it is a plain folder of pictures" in result.output
    assert "Agreement on 3 images" in result.output
    assert "mask Dice" not in result.output


def test_a_new_calibration_removes_the_old_test(build: Path, faces: Path, tmp_path: Path) -> None:
    quant("--mode", "test", "-d", build, "--data", faces, "-q")
    other = save_model(tmp_path / "other.pth", seed=6)
    quant("--mode", "calib", "-d", build, "--checkpoint", other, "--data", faces, "-q")
    assert sorted(snapshot(build)) == [
        "float_model/manifest.json",
        "float_model/other.pth",
        "quant_model/bias_corr.pth",
        "quant_model/manifest.json",
        "quant_model/quant_info.json",
    ]
    quant("--mode", "calib", "-d", build, "--data", faces, "-q")  # takes the one in float_model
    assert read_manifest(build / "quant_model").model["file"] == "other.pth"


def refused(error: type, build: Path, *args: Any) -> ToolkitError:
    """The error of a call that must leave the build folder as it was."""
    before = snapshot(build)
    with pytest.raises(error) as caught:
        quant(*args, "-d", build)
    assert snapshot(build) == before
    leftovers = (
        [p.name for p in build.iterdir() if p.name.startswith(".")] if build.is_dir() else []
    )
    assert leftovers == []
    found: ToolkitError = caught.value
    return found


def test_test_before_calib(tmp_path: Path, faces: Path) -> None:
    found = refused(OrderError, tmp_path / "new", "--mode", "test", "--data", faces)
    assert "quant --mode calib" in found.next_step
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["quant_info.json", "bias_corr.pth"])
def test_an_incomplete_calibration(build: Path, faces: Path, name: str) -> None:
    (build / "quant_model" / name).unlink()
    found = refused(OrderError, build, "--mode", "test", "--data", faces)
    assert name in found.evidence


def test_an_edited_calibration(build: Path, faces: Path) -> None:
    path = build / "quant_model" / "quant_info.json"
    path.write_text(path.read_text() + "\n")
    found = refused(MismatchError, build, "--mode", "test", "--data", faces)
    assert "quant_info.json" in found.evidence


def test_a_calibration_of_another_model(build: Path, faces: Path, tmp_path: Path) -> None:
    other = save_model(tmp_path / "other.pth", seed=6)
    found = refused(MismatchError, build, "--mode", "test", "--data", faces, "--checkpoint", other)
    assert "another model" in found.cause


def test_too_few_images(build: Path, faces: Path, weights: Path, tmp_path: Path) -> None:
    args = ("--mode", "calib", "--data", faces, "--subset", 7, "--checkpoint", weights)
    found = refused(DataError, build, *args)
    assert "too few images" in found.cause
    assert "at least 8" in found.evidence
    assert "7 usable" in found.evidence
    refused(DataError, tmp_path / "new", *args)
    assert not (tmp_path / "new").exists()


def test_images_that_turn_out_unreadable_do_not_count(build: Path, tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "broken", videos=4, crops=2)
    (folder / "crops" / "video2_1.png").write_bytes(b"\x89PNG\r\n\x1a\nnot a picture")
    found = refused(DataError, build, "--mode", "calib", "--data", folder)
    assert "7 usable" in found.evidence
    assert "video2_1.png" in found.evidence


def test_defects_of_the_data_are_said(build: Path, tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "broken", videos=4, crops=3)
    (folder / "crops" / "video2_1.png").write_bytes(b"\x89PNG\r\n\x1a\nnot a picture")
    (folder / "masks" / "video1_2.gif").unlink()
    result = quant("--mode", "test", "-d", build, "--data", folder, "-q")
    assert "1 missing mask of a FAKE" in result.output
    assert "1 unreadable image" in result.output
    assert "video2_1.png" in result.output


def test_without_a_checkpoint_the_shipped_one_is_taken(
    faces: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ("--mode", "calib", "--data", faces)
    monkeypatch.setattr(quantization, "DEMO_CHECKPOINT", tmp_path / "absent.safetensors")
    assert "none shipped" in refused(MissingError, tmp_path / "new", *args).evidence
    monkeypatch.setattr(quantization, "DEMO_CHECKPOINT", weights)
    result = quant(*args, "-d", tmp_path / "new")
    assert f"checkpoint {weights} (the shipped one" in result.output
    result = quant(*args, "-d", tmp_path / "new")
    assert "tiny.pth (the one in the build folder)" in result.output


def test_weights_that_are_not_numbers(build: Path, faces: Path, tmp_path: Path) -> None:
    state = UYNet(width=2).state_dict()
    state["outc.conv.bias"][0] = float("nan")
    torch.save(state, str(tmp_path / "nan.pth"))
    found = refused(
        DataError, build, "--mode", "calib", "--data", faces, "--checkpoint", tmp_path / "nan.pth"
    )
    assert "outc.conv.bias" in found.evidence


def test_the_vendor_backend_says_what_was_found(build: Path, faces: Path) -> None:
    found = refused(
        UnsupportedError, build, "--mode", "calib", "--data", faces, "--backend", "vitis"
    )
    assert "pytorch_nndct" in found.evidence
    assert "--backend sim" in found.next_step


def test_no_data_and_no_such_data(build: Path, tmp_path: Path) -> None:
    refused(UsageError, build, "--mode", "calib")
    refused(MissingError, build, "--mode", "calib", "--data", tmp_path / "absent")


def test_a_failing_export_leaves_nothing(
    build: Path, faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepfake_fpga.quantize import backend

    def fail(self: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise DataError("stopped")

    monkeypatch.setattr(backend._SimQuantized, "export_xmodel", fail)
    refused(DataError, build, "--mode", "test", "--data", faces)


def test_help_needs_no_torch(fresh_modules: List[str]) -> None:
    assert "torch" not in fresh_modules


@pytest.fixture
def fresh_modules() -> List[str]:
    """The modules loaded by ``quant --help`` in a process of its own."""
    import subprocess
    import sys

    code = (
        "import sys\n"
        "from deepfake_fpga.deploy.cli import cli\n"
        "cli.main(['quant', '--help'], standalone_mode=False)\n"
        "print('MODULES', *sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, text=True
    )
    return done.stdout.rsplit("MODULES", 1)[1].split()


def test_a_calibration_by_another_tool_is_tested_without_a_manifest(
    tmp_path: Path, faces: Path
) -> None:
    build, checkpoint = tmp_path / "build", save_model(tmp_path / "m.pth", seed=8)
    quant("--mode", "calib", "-d", build, "--data", faces, "--checkpoint", checkpoint)
    (build / "quant_model" / "manifest.json").unlink()
    quant("--mode", "test", "-d", build, "--data", faces)
    manifest = read_manifest(build / "quant_model")
    assert (manifest.stage, manifest.backend) == ("test", "sim")
    assert "made by another tool" in manifest.warnings[0]
    assert not changed_files(build / "quant_model", manifest)
    # Of another network it is still refused, by the names in it.
    shutil.copy(str(build / "quant_model" / "quant_info.json"), str(tmp_path / "kept.json"))
    (build / "quant_model" / "manifest.json").unlink()
    text = (tmp_path / "kept.json").read_text().replace("UYNet::outc", "UYNet::other")
    (build / "quant_model" / "quant_info.json").write_text(text)
    with pytest.raises(MismatchError, match="outc"):
        quant("--mode", "test", "-d", build, "--data", faces)
