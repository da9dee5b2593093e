"""Fast finetune on a build folder: on which pictures, how far it is, and what a test must ask for.

A run that is stopped leaves ``finetune_state.npz`` in the build folder; the next one with the same
checkpoint, data and options goes on from there. The file goes when the calibration is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Callable, Optional

from ..errors import MismatchError, OrderError

if TYPE_CHECKING:
    from .build_folder import BuildFolder

STATE = "finetune_state.npz"

Progress = Callable[..., Callable[[int], None]]


def state_path(build: BuildFolder) -> Path:
    """Where a run that is stopped keeps its finished layers."""
    return build.path / STATE


class LayerProgress:
    """Shows how many layers are tuned, and says so where a stopped run is gone on with."""

    def __init__(self, progress: Progress, say: Callable[[str], None]) -> None:
        self._progress, self._say = progress, say
        self._advance: Optional[Callable[[int], None]] = None
        self._shown = 0

    def __call__(self, done: int, total: int) -> None:
        """Takes the number of layers done, and of all."""
        if self._advance is None:
            if done:
                self._say(f"fast finetune: going on after {done} of {total} layers")
            self._shown = done
            self._advance = self._progress("fast finetune", total - done, "layer")
        else:
            self._advance(done - self._shown)
            self._shown = done


class LateProgress:
    """A bar that opens with the first news, so that what goes before does not count as its time."""

    def __init__(self, progress: Progress, title: str, total: int) -> None:
        self._open: Callable[[], Callable[[int], None]] = lambda: progress(title, total)
        self._advance: Optional[Callable[[int], None]] = None

    def __call__(self, done: int) -> None:
        """Takes how many more are done."""
        if self._advance is None:
            self._advance = self._open()
        self._advance(done)


def check_asked(folder: Path, asked: bool) -> None:
    """Refuses a test that would not run the network that was calibrated.

    The vendor's tool takes the untuned parameters without a word when a finetuned calibration is
    tested without asking for them.

    Args:
        folder: of a calibration.
        asked: whether ``--fast-finetune`` was given.

    Raises:
        OrderError: it was, and the calibration was made without.
        MismatchError: it was not, and the calibration was made with it.
        FormatError: the calibration cannot be read.
    """
    from ..quantize import results
    from ..quantize.results import QUANT_INFO

    tuned = results.load(folder).fast_finetuned
    if asked and not tuned:
        raise OrderError(
            f"The calibration in {folder} was made without fast finetune",
            f"fast_finetuned is false in {QUANT_INFO}",
            "deepfake-fpga quant --mode calib --fast-finetune --data DIR, or test without "
            "--fast-finetune",
        )
    if tuned and not asked:
        raise MismatchError(
            f"The calibration in {folder} was made with fast finetune; with the parameters from "
            "before, the network would be another",
            f"fast_finetuned is true in {QUANT_INFO}",
            "deepfake-fpga quant --mode test --fast-finetune --data DIR",
        )
