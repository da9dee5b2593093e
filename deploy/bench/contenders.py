"""What can be measured: each device, how it is opened on a subject, and why it is left out."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from ...errors import MissingError, ToolkitError, UsageError
from ...inference.artifact import Artifact
from ...inference.devices import choose_device, sim_available
from ...inference.session import Session

LAYOUTS = ("channels-last", "contiguous")
"""How the float model's feature maps lie in memory; the faster of the two counts."""

DEVICES = ("float", "quantized", "sim", "reference", "null", "card")
"""What can be named, in the order of the table."""

EXACT = ("card", "sim", "reference", "quantized")
"""Those that compute the same codes; the first one present is what others are compared with."""


@dataclass(frozen=True)
class Subject:
    """The model that is measured, as its files.

    Attributes:
        model: the compiled model.
        checkpoint: the float weights it was made from, if there are any.
        calibration: folder of the calibration, for the quantized model.
        width: of a model made on the spot, whose float weights are random too; 0 for a real one.
    """

    model: Path
    checkpoint: Optional[Path] = None
    calibration: Optional[Path] = None
    width: int = 0

    def to_json(self) -> Dict[str, Any]:
        """A JSON object."""
        return {
            key: str(value) if isinstance(value, Path) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Subject:
        """What ``to_json`` wrote."""
        paths = {
            key: None if record[key] is None else Path(record[key])
            for key in ("checkpoint", "calibration")
        }
        return cls(Path(record["model"]), width=int(record["width"]), **paths)


@dataclass(frozen=True)
class Contender:
    """One thing that is measured.

    Attributes:
        name: of the device.
        layout: of the float model's memory; empty for the others.
        makes: the network in memory for ``float`` and ``quantized``, made once.
    """

    name: str
    layout: str = ""
    makes: Optional[Callable[[], Any]] = None

    @property
    def key(self) -> str:
        """Name and layout."""
        return f"{self.name} {self.layout}".strip()

    def open(
        self, artifact: Artifact, batch: Optional[int] = None, threads: Optional[int] = None
    ) -> Session:
        """A session on the device.

        Args:
            artifact: the compiled model.
            batch: pictures per submission; the model's own if not given.
            threads: of the device.

        Raises:
            ToolkitError: the device cannot be opened.
        """
        if batch is not None:
            artifact = replace(artifact, batch=batch)
        if self.makes is None:
            return Session(artifact, self.name, threads=threads)
        return Session(artifact, "float", threads=threads, network=self.makes())


class Network:
    """A network as the float device wants it: it says how many classes its mask has."""

    def __init__(self, call: Callable[[Any], Any], classes: int) -> None:
        self._call, self.n_classes = call, classes

    def __call__(self, pictures: Any) -> Any:
        """``(logits, real)``."""
        return self._call(pictures)


def contender(name: str, subject: Subject, size: Tuple[int, int], layout: str = "") -> Contender:
    """One contender by name.

    Args:
        name: of ``DEVICES``.
        subject: the model.
        size: height and width of its input.
        layout: for ``float``.
    """
    if name == "float":
        return Contender(name, layout, _once(lambda: _float_network(subject, layout)))
    if name == "quantized":
        return Contender(name, "", _once(lambda: _quantized_network(subject, size)))
    return Contender(name)


def contenders(
    wanted: Sequence[str],
    subject: Subject,
    artifact: Artifact,
    quantized: bool = False,
) -> Tuple[List[Contender], Dict[str, str]]:
    """Those to be measured, and by name why others are not.

    Args:
        wanted: names of ``DEVICES``; empty for all that are usable.
        subject: the model's files.
        artifact: the compiled model.
        quantized: whether the quantized model is measured where nothing is named.

    Raises:
        UsageError: a name is unknown.
        ToolkitError: a device that was named cannot be used.
    """
    unknown = [name for name in wanted if name not in DEVICES]
    if unknown:
        raise UsageError(f"bench knows no device {unknown[0]!r}", f"known are {', '.join(DEVICES)}")
    size = (artifact.preprocessing.height, artifact.preprocessing.width)
    chosen: List[Contender] = []
    left_out: Dict[str, str] = {}
    for name in DEVICES:
        if wanted and name not in wanted:
            continue
        if name == "quantized" and not wanted and not quantized:
            left_out[name] = "takes several times the float model; --quantized measures it"
            continue
        try:
            _check(name, subject, artifact)
        except ToolkitError as error:
            if wanted or (name == "quantized" and quantized):
                raise
            left_out[name] = str(error)
            continue
        for layout in LAYOUTS if name == "float" else ("",):
            chosen.append(contender(name, subject, size, layout))
    return chosen, left_out


def _check(name: str, subject: Subject, artifact: Artifact) -> None:
    """Raises what keeps a device from being measured."""
    if name in ("float", "quantized"):
        if importlib.util.find_spec("torch") is None:
            raise MissingError(
                f"The {name} model needs PyTorch", "torch is not installed", "pip install torch"
            )
        if not subject.width and subject.checkpoint is None:
            raise MissingError(
                f"The {name} model needs the checkpoint the model was made from",
                str(subject.model),
                "--checkpoint FILE, or --width N for a model made on the spot",
            )
    if name == "quantized" and not subject.width and subject.calibration is None:
        raise MissingError(
            "The quantized model needs its calibration",
            "no build folder with one",
            "deepfake-fpga quant --mode calib, then --build-dir FOLDER",
        )
    if name == "sim":
        available, lacking = sim_available()
        if not available:
            raise MissingError("sim cannot compute", lacking)
    if name == "card":
        found, reason = choose_device("auto", artifact.graph, artifact.path)
        if found != "card":
            raise MissingError("The card cannot be used", reason, "deepfake-fpga doctor")


def _once(make: Callable[[], Any]) -> Callable[[], Any]:
    kept: List[Any] = []

    def give() -> Any:
        if not kept:
            kept.append(make())
        return kept[0]

    return give


def _float_model(subject: Subject) -> Any:
    if subject.width:
        import torch

        from ...quantize.model import UYNet

        torch.manual_seed(0)
        return UYNet(width=subject.width).eval()
    from ...quantize.checkpoint import load_checkpoint

    assert subject.checkpoint is not None
    return load_checkpoint(subject.checkpoint).model.eval()


def _float_network(subject: Subject, layout: str) -> Any:
    import torch

    model = _float_model(subject)
    if layout == "channels-last":
        # The first convolution then makes channels-last maps of whatever it is given.
        model = model.to(memory_format=torch.channels_last)
    return model


def _quantized_network(subject: Subject, size: Tuple[int, int]) -> Any:
    """Our quantized model, which stands for the vendor's in test mode."""
    import torch

    if subject.width:
        from ...quantize.quantizer import Quantizer

        model = _float_model(subject)
        pictures = torch.rand(8, 3, *size, generator=torch.Generator().manual_seed(0))
        quantizer = Quantizer(model, pictures[:1])
        return Network(quantizer.quantized(quantizer.calibrate([pictures])), int(model.n_classes))
    from ...inference.torch_sides import open_quantizer

    assert subject.checkpoint is not None
    checkpoint, quantizer = open_quantizer(subject.checkpoint, subject.calibration)
    return Network(quantizer.quantized(subject.calibration), int(checkpoint.model.n_classes))
