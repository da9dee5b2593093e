"""What the vendor's libraries do where they abort the process: one distinct exception here.

The genuine ``xir`` and ``vart`` check nearly everything with a fatal log line followed by SIGABRT,
so a Python program never sees an exception. The drop-in modules print the same line and raise
``XirAbort``; with ``aborts=process`` in the options they end the process as the genuine ones do.
"""

from __future__ import annotations

import os
import sys
import time

from .options import active_options


class XirAbort(Exception):  # noqa: N818 - the genuine thing is an abort, not an error
    """The genuine library would have aborted the process here.

    Attributes:
        identifier: the error's name, such as ``XIR_READ_PB_FAILURE``; empty for a plain check.
        description: the fixed sentence that goes with the name.
        text: what is special to this failure.
    """

    def __init__(self, identifier: str, description: str = "", text: str = "") -> None:
        super().__init__(identifier, description, text)
        self.identifier, self.description, self.text = identifier, description, text

    def __str__(self) -> str:
        named = f"[{self.identifier}][{self.description}] " if self.identifier else ""
        return f"[UNILOG][FATAL]{named}{self.text}".rstrip()


def abort(identifier: str, description: str = "", text: str = "", where: str = "") -> XirAbort:
    """Prints the fatal line to standard error; returns what is to be raised.

    Usage: ``raise abort("XIR_READ_PB_FAILURE", "failed to read pb file", "file = x")``. With
    ``aborts=process`` it does not return: the process ends by SIGABRT (status 134 in a shell).

    Args:
        identifier: the error's name.
        description: the fixed sentence that goes with it.
        text: what is special to this failure.
        where: source file and line that the genuine message names, such as ``graph.cpp:1``.
    """
    failure = XirAbort(identifier, description, text)
    stamp = time.strftime("%m%d %H:%M:%S", time.localtime())
    place = where or "deepfake_fpga:0"
    print(f"F{stamp}.000000 {os.getpid():5d} {place}] {failure}", file=sys.stderr)
    print("*** Check failure stack trace: ***", file=sys.stderr, flush=True)
    if active_options().aborts == "process":
        os.abort()
    return failure
