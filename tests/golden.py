"""Recorded runs of the vendor's quantizer, our run of the same, and what differs between them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Tuple

import numpy as np
import torch
from torch import Tensor, nn

from deepfake_fpga.quantize.model import UYNet
from deepfake_fpga.quantize.quantized import QuantizedModel
from deepfake_fpga.quantize.quantizer import Calibration, QuantizeOptions, Quantizer

from . import nets

BATCH = 8
SIGMOID_TOLERANCE = 1e-6
CORRECTION_TOLERANCE = 1e-7
DENSE_CORRECTION_TOLERANCE = 3e-7
"""Wider, since the order in which a matrix product adds depends on the processor."""

MICRO: Dict[str, Callable[[], nn.Module]] = {
    "micro_a_conv_bn_relu": nets.ConvBnRelu,
    "micro_b_conv_bias": nets.ConvBias,
    "micro_c_convt_concat": nets.UpConcat,
    "micro_d_pool_linear_sigmoid": nets.PoolLinear,
    "micro_e_resadd_avgpool7": nets.ResAvg7,
    "micro_e2_resadd_avgpool2": nets.ResAvg2,
    "micro_f_cle": nets.Cle,
}
UYNETS: Dict[str, Callable[[], nn.Module]] = {
    "uynet_w8": lambda: UYNet(width=8),
    "uynet_w8_plain": lambda: UYNet(width=8),
}


@dataclass
class Recording:
    """One recorded case.

    Attributes:
        folder: where its results are.
        source: where its weights and inputs are (another case's, for a run with other options).
        release: the release of the vendor's tool.
    """

    name: str
    folder: Path
    source: Path
    release: str = "3.5"

    @property
    def plain(self) -> bool:
        """Whether equalization and bias correction were off."""
        return self.name.endswith("_plain")

    @property
    def quant_info(self) -> str:
        for path in (self.folder / "quantize_result", self.folder):
            if (path / "quant_info.json").is_file():
                return (path / "quant_info.json").read_text(encoding="utf-8")
        raise FileNotFoundError(self.folder)

    def arrays(self, name: str) -> Dict[str, np.ndarray]:
        with np.load(str(self.folder / f"{name}.npz")) as archive:
            return {key: archive[key] for key in archive.files}

    def json(self, name: str) -> object:
        return json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))

    def model(self) -> nn.Module:
        model = {**MICRO, **UYNETS}[self.name]()
        with np.load(str(self.source / "weights.npz")) as archive:
            model.load_state_dict({key: torch.from_numpy(archive[key]) for key in archive.files})
        return model.eval()

    def inputs(self, stage: str) -> Tensor:
        """The network's input for ``calib`` or ``test``: float32 NCHW."""
        micro = self.source / f"{stage}_inputs.npz"
        if micro.is_file():
            with np.load(str(micro)) as archive:
                return torch.from_numpy(archive["x"])
        with np.load(str(self.source / f"{stage}_u8.npz")) as archive:
            scaled = archive["images"].astype(np.float32) / np.float32(255)
        return torch.from_numpy(np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)))


def recording(name: str, data: Path, shared: Callable[[], Path], release: str = "3.5") -> Recording:
    """The case called ``name``; only the U-YNets are read from beside the repository."""
    if release != "3.5":
        golden = data / "golden" if name in MICRO else shared() / "golden"
        return Recording(name, golden / f"release_{release}" / name, golden / name, release)
    if name in MICRO:
        return Recording(name, data / "golden" / name, data / "golden" / name)
    golden = shared() / "golden"
    return Recording(name, golden / name, golden / name.replace("_plain", ""))


@dataclass
class Ours:
    """Our run of a case."""

    quantizer: Quantizer
    calibration: Calibration
    quantized: QuantizedModel
    outputs: List[np.ndarray]
    codes: Dict[str, np.ndarray]


def run(case: Recording) -> Ours:
    """Calibrates and tests as the recording was made: batches of 8, then single images."""
    calib, test = case.inputs("calib"), case.inputs("test")
    options = QuantizeOptions(
        equalization=not case.plain, bias_correction=not case.plain, release=case.release
    )
    quantizer = Quantizer(case.model(), calib[:1], options)
    calibration = quantizer.calibrate(calib.split(BATCH))  # type: ignore[no-untyped-call]
    quantized = quantizer.quantized(calibration)
    results = [quantized(image) for image in test.split(1)]  # type: ignore[no-untyped-call]
    results = [r if isinstance(r, tuple) else (r,) for r in results]
    outputs = [np.concatenate([head.numpy() for head in heads]) for heads in zip(*results)]
    return Ours(quantizer, calibration, quantized, outputs, quantized.codes(test[:1]))


def comparable(text: str, release: str) -> str:
    """The text of ``quant_info.json`` without what must differ: the version in release 3.5, the
    tracer's labels at the end of names before."""
    if release == "3.5":
        blank, count = re.subn(r'("version":)"[^"]*"', r"\1", text)
        assert count == 1
    else:
        blank, count = re.subn(r'/(?:(?:ret|input)(?:\.\d+)?|\d+)":', '/":', text)
        assert count > 1
    return blank


