"""The float checkpoint as a device: PyTorch, float32, NCHW at the border.

Its tensors are ``image`` ``[N, 3, H, W]`` (RGB in 0..1), ``logits`` ``[N, classes, H, W]`` and
``real`` ``[N, 1]``. Torch is imported when the device is opened.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Optional

import numpy as np

from ...errors import MismatchError
from ...preprocessing import Preprocessing
from .base import Batch, TensorInfo
from .worker import WorkerDevice

INPUT = "image"
LOGITS = "logits"
REAL = "real"


class FloatDevice(WorkerDevice):
    """Runs a float U-YNet.

    Args:
        model: a ``torch.nn.Module`` in eval mode, giving ``(logits, real)``.
        preprocessing: gives the input size.
        batch: pictures per submission.
        threads: torch threads; ``None`` leaves torch's setting.
    """

    name = "float"

    def __init__(
        self,
        model: Any,
        preprocessing: Preprocessing,
        batch: int,
        threads: Optional[int] = None,
    ) -> None:
        super().__init__()
        self._model, self._threads = model, threads
        height, width = preprocessing.height, preprocessing.width
        self.inputs = (TensorInfo(INPUT, (batch, 3, height, width), None),)
        classes = int(model.n_classes)
        self.outputs = (
            TensorInfo(LOGITS, (batch, classes, height, width), None),
            TensorInfo(REAL, (batch, 1), None),
        )

    def compute(self, batch: Batch) -> Dict[str, np.ndarray]:
        """The model's two outputs."""
        import torch

        if self._threads is not None:
            torch.set_num_threads(self._threads)
        with torch.no_grad():
            logits, real = self._model(torch.from_numpy(np.ascontiguousarray(batch[INPUT])))
        return {LOGITS: logits.numpy(), REAL: real.numpy()}


def open_checkpoint(
    path: Path, preprocessing: Preprocessing, *, batch: int, threads: Optional[int] = None
) -> FloatDevice:
    """Loads a checkpoint file.

    Args:
        path: ``.pth``, ``.pt`` or ``.safetensors``.
        preprocessing: the record of the model it is compared with.
        batch: pictures per submission.
        threads: torch threads.

    Raises:
        MismatchError: the checkpoint wants other preprocessing than the model.
        ToolkitError: what ``quantize.checkpoint.load_checkpoint`` raises.
    """
    from ...quantize.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(path)
    if checkpoint.preprocessing != preprocessing:
        raise MismatchError(
            "The checkpoint and the compiled model want different preprocessing",
            f"{path}: {checkpoint.preprocessing}; model: {preprocessing}",
            "compile a model from this checkpoint",
        )
    return FloatDevice(checkpoint.model, preprocessing, batch, threads)
