"""How the simulated card and tools behave: obliging by default, as hostile as a test wants.

The options travel in one environment variable, so that every process started below ``simulate``
sees the same card.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from typing import Dict, Mapping, Optional, Tuple

from ...errors import UsageError

VARIABLE = "DEEPFAKE_FPGA_SIMULATE"
"""Environment variable that holds the options as JSON."""

CARDS = ("production", "es1", "absent", "unbound", "no-power")
"""Kinds of card the tools report; ``unbound``: in the PCI list without drivers; ``no-power``: power
readings are N/A."""

ABORTS = ("exception", "process")
RELEASES = ("1.4.1", "2.0", "2.5", "3.0", "3.5")
PACES = ("none", "vck5000")
ROUNDINGS = ("truncate", "round")


@dataclass(frozen=True)
class SimulateOptions:
    """One simulated host.

    Attributes:
        release: of Vitis AI; decides console texts, tensor order and which arguments exist.
        card: a word of ``CARDS``.
        variant: build of the DPU on the card: ``8pe_normal``, ``6pe_dwc``, ``6pe_misc``,
            ``4pe_miscdwc``; a model for another one meets a fingerprint mismatch.
        device: what computes: ``auto``, ``sim``, ``reference`` or ``null``.
        pace: ``vck5000`` delays every batch like the card.
        strict_buffers: abort on arrays whose shape, type or layout the genuine runner would
            misread without a word.
        shuffle: tensors are listed in an order that differs from run to run.
        rounding: how float inputs become codes: ``truncate`` as the genuine runner does.
        delay: seconds by which answers are held back, uniformly from 0 to this.
        fail_jobs: numbers of jobs (from 1, over all processes) that end with an error status.
        dies_after: jobs after which the card is gone: the next one aborts the process, and so
            does every new runner.
        crashes_after: jobs after which one job aborts the process, once; the card itself lives.
        hangs_after: jobs after which ``wait`` does not return.
        hot_after: jobs after which the card is over its temperature limit.
        compile_fails: error identifier with which ``vai_c_xir`` fails, such as ``XCOM_PM_FAIL``.
        firmware: whether the environment names an xclbin.
        aborts: ``exception`` or ``process``.
        seed: of everything random.
        state: folder shared by all processes of one simulated host; empty for none.
    """

    release: str = "3.0"
    card: str = "production"
    variant: str = "8pe_normal"
    device: str = "auto"
    pace: str = "none"
    strict_buffers: bool = False
    shuffle: bool = False
    rounding: str = "truncate"
    delay: float = 0.0
    fail_jobs: Tuple[int, ...] = ()
    dies_after: Optional[int] = None
    crashes_after: Optional[int] = None
    hangs_after: Optional[int] = None
    hot_after: Optional[int] = None
    compile_fails: str = ""
    firmware: bool = True
    aborts: str = "exception"
    seed: int = 0
    state: str = ""

    def __post_init__(self) -> None:
        words = {"release": RELEASES, "card": CARDS, "pace": PACES, "aborts": ABORTS}
        words["rounding"] = ROUNDINGS
        for name, allowed in words.items():
            if getattr(self, name) not in allowed:
                raise UsageError(
                    f"{getattr(self, name)!r} is no {name} of a simulated card",
                    f"known are {', '.join(allowed)}",
                )

    def to_environment(self) -> Dict[str, str]:
        """The variable that carries these options to another process."""
        return {VARIABLE: json.dumps(asdict(self), sort_keys=True)}


def active_options(environment: Optional[Mapping[str, str]] = None) -> SimulateOptions:
    """The options of this process: those in the environment, else the defaults.

    Raises:
        UsageError: the variable is there and cannot be read.
    """
    text = (os.environ if environment is None else environment).get(VARIABLE, "")
    if not text:
        return SimulateOptions()
    try:
        record = json.loads(text)
        known = {field.name for field in fields(SimulateOptions)}
        unknown = sorted(set(record) - known)
        if unknown:
            raise ValueError(f"unknown {', '.join(unknown)}")
        record["fail_jobs"] = tuple(record.get("fail_jobs", ()))
        return SimulateOptions(**record)
    except (TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"The environment variable {VARIABLE} cannot be read",
            f"{error} in {text[:200]!r}",
            f"unset {VARIABLE}, or let deepfake-fpga simulate set it",
        ) from error
