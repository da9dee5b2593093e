"""The README's commands do what it says, and its links lead somewhere."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Dict, List

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands(prefix: str) -> List[str]:
    """Lines of the README's shell blocks that start with ``prefix``, without their comments."""
    blocks = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
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
    lines = commands("deepfake-fpga")
    assert [line.split()[1] for line in lines] == ["quant", "quant", "compile", "run", "inspect"]
    environment: Dict[str, str] = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    for line in lines:
        words = [sys.executable, "-m", "deepfake_fpga", *shlex.split(line)[1:]]
        done = subprocess.run(
            words,
            cwd=str(tmp_path),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout.decode()}"
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
