"""The command line: which commands exist, and how an error becomes a paragraph and a status.

Commands are imported when they are called, so ``--help`` stays quick and imports no torch, cv2,
onnxruntime, xir or vart. The one-line descriptions stand here for the same reason; a test holds
them equal to the commands' own.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, cast

import click

from .. import __version__
from ..errors import ToolkitError

COMMANDS: Dict[str, Tuple[str, str]] = {
    "quant": ("quant", "Quantize a trained checkpoint to power-of-two INT8."),
    "compile": ("compile", "Compile a quantized model for the card's DPU."),
    "inspect": ("inspect", "Show what is inside an xmodel."),
    "run": ("run", "Check images or a video for face manipulation."),
    "journal": ("journal", "Show how far a run over many files is, and what failed."),
    "eval": ("eval", "Measure how good a model is on labelled crops or videos."),
    "bench": ("bench", "Measure the devices of this machine side by side, outputs and times."),
    "verify": ("verify", "Say whether a result of run was changed since it was written."),
    "parity": ("parity", "Compare two ways of computing a model, tensor by tensor."),
    "data": ("data", "Make data sets from videos, divide them by the faces in them, check them."),
    "simulate": ("simulate", "Run a Vitis AI program without Vitis AI and without a card."),
    "board": ("board", "Look after the card: what it is, how warm it is, whether it works."),
    "doctor": ("doctor", "Check this computer, and say how to mend what is wrong."),
    "session": ("session", "Work in the vendor's container, with the card and this package."),
    "fetch": ("fetch", "Get the weights and data sets that are too large to ship."),
    "demo": ("demo", "Go through the whole chain on a generated clip."),
}
"""Command name to (module in ``deploy.commands``, first line of its help)."""

EXIT_INTERRUPTED = 130
"""What a shell reports for a program ended by Ctrl-C."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are looked up by name."""

    def list_commands(self, ctx: click.Context) -> List[str]:
        """Names in the order of the chain, not of the alphabet."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> Optional[click.Command]:
        """Imports the module of ``cmd_name`` and returns its ``command``."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"..commands.{COMMANDS[cmd_name][0]}", __name__)
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands from the table, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  deepfake-fpga demo -o demo                       everything once, on a generated clip
  deepfake-fpga quant --mode calib --data faces    fix points from calibration images
  deepfake-fpga quant --mode test --data faces     Dice, accuracy, UYNet_int.xmodel
  deepfake-fpga compile                            YNET.xmodel for the VCK5000
  deepfake-fpga run --video clip.mp4 -o result     verdicts, masks, an overlay video

Exit status: 0 done, 1 the work failed, 2 wrong use, 130 interrupted.""",
)
@click.version_option(__version__, prog_name="deepfake-fpga")
@click.option(
    "--config",
    type=click.Path(dir_okay=False),
    envvar="DEEPFAKE_FPGA_CONFIG",
    help="YAML file with defaults for the commands' options.",
)
@click.pass_context
def cli(ctx: click.Context, config: Optional[str]) -> None:
    """Face-manipulation detection on the VCK5000, with the card or without it.

    A trained U-YNet checkpoint is quantized, compiled and run; every stage uses the vendor's
    tool where it is present and our own, with the same numbers, everywhere else.
    """
    if config:
        from .configuration import read_configuration

        group = ctx.command
        assert isinstance(group, LazyGroup)
        ctx.default_map = read_configuration(
            Path(config), lambda name: group.get_command(ctx, name)
        )


def main(args: Optional[List[str]] = None) -> None:
    """Runs the command line and exits with its status.

    Args:
        args: the words after the program's name; ``sys.argv`` if not given.
    """
    status: Any
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # a file's name may not fit the terminal
            cast(Any, stream).reconfigure(errors="backslashreplace")
    try:
        status = cli.main(args=args, prog_name="deepfake-fpga", standalone_mode=False)
        # A command returns nothing, or the status it wants (inspect --diff).
        status = status if isinstance(status, int) else 0
    except ToolkitError as error:
        click.echo(f"Error: {error}", err=True)
        status = error.exit_status
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        status = EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has gone; what is left in the buffer has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.exit(status)
