"""The quantizer's options ``--nndct_<name>[=<value>]``, which it takes off the command line."""

from __future__ import annotations

import sys
from typing import Dict, Generic, List, Optional, TypeVar, Union

from ....errors import UnsupportedError, UsageError
from ....quantize.releases import RELEASES
from ..options import active_options

Value = Union[bool, int, float, str]
_T = TypeVar("_T", bound=Value)

_PREFIX = "nndct_"


class Option(Generic[_T]):
    """One option.

    Attributes:
        value: in force now; scripts may set it.
        default: what the genuine tool has.
        followed: whether the drop-in does what other values ask for.
    """

    def __init__(self, default: _T, followed: bool = False) -> None:
        self.value: _T = default
        self.default = default
        self.followed = followed


class Rate(Option[float]):
    """The step of bias correction, whose default is the active release's."""

    def __init__(self) -> None:
        self.given: Optional[float] = None
        self.followed = True

    @property
    def default(self) -> float:  # type: ignore[override]
        """0.1 in release 2.5, 0.05 in the others."""
        return RELEASES[active_options().release].correction_rate

    @property
    def value(self) -> float:
        """What was given, or the default."""
        return self.default if self.given is None else self.given

    @value.setter
    def value(self, value: float) -> None:
        self.given = value


class NndctOption:
    """All options, by their names in the genuine module."""

    nndct_help = Option(False)
    nndct_quant_off = Option(False)
    nndct_quant_mode = Option(0, followed=True)
    nndct_quant_opt = Option(3, followed=True)
    nndct_equalization = Option(True, followed=True)
    nndct_relu6_replace = Option("relu")
    nndct_param_corr = Option(True, followed=True)
    nndct_param_corr_rate = Rate()
    nndct_diffs_mode = Option("mse", followed=True)
    nndct_ft_mode = Option(1)
    nndct_finetune_lr_factor = Option(0.01)
    nndct_max_fix_position = Option(12, followed=True)
    nndct_use_torch_quantizer = Option(False)
    nndct_conv_bn_merge = Option(True)
    nndct_avg_pool_approximate = Option(True)
    nndct_leaky_relu_approximate = Option(True)
    nndct_change_concat_input_fix = Option(False, followed=True)
    nndct_change_pool_input_fix = Option(False, followed=True)
    nndct_change_add_input_fix = Option(False, followed=True)
    nndct_insert_concat_input_fix = Option(False)
    nndct_calib_before_finetune = Option(False)
    nndct_convert_relu6_to_relu = Option(False)
    nndct_convert_sigmoid_to_hsigmoid = Option(False)
    nndct_convert_silu_to_hswish = Option(False)
    nndct_keep_first_last_layer_accuracy = Option(False, followed=True)
    nndct_keep_add_layer_accuracy = Option(False, followed=True)
    nndct_only_int_quant = Option(True)
    nndct_native_onnx = Option(False, followed=True)
    nndct_deploy_check = Option(False, followed=True)
    nndct_stat = Option(0, followed=True)
    nndct_parse_debug = Option(0, followed=True)


def options() -> Dict[str, Option[Value]]:
    """Name without prefix to option."""
    table = vars(NndctOption)
    return {k[len(_PREFIX) :]: v for k, v in table.items() if k.startswith(_PREFIX)}


def take_from_command_line(argv: Optional[List[str]] = None) -> None:
    """Sets the options given in ``argv`` (``sys.argv``) and takes them out of it.

    What is no option of the quantizer stays for the script.

    Raises:
        UsageError: a value is not of its option's kind.
    """
    argv = sys.argv if argv is None else argv
    rest = []
    for word in argv:
        if not word.startswith(f"--{_PREFIX}"):
            rest.append(word)
            continue
        name, given, text = word[2 + len(_PREFIX) :].partition("=")
        option = options().get(name)
        if option is None:
            rest.append(word)
            continue
        option.value = _read(word, text, option) if given else True
    argv[:] = rest


def _read(word: str, text: str, option: Option[Value]) -> Value:
    kind = type(option.default)
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        return kind(text)
    except (KeyError, ValueError):
        raise UsageError(f"{word}: {text!r} is no {kind.__name__}") from None


def refuse_unfollowed() -> None:
    """Refuses values that ask for what the drop-in does not do.

    Raises:
        UnsupportedError: names the option.
    """
    for name, option in options().items():
        if option.value != option.default and not option.followed:
            raise UnsupportedError(
                f"The drop-in quantizer does not follow --{_PREFIX}{name}={option.value}",
                f"its default is {option.default}",
                "leave the option out, or quantize with the vendor's tool",
            )
