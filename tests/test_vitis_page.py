"""Every command of ours on the page for card owners exists, with the options it is given."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import List

import click
import pytest

from deepfake_fpga.board.releases import known_releases
from deepfake_fpga.compile.targets import TARGETS
from deepfake_fpga.deploy import cli as front
from deepfake_fpga.deploy.container import download_command

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "vitis.md").read_text(encoding="utf-8")


def commands() -> List[str]:
    """Our commands in blocks and in running text, without comments; one after ``--`` is its own."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    text = re.sub(r"```sh\n.*?```", "", PAGE, flags=re.DOTALL)
    lines += re.findall(r"`([^`]+)`", text)
    found: List[str] = []
    for line in lines:
        found += [part.strip() for part in line.split(" -- ")]
    return sorted({line for line in found if line.startswith("deepfake-fpga")})


@pytest.mark.parametrize("line", commands())
def test_the_command_exists_with_its_options(line: str) -> None:
    words = [word for word in shlex.split(line)[1:] if word not in ("…", "--")]
    context = click.Context(front.cli)
    command = front.cli.get_command(context, words[0])
    assert command is not None, line
    rest = words[1:]
    while isinstance(command, click.Group) and rest:
        command = command.get_command(context, rest.pop(0))
        assert command is not None, line
    known = {name for parameter in command.params for name in parameter.opts}
    for word in rest:
        if word.startswith("-"):
            assert word in known, f"{line}: {word}"


def test_there_are_commands_to_look_at() -> None:
    assert len(commands()) > 25


@pytest.mark.parametrize("name", ["2.5", "3.0"])
def test_the_table_of_releases_is_that_of_the_code(name: str) -> None:
    (release,) = [release for release in known_releases() if release.name == name]
    column = ["2.5", "3.0"].index(name) + 1
    rows = [row.split("|")[1:-1] for row in PAGE.splitlines() if row.startswith("| ")]
    table = {row[0].strip(): row[column].strip().strip("`") for row in rows if len(row) == 3}
    assert table["shell on the card"] == release.shell.name
    assert release.xrt_package.endswith(table["XRT, host and container"])
    assert release.xrm_package.endswith(table["XRM, host and container"])
    assert table["image"] == release.images[0]
    assert table["set-up scripts in Vitis-AI"] == release.setup_folder


def test_the_arch_folders_are_those_of_the_code() -> None:
    text = " ".join(PAGE.split())
    for target in TARGETS:
        if "3.0" in target.released:
            assert f"`{target.variant}` {target.folder}" in text


def test_the_download_is_that_of_the_code() -> None:
    text = " ".join(PAGE.replace("\\\n", "").split())
    assert f"{download_command(known_releases()[-1])} onnx onnxruntime" in text
