"""``deepfake-fpga board``: the card itself, its sensors, its tests, and watching it."""

from __future__ import annotations

import json
from typing import Any, Callable, Optional

import click

_TIMEOUT = 20.0


def _device(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--device",
        metavar="BDF",
        help="PCI address of the card, of either function; all cards if not given.",
    )(function)


def _json(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")(
        function
    )


def _timeout(default: float) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=default,
        show_default=True,
        metavar="S",
        help="Seconds after which a tool that hangs is killed.",
    )


@click.group(
    "board",
    epilog="""\b
Examples:
  deepfake-fpga board info                       cards, shells, versions, what they go with
  deepfake-fpga board health                     temperatures and power against limits
  deepfake-fpga board validate --quick           the vendor's tests, judged
  deepfake-fpga board watch --interval 2         a live table

Exit status: 0 good, 1 no card, a limit passed or a test failed, 2 wrong use or no xbutil.""",
)
def command() -> None:
    """Look after the card: what it is, how warm it is, whether it works.

    Reads lspci (or the kernel's own list), xbutil and xbmgmt of every release the card had.
    """


@command.command(
    "info",
    epilog="""\b
Examples:
  deepfake-fpga board info
  deepfake-fpga board info --release 3.0         is this host right for Vitis AI 3.0?
  deepfake-fpga board info --releases            which card, shell and XRT each release needs
  deepfake-fpga board info --json | jq .cards[0].shell

Exit status: 0 a card was found (with --release: and fits), 1 none, or it does not fit.""",
)
@_device
@click.option("--release", metavar="R", help="Compare with what this Vitis AI release needs.")
@click.option(
    "--releases", is_flag=True, help="Print what each release needs, and look no further."
)
@_timeout(_TIMEOUT)
@_json
def info(
    device: Optional[str], release: Optional[str], releases: bool, timeout: float, as_json: bool
) -> int:
    """Show the cards of this host: silicon, drivers, shell, versions, readiness."""
    from ...board.cards import find_cards
    from ...board.releases import problems, release_named
    from ..board_report import cards_record, cards_text, releases_record, releases_text

    if releases:
        text = json.dumps(releases_record(), indent=2) + "\n" if as_json else releases_text()
        click.echo(text, nl=False)
        return 0
    wanted = release_named(release) if release is not None else None
    search = find_cards(timeout)
    cards = search.cards
    if device is not None or (not cards and not as_json):
        cards = (search.card(device),)
    if as_json:
        record = cards_record(search, cards, wanted)
        click.echo(json.dumps(record, indent=2, ensure_ascii=False))
    else:
        click.echo(cards_text(search, cards, wanted), nl=False)
    unfit = wanted is not None and any(problems(card.installed, wanted) for card in cards)
    return 1 if unfit or not cards else 0


@command.command(
    "health",
    epilog="""\b
Examples:
  deepfake-fpga board health
  deepfake-fpga board health --device 0b:00.1 --json | jq .[0].celsius

Exit status: 0 within all limits, 1 a limit passed (warnings count) or no card.""",
)
@_device
@_timeout(_TIMEOUT)
@_json
def health(device: Optional[str], timeout: float, as_json: bool) -> int:
    """Read temperatures, power and supply rails, and hold them against the card's limits.

    FPGA: warning from 85 and 88 °C, stop from 95 °C (the card stops its clocks at 100 and switches
    off at 107). Board: 225 W. Values the card does not give stay empty and are said.
    """
    from ...board.health import read_all_health
    from ..board_report import health_record, health_text

    found = read_all_health(device, timeout)
    if as_json:
        records = [health_record(reading) for reading in found]
        click.echo(json.dumps(records, indent=2, ensure_ascii=False))
    else:
        click.echo(health_text(found), nl=False)
    return 1 if any(reading.warnings for reading in found) else 0


@command.command(
    "validate",
    epilog="""\b
Examples:
  deepfake-fpga board validate
  deepfake-fpga board validate --quick --timeout 60
  deepfake-fpga board validate --json | jq .reasons

Exit status: 0 no test failed (skipped ones and warnings are allowed), 1 one failed or hung.""",
)
@_device
@click.option("--quick", is_flag=True, help="Only the short tests.")
@_timeout(300.0)
@_json
def validate(device: Optional[str], quick: bool, timeout: float, as_json: bool) -> int:
    """Run the vendor's tests of the card and read the state of each.

    The verdict comes from what the tool prints, not from its status. A tool that hangs is killed,
    and the test it hung in is named.
    """
    from ...board.validation import run_validation
    from ..board_report import validation_record, validation_text

    found = run_validation(device, quick, timeout)
    if as_json:
        click.echo(json.dumps(validation_record(found), indent=2, ensure_ascii=False))
    else:
        click.echo(validation_text(found), nl=False)
    return 0 if found.passed else 1


@command.command(
    "watch",
    epilog="""\b
Examples:
  deepfake-fpga board watch
  deepfake-fpga board watch --interval 10 --count 6 --json > readings.jsonl
  deepfake-fpga board watch --prometheus /var/lib/node_exporter/textfile/vck5000.prom

Exit status: 0 all readings within limits, 1 one was not or failed, 130 ended by Ctrl-C.""",
)
@_device
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=5.0,
    show_default=True,
    metavar="S",
    help="Seconds from one reading to the next.",
)
@click.option(
    "--count", type=click.IntRange(min=1), metavar="N", help="Readings; endless if not given."
)
@click.option(
    "--prometheus",
    metavar="FILE.prom",
    help="Write each reading into this textfile for Prometheus' node exporter.",
)
@_timeout(_TIMEOUT)
@_json
def watch(
    device: Optional[str],
    interval: float,
    count: Optional[int],
    prometheus: Optional[str],
    timeout: float,
    as_json: bool,
) -> int:
    """Read the sensors again and again, as a live table or a log.

    A terminal gets a table that is refreshed, anything else a line per reading. A reading that
    fails is shown, and watching goes on.
    """
    import sys
    from pathlib import Path

    from ...board.health import read_all_health
    from ..board_metrics import check_textfile
    from ..board_watch import Highs, Reading, reading_json, reading_line, reading_table
    from ..board_watch import watch as watch_cards

    textfile = Path(prometheus) if prometheus is not None else None
    if textfile is not None:
        check_textfile(textfile)
    live = sys.stdout.isatty() and not as_json
    highs = Highs()

    def show(reading: Reading) -> None:
        if live:
            click.clear()
            click.echo(reading_table(reading, highs), nl=False)
        else:
            click.echo(reading_json(reading) if as_json else reading_line(reading))
            sys.stdout.flush()

    well = watch_cards(lambda: read_all_health(device, timeout), show, interval, count, textfile)
    return 0 if well else 1
