"""The command ``fetch``: weights and data sets, downloaded, checked and put in place."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Optional, Tuple

import click

from ...errors import MissingError
from ..progress import progress_bar
from .common import quiet_option


@click.command(
    "fetch",
    epilog="""\b
Shipped sources:
  weights       checkpoint_epoch_224x224_35.pth, the float U-YNet
  calibration   face crops and masks to calibrate with
  unseen        labelled face crops that the training did not see
  all           every one of them

\b
Examples:
  deepfake-fpga fetch weights
  deepfake-fpga fetch all --data-dir /data --dry-run
  deepfake-fpga fetch calibration --from ~/Downloads/fyp_data.zip
  deepfake-fpga fetch faces --sources mine.yaml

An interrupted download goes on where it stopped. Size and SHA-256 of the first download are kept
in fetch.lock.yaml beside the data, and later ones are compared with it.

Exit status: 0 all there, 1 something could not be had or is not what it was, 2 wrong use.""",
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("build/data"),
    show_default=True,
    help="Folder to fetch into.",
)
@click.option(
    "--sources",
    "sources_path",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="YAML file with other sources than the shipped ones.",
)
@click.option(
    "--from",
    "local",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Take this file, saved with a browser, instead of downloading.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Fetch what is there again; accept what differs from the first download.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be fetched, and why.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@quiet_option
def command(
    names: Tuple[str, ...],
    data_dir: Path,
    sources_path: Optional[Path],
    local: Optional[Path],
    force: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Get the weights and data sets that are too large to ship."""
    from ..fetching.fetching import FetchRequest, fetch
    from ..fetching.sources import read_sources

    known = read_sources(sources_path)
    wanted = list(known) if "all" in names else list(dict.fromkeys(names))
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise MissingError(
            f"There is no source called {unknown[0]!r}",
            f"known: {', '.join(known)}, all",
            "deepfake-fpga fetch all --dry-run",
        )
    request = FetchRequest([known[name] for name in wanted], data_dir, local, force, dry_run)

    def say(text: str) -> None:
        if not quiet:
            click.echo(text, err=True)

    with contextlib.ExitStack() as bars:
        outcome = fetch(
            request,
            say,
            lambda title: bars.enter_context(progress_bar(title, "B", quiet=quiet, scale=True)),
        )
    if as_json:
        click.echo(json.dumps([fetched.to_json() for fetched in outcome], indent=2))
    elif not quiet:
        for fetched in outcome:
            click.echo(f"{fetched.name}: {fetched.state}, {fetched.path} ({fetched.reason})")
