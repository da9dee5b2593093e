"""The drop-in modules appear on request, under both names as one, and go away again."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import Iterator

import pytest

from deepfake_fpga.board.vendor import State, find_package
from deepfake_fpga.deploy import simulate
from deepfake_fpga.deploy.simulate.options import VARIABLE, SimulateOptions, active_options
from deepfake_fpga.errors import UsageError


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    simulate.uninstall()


def test_nothing_is_visible_without_asking() -> None:
    code = "import deepfake_fpga.deploy.simulate, importlib.util as u; print(u.find_spec('vart'))"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    assert done.stdout.strip() == b"None"


@pytest.mark.parametrize("name", ["xir", "vart"])
def test_a_module_is_one_under_both_names(name: str) -> None:
    simulate.install()
    module = importlib.import_module(name)
    assert module is importlib.import_module(f"deepfake_fpga.deploy.simulate.{name}")
    assert find_package(name).state is State.SIMULATED
    simulate.uninstall()
    assert name not in sys.modules


def test_options_travel_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    options = SimulateOptions(release="2.5", fail_jobs=(3, 5), hot_after=7, aborts="process")
    assert active_options(options.to_environment()) == options
    monkeypatch.setenv(VARIABLE, '{"shufle": true}')
    with pytest.raises(UsageError, match="shufle"):
        active_options()
    with pytest.raises(UsageError, match=r"2\.6"):
        SimulateOptions(release="2.6")
