"""Our quantizer's public face: from a float model and data to a calibration and a quantized model.

::

    quantizer = Quantizer(model, example)
    quantizer.calibrate(batches).save(folder)
    quantized = quantizer.quantized(folder)
    logits, real = quantized(images)
    quantized.export_xmodel(folder / "UYNet_int.xmodel")

The rules are those of one of the vendor's releases with its default options, so fix positions,
parameters and outputs are equal to that tool's, not close.

Importing this module imports torch.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from torch import Tensor, nn

from .. import __version__
from ..errors import DataError, MismatchError, UnsupportedError
from . import results, tuned_parameters
from .adjustment import adjust
from .calibration import Calibrator, OnBatch, OnUnusable, Run
from .equalization import EqualizedPair, equalize
from .finetune import Finetuned, OnLayer, finetune, refuse_memory, with_params
from .finetune_journal import Journal, digest
from .fixpoint import BITS
from .folding import fold_batch_norms
from .graph import HARDSIGMOID, HARDSWISH, QuantizerGraph, remove_dropout
from .groups import entries
from .options import QuantizeOptions
from .quantized import QuantizedModel, check_batch
from .recording import tensors_in
from .results import QuantInfo
from .trace import trace

__all__ = [
    "ENOUGH_IMAGES",
    "FEWEST_IMAGES",
    "Batch",
    "Calibration",
    "QuantizeOptions",
    "Quantizer",
]

FEWEST_IMAGES = 8
"""Below this a calibration is refused."""

ENOUGH_IMAGES = 100
"""Below this a calibration carries a warning."""

Batch = Union[Tensor, Sequence[Any], Mapping[str, Any]]
"""A tensor, the arguments of the forward in order (tensors, or tuples, lists and dicts of such), or
one such dict."""


@dataclass(frozen=True)
class Calibration:
    """What a calibration run found.

    Attributes:
        info: what the two result files hold.
        histories: node name to the fix position of every batch; the last word is in ``info``.
        saturation: node name to the share of its values that were clipped during calibration.
        adjustments: fix positions changed afterwards to suit the DPU's shifters, in words.
        peaks: node name to the largest magnitude seen, in codes of its final position: 0 for a
            tensor that was zero throughout, over 127 where values were clipped.
        warnings: what the caller should tell the user.
        images: images seen.
        tuned: after a fast finetune, what ``param.pth`` holds.
    """

    info: QuantInfo
    histories: Dict[str, List[int]]
    saturation: Dict[str, float]
    adjustments: List[str]
    peaks: Dict[str, float]
    warnings: List[str]
    images: int
    tuned: Optional[Dict[str, np.ndarray]] = None

    def save(self, folder: Union[str, Path]) -> List[Path]:
        """Writes ``quant_info.json``, ``bias_corr.pth`` and what was tuned; returns the paths."""
        folder = Path(folder)
        if self.tuned is None:
            # Tuned parameters of an earlier run would not belong to the new positions.
            with contextlib.suppress(FileNotFoundError):
                (folder / tuned_parameters.PARAM).unlink()
            return self.info.save(folder)
        tuned = tuned_parameters.save(folder, self.tuned)
        return [*self.info.save(folder), tuned]


class Quantizer:
    """Quantizes one float model.

    The model is traced, its batch norms are folded and its weights equalized on construction; it
    is itself left as it was. Calibration and test must start from the same float weights.

    Args:
        model: any ``nn.Module`` built from the operators in ``operators``; float32, on the CPU.
        example: one input (a tensor, or a tuple for several), batch first; only shapes matter.
        options: how to quantize.

    Attributes:
        graph: the folded and equalized graph.
        pairs: the equalized pairs in order.

    Raises:
        UnsupportedError: the model cannot be quantized; the message names the operator or line.
        UsageError: the example does not fit the model.
    """

    def __init__(
        self, model: nn.Module, example: Batch, options: Optional[QuantizeOptions] = None
    ) -> None:
        self.options = options or QuantizeOptions()
        self.graph = trace(
            model, _arguments(example), self.options.equalization, self.options.rules()
        )
        self.graph.bits = self.options.bits
        gates = [node for node in self.graph.nodes if node.op in (HARDSIGMOID, HARDSWISH)]
        if gates and self.options.bits != BITS:
            raise UnsupportedError(
                f"Hard sigmoid and hard swish have rules for {BITS} bits only", gates[0].scope
            )
        self._fingerprint = _fingerprint(self.graph)
        fold_batch_norms(self.graph)
        self.pairs: List[EqualizedPair] = equalize(self.graph) if self.options.equalization else []
        remove_dropout(self.graph)
        self.entries = entries(self.graph)

    def weights_fingerprint(self) -> str:
        """SHA-256 over the float parameters the graph uses, as the model gave them.

        The result files do not hold the weights, so whoever keeps a calibration should keep this
        with it: quantizing other weights with it gives a wrong network without any error.
        """
        return self._fingerprint

    def finetune(
        self,
        batches: Iterable[Batch],
        on_layer: Optional[OnLayer] = None,
        state: Optional[Path] = None,
        found: Optional[Run] = None,
    ) -> Finetuned:
        """Tunes the parameters layer by layer towards the float model's results.

        It is to be followed by ``calibrate``, which keeps the fix positions found here. Everything
        is held in memory, ``finetune.bytes_per_image`` for each image.

        Args:
            batches: as for ``calibrate``.
            on_layer: called with the number of layers done and of all.
            state: file (``.npz``) in which finished layers are kept. A call with the same data and
                parameters that finds it goes on from there; remove it after saving the result.
            found: what a ``calibrator`` that does not correct found on the same batches, to spare
                it here.

        Raises:
            DataError: no images, more than memory allows, or an input that cannot be used.
            UnsupportedError: a layer is used twice, or the release tunes in another way.
            FormatError: ``state`` is damaged.
        """
        self.check_finetune()
        held = list(self._checked(batches))
        if not held:
            raise DataError("Fast finetune needs images", "none were given")
        refuse_memory(self.graph, sum(int(batch[0].shape[0]) for batch in held))
        journal = None
        if state is not None:
            rules = f"{self._fingerprint} {self.options}"
            journal = Journal(state, digest(rules, [[t.numpy() for t in b] for b in held]))
        cap = self.options.max_fix_position
        by_range = self.options.by_range
        return finetune(self.graph, self.entries, held, cap, on_layer, journal, found, by_range)

    def check_finetune(self) -> None:
        """Refuses a release whose fast finetune is not known.

        Raises:
            UnsupportedError: says which are.
        """
        if not self.graph.release.layerwise_finetune:
            raise UnsupportedError(
                f"Fast finetune as release {self.graph.release} does it is not known here",
                "its only variant tunes over the whole model",
                "calibrate without it, or by release 2.0 or newer",
            )

    def calibrate(
        self,
        batches: Iterable[Batch],
        on_batch: Optional[OnBatch] = None,
        tuned: Optional[Finetuned] = None,
    ) -> Calibration:
        """Finds all fix positions from data.

        Args:
            batches: float32 inputs as the model takes them, in order; every batch counts the same
                whatever its size. They are not changed.
            on_batch: called after each batch with its number (from 0) and its images.
            tuned: what ``finetune`` gave. Its fix positions are kept and only biases corrected.

        Raises:
            DataError: fewer than 8 images, or an input that cannot be used, with batch and image.
        """
        calibrator = self.calibrator(tuned)
        for number, batch in enumerate(self._checked(batches)):
            calibrator.forward(batch)
            if on_batch is not None:
                on_batch(number, int(batch[0].shape[0]))
        if calibrator.images < FEWEST_IMAGES:
            raise DataError(
                f"Calibration needs at least {FEWEST_IMAGES} images, {ENOUGH_IMAGES} to 1000 are "
                "usual",
                f"{calibrator.images} images",
                "give more images with --data or a larger --subset",
            )
        return self.calibration(calibrator.result(), tuned)

    def calibrator(
        self,
        tuned: Optional[Finetuned] = None,
        correct: bool = True,
        on_unusable: Optional[OnUnusable] = None,
    ) -> Calibrator:
        """What ``calibrate`` gives its batches to, for callers that have one batch at a time.

        It checks nothing; ``calibration`` makes the result of what it found.

        Args:
            tuned: see ``calibrate``.
            correct: move biases, if the options say so; a calibration for ``finetune`` does not.
            on_unusable: see ``Calibrator``.
        """
        return Calibrator(
            self.graph if tuned is None else with_params(self.graph, tuned.params),
            self.entries,
            self.options.rate() if correct else None,
            self.options.max_fix_position,
            None if tuned is None else tuned.found,
            on_unusable,
            self.options.by_range,
        )

    def calibration(self, found: Run, tuned: Optional[Finetuned] = None) -> Calibration:
        """The result of a calibration run: its positions made to suit the DPU, and the files."""
        calibration = self._calibration(found)
        if tuned is None:
            return calibration
        named = tuned_parameters.names(self.graph)
        return replace(
            calibration,
            info=replace(calibration.info, fast_finetuned=True),
            tuned={name: tuned.params[key] for name, key in named.items()},
        )

    def load(self, folder: Union[str, Path]) -> QuantInfo:
        """Reads a calibration of this model, ours or the vendor's.

        Raises:
            OrderError: there is none in ``folder``.
            FormatError: a file is damaged.
            MismatchError: it belongs to another model, or to other options.
        """
        return self._fitted(results.load(Path(folder), self.graph.bits), str(folder))

    def _fitted(self, info: QuantInfo, source: str) -> QuantInfo:
        if not results.same_form(info.release, self.graph.release):
            raise MismatchError(
                f"The calibration in {source} has the form of release {info.release}, the options "
                f"say {self.graph.release}",
                f"form of {results.QUANT_INFO}",
                f"say --release {info.release} (QuantizeOptions(release={info.release.name!r})), "
                "or calibrate again",
            )
        info = results.fitted(info, self.graph, self.entries, source)
        if self.options.bias_correction != (info.corrections is not None):
            made = "with" if info.corrections is not None else "without"
            raise MismatchError(
                f"The calibration in {source} was made {made} bias correction, the options say "
                "otherwise",
                f"bias_corrected in {results.QUANT_INFO}",
                "calibrate and test with the same options",
            )
        return info

    def quantized(self, source: Union[str, Path, QuantInfo, Calibration]) -> QuantizedModel:
        """The quantized model of a calibration: a folder, or what ``load`` or ``calibrate`` gave.

        Tuned parameters are used where the calibration was made with fast finetune.

        Raises:
            OrderError, FormatError, MismatchError: see ``load``; also where only the ``QuantInfo``
                of a fast finetune is given, which does not hold the parameters.
        """
        tuned: Optional[Dict[str, np.ndarray]] = None
        if isinstance(source, Calibration):
            info = source.info
            if source.tuned is not None:
                named = tuned_parameters.names(self.graph)
                tuned = {key: source.tuned[name] for name, key in named.items()}
        elif isinstance(source, QuantInfo):
            info = self._fitted(source, "the result given")
        else:
            info = self.load(source)
            if info.fast_finetuned:
                tuned = tuned_parameters.load(Path(source), self.graph)
        if info.fast_finetuned and tuned is None:
            raise MismatchError(
                "The calibration was made with fast finetune, and its parameters are not given",
                "fast_finetuned in a QuantInfo",
                "give the folder, or the Calibration",
            )
        graph = self.graph if tuned is None else with_params(self.graph, tuned)
        return QuantizedModel(graph, self.entries, info)

    def _checked(self, batches: Iterable[Batch]) -> Iterator[Tuple[Tensor, ...]]:
        for number, batch in enumerate(batches):
            tensors = tuple(tensors_in(_arguments(batch)))
            check_batch(self.graph, tensors, f"calibration batch {number}")
            yield tensors

    def _calibration(self, found: Run) -> Calibration:
        name, file_name = self.graph.node_name, self.graph.file_name
        params, outputs = copy.copy(found.params), found.outputs
        adjustments: List[str] = []
        complete = all(node in outputs for node in self.entries.filled)
        if complete or not self.graph.release.null_stops_adjustment:
            adjustments = adjust(self.graph, self.entries, params, outputs, self.options.aligned)
        corrections = None
        if self.options.bias_correction:
            corrections = {
                file_name(node): None if value is None else [float(v) for v in value]
                for node, value in found.corrections.items()
            }
        version = f"{self.options.release}.0+deepfake_fpga{__version__}+torch{torch.__version__}"
        info = QuantInfo(
            params,
            {file_name(node): outputs.get(node) for node in self.entries.outputs},
            corrections,
            self.graph.md5() if self.graph.release.digest else None,
            version if self.graph.release.version else "",
            release=self.graph.release,
            bits=self.graph.bits,
        )
        warnings = list(self.graph.notes)
        if found.images < ENOUGH_IMAGES:
            warnings.append(
                f"Only {found.images} images were used for calibration; from {ENOUGH_IMAGES} on "
                "the fix positions are usually stable"
            )
        return Calibration(
            info,
            {name(node): list(history) for node, history in found.histories.items()},
            {name(node): share for node, share in found.saturated.items()},
            adjustments,
            {
                name(node): (max(-low, high) + 0.0) * 2.0 ** outputs[node]
                for node, (low, high) in found.ranges.items()
            },
            warnings,
            found.images,
        )


def _arguments(batch: Batch) -> Tuple[Any, ...]:
    return (batch,) if isinstance(batch, (Tensor, Mapping)) else tuple(batch)


def _fingerprint(graph: QuantizerGraph) -> str:
    digest = hashlib.sha256()
    for key in sorted(graph.params):
        value = graph.params[key]
        digest.update(f"{key}{list(value.shape)}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
