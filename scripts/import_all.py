"""Imports every module of the package, those that need torch only where torch is installed."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
AREAS = ("board", "compile", "deploy", "inference", "quantize")
TORCH = importlib.util.find_spec("torch") is not None

names = ["deepfake_fpga"]
for path in [*ROOT.glob("*.py"), *(p for area in AREAS for p in ROOT.joinpath(area).rglob("*.py"))]:
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[-1] not in ("__init__", "__main__"):
        names.append(".".join(("deepfake_fpga", *parts)))

skipped = []
for name in sorted(names):
    try:
        importlib.import_module(name)
    except ImportError as error:
        if TORCH or getattr(error, "name", None) not in ("torch", "safetensors"):
            raise
        skipped.append(name)
print(f"{len(names) - len(skipped)} modules imported, {len(skipped)} need torch", file=sys.stderr)
