"""The drop-in program ``vai_c_xir``: the vendor's words and files, our compiler behind them.

``__drop_in__`` as all of them. What the console says follows recordings of the genuine program;
its own exit status after a failed compilation is not known, here it is the one of an abort.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Optional, Sequence, Tuple

from ....compile.arch import DEFAULT_ROOT, ROOT_VARIABLE
from ....compile.compiler import compile_xmodel
from ....compile.options import CompilerOptions, parse_options
from ....compile.targets import TARGETS, Target, target_by_name
from ....errors import FormatError, MissingError, ToolkitError
from ..options import active_options

ABORTED = 134
"""Status of a shell for a process that ended by SIGABRT."""

_RULE = "*" * 50
_UNREGISTERED = "TARGET_FACTORY_UNREGISTERED_TARGET"
_DESCRIPTIONS = {
    "XCOM_OPERATION_FAILED": (
        "The supposed operation is failed!",
        "Failed to add smf node to bank!",
    ),
    "XCOM_PM_FAIL": (
        "The compiler occurs an error when generating instructions, please contact us.",
        "",
    ),
    "XCOM_ACGEN_ERROR": ("instuction generating fail, please contact us.", ""),
    "XCOM_ITEM_UNDEFINED": ("The requested item is not finded or defined!", ""),
    "XIR_UNREGISTERED_ATTR": ("Unregistered attribute!", "Attrs doesn't contain attribute data"),
}
"""Identifier to description and text, as in recorded failures."""


class _Fatal(Exception):  # noqa: N818 - the genuine compiler aborts
    """The compiler would abort with this line."""

    def __init__(self, identifier: str, description: str, text: str) -> None:
        super().__init__(identifier)
        self.line = f"[UNILOG][FATAL][{identifier}][{description}] {text}".rstrip()


class _NoFrontEnd(Exception):  # noqa: N818
    """Input or architecture is not what the program takes."""


class _ArchUnreadable(Exception):  # noqa: N818
    """The program cannot read the architecture."""


def main(argv: Sequence[str]) -> int:
    """Compiles as the words say; returns the exit status."""
    words = _parser().parse_args(list(argv))
    for line in (_RULE, "* VITIS_AI Compilation - Xilinx Inc.", _RULE):
        _print(line)
    try:
        given = _evaluated(words.options)
        source, target, shown = _inputs(words.xmodel, words.arch)
        _compile(source, target, shown, words.output_dir, words.net_name, given)
    except _NoFrontEnd:
        _print("ERROR: NO FRONT END SPECIFIED")
        return 1
    except _ArchUnreadable as error:
        _print(f"Unable to open file {error}")
        return 1
    except _EvaluationError as error:
        for text in ("Traceback (most recent call last):", '  File "<string>", line 1', str(error)):
            print(text, file=sys.stderr, flush=True)
        return 1
    except _Fatal as error:
        _print(error.line)
        _print("*** Check failure stack trace: ***")
        print("Aborted (core dumped)", file=sys.stderr, flush=True)
        return ABORTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vai_c_xir", description="Compiles a quantized xmodel.")
    parser.add_argument("-x", "--xmodel", default="", help="quantized model")
    parser.add_argument("-a", "--arch", default="", help="arch.json")
    parser.add_argument("-o", "--output_dir", default="./", help="where the result goes")
    parser.add_argument("-n", "--net_name", default="net", help="name of the result")
    parser.add_argument("-e", "--options", default="{}", help="a dict of further options")
    return parser


class _EvaluationError(Exception):
    """What ``eval`` would have raised, as the last line of a traceback."""


def _evaluated(text: str) -> CompilerOptions:
    """The options as ``eval`` would give them; nothing is executed."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError as error:
        raise _EvaluationError(f"SyntaxError: {error.msg}") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not hasattr(builtins, node.id):
            raise _EvaluationError(f"NameError: name {node.id!r} is not defined")
    try:
        return parse_options(text)
    except ToolkitError as error:
        # What the genuine program does with unknown keys is not known; silence would hide them.
        raise _EvaluationError(f"ValueError: {error.cause}: {error.evidence}") from None


