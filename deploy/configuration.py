"""The configuration file: defaults for the options of each command, in YAML.

::

    quant:
      data: /data/faces
      batch-size: 16
    run:
      device: sim
      side-by-side: true
    board:
      watch:
        interval: 2

An option typed on the command line wins. A name that no command has is an error, so a spelling
mistake is not a silent default.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import click

from ..errors import FormatError, MissingError, UsageError


def read_configuration(
    path: Path, find_command: Callable[[str], Optional[click.Command]]
) -> Dict[str, Dict[str, Any]]:
    """Reads a configuration file into click's ``default_map``.

    Args:
        path: the YAML file.
        find_command: command name to command, ``None`` for an unknown name.

    Returns:
        Command name to parameter name to value; for a group of commands one level more.

    Raises:
        MissingError: there is no such file.
        FormatError: it is not YAML, or not a mapping of mappings.
        UsageError: a command or an option does not exist.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MissingError("The configuration file does not exist", str(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError("The configuration file cannot be read", str(error)) from None
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise FormatError(f"{path} is not YAML", " ".join(str(error).split())) from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise FormatError(f"{path} should map commands to their options", repr(content)[:80])
    defaults: Dict[str, Dict[str, Any]] = {}
    for name, options in content.items():
        command = find_command(str(name))
        if command is None:
            raise UsageError(
                f"{path} configures an unknown command", str(name), "deepfake-fpga --help"
            )
        defaults[str(name)] = _defaults(path, str(name), command, options)
    return defaults


def _defaults(path: Path, name: str, command: click.Command, content: Any) -> Dict[str, Any]:
    """Parameter name to value, or for a group its commands' names to such mappings."""
    if not isinstance(command, click.Group):
        return _options(path, name, command, content)
    if not isinstance(content, dict):
        raise FormatError(f"{path}: {name} should map its commands to options", repr(content)[:80])
    defaults = {}
    for key, options in content.items():
        child = command.commands.get(str(key))
        if child is None:
            raise UsageError(
                f"{path} configures a command that {name} does not have",
                f"{key}; it has {', '.join(sorted(command.commands))}",
                f"deepfake-fpga {name} --help",
            )
        defaults[str(key)] = _defaults(path, f"{name} {key}", child, options)
    return defaults


def _options(path: Path, name: str, command: click.Command, options: Any) -> Dict[str, Any]:
    if not isinstance(options, dict):
        raise FormatError(f"{path}: {name} should map options to values", repr(options)[:80])
    known: Dict[str, str] = {}
    spelled: List[str] = []
    for parameter in command.params:
        for spelling in parameter.opts:
            if spelling.startswith("--") and parameter.name:
                known[spelling[2:]] = parameter.name
                spelled.append(spelling[2:])
    result: Dict[str, Any] = {}
    for key, value in options.items():
        option = str(key).replace("_", "-")
        if option not in known:
            raise UsageError(
                f"{path} sets an option that {name} does not have",
                f"{key}; it has {', '.join(sorted(spelled))}",
                f"deepfake-fpga {name} --help",
            )
        result[known[option]] = value
    return result
