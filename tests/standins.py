"""A file that stands for a compiled model, where the graph is made in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepfake_fpga.compile.xir.graph import Graph
from deepfake_fpga.inference import artifact


def stand_in_file(folder: Path) -> Path:
    """``model/YNET.xmodel`` in a folder, with bytes of no meaning."""
    path = folder / "model" / "YNET.xmodel"
    path.parent.mkdir()
    path.write_bytes(b"stands for the graph")
    return path


def stand_in(folder: Path, graph: Graph, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same; whatever is loaded from then on is this graph."""
    path = stand_in_file(folder)
    monkeypatch.setattr(artifact, "load_artifact", lambda *_: artifact.artifact_of(graph, path))
    return path
