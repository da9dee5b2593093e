"""How to quantize: what the vendor's tool has options for, and its defaults.

Nothing here needs torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

from ..errors import UnsupportedError
from .releases import DEFAULT, Release, release
from .results import BITS


@dataclass(frozen=True)
class QuantizeOptions:
    """How to quantize; the defaults are the vendor's.

    Attributes:
        equalization: equalize weights across layers; also turns ``nn.ReLU6`` into ReLU.
        bias_correction: move biases against the mean error of each layer.
        correction_rate: step of that; ``None`` takes the release's.
        max_fix_position: highest fix position of any tensor.
        release: the vendor's release whose rules and file forms are followed.
        bits: of every code, 2 to 8; compilers and cards take 8 only.
        by_range: take fix positions from the range of values (the vendor's method ``maxmin``), not
            from the least squared error.
        aligned: kinds of operators, words of ``ALIGNED``, whose inputs get the position of their
            result; in releases 3.0 and newer.
    """

    equalization: bool = True
    bias_correction: bool = True
    correction_rate: Optional[float] = None
    max_fix_position: int = 12
    release: str = DEFAULT.name
    bits: int = BITS
    by_range: bool = False
    aligned: Tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.rules()
        if not 2 <= self.bits <= BITS:
            raise UnsupportedError(
                f"Codes have 2 to {BITS} bits", f"{self.bits} bits", f"use {BITS}"
            )
        if self.aligned and not self.rules().nested_pairs:
            raise UnsupportedError(
                f"Release {self.release} cannot align the inputs of {' and '.join(self.aligned)}",
                "releases 3.0 and newer can",
            )

    def rules(self) -> Release:
        """The release's rules.

        Raises:
            UsageError: it is not known.
        """
        return release(self.release)

    def rate(self) -> Optional[float]:
        """The step of bias correction; ``None`` when it is off."""
        if not self.bias_correction:
            return None
        given = self.correction_rate
        return self.rules().correction_rate if given is None else given
