"""Who quantizes: the vendor's quantizer or ours, behind one small interface.

Both leave the same files (``quant_info.json``, ``bias_corr.pth``, ``UYNet_int.xmodel``), so a
stage done with one can be followed by a stage done with the other.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Iterable, Mapping, Optional, Sequence, Tuple

import numpy as np

from ..board.vendor import VendorTool, find_package
from ..errors import MismatchError, UnsupportedError, UsageError
from . import releases
from .releases import DEFAULT
from .results import same_form

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .layer_noise import Interior
    from .quantizer import Calibration, Quantizer
    from .vitis import VitisBackend

BACKENDS = ("auto", "vitis", "sim")
CALIBRATION_FILES = ("quant_info.json", "bias_corr.pth")
PARAM = "param.pth"
"""What a fast finetune leaves beside ``CALIBRATION_FILES``."""

XMODEL = "UYNet_int.xmodel"
CALIBRATION_LOG, TEST_LOG = "quantize.log", "quantize_test.log"
"""What the vendor's quantizer printed, in the folder of its results."""


@dataclass(frozen=True)
class CalibrationSummary:
    """What a calibration found, for people and manifests.

    Attributes:
        images: pictures seen.
        warnings: what a person should know.
        adjustments: fix points changed to suit the DPU's shifters, in words.
        saturation: tensor name to the share of its values that were clipped; only those over 0.
        peaks: tensor name to the largest magnitude seen, in codes; 0 where all was zero.
        sizes: tensor name to its values per picture.
    """

    images: int
    warnings: Sequence[str] = ()
    adjustments: Sequence[str] = ()
    saturation: Mapping[str, float] = field(default_factory=dict)
    peaks: Mapping[str, float] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Finetune:
    """A fast finetune before the calibration.

    Attributes:
        batches: float pictures ``[N, 3, H, W]``.
        state: file that keeps finished layers of a run that is stopped.
        on_layer: called with the number of layers done and of all.
    """

    batches: Iterable[Tensor]
    state: Path
    on_layer: Callable[[int, int], None]


class Quantized(abc.ABC):
    """A network with the fix points of a calibration."""

    @abc.abstractmethod
    def __call__(self, pictures: Tensor) -> Tuple[Tensor, Tensor]:
        """Runs on float pictures; returns what the float network returns, on the grid."""

    @abc.abstractmethod
    def export_xmodel(self, path: Path) -> None:
        """Writes the quantized model in the vendor's format."""

    def interior(self) -> Optional[Interior]:
        """Its tensors and weights, for a report; ``None`` where they cannot be looked at."""
        return None


class QuantizeBackend(abc.ABC):
    """One implementation of the stage.

    Attributes:
        name: ``sim`` or ``vitis``.
        release: of the vendor's tool, whose rules and files are followed.
    """

    name: str
    release: str

    @abc.abstractmethod
    def calibrate(
        self,
        model: nn.Module,
        example: Tensor,
        batches: Iterable[Tensor],
        folder: Path,
        on_images: Callable[[int], None],
        finetune: Optional[Finetune] = None,
    ) -> CalibrationSummary:
        """Calibrates and leaves ``CALIBRATION_FILES`` in ``folder``.

        Args:
            model: float network in eval mode; left as it was.
            example: a float batch; only its shape matters.
            batches: float pictures ``[N, 3, H, W]``.
            folder: exists and is empty.
            on_images: called with the number of pictures of each batch done.
            finetune: tune the parameters first; leaves ``PARAM`` too.

        Raises:
            DataError: a batch has values that are not numbers.
            UnsupportedError: the network has an operator that cannot be quantized.
        """

    @abc.abstractmethod
    def load(self, model: nn.Module, example: Tensor, folder: Path) -> Quantized:
        """The network with the calibration in ``folder``.

        Raises:
            OrderError: the calibration is not there.
            MismatchError: it is another network's.
        """


