"""What ``xbutil validate`` prints for the simulated card, in the form of each release."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Tuple

from .card_profile import CardProfile

_RULE = "-" * 79


@dataclass(frozen=True)
class _Test:
    names: Tuple[str, str, str]  # legacy, 2.12, from 2.14 on
    description: str
    details: Tuple[str, ...] = ()
    skipped: str = ""
    quick: bool = False


_TESTS = (
    _Test(
        ("AUX power connector check", "Aux connection", "aux-connection"),
        "Check if auxiliary power is connected",
        skipped="Aux power connector is not available on this board",
        quick=True,
    ),
    _Test(
        ("PCIE link check", "PCIE link", "pcie-link"), "Check if PCIE link is active", quick=True
    ),
    _Test(
        ("SC firmware version check", "SC version", "sc-version"),
        "Check if SC firmware is up-to-date",
        quick=True,
    ),
    _Test(("verify kernel test", "Verify kernel", "verify"), "Run 'Hello World' kernel test"),
    _Test(
        ("DMA test", "DMA", "dma"),
        "Run dma test",
        (
            "Host -> PCIe -> FPGA write bandwidth = 11160.3 MB/s",
            "Host <- PCIe <- FPGA read bandwidth = 11779.2 MB/s",
        ),
    ),
    _Test(
        ("IOPS test", "iops", "iops"),
        "Run scheduler performance measure test",
        ("IOPS: 130861 (hello)",),
    ),
    _Test(
        ("device memory bandwidth test", "Bandwidth kernel", "mem-bw"),
        "Run 'bandwidth kernel' and check the throughput",
        ("Maximum throughput: 50177 MB/s",),
    ),
    _Test(
        ("PCIE peer-to-peer test", "Peer to peer bar", "p2p"),
        "Run P2P test",
        skipped="P2P BAR is not enabled",
    ),
)


def validate_text(card: CardProfile, quick: bool, verbose: bool) -> Tuple[str, bool]:
    """The text from XRT 2.12 on, and whether all passed."""
    if card.dead:
        return _failed(card), False
    lines = ["Verbose: Enabling Verbosity"] if verbose else []
    lines += ["Starting validation for 1 devices", ""]
    lines += _head(card)
    column = 2 if card.host.xrt not in ("2.11", "2.12") else 1
    tests = [t for t in _TESTS if t.quick or not quick]
    if column == 1 and not verbose:
        tests = [t for t in tests if not t.skipped]  # of skipped tests only the verbose form tells
    for count, test in enumerate(tests, 1):
        lines += [_RULE, f"{f'Test {count} [{card.user_bdf}]':<26}: {test.names[column]}"]
        if verbose:
            lines.append(_field("Description", test.description))
        for i, detail in enumerate((test.skipped,) if test.skipped else test.details):
            lines.append(_field("Details", detail) if i == 0 else f"{'':<28}{detail}")
        lines.append(_field("Test Status", "[SKIPPED]" if test.skipped else "[PASSED]"))
    lines += [_RULE, "Validation completed", ""]
    return "\n".join(lines), True


def legacy_validate_text(card: CardProfile) -> Tuple[str, bool]:
    """The text of XRT 2.11 and of ``--legacy``, and whether all passed."""
    lines = ["INFO: Found 1 cards", "", f"INFO: Validating card[0]: {card.shell.name}"]
    for test in _TESTS:
        name = test.names[0]
        lines.append(f"INFO: == Starting {name}: ")
        if card.dead:
            lines.append(f"ERROR: == {name} FAILED")
            return "\n".join([*lines, "INFO: Card[0] failed to validate.", ""]), False
        if test.skipped:
            lines.append(f"{test.skipped}. Skipping validation")
        else:
            lines += test.details
        lines.append(f"INFO: == {name} {'SKIPPED' if test.skipped else 'PASSED'}")
    return "\n".join([*lines, "INFO: Card[0] validated successfully.", ""]), True


def _failed(card: CardProfile) -> str:
    column = 2 if card.host.xrt not in ("2.11", "2.12") else 1
    link = _TESTS[1]
    lines = ["Starting validation for 1 devices", "", *_head(card), _RULE]
    lines.append(f"{f'Test 1 [{card.user_bdf}]':<26}: {link.names[column]}")
    lines.append(_field("Error(s)", "Device is not ready"))
    lines.append(_field("Test Status", "[FAILED]"))
    return "\n".join([*lines, _RULE, "Validation failed", ""])


def _head(card: CardProfile) -> List[str]:
    return [
        f"{'Validate Device':<26}: [{card.user_bdf}]",
        _field("Platform", card.shell.name),
        _field("SC Version", card.shell.sc_version),
        _field("Platform ID", card.uuid),
    ]


def _field(name: str, value: str) -> str:
    return f"    {name:<22}: {value}"
