"""The README's commands do what it says, and its links lead somewhere."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict, List

import numpy as np
import pytest

from deepfake_fpga.deploy.simulate.host import SimulatedHost
from deepfake_fpga.deploy.simulate.options import SimulateOptions

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands(prefix: str, section: str = "") -> List[str]:
    """Lines of the README's shell blocks that start with ``prefix``, without their comments.

    Only those of the section whose title starts with ``section``, if given.
    """
    sections = [text for text in README.split("\n## ") if text.startswith(section)]
    blocks = re.findall(r"```sh\n(.*?)```", "\n".join(sections), flags=re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith(prefix)]


def test_every_link_of_every_page_leads_to_a_file() -> None:
    pages = [ROOT / "README.md", *ROOT.joinpath("docs").glob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_ci_runs_the_two_commands_of_the_readme() -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    scripts = commands("scripts/")
    assert len(scripts) == 2
    for script in scripts:
        assert os.access(str(ROOT / script), os.X_OK)
        assert f"\n{script}" in ci


def call(line: str, folder: Path, environment: Dict[str, str]) -> None:
    """Runs a line of the README in ``folder``."""
    search = [str(ROOT / "src"), environment.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-m", "deepfake_fpga", *shlex.split(line)[1:]],
        cwd=str(folder),
        env={**environment, "PYTHONPATH": os.pathsep.join(filter(None, search))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout.decode()}"


@pytest.mark.torch
@pytest.mark.slow
def test_the_commands_work_in_the_order_given(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("av")
    from deepfake_fpga.quantize.model import UYNet
    from deepfake_fpga.quantize.synthetic import make_clip, make_dataset

    torch.manual_seed(1)  # no layer is dead, which the gate would refuse
    torch.save(UYNet(width=4).state_dict(), str(tmp_path / "model.pth"))
    make_dataset(tmp_path / "faces", videos=4, frames_per_video=4, seed=1, split="test")
    make_clip(tmp_path / "clip.mp4", seconds=0.6, manipulated=((0.2, 0.4),))
    lines = commands("deepfake-fpga", "Use it")
    commands_used = [line.split()[1] for line in lines]
    assert commands_used == ["quant", "quant", "compile", "run", "verify", "eval", "inspect"]
    for line in lines:
        call(line, tmp_path, {**os.environ})
    # What the comments beside the commands promise.
    for name in ("quant_info.json", "UYNet_int.xmodel"):
        assert (tmp_path / "build" / "quant_model" / name).is_file()
    assert (tmp_path / "build" / "compiled" / "YNET.xmodel").is_file()
    assert (tmp_path / "model.svg").is_file()
    result = tmp_path / "result"
    records = (result / "records.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(records) == 15
    assert {json.loads(r)["status"] for r in records} == {"ok"}
    assert (result / "overlay.mp4").is_file()
    assert json.loads((result / "summary.json").read_text("utf-8"))["complete"] is True


@pytest.mark.slow
def test_the_commands_for_the_card_work_on_a_simulated_host(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from deepfake_fpga.quantize.synthetic import make_clip

    make_clip(tmp_path / "clip.mp4", seconds=0.6, manipulated=((0.2, 0.4),))
    lines = commands("deepfake-fpga", "With the card")
    assert [line.split()[1] for line in lines] == ["doctor", "board", "session", "run"]
    with SimulatedHost(SimulateOptions(aborts="process")) as host:
        for line in lines:
            call(line, tmp_path, host.environment())
    summary = json.loads((tmp_path / "result" / "summary.json").read_text("utf-8"))
    assert summary["device"] == "card"


@pytest.mark.torch
@pytest.mark.slow
def test_vitis_programs_run_as_the_readme_says(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    for name in ("networks.py", "quantize.py", "app_mt.py"):
        shutil.copy(str(ROOT / "tests" / "programs" / name), str(tmp_path / name))
    (tmp_path / "arch.json").write_text('{"target": "DPUCVDX8H_ISA1_F2W2_8PE"}')
    images = np.random.RandomState(1).randint(0, 256, (20, 28, 28, 1), dtype=np.uint8)
    np.save(str(tmp_path / "images.npy"), images)
    lines = commands("deepfake-fpga", "Your Vitis AI programs")
    assert len(lines) == 4
    for line in lines:
        call(line, tmp_path, {**os.environ})
    with np.load(str(tmp_path / "answers.npz")) as answers:
        assert [len(answers[name]) for name in answers.files] == [20]