def select_backend(
    wanted: str, release: Optional[str] = None, alike: bool = False
) -> Tuple[QuantizeBackend, str]:
    """The backend for ``--backend`` and why it was taken, one phrase.

    The vendor's quantizer follows the rules of its own release only.

    Args:
        wanted: ``auto``, ``vitis`` or ``sim``.
        release: the vendor's release to follow; ``None`` takes what the backend has.
        alike: a release whose files have the same form will do.

    Raises:
        UnsupportedError: ``vitis`` is asked for and is not here or cannot be used.
        MismatchError: ``vitis`` is asked for and is of another release.
        UsageError: the name is not one of ``BACKENDS``.
    """
    if wanted not in BACKENDS:
        raise UsageError(f"There is no backend {wanted!r}", "", f"use one of {', '.join(BACKENDS)}")
    ours = SimBackend(release or DEFAULT.name)
    if wanted == "sim":
        return ours, "asked for"
    vendor = find_package("pytorch_nndct")
    if not vendor.usable:
        if wanted == "auto":
            return ours, f"the vendor's pytorch_nndct is not here ({vendor.evidence})"
        raise UnsupportedError(
            "The vendor's quantizer (pytorch_nndct) is not here",
            f"pytorch_nndct: {vendor.state.value}, {vendor.evidence}",
            "run this inside the Vitis AI container with its conda environment active, or use "
            "--backend sim, which follows the same rules and writes the same files",
        )
    try:
        theirs = _vitis(vendor, release, alike)
    except (UnsupportedError, MismatchError) as error:
        if wanted == "vitis":
            raise
        return ours, f"{error.cause} ({error.evidence})"
    return theirs, f"pytorch_nndct is there ({vendor.evidence}), {theirs.evidence}"


def _vitis(vendor: VendorTool, wanted: Optional[str], alike: bool) -> VitisBackend:
    try:
        from .vitis import VitisBackend
    except ImportError as error:  # torch, which it comes with
        raise UnsupportedError("The vendor's quantizer cannot be used", str(error)) from error
    found = VitisBackend(vendor)
    known, here = (releases.release(name) for name in (wanted or found.release, found.release))
    if known != here and not (alike and same_form(known, here)):
        raise MismatchError(
            f"The vendor's quantizer here is of release {here}, wanted is {known}",
            f"{vendor.path}: {found.evidence}",
            f"leave --release out, or: --backend sim --release {known}",
        )
    return found


def summary_of(quantizer: Quantizer, found: Calibration) -> CalibrationSummary:
    """What is told of a calibration by our quantizer."""
    clipped = {name: share for name, share in found.saturation.items() if share > 0}
    sizes = {name: int(np.prod(node.shape[1:])) for name, node in quantizer.graph.by_name().items()}
    return CalibrationSummary(
        found.images, found.warnings, found.adjustments, clipped, found.peaks, sizes
    )


class SimBackend(QuantizeBackend):
    """Our own quantizer, by the rules of one of the vendor's releases."""

    name = "sim"

    def __init__(self, release: str = DEFAULT.name) -> None:
        self.release = release

    def _quantizer(self, model: nn.Module, example: Tensor) -> Quantizer:
        from .quantizer import QuantizeOptions, Quantizer

        return Quantizer(model, example, QuantizeOptions(release=self.release))

    def calibrate(
        self,
        model: nn.Module,
        example: Tensor,
        batches: Iterable[Tensor],
        folder: Path,
        on_images: Callable[[int], None],
        finetune: Optional[Finetune] = None,
    ) -> CalibrationSummary:
        """See ``QuantizeBackend.calibrate``."""
        quantizer = self._quantizer(model, example)
        tuned = None
        if finetune is not None:
            tuned = quantizer.finetune(finetune.batches, finetune.on_layer, finetune.state)
        found = quantizer.calibrate(
            batches, on_batch=lambda number, images: on_images(images), tuned=tuned
        )
        found.save(folder)
        return summary_of(quantizer, found)

    def load(self, model: nn.Module, example: Tensor, folder: Path) -> Quantized:
        """See ``QuantizeBackend.load``."""
        from .quantizer import Quantizer

        quantizer = self._quantizer(model, example)
        plain = replace(quantizer.options, equalization=False)
        return _SimQuantized(quantizer, folder, lambda: Quantizer(model, example, plain))


class _SimQuantized(Quantized):
    def __init__(
        self, quantizer: Quantizer, folder: Path, unequalized: Callable[[], Quantizer]
    ) -> None:
        self._model = quantizer.quantized(folder)
        self._quantizer, self._unequalized = quantizer, unequalized

    def __call__(self, pictures: Tensor) -> Tuple[Tensor, Tensor]:
        mask, real = self._model(pictures)
        return mask, real

    def export_xmodel(self, path: Path) -> None:
        self._model.export_xmodel(path)

    def interior(self) -> Interior:
        from .layer_noise import Interior

        floats, before = self._quantizer.graph.params, self._unequalized().graph.params
        return Interior(self._model, floats, before)
