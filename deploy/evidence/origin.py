"""Where a result comes from: input, checkpoint, quantization, compiled model, device, versions.

What a compiled model was made from stands in the manifests beside it; the files themselves may be
elsewhere by now. A file that is not known is ``null`` with the reason, never left out.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Dict, Mapping, Optional

from ...errors import ToolkitError
from ...files import sha256
from ...inference.artifact import MANIFEST as MODEL_MANIFEST
from ...inference.artifact import Artifact
from ...inference.records import VideoInfo
from ...inference.verdicts.calibration import FILE as CALIBRATION
from ..build_folder import BuildFolder, read_manifest, versions
from .manifest import FileHash, printable

QUANTIZED = "UYNet_int.xmodel"
QUANTIZATION = ("quant_info.json", "bias_corr.pth", QUANTIZED)
LIBRARIES = ("av", "cv2", "onnxruntime", "onnx", "torch")


def input_record(name: str, video: Optional[VideoInfo]) -> Dict[str, Any]:
    """What was judged.

    Args:
        name: as in the records.
        video: what is known of it; ``None`` where no frame of it came.
    """
    path = Path(name) if video is None else video.path
    record: Dict[str, Any] = {"name": printable(name), "path": printable(str(path))}
    if (video is None or video.has_file) and path.is_file():
        known = FileHash.of(path)
        record.update(sha256=known.sha256, bytes=known.bytes, reason=None)
    else:
        record.update(sha256=None, bytes=None, reason="it is no file that can be read again")
    if video is not None:
        record["frames_stated"] = video.frames
        record["frame_rate"] = str(video.rate)
        for word, value in (("begin", video.begin), ("end", video.end)):
            record[word] = None if value is None else float(value)
    return record


def model_record(artifact: Artifact) -> Dict[str, Any]:
    """The compiled model, its manifest, and what it was made from."""
    beside = {
        name: FileHash.of(path).to_json() if path.is_file() else None
        for name, path in (
            ("manifest", artifact.path.with_name(MODEL_MANIFEST)),
            ("calibration", artifact.path.with_name(CALIBRATION)),
        )
    }
    made_from = artifact.manifest.get("model")
    about = made_from if isinstance(made_from, Mapping) else {}
    checkpoint = {
        "file": about.get("file"),
        "sha256": about.get("sha256"),
        "reason": None if about.get("sha256") else "the model's manifest does not name it",
    }
    return {
        "xmodel": FileHash.of(artifact.path).to_json(),
        **beside,
        "checkpoint": checkpoint,
        "quantization": _quantization(artifact),
    }


def device_record(artifact: Artifact, name: str, reason: str) -> Dict[str, Any]:
    """Who computed, and for which target the model is."""
    dpu = artifact.graph.subgraphs("DPU")
    code = dpu[0].get("dpu_fingerprint") if dpu else None
    return {
        "name": name,
        "reason": reason,
        "target": artifact.target,
        "fingerprint": hex(code) if isinstance(code, int) else None,
        "batch": artifact.batch,
    }


def all_versions() -> Dict[str, str]:
    """Versions of the toolkit and of every library that took part."""
    found = versions()
    for name in LIBRARIES:
        module = sys.modules.get(name)
        version = getattr(module, "__version__", None)
        if version is not None:
            found[name] = str(version)
    found["platform"] = sys.platform
    return found


def _quantization(artifact: Artifact) -> Dict[str, Any]:
    """``quant_info.json``, ``bias_corr.pth`` and the quantized model: hashes and where from."""
    stated = _taken(artifact.manifest)
    folder = BuildFolder(artifact.path.parent.parent).quant_model
    found: Dict[str, Any] = {
        name: {"sha256": stated.get(name), "reason": None if name in stated else "not recorded"}
        for name in QUANTIZATION
    }
    quantized = folder / QUANTIZED
    wanted = stated.get(QUANTIZED)
    if artifact.path.parent.name != "compiled" or wanted is None or not quantized.is_file():
        return found
    if sha256(quantized) != wanted:
        reason = f"{folder} is another one than this model was compiled from"
        return {name: {**entry, "reason": reason} for name, entry in found.items()}
    try:
        made = {entry.path: entry.sha256 for entry in read_manifest(folder).made}
    except ToolkitError:
        made = {}
    for name in QUANTIZATION:
        path = folder / name
        if path.is_file():
            now = sha256(path)
            same = made.get(name, now) == now
            found[name] = {
                "path": printable(str(path)),
                "sha256": now,
                "reason": None if same else "it was changed after the quantization",
            }
    return found


def _taken(manifest: Mapping[str, Any]) -> Dict[str, str]:
    """Name to SHA-256 of the files of the quantization, as the compiler noted them."""
    results = manifest.get("results")
    noted = results.get("quantization") if isinstance(results, dict) else None
    found = {str(k): str(v) for k, v in noted.items()} if isinstance(noted, dict) else {}
    taken = manifest.get("taken")
    for entry in taken if isinstance(taken, list) else []:
        if isinstance(entry, dict):
            found[Path(str(entry.get("path"))).name] = str(entry.get("sha256"))
    return found


def strict(record: Any) -> Any:
    """A record as strict JSON keeps it: paths and the like become text."""
    return json.loads(json.dumps(record, default=str, allow_nan=False))
