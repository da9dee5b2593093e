"""The command ``doctor``: what is right and wrong with this computer, and what to type."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Optional

import click

from .common import build_dir_option


@click.command(
    "doctor",
    epilog="""\b
Examples:
  deepfake-fpga doctor
  deepfake-fpga doctor --for card
  deepfake-fpga session -- deepfake-fpga doctor --for card
  deepfake-fpga doctor --for compile --json | jq '.checks[] | select(.state == "fail")'

\b
Each line of the table has one of these states:
  ok        as it should be
  warn      not so, but what you want works without it
  fail      what you want does not work without it; "fix:" is what to type
  skipped   no question on this computer

Exit status: 0 fit, 1 something needed fails, 2 wrong use.""",
)
@click.option(
    "--for",
    "purpose",
    type=click.Choice(["auto", "run", "quant", "compile", "card"]),
    default="auto",
    show_default=True,
    help="What must be fit. auto: run, and the card where there is one.",
)
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Compiled model to hold against the card. Default: the one that run takes.",
)
@build_dir_option("Folder whose model, and whose disk, are looked at.")
@click.option("--display", is_flag=True, help="Check as well whether windows can be opened (X11).")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    purpose: str,
    model: Optional[Path],
    build_dir: Path,
    display: bool,
    as_json: bool,
) -> None:
    """Check this computer, and say how to mend what is wrong.

    Looks at Python and its packages, the vendor's tools, the container's release against card and
    shell, the card with its drivers, device nodes and firmware, the model against the card,
    docker, disk and memory. Nothing is changed.
    """
    from ..doctor.examination import examine
    from ..doctor.facts import Request
    from ..doctor.findings import Purpose
    from ..doctor.table import table
    from ..host import Host

    wanted = None if purpose == "auto" else Purpose(purpose)
    report = examine(Request(wanted, model, build_dir, display), Host())
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
    else:
        person = sys.stdout.isatty()
        width = min(max(shutil.get_terminal_size((80, 24)).columns, 60), 110) if person else 80
        click.echo(table(report, width, person and not os.environ.get("NO_COLOR")))
    ctx.exit(1 if report.failed else 0)
