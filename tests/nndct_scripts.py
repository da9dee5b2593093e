"""Scripts for the vendor's quantizer in a few lines, and the fixtures they run in."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Callable, Iterator, List, Tuple

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from deepfake_fpga.deploy import simulate  # noqa: E402
from deepfake_fpga.deploy.simulate.options import VARIABLE, SimulateOptions  # noqa: E402

from . import golden  # noqa: E402

CPU = torch.device("cpu")
RELEASES = ("1.4.1", "2.0", "2.5")
"""Those whose files and texts have the older forms."""


@pytest.fixture
def release() -> str:
    return "3.5"


@pytest.fixture(autouse=True)
def nndct(
    release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> Iterator[Any]:  # type: ignore[type-arg]
    """``pytorch_nndct.apis`` in an empty working directory."""
    monkeypatch.setenv(VARIABLE, SimulateOptions(release=release).to_environment()[VARIABLE])
    monkeypatch.chdir(tmp_path)
    simulate.install()
    yield importlib.import_module("pytorch_nndct.apis")
    simulate.uninstall()


@pytest.fixture
def said(capsys: pytest.CaptureFixture) -> Callable[[], str]:  # type: ignore[type-arg]
    """What standard error got since the last call."""
    return lambda: str(capsys.readouterr().err)


def split(images: Tensor, size: int) -> List[Tensor]:
    """Batches that share no memory with ``images``, as a data loader gives them."""
    pieces: Tuple[Tensor, ...] = images.split(size)  # type: ignore[no-untyped-call]
    return [piece.clone() for piece in pieces]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 0.9


def calibrate(api: Any, model: nn.Module, images: Tensor, size: int = 8, **more: Any) -> Any:
    """The first half of every script; returns the quantizer."""
    quantizer = api.torch_quantizer("calib", model, (images[:1].clone(),), device=CPU, **more)
    for batch in split(images, size):
        quantizer.quant_model(batch)
    quantizer.export_quant_config()
    return quantizer


def answered(api: Any, model: nn.Module, images: Tensor, **more: Any) -> Tuple[Any, List[Any]]:
    """The second half: the quantizer and the answers to one image after the other."""
    quantizer = api.torch_quantizer("test", model, (images[:1].clone(),), device=CPU, **more)
    results = [quantizer.quant_model(image) for image in split(images, 1)]
    results = [r if isinstance(r, tuple) else (r,) for r in results]
    return quantizer, [np.concatenate([head.numpy() for head in heads]) for heads in zip(*results)]


@pytest.fixture
def micro(data: Path) -> golden.Recording:
    """One convolution, the smallest recorded case."""
    return golden.recording("micro_b_conv_bias", data, Path)


class Chain(nn.Module):
    """Layers whose weights a tuning moves: a few large ones leave a coarse grid for the others."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 6, 3, padding=1)
        self.two = nn.Conv2d(6, 4, 3, stride=2)
        self.head = nn.Linear(4 * 9, 3)
        with torch.no_grad():
            for layer in (self.one, self.two):
                layer.weight[:, 0, 0, 0] *= 16
            self.head.weight[:, 0] *= 16

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.two(torch.relu(self.one(x))))
        out: Tensor = self.head(torch.flatten(x, 1))
        return out


@pytest.fixture
def chain() -> nn.Module:
    torch.manual_seed(3)
    return Chain().eval()


def ends(
    status: int, code: str, message: str, act: Callable[[], Any], said: Callable[[], str]
) -> None:
    """``act`` must end the process with ``status`` after an error that starts with ``message``."""
    said()
    with pytest.raises(SystemExit) as stop:
        act()
    assert stop.value.code == status
    assert f"\n\x1b[0;31m[VAIQ_ERROR][QUANTIZER_TORCH_{code}]: {message}" in said()


@pytest.fixture
def start(nndct: Any, micro: golden.Recording) -> Callable[..., Any]:
    """Makes a quantizer of the smallest case in a mode."""
    return lambda mode, **more: nndct.torch_quantizer(
        mode, micro.model(), (micro.inputs("calib")[:1].clone(),), **{"device": CPU, **more}
    )
