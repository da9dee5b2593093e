"""``quant --release``: which release's files come out, and which are taken in."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deepfake_fpga.compile.xir.xmodel import read_xmodel  # noqa: E402
from deepfake_fpga.deploy.build_folder import read_manifest  # noqa: E402
from deepfake_fpga.errors import MismatchError  # noqa: E402
from deepfake_fpga.quantize import results  # noqa: E402

from .faces import write_dataset, write_image  # noqa: E402
from .golden import Recording, recording  # noqa: E402
from .test_quant_command import quant, save_model  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "faces", videos=4, crops=3)


@pytest.fixture(scope="module")
def oldest(tmp_path_factory: pytest.TempPathFactory, faces: Path) -> Path:
    """A build folder calibrated by release 1.4.1."""
    folder = tmp_path_factory.mktemp("oldest")
    weights = save_model(folder / "tiny.pth", seed=5)
    quant(
        *("--mode", "calib", "-d", folder / "build", "--checkpoint", weights, "--data", faces),
        *("--release", "1.4.1", "-q"),
    )
    return folder / "build"


def test_test_goes_on_by_the_calibrated_release(oldest: Path, faces: Path, tmp_path: Path) -> None:
    build = tmp_path / "build"
    shutil.copytree(str(oldest), str(build))
    folder = build / "quant_model"
    assert ":[8,null]" in (folder / results.QUANT_INFO).read_text()
    assert read_manifest(folder).options["release"] == "1.4.1"
    said = quant("--mode", "test", "-d", build, "--data", faces).output
    assert "rules and files of release 1.4.1" in said
    assert "return_ops" in read_xmodel(folder / "UYNet_int.xmodel").attrs
    assert read_manifest(folder).options["release"] == "1.4.1"


def test_another_release_is_refused(oldest: Path, faces: Path) -> None:
    with pytest.raises(
        MismatchError, match=r"made by release 1\.4\.1, --release says 2\.0"
    ) as found:
        quant("--mode", "test", "-d", oldest, "--data", faces, "--release", "2.0")
    assert "--release 2.0" in found.value.next_step


def test_the_default_is_3_0(faces: Path, tmp_path: Path) -> None:
    weights = save_model(tmp_path / "tiny.pth", seed=5)
    build = tmp_path / "build"
    quant("--mode", "calib", "-d", build, "--checkpoint", weights, "--data", faces, "-q")
    assert read_manifest(build / "quant_model").options["release"] == "3.0"
    assert results.load(build / "quant_model").release.name == "3.0"


@pytest.mark.slow
@pytest.mark.parametrize("release", ["1.4.1", "2.0", "2.5"])
def test_the_vendors_files_are_tested_by_their_own_release(
    release: str, shared: Path, data: Path, tmp_path: Path
) -> None:
    case: Recording = recording("uynet_w8", data, lambda: shared, release)
    build = tmp_path / "build"
    (build / "quant_model").mkdir(parents=True)
    (build / "quant_model" / results.QUANT_INFO).write_text(case.quant_info)
    torch.save(case.json("bias_corr"), str(build / "quant_model" / results.BIAS_CORR))
    weights = tmp_path / "w8.pth"
    torch.save(case.model().state_dict(), str(weights))
    with np.load(str(case.source / "test_u8.npz")) as archive:
        write_image(tmp_path / "plain" / "0.png", archive["images"][0])
    options = ("--mode", "test", "-d", build, "--checkpoint", weights, "--data", tmp_path / "plain")
    said = quant(*options).output
    assert f"in the form of release {release}" in said
    manifest = read_manifest(build / "quant_model")
    assert manifest.options["release"] == release
    xmodel = read_xmodel(build / "quant_model" / "UYNet_int.xmodel")
    assert ("return_ops" in xmodel.attrs) == (release != "2.5")
    # With another release named, the names in the file do not fit.
    (build / "quant_model" / "manifest.json").unlink()
    with pytest.raises(MismatchError, match=rf"form of release {release}"):
        quant(*options, "--release", "3.0")
