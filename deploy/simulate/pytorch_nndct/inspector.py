"""``Inspector``: which operators of a float model a DPU takes, before anything is quantized."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Tuple

from torch import Tensor, nn

from ....compile.compiler import compile_graph
from ....compile.drawing import svg
from ....compile.limits import CONVERSIONS
from ....compile.report import inspect_graph, text
from ....compile.targets import resolve_target
from ....compile.xir.graph import Graph
from ....files import write_text
from ....quantize.quantizer import QuantizeOptions, Quantizer
from ....quantize.recording import tensors_in
from ..nndct_shared.messages import NndctScreenLogger
from .processor import DEFAULT_OUTPUT
from .versions import release


class Inspector:
    """Looks at models with one DPU in mind.

    Args:
        name_or_fingerprint: of the DPU, such as ``DPUCVDX8H_ISA1_F2W4_4PE_aieDWC`` or ``0x...``;
            a name of ``deepfake-fpga compile --target`` will do.

    Raises:
        UsageError: the DPU is not known.
    """

    def __init__(self, name_or_fingerprint: str) -> None:
        self._name = str(name_or_fingerprint)
        self._target = resolve_target(self._name).target

    def inspect(
        self,
        module: nn.Module,
        input_args: Any,
        device: Any = None,
        output_dir: str = DEFAULT_OUTPUT,
        verbose_level: int = 1,
        image_format: Any = None,
    ) -> None:
        """Writes ``inspect_<target>.txt``: every operator, its device, and why it is not the DPU.

        Fix positions come from ``input_args`` alone; they do not change the placement of operators
        whose limits are sizes.

        A picture is asked for by ``image_format``; whatever it says, it is an SVG.

        Raises:
            UnsupportedError: the model cannot be traced or exported.
        """
        del device
        screen = NndctScreenLogger()
        target = self._target
        screen.info(f"=>Start to inspect model for {target.dpu_name}...")
        given = input_args if isinstance(input_args, (tuple, list)) else (input_args,)
        args = tuple(v.detach().cpu() if isinstance(v, Tensor) else v for v in given)
        compiled = compile_graph(_quantized(module, args), target)
        report = inspect_graph(compiled)
        path = os.path.join(output_dir, f"inspect_{target.dpu_name}.txt")
        write_text(Path(path), text(report))
        outside = [op for op in report.cpu_ops if op.type not in CONVERSIONS]
        for op in outside if verbose_level > 0 else ():
            screen.warning(f"{op.name} ({op.type}) is assigned to CPU: {op.reason}")
        if not outside and verbose_level > 0:
            screen.info(f"All the operators are assigned to {target.dpu_name}.")
        if image_format is not None:
            if image_format != "svg":
                screen.warning(f"A picture as {image_format} cannot be drawn here, it is an svg.")
            drawn = os.path.join(output_dir, f"inspect_{target.dpu_name}.svg")
            write_text(Path(drawn), svg(compiled))
            screen.info(f"=>The picture of the model is saved.({drawn})")
        screen.info(f"=>Finish inspecting.({path})")


def _quantized(module: nn.Module, args: Tuple[Any, ...]) -> Graph:
    """The model as it would be exported after a calibration on ``args``."""
    options = QuantizeOptions(bias_correction=False, release=release())
    ours = Quantizer(module, args, options)
    calibrator = ours.calibrator()
    calibrator.forward(tensors_in(args))
    return ours.quantized(ours.calibration(calibrator.result())).to_xir()
