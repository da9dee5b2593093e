"""Kinds of option values that commands share: what click's ``type`` makes of the words."""

from __future__ import annotations

from typing import Any, Callable, Sequence, Tuple

import click


def list_of(names: Sequence[str]) -> Callable[[Any], Tuple[str, ...]]:
    """A kind of value: some of a few names, separated by commas.

    Args:
        names: those that may be given.

    Returns:
        What makes a tuple of such a word, without repetitions.
    """

    def names_in(value: Any) -> Tuple[str, ...]:
        if isinstance(value, tuple):  # click may ask twice
            return value
        found = tuple(dict.fromkeys(word.strip() for word in str(value).split(",")))
        for word in found:
            if word not in names:
                raise click.BadParameter(f"{word!r} is none of {', '.join(names)}")
        return found

    return names_in


def address(value: Any) -> Tuple[str, int]:
    """``PORT`` or ``HOST:PORT``: the two; this machine alone where no host is given."""
    if isinstance(value, tuple):
        return str(value[0]), int(value[1])
    host, _, port = str(value).strip().rpartition(":")
    if not (port.isdecimal() and port.isascii() and int(port) < 1 << 16):
        raise click.BadParameter(f"{value!r} does not end in a port from 0 to 65535")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise click.BadParameter(f"{value!r}: an IPv6 address stands in brackets: [::1]:8080")
    return host.strip("[]") or "127.0.0.1", int(port)