def differences(case: Recording, ours: Ours) -> Dict[str, List[str]]:
    """What differs, by the kind of thing compared; every kind that was compared is a key."""
    kinds: Dict[str, Callable[[Recording, Ours], Iterator[str]]] = {
        "quant_info": _quant_info,
        "int8 parameters": _int8_parameters,
        "outputs": _outputs,
    }
    if case.release != "3.5":
        kinds["corrections"] = _corrections
    elif not case.plain:
        kinds.update(
            {
                "folded": _folded,
                "pairs": _pairs,
                "histories": _histories,
                "corrections": _corrections,
                "codes": _codes,
            }
        )
    return {kind: list(compare(case, ours)) for kind, compare in kinds.items()}


def _quant_info(case: Recording, ours: Ours) -> Iterator[str]:
    text = ours.calibration.info.text()
    if comparable(text, case.release) != comparable(case.quant_info, case.release):
        yield text


def _folded(case: Recording, ours: Ours) -> Iterator[str]:
    graph = ours.quantizer.graph
    found = {
        f"module_{node.index}.{role}": graph.params[key]
        for node in graph.nodes
        for role, key in node.params.items()
    }
    yield from _unequal(case.arrays("params_folded_equalized"), found)


def _pairs(case: Recording, ours: Ours) -> Iterator[str]:
    recorded = case.json("cle_pairs")
    assert isinstance(recorded, list)
    if len(recorded) != len(ours.quantizer.pairs):
        yield f"{len(recorded)} pairs recorded, {len(ours.quantizer.pairs)} found"
    for theirs, pair in zip(recorded, ours.quantizer.pairs):
        names = [pair.first.params["weight"], pair.second.params["weight"]]
        if theirs["weights"] != names:
            yield f"{theirs['weights']} recorded, {names} found"
        elif not np.array_equal(np.array(theirs["scale"], np.float32), pair.scale):
            yield f"scales of {names}"


def _histories(case: Recording, ours: Ours) -> Iterator[str]:
    recorded = case.json("calib_fixpos_history")
    assert isinstance(recorded, dict)
    # Named by the vendor's tracer there, so they are held against each other in order.
    theirs = [history[0] for history in recorded["output"].values()]
    if theirs != list(ours.calibration.histories.values()):
        yield f"{theirs} recorded, {list(ours.calibration.histories.values())} found"


def _corrections(case: Recording, ours: Ours) -> Iterator[str]:
    recorded = case.json("bias_corr")
    assert isinstance(recorded, dict)
    found = ours.calibration.info.corrections
    assert found is not None
    if case.release == "3.5":
        theirs, names = list(recorded), list(found)
    else:
        theirs, names = ([n.rpartition("/")[0] for n in table] for table in (recorded, found))
    if theirs != names:
        yield f"{theirs} recorded, {names} found"
        return
    for (name, values), correction in zip(recorded.items(), found.values()):
        error = np.abs(np.array(values) - np.array(correction)).max()
        dense = "nndct_dense" in name or "/Linear[" in name
        if not error <= (DENSE_CORRECTION_TOLERANCE if dense else CORRECTION_TOLERANCE):
            yield f"{name}: {error}"


def _int8_parameters(case: Recording, ours: Ours) -> Iterator[str]:
    yield from _unequal(case.arrays("params_int8"), ours.quantized.int8_parameters())


def _codes(case: Recording, ours: Ours) -> Iterator[str]:
    yield from _unequal(case.arrays("inter_img0_int8"), ours.codes)


def _outputs(case: Recording, ours: Ours) -> Iterator[str]:
    for (name, theirs), found in zip(case.arrays("quant_outputs").items(), ours.outputs):
        # The final sigmoid is float; everything else lies on a grid and must be equal.
        ends_in_sigmoid = name == "cls" or case.name == "micro_d_pool_linear_sigmoid"
        allowed = SIGMOID_TOLERANCE if ends_in_sigmoid else 0.0
        if theirs.shape != found.shape or not np.abs(theirs - found).max() <= allowed:
            yield f"{name}: {np.abs(theirs - found).max()}"


def _unequal(theirs: Dict[str, np.ndarray], ours: Dict[str, np.ndarray]) -> Iterator[str]:
    if list(theirs) != list(ours):
        yield f"{list(theirs)} recorded, {list(ours)} found"
        return
    for name, value in theirs.items():
        if value.dtype != ours[name].dtype or value.shape != ours[name].shape:
            yield f"{name}: {value.dtype}{value.shape}, {ours[name].dtype}{ours[name].shape}"
        elif not np.array_equal(value, ours[name]):
            yield f"{name}: {np.count_nonzero(value != ours[name])} of {value.size}"


def compared(case: Recording) -> Tuple[int, int]:
    """How many tensors and values a comparison covers."""
    names = ["params_int8", "quant_outputs"]
    if not case.plain:
        names += ["params_folded_equalized", "inter_img0_int8"]
    arrays = [array for name in names for array in case.arrays(name).values()]
    return len(arrays), sum(array.size for array in arrays)
