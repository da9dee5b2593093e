"""Defaults from a YAML file reach the commands; mistakes in it are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Optional

import click
import pytest

from deepfake_fpga.deploy.configuration import read_configuration
from deepfake_fpga.errors import FormatError, MissingError, ToolkitError, UsageError


@click.command("quant")
@click.option("-b", "--batch-size", type=int, default=8, help="Images at once.")
@click.option("--side-by-side", is_flag=True, help="Both pictures.")
def quant(**options: Any) -> Dict[str, Any]:
    return options


def find(name: str) -> Optional[click.Command]:
    return quant if name == "quant" else None


def run(path: Path, *words: str) -> Dict[str, Any]:
    defaults = read_configuration(path, find)["quant"]
    result: Dict[str, Any] = quant.main(list(words), standalone_mode=False, default_map=defaults)
    return result


def test_the_file_gives_defaults_and_the_command_line_wins(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("quant:\n  batch-size: 16\n  side_by_side: true\n")
    assert run(path) == {"batch_size": 16, "side_by_side": True}
    assert run(path, "-b", "2") == {"batch_size": 2, "side_by_side": True}


@pytest.mark.parametrize(
    ("text", "kind", "named"),
    [
        ("quantt: {}\n", UsageError, "quantt"),
        ("quant: {batchsize: 3}\n", UsageError, "batchsize"),
        ("quant: 3\n", FormatError, "quant"),
        ("- quant\n", FormatError, "commands"),
        ("quant: {a: [}\n", FormatError, "YAML"),
    ],
)
def test_a_mistake_is_named(
    tmp_path: Path, text: str, kind: type[ToolkitError], named: str
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(kind, match=named):
        read_configuration(path, find)


def test_an_absent_file_is_named_and_an_empty_one_is_fine(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"none\.yaml"):
        read_configuration(tmp_path / "none.yaml", find)
    (tmp_path / "empty.yaml").write_text("")
    assert read_configuration(tmp_path / "empty.yaml", find) == {}


@click.group("board")
def board() -> None:
    pass


@board.command("watch")
@click.option("--interval", type=float, default=5.0)
def watch(interval: float) -> float:
    return interval


def find_group(name: str) -> Optional[click.Command]:
    return board if name == "board" else None


def test_commands_of_a_group_have_defaults_too(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("board:\n  watch:\n    interval: 2\n")
    defaults = read_configuration(path, find_group)["board"]
    assert board.main(["watch"], standalone_mode=False, default_map=defaults) == 2.0
    words = ["watch", "--interval", "3"]
    assert board.main(words, standalone_mode=False, default_map=defaults) == 3.0


@pytest.mark.parametrize(
    ("text", "kind", "named"),
    [
        ("board: 3\n", FormatError, "should map its commands"),
        ("board:\n  look:\n    interval: 2\n", UsageError, "look; it has watch"),
        ("board:\n  watch: 3\n", FormatError, "board watch should map options"),
        ("board:\n  watch:\n    speed: 2\n", UsageError, "speed; it has interval"),
    ],
)
def test_mistakes_below_a_group_are_named(
    tmp_path: Path, text: str, kind: type[ToolkitError], named: str
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(kind) as caught:
        read_configuration(path, find_group)
    assert named in str(caught.value)
