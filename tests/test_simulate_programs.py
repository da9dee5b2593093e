"""Programs written for Vitis AI, run unmodified on a simulated host, give our commands' numbers.

``tests/programs`` holds them: quantization in both modes with and without fast finetune, the
compiler's shell script, inference with several threads. They know nothing of this package.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest

from deepfake_fpga.compile.xir.diff import diff_graphs
from deepfake_fpga.compile.xir.xmodel import read_xmodel
from deepfake_fpga.deploy.simulate.host import SimulatedHost
from deepfake_fpga.deploy.simulate.options import SimulateOptions

torch = pytest.importorskip("torch", reason="needs PyTorch (extra 'quant')")
pytestmark = [pytest.mark.torch, pytest.mark.slow]

PROGRAMS = Path(__file__).resolve().parent / "programs"
IMAGES = 21


def call(folder: Path, *words: str, **options: Any) -> str:
    """Runs a program on a simulated host of its own and returns what it printed."""
    with SimulatedHost(SimulateOptions(**options)) as host:
        done = subprocess.run(
            [shutil.which(words[0]) or words[0], *words[1:]],
            cwd=str(folder),
            env=host.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    assert done.returncode == 0, done.stdout
    return done.stdout


def python(folder: Path, program: str, *words: str, **options: Any) -> str:
    return call(folder, sys.executable, str(PROGRAMS / program), *words, **options)


class Chain:
    """One network from quantization to a compiled model, all by the vendor's API."""

    def __init__(self, folder: Path, net: str, *words: str) -> None:
        self.folder, self.net = folder, net
        self.texts: List[str] = []
        for mode in ("calib", "test"):
            self.texts.append(
                python(folder, "quantize.py", "--net", net, "--quant_mode", mode, *words)
            )
        self.texts.append(call(folder, "sh", str(PROGRAMS / "compile.sh"), net, "build"))
        self.model = folder / "build" / "compiled" / f"{net}.xmodel"
        sys.path.insert(0, str(PROGRAMS))
        try:
            from networks import network, pictures
        finally:
            sys.path.pop(0)
        self.module, self.pixels = network(net), pictures(net, 16)
        np.save(str(folder / "images.npy"), pictures(net, IMAGES))

    def infer(self, *words: str, **options: Any) -> Dict[str, np.ndarray]:
        python(
            self.folder,
            "app_mt.py",
            *("-m", str(self.model), "-i", "images.npy", "-o", "answers.npz", *words),
            **options,
        )
        with np.load(str(self.folder / "answers.npz")) as answers:
            return dict(answers)


@pytest.fixture(scope="module", params=["Classifier", "Segmenter", "TwoHeads"])
def chain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    words = ["--finetune"] if request.param == "TwoHeads" else []
    return Chain(tmp_path_factory.mktemp(request.param), request.param, *words)


def ours(chain: Chain, folder: Path) -> Any:
    """The same network through our own quantizer, as a library."""
    from deepfake_fpga.quantize.quantizer import Quantizer

    values = torch.from_numpy(chain.pixels).permute(0, 3, 1, 2).contiguous().float() / 255
    quantizer = Quantizer(chain.module, values[:4])
    batches = [values[start : start + 4] for start in range(0, 16, 4)]
    tuned = quantizer.finetune(batches) if chain.net == "TwoHeads" else None
    quantizer.calibrate(batches, tuned=tuned).save(folder)
    return quantizer.quantized(folder)


def test_quantization_gives_the_files_of_our_own_quantizer(chain: Chain, tmp_path: Path) -> None:
    quantized = ours(chain, tmp_path)
    theirs = chain.folder / "build" / "quant_model"
    records = [json.loads((f / "quant_info.json").read_text()) for f in (tmp_path, theirs)]
    for record in records:
        record.pop("version")
    assert records[0] == records[1]
    left, right = (torch.load(str(f / "bias_corr.pth")) for f in (tmp_path, theirs))
    assert left.keys() == right.keys()
    # A data loader may choose other strides, and with them another order of summation.
    assert all(np.allclose(left[name], right[name], rtol=0, atol=1e-7) for name in left)
    quantized.export_xmodel(tmp_path / "int.xmodel")
    graphs = [read_xmodel(p) for p in (tmp_path / "int.xmodel", theirs / f"{chain.net}_int.xmodel")]
    assert not diff_graphs(*graphs)


def test_inference_gives_the_quantized_models_numbers(chain: Chain) -> None:
    """What the quantizer's test mode returned is what the threads collect, code for code."""
    with np.load(str(chain.folder / "build" / "quantized.npz")) as stored:
        expected = [stored[key] for key in stored.files]
    answers = chain.infer("--threads", "3")
    by_rank = {table.ndim: table[:16] for table in answers.values()}
    first = expected[0].transpose(0, 2, 3, 1) if expected[0].ndim == 4 else expected[0]
    found = by_rank[4] if expected[0].ndim == 4 else by_rank.get(2, by_rank.get(4))
    assert found is not None
    assert np.array_equal(found.reshape(first.shape), first)
    if len(expected) == 2:  # the sigmoid runs on the host, after the card's last tensor
        probability = 1 / (1 + np.exp(-by_rank[2].astype(np.float32)))
        assert np.abs(probability - expected[1]).max() < 1e-6


HOSTILE: List[Dict[str, Any]] = [
    {"shuffle": True, "seed": 5},
    {"strict_buffers": True},
    {"delay": 0.01},
    {"release": "2.5"},
    {"release": "3.5"},
    {"pace": "vck5000"},
    {"device": "reference"},
]


def test_no_behaviour_of_the_card_changes_an_answer(chain: Chain) -> None:
    plain = chain.infer("--threads", "1")
    # All of them on the network with two outputs, whose order can matter.
    for options in HOSTILE if chain.net == "TwoHeads" else HOSTILE[:1]:
        found = chain.infer("--threads", "4", **options)
        assert plain.keys() == found.keys(), options
        assert all(np.array_equal(plain[name], found[name]) for name in plain), options


def test_the_console_is_the_vendors(chain: Chain) -> None:
    calib, test, compiled = chain.texts
    assert "[VAIQ_NOTE]: =>Exporting quant config.(build/quant_model/quant_info.json)" in calib
    assert f"=>Successfully convert '{chain.net}' to xmodel" in test
    assert "[UNILOG][INFO] Compile done." in compiled
    assert ("param.pth" in calib) == (chain.net == "TwoHeads")
