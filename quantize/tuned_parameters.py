"""The file ``param.pth`` of a fast finetune: every parameter after tuning, on its grid.

Parameters are called ``module_<n>.weight`` and ``module_<n>.bias`` after the running number of
their operator, as in the vendor's file (rule 6.5).

Importing this module imports torch.
"""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Dict, Mapping

import numpy as np
import torch
from torch import Tensor

from ..errors import FormatError, MismatchError, OrderError
from ..files import replacing
from .graph import QuantizerGraph
from .tensor_file import read_tensors

PARAM = "param.pth"

_CALIBRATE = "deepfake-fpga quant --mode calib --fast-finetune"


def names(graph: QuantizerGraph) -> Dict[str, str]:
    """Name in the file to parameter key, in execution order."""
    return {
        f"module_{node.index}.{role}": key
        for node in graph.nodes
        for role, key in node.params.items()
    }


def save(folder: Path, tuned: Mapping[str, np.ndarray]) -> Path:
    """Writes ``param.pth``, whole or not at all; returns its path.

    Args:
        folder: made if absent.
        tuned: name in the file to float32 values, PyTorch's layout.
    """
    path = folder / PARAM
    tensors = collections.OrderedDict(
        (name, torch.from_numpy(np.ascontiguousarray(value))) for name, value in tuned.items()
    )
    with replacing(path) as part:
        torch.save(tensors, str(part))
    return path


def load(folder: Path, graph: QuantizerGraph) -> Dict[str, np.ndarray]:
    """Parameter key to tuned float32 values.

    Raises:
        OrderError: the file is not there.
        FormatError: it is damaged or would execute something.
        MismatchError: it belongs to another model.
    """
    path = folder / PARAM
    if not path.is_file():
        raise OrderError(
            f"The calibration in {folder} was made with fast finetune, but {PARAM} is missing",
            f"no file {path}",
            _CALIBRATE,
        )
    content = read_tensors(path).content
    if not isinstance(content, dict):
        raise FormatError(
            f"{path} holds no tuned parameters", f"a {type(content).__name__}", _CALIBRATE
        )
    found: Dict[str, np.ndarray] = {}
    for name, key in names(graph).items():
        wanted = graph.params[key].shape
        value = content.get(name)
        if not isinstance(value, Tensor) or tuple(value.shape) != wanted:
            seen = list(value.shape) if isinstance(value, Tensor) else "nothing"
            raise MismatchError(
                f"The tuned parameters in {path} belong to another model",
                f"{name}: {seen} in the file, {list(wanted)} for {key} of this model",
                _CALIBRATE,
            )
        if not bool(torch.isfinite(value).all()):
            raise FormatError(f"{path} holds values that are not finite", f"in {name}", _CALIBRATE)
        found[key] = value.detach().to(torch.float32).contiguous().numpy()
    return found
