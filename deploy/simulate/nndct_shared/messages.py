"""The quantizer's console texts: to standard error, in the form of the active release."""

from __future__ import annotations

import sys
from typing import Callable, Set

from ..options import active_options

_COLOURS = {"NOTE": "32", "WARN": "33", "ERROR": "31"}


class NndctScreenLogger:
    """Prints notes, warnings and errors as the genuine tool does.

    Releases 3.0 and 3.5 colour them, put an empty line before each and name warnings and errors by
    a code; those before print the bare line.
    """

    _said: Set[str] = set()  # noqa: RUF012 - one memory for all, as the genuine logger is one

    def info(self, text: str) -> None:
        """A note."""
        self._print("NOTE", text, "")

    def info2user(self, code: str, text: str) -> None:
        """A note; the code is for whoever filters."""
        self._print("NOTE", text, code)

    def warning(self, text: str) -> None:
        """A warning without a code."""
        self._print("WARN", text, "")

    def warning2user(self, code: str, text: str) -> None:
        """A warning."""
        self._print("WARN", text, code)

    def warning2user_once(self, code: str, text: str) -> None:
        """A warning that is not repeated."""
        self._once(self.warning2user, code, text)

    def error(self, text: str) -> None:
        """An error without a code."""
        self._print("ERROR", text, "")

    def error2user(self, code: str, text: str) -> None:
        """An error."""
        self._print("ERROR", text, code)

    def _once(self, say: Callable[[str, str], None], code: str, text: str) -> None:
        if code + text not in self._said:
            self._said.add(code + text)
            say(code, text)

    @staticmethod
    def _print(kind: str, text: str, code: str) -> None:
        prefix = f"[VAIQ_{kind}]"
        if active_options().release[0] == "3":
            named = f"{prefix}[QUANTIZER_TORCH_{code}]" if code else prefix
            line = f"\n\x1b[0;{_COLOURS[kind]}m{named}: {text}\x1b[0m\n"
        else:
            line = f"{prefix}: {text}\n"
        sys.stderr.write(line)
        sys.stderr.flush()


def leave(code: str, text: str, status: int = 2) -> SystemExit:
    """Prints an error; returns what is to be raised: the genuine tool ends the process."""
    NndctScreenLogger().error2user(code, text)
    return SystemExit(status)
