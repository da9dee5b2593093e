"""The drop-in module ``vart``: runners on the simulated card, with the genuine surface and quirks.

What aborts the process in the genuine module raises ``XirAbort`` here. Unlike there, inputs are
copied before ``execute_async`` returns, memory beyond a buffer is never touched, and a runner
keeps its graph alive.
"""

from __future__ import annotations

from .runner import Runner, RunnerExt, TensorBuffer

__drop_in__ = "deepfake-fpga"
__all__ = ["Runner", "RunnerExt", "TensorBuffer"]
