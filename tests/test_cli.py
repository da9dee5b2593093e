"""The front: its table of commands, its errors and its exit statuses."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Iterator, Type

import click
import pytest

from deepfake_fpga import errors
from deepfake_fpga.deploy import cli as front

ROOT = Path(__file__).resolve().parent.parent


def commands() -> Dict[str, click.Command]:
    """Every command by the words that call it, those below a group included."""
    found: Dict[str, click.Command] = {}

    def add(group: click.Group, before: str) -> None:
        context = click.Context(group)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            assert command.name == name
            found[before + name] = command
            if isinstance(command, click.Group):
                add(command, f"{before}{name} ")

    add(front.cli, "")
    return found


@pytest.mark.parametrize("name", list(commands()))
def test_every_command_has_help_with_an_example(name: str) -> None:
    command = commands()[name]
    help_text = command.get_help(click.Context(command, info_name=name))
    assert f"deepfake-fpga {name}" in help_text
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts} says nothing of itself"


@pytest.mark.parametrize("name", list(front.COMMANDS))
def test_the_table_says_what_the_command_says(name: str) -> None:
    command = front.cli.get_command(click.Context(front.cli), name)
    assert command is not None
    text = command.get_short_help_str(limit=200)
    # Some releases of click drop the full stop.
    assert text.rstrip(".") == front.COMMANDS[name][1].rstrip(".")


@pytest.mark.parametrize("name", list(commands()))
def test_every_command_is_in_the_reference(name: str) -> None:
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert f"## deepfake-fpga {name}\n" in page


def all_errors(base: Type[errors.ToolkitError]) -> Iterator[Type[errors.ToolkitError]]:
    yield base
    for child in base.__subclasses__():
        yield from all_errors(child)


@pytest.mark.parametrize(
    "kind",
    sorted(all_errors(errors.ToolkitError), key=lambda k: k.__name__),
    ids=lambda k: k.__name__,
)
def test_an_error_becomes_a_paragraph_and_a_status(
    kind: Type[errors.ToolkitError],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(**_: object) -> None:
        raise kind("The cause", "the evidence", "deepfake-fpga --help")

    monkeypatch.setattr(front.cli, "main", fail)
    with pytest.raises(SystemExit) as stop:
        front.main([])
    assert stop.value.code == (2 if issubclass(kind, errors.UsageError) else 1)
    err = capsys.readouterr().err
    assert err == "Error: The cause. Seen: the evidence. Next: deepfake-fpga --help\n"


def test_the_hierarchy_is_drawn_in_the_docstring() -> None:
    drawing = errors.__doc__ or ""
    for kind in all_errors(errors.ToolkitError):
        assert kind.__name__ in drawing


@pytest.mark.parametrize(
    ("words", "status"),
    [(["--version"], 0), (["--help"], 0), (["nonsense"], 2), (["run", "--nonsense"], 2)],
)
def test_exit_status(words: list[str], status: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        front.main(words)
    assert stop.value.code == status
    assert "Traceback" not in capsys.readouterr().err


def test_ctrl_c_is_status_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(front.cli, "main", interrupted)
    with pytest.raises(SystemExit) as stop:
        front.main([])
    assert stop.value.code == 130
    assert capsys.readouterr().err == "Interrupted.\n"
