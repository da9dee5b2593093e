"""The DPU targets of the VCK5000: names, fingerprints, engines and operator limits, as data.

The limits are those of the vendor's target descriptions for releases 2.5 and 3.x (product guide
PG403 and user guide UG1414); the ES1 row is the narrower table of release 1.4.1.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, List, Optional, Tuple, Union

from ..errors import FormatError, MissingError, UsageError

CHANNEL_PARALLEL = 64
"""Input channels one engine takes at once."""

OUTPUT_PARALLEL = 128
"""Output channels one engine makes at once."""

PIXEL_PARALLEL = 8
"""Neighbouring pixels of a row one engine makes at once."""

DEFAULT_TARGET = "DPUCVDX8H_ISA1_F2W2_8PE"


@dataclass(frozen=True)
class Target:
    """One build of the DPU for the VCK5000.

    Attributes:
        dpu_name: the name in compiled models and ``arch.json``.
        folder: the vendor's folder of ``arch.json`` (``DPUCVDX8H/<folder>``).
        variant: the argument of the vendor's set-up script, without its prefix.
        fingerprint: ``type << 56 | isa << 48 | feature code``.
        engines: processing engines, which is the batch of a runner.
        bank_depth: weight bank depth; a convolution needs ``kw * kh * ceil(in / 64)`` of it.
        conv_kernel: smallest and largest kernel side.
        conv_stride: smallest and largest stride.
        conv_nonlinear: activations a convolution can carry, besides none.
        depthwise_kernel: largest depthwise kernel side; 0 means no depthwise engine.
        depthwise_stride: largest depthwise stride.
        pool_kernels: pooling kernel sides.
        pool_square: whether a pooling kernel must be as wide as high.
        pool_stride: largest pooling stride.
        eltwise_types: element-wise operations.
        eltwise_nonlinear: activations an addition can carry, besides none.
        released: the vendor's releases with this build.
    """

    dpu_name: str
    folder: str
    variant: str
    fingerprint: int
    engines: int
    bank_depth: int
    pool_kernels: Tuple[int, ...]
    pool_square: bool
    pool_stride: int
    depthwise_kernel: int = 0
    depthwise_stride: int = 0
    conv_kernel: Tuple[int, int] = (1, 16)
    conv_stride: Tuple[int, int] = (1, 4)
    conv_nonlinear: Tuple[str, ...] = ("RELU", "RELU6", "LEAKYRELU", "HSIGMOID", "HSWISH")
    eltwise_types: Tuple[str, ...] = ("ADD",)
    eltwise_nonlinear: Tuple[str, ...] = ("RELU",)
    released: Tuple[str, ...] = ("2.5", "3.0")

    @property
    def depthwise_nonlinear(self) -> Tuple[str, ...]:
        """Activations a depthwise convolution can carry, besides none."""
        return ("RELU", "RELU6")

    @property
    def feature_code(self) -> int:
        """The lower 48 bits of the fingerprint."""
        return self.fingerprint & (1 << 48) - 1


def _sides(last: int) -> Tuple[int, ...]:
    return tuple(range(1, last + 1))


TARGETS: Tuple[Target, ...] = (
    Target(
        "DPUCVDX8H_ISA1_F2W2_8PE",
        "VCK50008PE",
        "8pe_normal",
        0x501000000140FEE,
        engines=8,
        bank_depth=256,
        pool_kernels=(1, 2, 3, 7),
        pool_square=True,
        pool_stride=8,
        released=("2.0", "2.5", "3.0"),
    ),
    Target(
        "DPUCVDX8H_ISA1_F2W4_6PE_aieDWC",
        "VCK50006PEDWC",
        "6pe_dwc",
        0x501000000160C2F,
        engines=6,
        bank_depth=512,
        pool_kernels=_sides(8),
        pool_square=True,
        pool_stride=8,
        depthwise_kernel=8,
        depthwise_stride=4,
        released=("2.0", "2.5", "3.0"),
    ),
    Target(
        "DPUCVDX8H_ISA1_F2W4_6PE_aieMISC",
        "VCK50006PEMISC",
        "6pe_misc",
        0x5010000001E082E,
        engines=6,
        bank_depth=512,
        pool_kernels=_sides(128),
        pool_square=False,
        pool_stride=128,
        eltwise_types=("ADD", "MUL"),
        eltwise_nonlinear=("RELU", "HSIGMOID"),
    ),
    Target(
        "DPUCVDX8H_ISA1_F2W4_4PE",
        "VCK50004PE",
        "4pe_miscdwc",
        0x5010000001E082F,
        engines=4,
        bank_depth=512,
        pool_kernels=_sides(128),
        pool_square=False,
        pool_stride=128,
        depthwise_kernel=8,
        depthwise_stride=4,
        eltwise_types=("ADD", "MUL"),
        eltwise_nonlinear=("RELU", "HSIGMOID"),
    ),
    Target(
        "DPUCVDX8H_ISA1_F2W2",
        "VCK5000",
        "8pe",
        0x501000000000FEE,
        engines=8,
        bank_depth=256,
        pool_kernels=(1, 2, 3, 7),
        pool_square=True,
        pool_stride=8,
        conv_nonlinear=("RELU", "LEAKYRELU"),
        released=("1.4.1",),
    ),
)
"""The four builds of releases 2.5 and 3.0, and the one for ES1 silicon of release 1.4.1."""


@dataclass(frozen=True)
class Resolved:
    """A target and how it was found.

    Attributes:
        note: something the user should know (``arch.json`` had two keys), or empty.
        arch: the ``arch.json`` that named it; ``None`` where a name did.
    """

    target: Target
    note: str = ""
    arch: Optional[Path] = None


def target_by_name(text: str) -> Optional[Target]:
    """The target with this ``dpu_name``, vendor folder, variant or hexadecimal fingerprint.

    Case does not matter; the variant may carry its ``DPUCVDX8H_`` prefix, the fingerprint its
    ``0x``. ``None`` if no target has that name.
    """
    wanted = text.strip().strip("/").lower()
    for prefix in ("dpucvdx8h/", "dpucvdx8h_"):
        if wanted.startswith(prefix) and not wanted.startswith("dpucvdx8h_isa"):
            wanted = wanted[len(prefix) :]
    for target in TARGETS:
        if wanted in (target.dpu_name.lower(), target.folder.lower(), target.variant.lower()):
            return target
    code = _fingerprint(wanted)
    for target in TARGETS:
        if code == target.fingerprint:
            return target
    return None


def resolve_target(text: Union[str, Path]) -> Resolved:
    """The target a user named, by any of its names or by an ``arch.json``.

    Args:
        text: ``dpu_name``, vendor folder, variant, fingerprint, the path of an ``arch.json`` of
            either form, or the path of a folder holding one.

    Raises:
        MissingError: it looks like a path and there is nothing there.
        UsageError: no target has that name or fingerprint.
        FormatError: the file is no ``arch.json``.
    """
    path = Path(text)
    found = target_by_name(str(text))
    if found is not None:
        return Resolved(found)
    if path.is_dir():
        path = path / "arch.json"
    if path.is_file():
        return _from_arch(path)
    if path.suffix or path.parent != Path("."):
        raise MissingError(
            f"There is no file {path}",
            "an arch.json or the name of a target was expected",
            f"deepfake-fpga compile -a {DEFAULT_TARGET}",
        )
    raise UsageError(f"There is no DPU target {str(text)!r}", known_targets(), _suggestion())


def known_targets() -> str:
    """All targets with their other names, on one line."""
    return "known are " + ", ".join(f"{t.dpu_name} ({t.folder}, {t.variant})" for t in TARGETS)


def _from_arch(path: Path) -> Resolved:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, ValueError) as error:
        # The vendor's compiler calls this "Unable to open file".
        raise FormatError(
            f"{path} is no arch.json: it is not valid JSON",
            f"{type(error).__name__}: {error}",
            _suggestion(),
        ) from None
    if not isinstance(record, dict):
        raise FormatError(f"{path} is no arch.json: it holds no object", next_step=_suggestion())
    if "target" not in record and "fingerprint" not in record:
        raise FormatError(
            f"{path} is {_other_file(record)}, not an arch.json",
            f"its keys are {', '.join(sorted(map(str, record))[:6]) or 'none'};"
            " an arch.json has 'target' or 'fingerprint'",
            _suggestion(),
        )
    key = "target" if "target" in record else "fingerprint"
    value = record[key]
    found = target_by_name(str(value)) if isinstance(value, str) else None
    if found is None:
        raise UsageError(
            f"{path} names a {key} that is no VCK5000 target: {value!r}",
            known_targets(),
            _suggestion(),
        )
    note = ""
    if len({"target", "fingerprint"} & set(record)) == 2:
        note = f"{path} has both keys: 'target' ({value}) is used, 'fingerprint' is ignored"
        other = record["fingerprint"]
        if not isinstance(other, str) or target_by_name(other) is not found:
            note += f", though it stands for another target ({other})"
    return Resolved(found, note, path)


def _other_file(record: Any) -> str:
    if {"param", "output", "input"} <= set(record):
        return "a quant_info.json (the quantizer's result)"
    if {"filename", "kernel"} & set(record):
        return "a meta.json (the compiler's result)"
    if all(isinstance(v, dict) and "label" in v for v in record.values()) and record:
        return "a metadata.json (labels of a data set)"
    return "another JSON file"


def _fingerprint(text: str) -> Optional[int]:
    digits: List[str] = re.findall(r"^(?:0x)?([0-9a-f]{15,16})$", text)
    return int(digits[0], 16) if digits else None


def _suggestion() -> str:
    return f"deepfake-fpga compile -a {DEFAULT_TARGET}"
