"""The command ``demo``: the whole chain on a generated clip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Optional

import click


@click.command(
    "demo",
    epilog="""\b
Examples:
  deepfake-fpga demo
  deepfake-fpga demo -o /tmp/demo --device reference
  deepfake-fpga demo --json -q

\b
In the folder afterwards:
  report.html    what was found, where, and by which numbers
  overview.png   frames of the clip with their masks
  result/        overlay.mp4, records.jsonl, summary.json
  build/         the quantized and the compiled model with their manifests
  data/          the generated faces""",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Folder for everything written.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "sim", "reference", "null"]),
    default="auto",
    show_default=True,
    help="What computes the clip's frames.",
)
@click.option("-t", "--threads", type=click.IntRange(min=1), help="Default: one per core.")
@click.option("--json", "as_json", is_flag=True, help="Print the result to standard output.")
@click.option("-q", "--quiet", is_flag=True, help="Only the result, warnings and errors.")
def command(output: Path, device: str, threads: Optional[int], as_json: bool, quiet: bool) -> None:
    """Go through the whole chain on a generated clip.

    Synthetic faces are drawn; the shipped checkpoint is calibrated, tested and compiled; a
    generated clip is run. Needs no network, no card and no data, and takes a minute or two.
    """
    from ..demo import run_demo
    from ..progress import show_progress
    from ..quantization import silent

    def say(text: str) -> None:
        if not quiet:
            click.echo(text, err=True)

    demo = run_demo(output, device, threads, say, silent if quiet else show_progress)
    if as_json:
        click.echo(json.dumps(demo.to_json(), indent=2, allow_nan=False))
        return
    width = max(len(stage) for stage, _, _ in demo.steps)
    for stage, result, seconds in demo.steps:
        click.echo(f"{stage:<{width}}  {seconds:6.1f} s  {result}")
    click.echo(f"\noverlay video  {demo.overlay}")
    click.echo(f"picture        {demo.picture}")
    click.echo(f"report         {demo.report}")
