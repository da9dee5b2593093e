"""Every error the toolkit raises on purpose, and the exit status each one means.

::

    ToolkitError
    ├── UsageError            2  the request cannot be right as it was typed
    │   ├── MissingError      2  a file, folder or name that is not there
    │   └── OrderError        2  a stage asked for before the one it builds on
    └── WorkError             1  the request was right, the work failed
        ├── FormatError       1  a file that is not what its name says
        ├── MismatchError     1  two artefacts that do not belong together
        ├── DataError         1  images, masks or labels that cannot be used
        ├── UnsupportedError  1  an operator or a graph that a stage cannot treat
        └── DeviceError       1  a device that is absent, refused or failed

An error names the cause, the evidence and the next step. The command line prints the three as
one paragraph and exits with the status of the class.
"""

from __future__ import annotations


class ToolkitError(Exception):
    """Base of all errors raised on purpose.

    Args:
        cause: one sentence, what is wrong.
        evidence: what was seen (a path, a value, a line of a log).
        next_step: what the user can do, preferably a command to type.
    """

    exit_status = 1

    def __init__(self, cause: str, evidence: str = "", next_step: str = "") -> None:
        super().__init__(cause)
        self.cause = cause
        self.evidence = evidence
        self.next_step = next_step

    def __str__(self) -> str:
        parts = [_sentence(self.cause)]
        if self.evidence:
            parts.append(f"Seen: {_sentence(self.evidence)}")
        if self.next_step:
            parts.append(f"Next: {self.next_step}")
        return " ".join(parts)

    def __reduce__(self) -> tuple[type[ToolkitError], tuple[str, str, str]]:
        # Errors cross process borders; the default would lose evidence and next step.
        return type(self), (self.cause, self.evidence, self.next_step)


class UsageError(ToolkitError):
    """The request cannot be right as it was typed."""

    exit_status = 2


class MissingError(UsageError):
    """A file, folder or name that is not there."""


class OrderError(UsageError):
    """A stage asked for before the one it builds on (``test`` before ``calib``)."""


class WorkError(ToolkitError):
    """The request was right, the work failed."""


class FormatError(WorkError):
    """A file that is not what its name says (truncated, Git-LFS pointer, other format)."""


class MismatchError(WorkError):
    """Two artefacts that do not belong together (a calibration of another model)."""


class DataError(WorkError):
    """Images, masks or labels that cannot be used (NaN, too few, unreadable)."""


class UnsupportedError(WorkError):
    """An operator or a graph that a stage cannot treat."""


class DeviceError(WorkError):
    """A device that is absent, refused the model, or failed while running."""


def _sentence(text: str) -> str:
    text = text.rstrip()
    return text if text.endswith((".", "!", "?", ":")) else text + "."
