"""Writes docs/reference.md, the help of every command, from the commands themselves.

python scripts/reference.py            write it
python scripts/reference.py --check    fail when it is not what the commands say
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import List

import click

from deepfake_fpga.deploy.cli import COMMANDS, cli

TARGET = Path(__file__).resolve().parent.parent / "docs" / "reference.md"
HEADER = """# Command reference

Made by `python scripts/reference.py` from the commands' own help. Do not edit.
"""


def reference() -> str:
    """The whole page."""
    parts = [HEADER]
    root = click.Context(cli, info_name="deepfake-fpga", terminal_width=92, max_content_width=92)
    parts.append(section("deepfake-fpga", cli.get_help(root)))
    for name in COMMANDS:
        command = cli.get_command(root, name)
        assert command is not None
        parts += sections(command, name, root)
    return "\n".join(parts)


def sections(command: click.Command, name: str, parent: click.Context) -> List[str]:
    """A command, and after it its subcommands if it is a group."""
    context = click.Context(command, info_name=name, parent=parent)
    context.terminal_width = context.max_content_width = 92
    parts = [section(context.command_path, command.get_help(context))]
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None
            parts += sections(found, child, context)
    return parts


def section(title: str, text: str) -> str:
    """One command: its name and its help, as preformatted text."""
    return f"## {title}\n\n```text\n{text.rstrip()}\n```\n"


if __name__ == "__main__":
    page = reference()
    if "--check" in sys.argv[1:]:
        if not TARGET.is_file() or TARGET.read_text(encoding="utf-8") != page:
            sys.exit(f"{TARGET.name} is out of date. Next: python scripts/reference.py")
    else:
        TARGET.write_text(page, encoding="utf-8")
