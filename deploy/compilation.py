"""The compile stage on a build folder: what it takes, what it leaves, and the manifest beside it.

The manifest carries forward what the quantized model's manifest says of pictures and outputs, so
that ``run`` treats a frame as the calibration did.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional, Tuple

from ..errors import MismatchError, OrderError, ToolkitError
from ..files import sha256
from ..preprocessing import Preprocessing
from .build_folder import (
    MANIFEST,
    BuildFolder,
    FileRecord,
    Manifest,
    now,
    read_manifest,
    write_manifest,
)

if TYPE_CHECKING:
    from ..compile.compiler import CompileResult

SOURCE = "UYNet_int.xmodel"
NET_NAME = "YNET"
TARGET = "DPUCVDX8H_ISA1_F2W2_8PE"


@dataclass(frozen=True)
class CompileRequest:
    """What the stage is asked for.

    Attributes:
        build: the build folder.
        xmodel: the quantized model; ``None`` takes the build folder's.
        arch: a target in any of the forms that ``resolve_target`` knows.
        output: where the result goes; ``None`` takes the build folder's ``compiled/``.
        net_name: the compiled model's name.
        backend: ``auto``, ``vitis`` or ``sim``.
        options: the compiler's, a dict in text form; see ``compile.options``.
        time_limit: seconds the vendor's compiler may take; ``None`` for its default.
    """

    build: BuildFolder
    xmodel: Optional[Path] = None
    arch: str = TARGET
    output: Optional[Path] = None
    net_name: str = NET_NAME
    backend: str = "auto"
    options: str = ""
    time_limit: Optional[float] = None


@dataclass(frozen=True)
class Compilation:
    """What the stage did.

    Attributes:
        result: of the compiler.
        manifest: as written beside the compiled model.
    """

    result: CompileResult
    manifest: Manifest

    def to_json(self) -> Dict[str, Any]:
        """The compiler's record with the backend, its reason and the warnings."""
        return {
            **self.result.to_json(),
            "backend": self.manifest.backend,
            "backend_reason": self.manifest.backend_reason,
            "warnings": list(self.manifest.warnings),
            "manifest": str(self.result.xmodel.with_name(MANIFEST)),
        }


def compile_build(
    request: CompileRequest,
    say: Callable[[str], None] = lambda text: None,
    log: Callable[[str], None] = lambda text: None,
) -> Compilation:
    """Compiles the build folder's quantized model, or the one named.

    Leaves ``<net_name>.xmodel``, ``meta.json``, ``md5sum.txt`` and ``manifest.json``; the vendor's
    compiler ``compile.log`` too, also where it failed.

    Args:
        request: what is asked for.
        say: told what was chosen and why.
        log: the compiler's console lines.

    Raises:
        ToolkitError: see ``resolve_target``, ``select_backend`` and ``compile_xmodel``.
        OrderError: nothing is quantized yet.
    """
    from ..compile.backend import select_backend
    from ..compile.options import parse_options
    from ..compile.targets import resolve_target

    started = now()
    source = request.xmodel if request.xmodel is not None else find_source(request.build)
    resolved = resolve_target(request.arch)
    options = parse_options(request.options)
    backend, reason = select_backend(request.backend, resolved.arch, request.time_limit)
    say(f"compiler {backend.name}: {reason}")
    output = request.output if request.output is not None else request.build.compiled
    # A stop in the middle must not leave the old manifest beside a new model.
    if output.joinpath(MANIFEST).is_file():
        output.joinpath(MANIFEST).unlink()
    result = backend.compile(source, resolved.target, output, request.net_name, log, options)
    warnings = ([resolved.note] if resolved.note else []) + list(result.notes)
    quantized, origin = _quantized_manifest(source)
    say(origin)
    preprocessing, outputs, problem = _contract(result, quantized)
    warnings += [problem] if problem else []
    manifest = Manifest(
        stage="compile",
        backend=backend.name,
        backend_reason=reason,
        model=quantized.model if quantized else {},
        preprocessing=preprocessing,
        taken=(FileRecord.of(source),),
        made=[FileRecord.of(p, p.name) for p in _files(result)],
        options={
            "arch": request.arch,
            "net_name": request.net_name,
            "target": result.target.dpu_name,
            "fingerprint": f"{result.target.fingerprint:#x}",
            "options": options.to_dict(),
        },
        outputs=outputs,
        results={
            # So that a result can name the calibration that its model has, wherever it is by then.
            "quantization": {e.path: e.sha256 for e in quantized.made} if quantized else {},
            "dpu_subgraphs": result.dpu_subgraphs,
            "cpu": [{"name": op.name, "type": op.type, "reason": op.reason} for op in result.cpu],
            "command": result.command,
        },
        warnings=warnings,
        started=started,
        finished=now(),
    )
    write_manifest(output, manifest)
    return Compilation(result, manifest)


def _files(result: CompileResult) -> List[Path]:
    files = [result.xmodel, result.meta, result.md5sum]
    return files if result.log is None else [*files, result.log]


def find_source(build: BuildFolder) -> Path:
    """The quantized model of a build folder: ``UYNet_int.xmodel``, or the only ``*_int.xmodel``.

    Raises:
        OrderError: there is none yet.
        MismatchError: there are several, and none has the usual name.
    """
    usual = build.quant_model / SOURCE
    if usual.is_file():
        return usual
    found = sorted(build.quant_model.glob("*_int.xmodel"))
    if not found:
        raise OrderError(
            f"There is no quantized model in {build.quant_model}",
            f"no {usual}",
            "type first: deepfake-fpga quant --mode test --data DIR, or name one with -x",
        )
    if len(found) > 1:
        raise MismatchError(
            f"{build.quant_model} holds more than one quantized model",
            ", ".join(path.name for path in found),
            f"name one: deepfake-fpga compile -x {found[0]}",
        )
    return found[0]


def _quantized_manifest(source: Path) -> Tuple[Optional[Manifest], str]:
    """The manifest beside the quantized model if it speaks of this very file, and why (not)."""
    if not source.with_name(MANIFEST).is_file():
        return None, f"no {MANIFEST} beside {source.name}: standard preprocessing"
    manifest = read_manifest(source.parent)
    made: List[FileRecord] = [r for r in manifest.made if r.path == source.name]
    if not made or made[0].sha256 != sha256(source):
        return None, f"{MANIFEST} beside {source.name} is of another model: standard preprocessing"
    return manifest, f"preprocessing and outputs from the {MANIFEST} beside {source.name}"


def _contract(
    result: CompileResult, quantized: Optional[Manifest]
) -> Tuple[Preprocessing, Mapping[str, str], str]:
    """Preprocessing, outputs by meaning, and what is wrong with the latter, if anything."""
    from ..inference.artifact import artifact_of

    known: Optional[Dict[str, Any]] = None
    if quantized is not None:
        known = {"preprocessing": quantized.preprocessing.to_json()}
        if quantized.outputs:
            known["outputs"] = dict(quantized.outputs)
    try:
        artifact = artifact_of(result.graph, result.xmodel, known)
    except ToolkitError as error:
        preprocessing = quantized.preprocessing if quantized else Preprocessing()
        return preprocessing, {}, f"run cannot use this model as a U-YNet: {error.cause}"
    outputs = {"mask": artifact.mask, "classifier": artifact.classifier}
    return artifact.preprocessing, outputs, ""
