"""The command ``session``: a command or a shell in the vendor's container, with the card."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Optional, Tuple

import click

from .common import build_dir_option, quiet_option


@click.command(
    "session",
    context_settings={"allow_interspersed_args": False},
    epilog="""\b
Examples:
  deepfake-fpga session                                   a shell in the card's release
  deepfake-fpga session -- deepfake-fpga doctor --for card
  deepfake-fpga session --data faces -- deepfake-fpga quant --mode calib --data /data
  deepfake-fpga session --variant 6pe_dwc -- deepfake-fpga run --video clip.mp4 -o result
  deepfake-fpga session --no-card --release 2.5 -- vai_c_xir --help
  deepfake-fpga session --dry-run > start.sh              look first; bash start.sh later

\b
Inside:
  /workspace         the current folder (or --workspace); everything starts here
  /workspace/build   the build folder
  /data              the folder given with --data, read only
  /vitis_ai_home     the folder given with --vitis-ai; its setup.sh is used

\b
The images have Python 3.7 and may lack packages. On a computer with a network:
  pip download -d wheels --only-binary=:all: --python-version 3.7 \\
      click PyYAML tqdm importlib-metadata typing-extensions
then: deepfake-fpga session --wheels wheels

Exit status: that of the command inside; 1 the session could not start, 2 wrong use.""",
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
@build_dir_option("Folder with float_model/, quant_model/ and compiled/.")
@click.option(
    "--workspace",
    type=click.Path(path_type=Path),
    default=Path("."),
    help="Folder at /workspace inside. Default: the current folder.",
)
@click.option("--data", type=click.Path(path_type=Path), help="Folder at /data inside, read only.")
@click.option(
    "--release",
    default="auto",
    show_default=True,
    help="Of Vitis AI: 1.4.1, 2.0, 2.5 or 3.0; auto takes the one that goes with the card's shell.",
)
@click.option(
    "--variant",
    help="Of the DPU: 8pe_normal, 6pe_dwc, 6pe_misc, 4pe_miscdwc. Default: 8pe_normal.",
)
@click.option("--image", default="", help="Container image instead of the release's own.")
@click.option("--no-card", is_flag=True, help="Start without the card: quantize and compile only.")
@click.option(
    "--vitis-ai",
    type=click.Path(path_type=Path),
    envvar="VAI_HOME",
    help="The vendor's Vitis-AI folder of the release, for its setup.sh. Without it XRT, XRM and "
    "the xclbin are set up as that script does.",
)
@click.option(
    "--wheels",
    type=click.Path(path_type=Path),
    help="Folder of wheels; those the container's Python lacks are installed, without network.",
)
@click.option(
    "--python",
    type=click.Choice(["conda", "system"]),
    default="conda",
    show_default=True,
    help="Whose Python: of the environment vitis-ai-pytorch, or the image's own.",
)
@click.option("--display", is_flag=True, help="Let windows open on this computer's screen (X11).")
@click.option(
    "--docker-argument",
    "docker_arguments",
    multiple=True,
    metavar="WORD",
    help="A further word for docker run, such as --pid=host. Can be given more than once.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be started, as a shell script.")
@click.option("--json", "as_json", is_flag=True, help="With --dry-run: print it as JSON.")
@quiet_option
@click.pass_context
def command(
    ctx: click.Context,
    words: Tuple[str, ...],
    build_dir: Path,
    workspace: Path,
    data: Optional[Path],
    release: str,
    variant: Optional[str],
    image: str,
    no_card: bool,
    vitis_ai: Optional[Path],
    wheels: Optional[Path],
    python: str,
    display: bool,
    docker_arguments: Tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Work in the vendor's container, with the card and this package.

    Starts the Vitis AI image of the card's release with the card's device nodes, the current
    folder, the build folder and this package, activates the conda environment, sets the card up
    and checks that this worked, then runs a command or opens a shell. Nothing is fetched from a
    network, and files come out as yours.
    """
    from ...errors import UsageError
    from ..container import SessionRequest, plan_session
    from ..container_start import run_session, shell_text
    from ..host import Host

    if as_json and not dry_run:
        raise UsageError("--json is for --dry-run", "", "deepfake-fpga session --dry-run --json")
    host = Host()
    request = SessionRequest(
        build_dir.resolve(),
        workspace.resolve(),
        None if data is None else data.resolve(),
        release,
        variant,
        image,
        not no_card,
        None if wheels is None else wheels.resolve(),
        None if vitis_ai is None else vitis_ai.resolve(),
        python,
        display,
        docker_arguments,
        words,
        sys.stdin.isatty() and sys.stdout.isatty(),
    )
    plan = plan_session(request, host, dry=dry_run)
    for warning in plan.warnings:
        click.echo(f"Warning: {warning}", err=True)
    if dry_run:
        if as_json:
            click.echo(json.dumps(plan.to_json(), indent=2, ensure_ascii=False))
        else:
            click.echo(shell_text(plan), nl=False)
        return
    if not quiet:
        for reason in plan.reasons:
            click.echo(reason, err=True)
    sys.stdout.flush()
    ctx.exit(run_session(plan, os.getpid()))
