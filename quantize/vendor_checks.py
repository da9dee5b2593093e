"""What is held against the vendor's quantizer before it is called and after.

It exits the process, goes on with another model's values, or writes nothing at all where it should
fail; each of these is refused here in words. Rows of the list of its misuses that cannot happen by
the way ``vitis`` calls it are not here.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any, Iterator, List, Tuple

import torch
from torch import Tensor, nn

from ..compile.lowering import check_quantized
from ..compile.xir.xmodel import read_xmodel
from ..errors import (
    DataError,
    FormatError,
    MismatchError,
    OrderError,
    ToolkitError,
    UnsupportedError,
    UsageError,
    WorkError,
)
from . import results
from .backend import CALIBRATION_FILES, PARAM
from .releases import Release, Unfilled
from .results import BIAS_CORR, QUANT_INFO, QuantInfo

FEWEST_IMAGES = 8
_CALIBRATE = "deepfake-fpga quant --mode calib"
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def check_model(model: object, example: object) -> None:
    """Refuses what the tool would fail on with an exception of its own.

    Raises:
        UsageError: ``model`` is no module, or ``example`` no float batch.
    """
    if not isinstance(model, nn.Module):
        raise UsageError("The model to quantize is no torch.nn.Module", type(model).__name__)
    if not isinstance(example, Tensor) or example.dim() < 2 or not example.is_floating_point():
        seen = type(example).__name__
        if isinstance(example, Tensor):
            seen = f"shape {tuple(example.shape)}, {example.dtype}"
        raise UsageError("The example input is no float batch", seen, "give a tensor [N, C, H, W]")


def check_pictures(batch: object, example: Tensor, what: str) -> Tensor:
    """The batch, if the tool would treat it as meant.

    Another size only makes it warn; values that are not numbers leave tensors without a position.

    Raises:
        DataError: not float32, not the example's shape but for the batch, empty, or not finite.
    """
    if not isinstance(batch, Tensor):
        raise DataError(f"The {what} is no tensor", type(batch).__name__)
    if tuple(batch.shape[1:]) != tuple(example.shape[1:]) or batch.dtype != example.dtype:
        raise DataError(
            f"The {what} does not fit the network's input",
            f"{list(batch.shape)} {batch.dtype}, the network takes "
            f"[N, {', '.join(map(str, example.shape[1:]))}] {example.dtype}",
        )
    if batch.shape[0] < 1:
        raise DataError(f"The {what} is empty")
    finite = torch.isfinite(batch).flatten(1).all(dim=1)
    if not bool(finite.all()):
        images = [number for number, good in enumerate(finite.tolist()) if not good]
        raise DataError(
            f"The {what} has values that are not numbers",
            f"in image {', '.join(map(str, images[:5]))}",
            "look for pictures or a preprocessing that divide by zero",
        )
    return batch


def check_images(count: int) -> None:
    """Refuses too few pictures.

    Raises:
        DataError: fewer than 8; none at all would make the tool write nothing.
    """
    if count < FEWEST_IMAGES:
        raise DataError(
            f"Calibration needs at least {FEWEST_IMAGES} images, 100 to 1000 are usual",
            f"{count} images",
            "give more images with --data or a larger --subset",
        )


def check_calibrated(folder: Path, model: nn.Module, release: Release, tuned: bool) -> QuantInfo:
    """The calibration the tool has left, if it is all there and this model's.

    Raises:
        WorkError: a file is missing; the tool says nothing then.
        DataError: a tensor has no fix position.
        FormatError: a file cannot be read.
        MismatchError: it is another model's, or of another release than the tool said to be.
    """
    wanted = [*CALIBRATION_FILES, *([PARAM] if tuned else [])]
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing:
        raise WorkError(
            "The vendor's quantizer did not write its result",
            f"missing {', '.join(missing)}",
            "see its log",
        )
    try:
        info = results.load(folder)
    except ToolkitError as error:
        if "null" in str(error):
            raise DataError(
                "The vendor's quantizer left a parameter without a fix position", error.evidence
            ) from error
        raise FormatError(
            f"The vendor's quantizer left a calibration that cannot be read: {error.cause}",
            error.evidence,
        ) from error
    unfilled = [name for name, position in info.outputs.items() if position is None]
    if len(unfilled) > _most_unfilled(model, release):
        raise DataError(
            "The vendor's quantizer left tensors without a fix position",
            f"null for {', '.join(unfilled[:3])}" + (" and more" if len(unfilled) > 3 else ""),
            "a part of the network was not reached, or met values that are not numbers",
        )
    if not info.params or not info.outputs:
        raise WorkError("The vendor's quantizer left an empty calibration", QUANT_INFO)
    check_owner(info, model, str(folder / QUANT_INFO))
    if info.corrections is None:
        raise WorkError(
            "The vendor's quantizer did not correct biases", f"bias_corrected in {QUANT_INFO}"
        )
    if info.fast_finetuned != tuned and release.flags:
        raise WorkError(
            "The vendor's quantizer " + ("did not tune" if tuned else "tuned") + " the parameters",
            f"fast_finetuned is {str(info.fast_finetuned).lower()} in {QUANT_INFO}",
        )
    return info


def check_before_test(folder: Path, model: nn.Module, release: Release) -> QuantInfo:
    """The calibration to test with, if the tool would take it and it is this model's.

    Raises:
        OrderError: a file of it is missing.
        FormatError: a file is damaged.
        MismatchError: it is another model's, of another release, or without bias correction.
    """
    info = results.load(folder)
    # 3.0 and 3.5 differ in names only, which nobody has recorded of 3.0: the tool decides there.
    if _form(info.release) != _form(release):
        raise MismatchError(
            f"The calibration in {folder} has the form of release {info.release}, the vendor's "
            f"quantizer here is of {release}",
            f"form of {QUANT_INFO}",
            f"{_CALIBRATE}, or test with --backend sim --release {info.release}",
        )
    if info.corrections is None:
        raise OrderError(
            f"The calibration in {folder} was made without bias correction",
            f"no {BIAS_CORR}, or bias_corrected is false in {QUANT_INFO}",
            _CALIBRATE,
        )
    unfilled = [name for name, position in info.outputs.items() if position is None]
    if len(unfilled) > _most_unfilled(model, release):
        raise FormatError(
            f"The calibration in {folder} has no fix position for {unfilled[0]}",
            "null: the calibration met values that are not finite, or did not run",
            _CALIBRATE,
        )
    check_owner(info, model, str(folder))
    if info.fast_finetuned and not (folder / PARAM).is_file():
        raise OrderError(
            f"The calibration in {folder} was made with fast finetune, but {PARAM} is missing",
            f"no file {folder / PARAM}",
            f"{_CALIBRATE} --fast-finetune",
        )
    return info


def check_owner(info: QuantInfo, model: nn.Module, source: str) -> None:
    """Refuses a calibration of another model, which the tool ends the process for, as in success.

    Raises:
        MismatchError: names or channels differ.
    """
    name, state = type(model).__name__, model.state_dict()
    foreign = [key for key in info.params if not _is_parameter(key, name, state)]
    if foreign:
        raise MismatchError(
            f"The calibration in {source} belongs to another model",
            f"{foreign[0]} is no parameter of this {name}",
            _CALIBRATE,
        )
    if info.corrections is None:
        return
    theirs = Counter(len(values) for values in info.corrections.values() if values is not None)
    ours = Counter(_corrected_channels(info, model))
    if theirs != ours:
        raise MismatchError(
            f"The bias correction in {source} belongs to another model",
            f"channels of its operators are {_counts(theirs)}, of this model's {_counts(ours)}",
            _CALIBRATE,
        )


def check_xmodel(path: Path, model: nn.Module, example: Tensor, info: QuantInfo) -> None:
    """Refuses an exported model that is absent, for several images, or of another calibration.

    Raises:
        WorkError: there is no file; the tool says nothing then.
        FormatError: it is no quantized model for one image.
        MismatchError: it is another model's, or has other fix points than the calibration.
    """
    if not path.is_file():
        raise WorkError(
            "The vendor's quantizer did not write the quantized model",
            f"no {path.name}",
            "see its log",
        )
    graph = read_xmodel(path)
    check_quantized(graph)
    shape = tuple(example.shape[1:])
    inputs = [op.tensor.dims for op in graph.ops.values() if op.type == "data"]
    wanted = (1, *shape[1:], shape[0])
    if inputs != [wanted]:
        raise MismatchError(
            "The exported model has another input than the network", f"{inputs}, wanted {wanted}"
        )
    if graph.name != type(model).__name__:
        raise MismatchError(
            "The exported model is of another network",
            f"it is called {graph.name}, not {type(model).__name__}",
        )
    found = {key: graph.ops.get(f"{_sanitized(key)}_fix") for key in info.params}
    known = {key: op.get("fix_point") for key, op in found.items() if op is not None}
    wrong = [key for key, position in known.items() if position != info.params[key]]
    if wrong or 2 * len(known) < len(info.params):
        seen = f"{len(known)} of {len(info.params)} parameters are in it"
        if wrong:
            seen = f"{wrong[0]}: {known[wrong[0]]} in the model, {info.params[wrong[0]]} calibrated"
        raise MismatchError("The exported model is not of this calibration", seen, _CALIBRATE)


def _form(release: Release) -> Tuple[bool, bool]:
    """What the text of a result looks like, names apart."""
    return release.nested_pairs, release.flags


def _most_unfilled(model: nn.Module, release: Release) -> int:
    """How many tensors the release lists without ever giving them a position."""
    if release.unfilled is Unfilled.NONE:
        return 0
    # Gates are functions as often as modules: any number that leaves most tensors filled.
    modules = sum(isinstance(m, (nn.Sigmoid, nn.Tanh, nn.Softmax)) for m in model.modules())
    return max(2, modules)


def _is_parameter(key: str, name: str, state: Any) -> bool:
    """Whether a file's parameter is the model's, or a bias that folding has made."""
    graph, _, rest = key.partition("::")
    if graph != name or not rest:
        return False
    bases = [rest]
    if rest.endswith(".bias"):
        base = rest[: -len(".bias")]
        bases += [f"{base}.weight", base]  # the second in release 1.4.1
    return any(base in state for base in bases)


def _corrected_channels(info: QuantInfo, model: nn.Module) -> Iterator[int]:
    """Output channels of every layer that has a bias in the calibration."""
    biased = {re.sub(r"(\.weight)?\.bias$", "", key) for key in info.params if "bias" in key}
    for name, module in model.named_modules():
        if f"{type(model).__name__}::{name}" not in biased:
            continue
        if isinstance(module, _TRANSPOSED):
            yield int(module.weight.shape[1]) * module.groups
        elif isinstance(module, _CONVOLUTIONS):
            yield int(module.weight.shape[0])


def _sanitized(name: str) -> str:
    return re.sub(r"[^0-9A-Za-z]", "_", name)


def _counts(counter: Counter[int]) -> str:
    shown = [f"{count} x {channels}" for channels, count in sorted(counter.items())]
    return ", ".join(shown[:6]) or "none"


def unsupported(warnings: List[str]) -> Tuple[str, ...]:
    """Operators of which the tool's warnings say that they stay float."""
    found = []
    for text in warnings:
        match = re.search(r"new op `?([\w:]+)`? as a float operator", text)
        if match:
            found.append(match[1])
    return tuple(found)


def refuse_float_operators(warnings: List[str]) -> None:
    """Refuses a network with operators that stay float.

    Raises:
        UnsupportedError: names them.
    """
    found = unsupported(warnings)
    if found:
        raise UnsupportedError(
            f"The vendor's quantizer cannot quantize {', '.join(found)}",
            "it says that it takes them as float operators, which the DPU has not",
            "replace them in the network by operators of the DPU",
        )