def _inputs(xmodel: str, arch: str) -> Tuple[Path, Target, str]:
    """The model, the target, and the target as the compiler prints it."""
    if not xmodel or not arch or not Path(xmodel).is_file():
        raise _NoFrontEnd
    try:
        record: Any = json.loads(_in_container(arch).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise _ArchUnreadable(arch) from None
    if not isinstance(record, dict) or not {"target", "fingerprint"} & set(record):
        raise _NoFrontEnd
    if "target" in record:
        target = _known(next((t for t in TARGETS if t.dpu_name == record["target"]), None))
        if target is None:
            raise _unregistered(f"name={record['target']}")
        return Path(xmodel), target, target.dpu_name
    code = str(record["fingerprint"])
    target = _known(target_by_name(code))
    if target is None:
        raise _unregistered(f"fingerprint={code}")
    return Path(xmodel), target, f"{target.dpu_name}_{target.fingerprint:016x}"


def _in_container(arch: str) -> Path:
    """The file a script names by its place in the vendor's container, which this host is not."""
    path, root = Path(arch), os.environ.get(ROOT_VARIABLE)
    if not path.exists() and root is not None and arch.startswith(f"{DEFAULT_ROOT}/"):
        return Path(root) / arch[len(DEFAULT_ROOT) + 1 :]
    return path


def _known(target: Optional[Target]) -> Optional[Target]:
    """The target, if the simulated release has it; 3.5 kept the list of 3.0."""
    release = active_options().release
    release = "3.0" if release == "3.5" else release
    return target if target is not None and release in target.released else None


def _unregistered(what: str) -> _Fatal:
    return _Fatal(
        _UNREGISTERED, "Unregistered target!", f"Cannot find or create target with {what}"
    )


def _compile(
    source: Path, target: Target, shown: str, output: str, name: str, given: CompilerOptions
) -> None:
    options = active_options()
    old = options.release == "1.4.1"
    if old:
        stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime())
        folder = f"/tmp/vitis-ai-user/log/xcompiler-{stamp}-{os.getpid()}"
        _info(f'The compiler log will be dumped at "{folder}"')
        _info(f"Target architecture: {shown}")
    translate = _Console(options.release, shown)
    # The genuine program keeps the folder as it was typed, below the working directory.
    folder_given = Path(os.path.join(os.getcwd(), output))
    try:
        if options.compile_fails:
            _fail(options.compile_fails, target, translate)
        if given.plugins:
            _print("[UNILOG][WARNING] A simulated compiler loads no plugins.")
        plain = CompilerOptions(given.input_shape, given.output_ops)
        compile_xmodel(source, target, folder_given, name, translate, plain)
    except (FormatError, MissingError) as error:
        identifier, description = "XIR_READ_PB_FAILURE", "failed to read pb file"
        if "cannot be read" in error.cause or not translate.begun:
            raise _Fatal(identifier, description, f"file = {source}") from None
        raise _Fatal("XCOM_UNEXPECTED_VALUE", "The value is unexpected!", str(error)) from None
    except ToolkitError as error:
        identifier = "XCOM_OPERATION_FAILED"
        raise _Fatal(identifier, _DESCRIPTIONS[identifier][0], error.cause) from None


def _fail(identifier: str, target: Target, console: _Console) -> None:
    """What a failing compilation prints before it aborts."""
    for line in (
        "Compile mode: dpu",
        "Debug mode: function",
        f"Target architecture: {target.dpu_name}",
        "Begin to compile...",
    ):
        console(f"[UNILOG][INFO] {line}")
    description, text = _DESCRIPTIONS.get(identifier, ("The operation failed!", ""))
    raise _Fatal(identifier, description, text)


class _Console:
    """Takes our compiler's lines, prints them in the words of one release."""

    def __init__(self, release: str, shown: str) -> None:
        self._release, self._shown = release, shown
        self.begun = False

    def __call__(self, line: str) -> None:
        if not line.startswith("[UNILOG]"):
            return  # the banner, printed already
        self.begun = self.begun or "Begin to compile" in line
        if "Target architecture: " in line:
            line = f"[UNILOG][INFO] Target architecture: {self._shown}"
        elif "Debug mode: " in line and self._release in ("3.0", "3.5"):
            line = "[UNILOG][INFO] Debug mode: null"
        elif self._release == "1.4.1":
            line = line.replace(", and has been saved to", ", and been saved to")
        _print(line)


def _info(text: str) -> None:
    _print(f"[UNILOG][INFO] {text}")


def _print(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
