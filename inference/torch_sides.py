"""The two sides of a comparison that are computed in torch: the float and the quantized U-YNet.

Importing this module imports no torch; opening a side does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Tuple

import numpy as np

from ..errors import MismatchError, MissingError, UsageError
from ..preprocessing import Preprocessing
from .artifact import MANIFEST, read_manifest
from .quantized_graph import QuantizedGraph
from .sides import CHECKPOINTS, FORMS, Entry, Feeds, Side, Value
from .wiring import Step, Wiring, graph_wiring, roles_by_shape


class _TorchSide(Side):
    """A U-YNet in torch: what the float and the quantized one share."""

    def __init__(self, text: str, quantizer: Any, preprocessing: Preprocessing) -> None:
        from ..quantize.export import xir_name

        self.text, self.picture = text, preprocessing
        self._graph = quantizer.graph
        self._names: Dict[Any, str] = {
            node: xir_name(self._graph.debug_name(node)) + "_fix" for node in self._graph.nodes
        }
        self._node_names = {self._graph.node_name(n): name for n, name in self._names.items()}

    def _inputs(self, feeds: Feeds) -> Any:
        import torch

        values = feeds[self.entries[0].name].real.astype(np.float32)
        return torch.from_numpy(np.ascontiguousarray(values.transpose(0, 3, 1, 2)))


class QuantizedSide(_TorchSide):
    """A calibration with its checkpoint: the quantized model in torch."""

    kind = "quantized"

    def __init__(
        self, text: str, quantizer: Any, folder: Path, preprocessing: Preprocessing
    ) -> None:
        super().__init__(text, quantizer, preprocessing)
        self.about = f"quantized model of {folder}, in torch"
        self._model = quantizer.quantized(folder)
        graph = self._model.to_xir()
        self.wiring = graph_wiring(graph)
        self.constants = QuantizedGraph(graph).constants
        node = self._graph.inputs[0]
        position = self._model.positions[self._graph.node_name(node)]
        size = (preprocessing.height, preprocessing.width, 3)
        self.entries = (Entry(self._names[node], size, position),)

    def run(self, feeds: Feeds, batch: int) -> Dict[str, Value]:
        """See ``Side.run``."""
        return {
            self._node_names[name]: Value(_nhwc(codes), self._model.positions[name])
            for name, codes in self._model.codes(self._inputs(feeds)).items()
        }


class FloatSide(_TorchSide):
    """A float checkpoint, folded and equalized as the quantizer does, so that tensors compare."""

    kind = "float"

    def __init__(self, text: str, quantizer: Any, path: Path, preprocessing: Preprocessing) -> None:
        super().__init__(text, quantizer, preprocessing)
        self.about = f"float model of {path}, batch norm folded and weights equalized"
        node = self._graph.inputs[0]
        size = (preprocessing.height, preprocessing.width, 3)
        self.entries = (Entry(self._names[node], size, None),)
        # Only what the quantizer would round; the rest has no counterpart.
        self._rounded = set(quantizer.entries.outputs)
        steps = [
            Step(
                self._names[n],
                n.op,
                tuple(self._names[s] for s in n.inputs),
                self._names[n] if n in self._rounded else None,
            )
            for n in self._graph.nodes
        ]
        tails = []
        for node in self._graph.output_nodes:
            shape, source = node.shape, node
            while source.op in ("nndct_sigmoid", "nndct_softmax"):
                source = source.inputs[0]
            dims = (1, shape[2], shape[3], shape[1]) if len(shape) == 4 else (1, *shape[1:])
            tails.append((self._names[source], dims))
        self.wiring = Wiring(tuple(steps), *roles_by_shape(tails))

    def run(self, feeds: Feeds, batch: int) -> Dict[str, Value]:
        """See ``Side.run``."""
        import torch

        from ..quantize import execution

        floats = execution.float_tensors(self._graph)
        found: Dict[str, Value] = {}

        def keep(node: Any, raw: Any, operands: Sequence[Any]) -> Any:
            if node in self._rounded:
                found[self._names[node]] = Value(_nhwc(raw.numpy().copy()), None)
            return raw

        with torch.no_grad():
            execution.run(
                self._graph,
                (self._inputs(feeds),),
                lambda node: execution.tensors_of(node, floats),
                keep,
            )
        return found


def open_checkpoint(text: str, path: Path) -> Side:
    """The float model of a checkpoint."""
    checkpoint, quantizer = open_quantizer(path, None)
    return FloatSide(text, quantizer, path, checkpoint.preprocessing)


def open_folder(text: str, folder: Path) -> Side:
    """The quantized model of a build folder, or of the ``quant_model`` in it.

    Raises:
        UsageError: there is no calibration.
        MissingError: its checkpoint cannot be told.
        MismatchError: it is of another checkpoint.
    """
    from ..quantize.results import QUANT_INFO

    if (folder / "quant_model").is_dir():
        folder = folder / "quant_model"
    if not (folder / QUANT_INFO).is_file():
        raise UsageError(
            f"{folder} holds no calibration", f"no {QUANT_INFO} in it", f"wanted: {FORMS}"
        )
    float_model = folder.parent / "float_model"
    found = sorted(p for p in float_model.glob("*") if p.suffix.lower() in CHECKPOINTS)
    if len(found) != 1:
        raise MissingError(
            f"The checkpoint of the calibration in {folder} cannot be told",
            f"{float_model} holds {[p.name for p in found]}",
            "give the *_int.xmodel instead, which needs none",
        )
    checkpoint, quantizer = open_quantizer(found[0], folder)
    wanted = _calibrated(folder)
    if wanted not in ("", checkpoint.sha256):
        raise MismatchError(
            f"The calibration in {folder} is of another model than {found[0]}",
            f"SHA-256 {checkpoint.sha256[:12]} here, {wanted[:12]} calibrated",
            "deepfake-fpga quant --mode calib",
        )
    return QuantizedSide(text, quantizer, folder, checkpoint.preprocessing)


def _calibrated(folder: Path) -> str:
    """SHA-256 of the checkpoint that was calibrated; empty where nothing says so."""
    manifest = read_manifest(folder / MANIFEST) or {}
    model = manifest.get("model")
    return str(model.get("sha256", "")) if isinstance(model, dict) else ""


def open_quantizer(path: Path, calibration: Optional[Path]) -> Tuple[Any, Any]:
    """The checkpoint and its quantizer, with the options of the calibration where there is one."""
    import torch

    from ..quantize import results
    from ..quantize.checkpoint import load_checkpoint
    from ..quantize.quantizer import QuantizeOptions, Quantizer

    options = QuantizeOptions()
    if calibration is not None:
        info = results.load(calibration)
        manifest = read_manifest(calibration / MANIFEST) or {}
        made = manifest.get("options")
        named = made.get("release") if isinstance(made, dict) else None
        options = QuantizeOptions(
            bias_correction=info.corrections is not None,
            release=str(named or info.release.name),
        )
    checkpoint = load_checkpoint(path)
    size = (checkpoint.preprocessing.height, checkpoint.preprocessing.width)
    example = torch.zeros(1, checkpoint.model.n_channels, *size)
    return checkpoint, Quantizer(checkpoint.model, example, options)


def _nhwc(array: np.ndarray) -> np.ndarray:
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array
