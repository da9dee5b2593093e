"""The build folder: what each stage leaves in it, and the manifest that says how it came about.

::

    build/
        float_model/   the checkpoint that was quantized                    quant --mode calib
        quant_model/   quant_info.json, bias_corr.pth, UYNet_int.xmodel     quant --mode calib, test
        compiled/      YNET.xmodel, meta.json, md5sum.txt                   compile

Each stage folder has a ``manifest.json``: the files taken and made with their SHA-256, options,
backend and why it was chosen, the preprocessing the model wants, its outputs by name, warnings,
times and versions. The later stages read it; a person can too.
"""

from __future__ import annotations

import datetime
import json
import platform
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

import numpy as np

from .. import __version__
from ..errors import FormatError, MismatchError, MissingError, OrderError
from ..files import sha256, write_json
from ..preprocessing import Preprocessing

MANIFEST = "manifest.json"
SCHEMA = 1
CHECKPOINT_SUFFIXES = (".pth", ".pt", ".safetensors")


@dataclass(frozen=True)
class FileRecord:
    """One file a stage took or made.

    Attributes:
        path: relative to the stage folder for what it made, as given for what it took.
        sha256: of its content.
        bytes: its size.
    """

    path: str
    sha256: str
    bytes: int

    @classmethod
    def of(cls, path: Path, shown: Optional[str] = None) -> FileRecord:
        """Reads ``path``; ``shown`` is the path recorded."""
        return cls(shown or str(path), sha256(path), path.stat().st_size)


@dataclass(frozen=True)
class Manifest:
    """How the files of one stage folder came about.

    Attributes:
        stage: ``calib``, ``test`` or ``compile``: the last that wrote the folder.
        backend: ``sim`` or ``vitis``.
        backend_reason: why that one.
        model: what rebuilds or describes the network (``UYNet.describe()`` and the checkpoint).
        preprocessing: what is done to a picture before the network sees it.
        taken: files the stage read.
        made: files it left in its folder.
        options: the stage's options as they took effect.
        outputs: the network's output tensors by meaning: ``{"mask": name, "classifier": name}``.
        results: what the stage measured.
        warnings: what a person should know.
        started, finished: ISO 8601, UTC.
        versions: of the tool, Python, numpy and, where it was used, torch.
    """

    stage: str
    backend: str
    backend_reason: str
    model: Mapping[str, Any]
    preprocessing: Preprocessing
    taken: Sequence[FileRecord] = ()
    made: Sequence[FileRecord] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    started: str = ""
    finished: str = ""
    versions: Mapping[str, str] = field(default_factory=lambda: versions())

    def to_json(self) -> Dict[str, Any]:
        """The JSON object written to ``manifest.json``."""
        return {"schema": SCHEMA, "tool": "deepfake-fpga", **asdict(self)}


@dataclass(frozen=True)
class BuildFolder:
    """The folder of one model's stages; nothing is made by naming it."""

    path: Path

    @property
    def float_model(self) -> Path:
        """Holds the checkpoint."""
        return self.path / "float_model"

    @property
    def quant_model(self) -> Path:
        """Holds the calibration and the quantized model."""
        return self.path / "quant_model"

    @property
    def compiled(self) -> Path:
        """Holds the compiled model."""
        return self.path / "compiled"

    def checkpoint(self) -> Optional[Path]:
        """The one checkpoint in ``float_model``; ``None`` where there is none.

        Raises:
            MismatchError: there is more than one.
        """
        if not self.float_model.is_dir():
            return None
        found = sorted(
            p for p in self.float_model.iterdir() if p.suffix.lower() in CHECKPOINT_SUFFIXES
        )
        if len(found) > 1:
            raise MismatchError(
                f"{self.float_model} holds more than one checkpoint",
                ", ".join(p.name for p in found),
                "remove all but one, or name one with --checkpoint",
            )
        return found[0] if found else None


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def versions() -> Dict[str, str]:
    """Versions of what took part; torch only where it is loaded."""
    found = {
        "deepfake-fpga": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        found["torch"] = str(torch.__version__)
    return found


def write_manifest(folder: Path, manifest: Manifest) -> Path:
    """Writes ``folder/manifest.json`` whole or not at all and returns its path."""
    path = folder / MANIFEST
    write_json(path, manifest.to_json())
    return path


def read_manifest(folder: Path, made_by: str = "") -> Manifest:
    """Reads a stage folder's manifest.

    Args:
        folder: the stage folder.
        made_by: the command that writes it, for the message.

    Raises:
        OrderError: there is none, and ``made_by`` says which command makes it.
        MissingError: there is none.
        FormatError: it is not a manifest, or one of a newer version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        if made_by:
            raise OrderError(f"There is no {path} yet", "", made_by)
        raise MissingError(f"There is no {path}", "", "check --build-dir")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        schema = record.pop("schema")
        record.pop("tool")
        if schema != SCHEMA:
            raise FormatError(
                f"The manifest {path} has schema {schema}",
                f"this version reads {SCHEMA}",
                "run the stage again with this version",
            )
        record["preprocessing"] = Preprocessing.from_json(record["preprocessing"])
        for name in ("taken", "made"):
            record[name] = tuple(FileRecord(**entry) for entry in record[name])
        record["warnings"] = tuple(record["warnings"])
        return Manifest(**record)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise FormatError(
            f"The manifest {path} cannot be read",
            f"{type(error).__name__}: {error}",
            "run the stage again",
        ) from error


def changed_files(folder: Path, manifest: Manifest) -> List[str]:
    """Files the manifest says were made in ``folder`` that are absent or have another content."""
    return [
        record.path
        for record in manifest.made
        if not (folder / record.path).is_file() or sha256(folder / record.path) != record.sha256
    ]
