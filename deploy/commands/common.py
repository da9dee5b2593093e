"""Options that several commands have, written once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

quiet_option = click.option("-q", "--quiet", is_flag=True, help="Only warnings and errors.")

model_option = click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Compiled model. Default: compiled/YNET.xmodel in the build folder, else the one shipped.",
)


def build_dir_option(use: str) -> Callable[[Command], Command]:
    """``-d``, the build folder; ``use`` says what of it the command takes or makes."""
    return click.option(
        "-d",
        "--build-dir",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("build"),
        show_default=True,
        help=use,
    )


def teller(quiet: bool) -> Callable[[str], None]:
    """What takes lines for people: standard error, or nothing where it is to be quiet."""
    return _nothing if quiet else _say


def _say(text: str) -> None:
    click.echo(text, err=True)


def _nothing(text: str) -> None:
    pass
