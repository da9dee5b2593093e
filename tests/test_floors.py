"""The areas import only what lies below them, and nothing heavy before it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Iterator, Set, Tuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ["deploy", "inference", "quantize", "compile", "board"]
TOP_LEVEL_ALLOWED = {"numpy", "click", "yaml"}
TORCH_ALLOWED = {"torch", "safetensors"}


def sources() -> Iterator[Path]:
    yield from ROOT.glob("*.py")
    for area in FLOORS:
        yield from ROOT.joinpath(area).rglob("*.py")


def imports(path: Path, top_only: bool) -> Iterator[Tuple[int, str]]:
    """Every import of a file as ``(level, dotted name)``; level 0 is absolute."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if not top_only else top_statements(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield 0, alias.name
        elif isinstance(node, ast.ImportFrom):
            names = [node.module] if node.module else [alias.name for alias in node.names]
            for name in names:
                yield node.level, name or ""


def top_statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Statements run at import; a TYPE_CHECKING block is not."""
    for node in tree.body:
        if isinstance(node, ast.If):
            if "TYPE_CHECKING" not in ast.dump(node.test):
                yield from ast.walk(node)
        elif not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield from ast.walk(node)


def resolve(path: Path, level: int, name: str) -> str:
    """The dotted name under the package that a relative import means."""
    parts = path.relative_to(ROOT).parts[:-1]
    base = parts[: len(parts) - (level - 1)]
    return ".".join((*base, name))


@pytest.mark.parametrize("path", sorted(sources()), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    relative = path.relative_to(ROOT)
    area = relative.parts[0] if len(relative.parts) > 1 else None
    for level, name in imports(path, top_only=False):
        assert not (level == 0 and name.split(".")[0] == "deepfake_fpga"), (
            f"{relative} imports {name} absolutely"
        )
        if level == 0:
            continue
        target = resolve(path, level, name).split(".")[0]
        if target in FLOORS and area in FLOORS:
            assert FLOORS.index(target) >= FLOORS.index(area), f"{relative} imports upward: {name}"
        if area is None and relative.name != "__main__.py":
            assert target not in FLOORS, f"{relative} is a shared record but imports {name}"


@pytest.mark.parametrize("path", sorted(sources()), ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_modules_are_imported_where_they_are_used(path: Path) -> None:
    relative = path.relative_to(ROOT)
    allowed = set(TOP_LEVEL_ALLOWED)
    if relative.parts[0] == "quantize" or "pytorch_nndct" in relative.parts:
        allowed |= TORCH_ALLOWED
    foreign = {
        name.split(".")[0] for level, name in imports(path, top_only=True) if level == 0
    } - standard_library()
    assert foreign <= allowed


def standard_library() -> Set[str]:
    names = getattr(sys, "stdlib_module_names", None)
    if names is None:
        pytest.skip("this Python does not list its standard library (3.10 and later do)")
    return set(names)


def test_every_package_folder_is_in_the_wheel_list() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for area in FLOORS:
        for init in ROOT.joinpath(area).rglob("__init__.py"):
            package = ".".join(("deepfake_fpga", *init.parent.relative_to(ROOT).parts))
            assert f'"{package}",' in text
        for module in ROOT.joinpath(area).rglob("*.py"):
            assert module.with_name("__init__.py").exists()


HEAVY = ["torch", "cv2", "onnx", "onnxruntime", "av", "xir", "vart", "google.protobuf", "tqdm"]


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["run", "--help"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys\n"
        "from deepfake_fpga.deploy.cli import main\n"
        "try:\n"
        f"    main({words!r})\n"
        "except SystemExit as stop:\n"
        "    assert stop.code == 0, stop.code\n"
        f"print('LOADED', [m for m in {HEAVY!r} if m in sys.modules])\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.rstrip().endswith("LOADED []")
