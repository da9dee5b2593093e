"""The file ``quant_config_file``: read, checked as the genuine tool checks it, made our options."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional, Tuple

from ....errors import UnsupportedError
from ..nndct_shared.messages import leave
from ..nndct_shared.options import NndctOption

_SWITCHES: Mapping[str, bool] = {
    "convert_relu6_to_relu": False,
    "convert_silu_to_hswish": False,
    "include_cle": True,
    "include_bias_corr": True,
    "keep_first_last_layer_accuracy": False,
    "keep_add_layer_accuracy": False,
    "change_concat_input_fix": False,
    "change_pool_input_fix": False,
}
_OTHERS = (
    "target_device",
    "onnx_opset_version",
    "quantizable_data_type",
    "overall_quantize_config",
    "tensor_quantize_config",
    "layer_quantize_config",
)
_CLASSES = ("input", "weights", "bias", "activation")
_DEFAULTS: Mapping[str, Any] = {
    "datatype": "int",
    "bit_width": 8,
    "method": "diffs",
    "round_mode": "std_round",
    "symmetry": True,
    "per_channel": False,
    "signed": True,
    "narrow_range": False,
    "scale_type": "poweroftwo",
    "calib_statistic_method": "modal",
    "percentage": 100,
}
_ONLY: Mapping[str, Any] = {
    "symmetry": True,
    "signed": True,
    "narrow_range": False,
    "calib_statistic_method": "modal",
}
_METHODS = ["diffs", "maxmin"]
_NOT_FOLLOWED = ("convert_silu_to_hswish",)


@dataclass(frozen=True)
class Config:
    """What the options and the file together ask for.

    Attributes:
        equalization, bias_correction: whether they are done.
        correction_rate: step of that.
        max_fix_position: highest fix position.
        bits: of every tensor.
        by_range, aligned: see ``QuantizeOptions``.
    """

    equalization: bool
    bias_correction: bool
    correction_rate: float
    max_fix_position: int
    bits: int
    by_range: bool
    aligned: Tuple[str, ...]


def configured(path: Optional[str], bitwidth: Optional[int]) -> Config:
    """The options in force, with those of the file ``path`` over them.

    Raises:
        FileNotFoundError, ValueError: there is no such file, or it is no JSON.
        SystemExit: it asks for what no DPU does (2).
        UnsupportedError: it asks for what the drop-in does not do.
    """
    on = NndctOption.nndct_quant_opt.value > 0
    switches = {
        "include_cle": on and NndctOption.nndct_equalization.value,
        "include_bias_corr": on and NndctOption.nndct_param_corr.value,
    }
    aligned = {
        "concat": NndctOption.nndct_change_concat_input_fix.value,
        "add": NndctOption.nndct_change_add_input_fix.value,
        "pool": NndctOption.nndct_change_pool_input_fix.value,
    }
    by_range = NndctOption.nndct_diffs_mode.value != "mse"
    bits = 8 if bitwidth is None else int(bitwidth)
    if path is not None:
        with open(path, encoding="utf-8") as file:
            given = json.load(file)
        _check_keys(given)
        bits, method = _check_tensors(given, bits)
        by_range = by_range or method == "maxmin"
        for word in aligned:
            aligned[word] = given.get(f"change_{word}_input_fix", aligned[word])
        switches.update({key: bool(given[key]) for key in switches if key in given})
    return Config(
        switches["include_cle"],
        switches["include_bias_corr"],
        NndctOption.nndct_param_corr_rate.value,
        NndctOption.nndct_max_fix_position.value,
        bits,
        by_range,
        tuple(word for word, wanted in aligned.items() if wanted),
    )


def _refuse(text: str) -> SystemExit:
    return leave("QUANT_CONFIG", text)


def _check_keys(given: Dict[str, Any]) -> None:
    for key in given:
        if key not in _SWITCHES and key not in _OTHERS:
            raise _refuse(f"Unsupported keyword in quantization config: '{key}'. ")
    if given.get("target_device", "DPU") != "DPU":
        # The genuine tool runs into a name it never set.
        raise UnboundLocalError(f"target_device {given['target_device']!r} has no configuration")
    for key in _NOT_FOLLOWED:
        if given.get(key):
            raise _unsupported(f"{key}: true")
    if given.get("convert_relu6_to_relu") and not given.get("include_cle", True):
        raise _unsupported("convert_relu6_to_relu without include_cle")
    if given.get("layer_quantize_config"):
        raise _unsupported("layer_quantize_config")
    kinds = given.get("quantizable_data_type", list(_CLASSES))
    if not set(kinds) >= set(_CLASSES):
        raise _unsupported(f"quantizable_data_type: {kinds}")


def _check_tensors(given: Dict[str, Any], bits: int) -> Tuple[int, str]:
    """The bits and the method of all tensors."""
    overall = given.get("overall_quantize_config", {})
    classes = given.get("tensor_quantize_config", {})
    for kind in classes:
        if kind not in _CLASSES:
            raise _refuse(f"Unsupported keyword in quantization config: '{kind}'. ")
    widths, methods = set(), set()
    for kind in _CLASSES:
        own = classes.get(kind, {})
        for key in (*overall, *own):
            if key not in _DEFAULTS:
                raise _refuse(f"Unsupported keyword in quantization config: '{key}'. ")
        found = {**_DEFAULTS, "bit_width": bits, **overall, **own}
        _check_class(kind, found)
        widths.add(int(found["bit_width"]))
        if kind != "input":
            methods.add(str(found["method"]))
    if len(widths) > 1:
        raise _unsupported(f"tensors of {sorted(widths)} bits in one model")
    if len(methods) > 1:
        raise _unsupported("several methods in one model")
    return widths.pop(), methods.pop()


def _check_class(kind: str, found: Dict[str, Any]) -> None:
    if found["datatype"] != "int":
        raise _unsupported(f"datatype: {found['datatype']!r}")
    if found["method"] not in _METHODS:
        raise _refuse(f"The method of {kind} should be in the list {_METHODS}")
    if found["per_channel"]:
        raise _refuse("Only support per_tensor quantization in DPU device if datatype is int")
    if found["scale_type"] != "poweroftwo":
        raise _refuse("Only support poweroftwo scale type in DPU device if datatype is int")
    if kind == "activation" and found["round_mode"] != "half_up":
        raise _refuse(
            "Only support half_up round method in activation quantization of DPU device if "
            "datatype is int"
        )
    for key, value in _ONLY.items():
        if found[key] != value:
            raise _refuse(f"Only support {key} {value} in DPU device if datatype is int")


def _unsupported(what: str) -> UnsupportedError:
    return UnsupportedError(
        f"The drop-in quantizer does not follow {what} of the quantization config",
        "it has the default configuration for the DPU",
        "leave it out, or quantize with the vendor's tool",
    )
