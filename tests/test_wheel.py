"""The wheel holds the package and nothing else, and works without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("wheel", reason="building a wheel needs the extra 'dev'")
    pytest.importorskip("build", reason="building a wheel needs the extra 'dev'")
    out = tmp_path_factory.mktemp("wheel")
    # A copy, so that no build folder is left in the checkout and none of an earlier build is read.
    source = tmp_path_factory.mktemp("source") / "checkout"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=str(ROOT),
        stdout=subprocess.PIPE,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    for name in filter(None, listed.stdout.decode().split("\0")):
        origin, target = ROOT / name, source / name
        if name.startswith("tests/data/") or not os.path.lexists(str(origin)):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if origin.is_symlink():
            target.symlink_to(os.readlink(str(origin)))
        else:
            target.write_bytes(origin.read_bytes())
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(out), str(source)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    (built,) = out.glob("*.whl")
    return built


@pytest.mark.slow
def test_only_the_package_is_top_level(wheel: Path) -> None:
    with zipfile.ZipFile(str(wheel)) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"deepfake_fpga"}
    assert "deepfake_fpga/py.typed" in names
    assert not [n for n in names if "/tests/" in n or "/src/" in n or "/scripts/" in n]


@pytest.mark.slow
def test_installed_alone_it_answers(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "venv"
    venv.create(str(home), with_pip=True)
    python = str(home / ("Scripts" if os.name == "nt" else "bin") / "python")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", str(wheel)], check=True)
    subprocess.run([*pip, "click", "numpy"], check=True)
    code = (
        "import importlib.util as u, deepfake_fpga\n"
        "import deepfake_fpga.deploy.cli\n"
        "for name in ('quantize', 'compile', 'inference', 'board', 'deploy'):\n"
        "    assert u.find_spec(name) is None, name\n"
        "print(deepfake_fpga.__version__)\n"
    )
    result = subprocess.run(
        [python, "-c", code], cwd=str(tmp_path), stdout=subprocess.PIPE, check=True
    )
    import deepfake_fpga

    assert result.stdout.decode().strip() == deepfake_fpga.__version__
