"""The quantize stage on a build folder: calibrate, then measure; what each takes and leaves.

``calibrate`` copies the checkpoint to ``float_model/`` and writes the calibration to
``quant_model/``; ``measure`` reads both back and writes scores and ``UYNet_int.xmodel`` there.
Files are made in a temporary folder and moved when all are done, the manifest last.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Dict, List, Optional, Sequence, Tuple

from ..errors import MismatchError, MissingError, OrderError
from ..files import publish, sha256, workspace, write_json
from .build_folder import (
    MANIFEST,
    BuildFolder,
    FileRecord,
    Manifest,
    changed_files,
    now,
    read_manifest,
    versions,
    write_manifest,
)
from .defaults import DEMO_CHECKPOINT
from .finetuning import LateProgress, LayerProgress, check_asked, state_path
from .searching import REPORT as SEARCH_REPORT
from .searching import SearchRequest, search, search_folder
from .stage_pictures import (
    count_pictures,
    data_warnings,
    float_batches,
    gate_record,
    read_pictures,
    tuning_pictures,
    unused_pictures,
)

if TYPE_CHECKING:
    from torch import Tensor

    from ..quantize.checkpoint import Checkpoint
    from ..quantize.evaluation import Evaluation

EVALUATION = "evaluation.json"
REPORT = ("report.html", "report.json")
CALIB_COMMAND = "deepfake-fpga quant --mode calib --data DIR"

Say = Callable[[str], None]
Progress = Callable[..., Callable[[int], None]]
"""``(title, total)`` and, if not images, their name, to a function told how many more are done."""


def silent(title: str, total: int, unit: str = "image") -> Callable[[int], None]:
    """A ``Progress`` that shows nothing."""
    return lambda done: None


@dataclass(frozen=True)
class QuantRequest:
    """What both modes of the stage are asked for.

    Attributes:
        build: the build folder.
        data: folder of pictures, see ``quantize.dataset``.
        checkpoint: float weights; ``None`` takes the one in ``float_model/``, else the shipped.
        subset: use at most so many pictures; ``None`` uses all.
        batch_size: pictures at a time; calibration takes one vote per batch.
        backend: ``auto``, ``vitis`` or ``sim``.
        force: calibrate although the gate (``quantize.gate``) finds something; it is recorded.
        release: the vendor's release whose rules and files are followed; ``None`` calibrates by
            the default and tests by the one that was calibrated.
        report: write the report of a test (``calibration_report``).
        fast_finetune: tune the parameters before calibrating; test the tuned ones.
        finetune_images: tune on so many of the pictures; ``None`` uses all.
        search: calibrate in many ways and keep the best; ``None`` calibrates once.
    """

    build: BuildFolder
    data: Path
    checkpoint: Optional[Path] = None
    subset: Optional[int] = None
    batch_size: int = 8
    backend: str = "auto"
    force: bool = False
    release: Optional[str] = None
    report: bool = True
    fast_finetune: bool = False
    finetune_images: Optional[int] = None
    search: Optional[SearchRequest] = None


def calibrate(
    request: QuantRequest, say: Say = lambda text: None, progress: Progress = silent
) -> Manifest:
    """Finds the fix points on calibration pictures.

    Leaves ``float_model/<checkpoint>`` and ``quant_model/`` with ``quant_info.json``,
    ``bias_corr.pth`` and ``manifest.json``, after the vendor's quantizer its console output too. An
    earlier test's files in ``quant_model/`` no longer hold and are removed.

    Raises:
        DataError: the gate found something in the pictures or in what became of the tensors.
        ToolkitError: see ``load_checkpoint``, ``read_dataset`` and ``QuantizeBackend``. Then
            the build folder is unchanged.
    """
    from ..quantize.backend import (
        CALIBRATION_FILES,
        CALIBRATION_LOG,
        PARAM,
        TEST_LOG,
        XMODEL,
        Finetune,
        select_backend,
    )
    from ..quantize.checkpoint import load_checkpoint
    from ..quantize.gate import refuse, tensor_findings

    started = now()
    backend, reason = select_backend(request.backend, request.release)
    request = replace(request, release=backend.release)
    say(f"backend {backend.name}: {reason}; rules and files of release {request.release}")
    path, why = _float_checkpoint(request)
    say(f"checkpoint {path} ({why})")
    checkpoint = load_checkpoint(path)
    _say_notes(checkpoint, say)
    dataset = read_pictures(request, say)
    census = count_pictures(dataset, request, checkpoint, progress)
    findings = census.findings()
    refuse(findings, request.force, unused_pictures(dataset, request))
    with workspace(request.build.path) as work:
        calibration = work / "quant_model"
        calibration.mkdir()
        found: Dict[str, object] = {}
        batches = float_batches(dataset, request, checkpoint)
        done = LateProgress(progress, "calibrate", len(dataset))
        finetune = None
        if request.fast_finetune:
            finetune = Finetune(
                float_batches(tuning_pictures(dataset, request, say), request, checkpoint),
                state_path(request.build),
                LayerProgress(progress, say),
            )
        if request.search is not None:
            summary, found = search(
                request, backend, checkpoint, dataset, calibration, say, progress
            )
            request = replace(request, fast_finetune=bool(found["finetuned"]))
            write_json(calibration / SEARCH_REPORT, found)
        else:
            summary = backend.calibrate(
                checkpoint.model, _example(checkpoint), batches, calibration, done, finetune
            )
        findings += tensor_findings(summary.saturation, summary.peaks, summary.sizes)
        refuse(findings, request.force)
        warnings = [*summary.warnings, *data_warnings(dataset)]
        warnings += [f"--force overrode the gate: {f.check.value}: {f.evidence}" for f in findings]
        files = CALIBRATION_FILES + ((PARAM,) if request.fast_finetune else ())
        for name in (CALIBRATION_LOG, SEARCH_REPORT):
            if (calibration / name).is_file():
                files += (name,)
        made = [FileRecord.of(calibration / name, name) for name in files]
        manifest = Manifest(
            stage="calib",
            backend=backend.name,
            backend_reason=reason,
            model=checkpoint.describe(),
            preprocessing=checkpoint.preprocessing,
            taken=(FileRecord.of(path),),
            made=made,
            options=_options(request),
            results={
                "images": summary.images,
                "adjustments": list(summary.adjustments),
                "saturation": {k: round(v, 8) for k, v in summary.saturation.items()},
                "gate": gate_record(census, findings),
                **({"search": {k: found[k] for k in ("chosen", "reporting")}} if found else {}),
            },
            warnings=warnings,
            started=started,
            finished=now(),
        )
        write_manifest(calibration, manifest)
        _keep_checkpoint(request.build, checkpoint, manifest, work)
        target = request.build.quant_model
        for name in (
            MANIFEST,
            XMODEL,
            EVALUATION,
            PARAM,
            CALIBRATION_LOG,
            TEST_LOG,
            SEARCH_REPORT,
            *REPORT,
        ):  # a stop from here on leaves no false claim
            _remove(target / name)
        publish(calibration, target, last=MANIFEST)
        if request.fast_finetune:
            _remove(state_path(request.build))
        if request.search is not None:
            shutil.rmtree(str(search_folder(request.build)), ignore_errors=True)
    return manifest


def measure(
    request: QuantRequest, say: Say = lambda text: None, progress: Progress = silent
) -> Tuple[Manifest, Evaluation]:
    """Measures the calibrated model beside the float model and writes the quantized model.

    Leaves ``UYNet_int.xmodel``, ``evaluation.json``, ``report.html`` and ``report.json``, and the
    renewed ``manifest.json`` in ``quant_model/``.

    Raises:
        OrderError: nothing was calibrated, or without the fast finetune that is asked for.
        MismatchError: the calibration, or the checkpoint, is not the one that was calibrated; or
            the calibration was made with a fast finetune that is not asked for.
        ToolkitError: see ``read_dataset`` and ``evaluate``. Then the build folder is unchanged.
    """
    from ..quantize.backend import TEST_LOG, XMODEL, select_backend
    from ..quantize.checkpoint import load_checkpoint
    from ..quantize.evaluation import evaluate
    from .calibration_report import examine, write_report

    started = now()
    folder = request.build.quant_model
    calibration = _calibration(request)
    check_asked(folder, request.fast_finetune)
    release, told = _release(request, calibration)
    backend, reason = select_backend(request.backend, release, alike=not told)
    release = backend.release
    say(f"backend {backend.name}: {reason}; rules and files of release {release}")
    if calibration is None:
        path, why = _float_checkpoint(request)
        checkpoint = load_checkpoint(path)
        calibration = _foreign_calibration(folder, checkpoint, release)
        say(f"calibration: {calibration.backend_reason}")
    else:
        path, why = _calibrated_checkpoint(request, calibration), "the one that was calibrated"
        checkpoint = load_checkpoint(path)
    say(f"checkpoint {path} ({why})")
    dataset = read_pictures(request, say)
    quantized = backend.load(checkpoint.model, _example(checkpoint), folder)
    done = progress("test", len(dataset))
    evaluation = evaluate(
        checkpoint.model,
        quantized,
        dataset,
        request.batch_size,
        checkpoint.preprocessing,
        done,
    )
    with workspace(request.build.path) as work:
        quantized.export_xmodel(work / XMODEL)
        write_json(work / EVALUATION, evaluation.to_json())
        if request.report:
            examined = examine(
                evaluation,
                quantized.interior(),
                dataset,
                checkpoint.preprocessing,
                calibration.results,
                progress,
            )
            write_report(work, examined, _origin(calibration, path, f"{backend.name}: {reason}"))
        written = sorted(file.name for file in work.iterdir())
        old = (XMODEL, EVALUATION, TEST_LOG, *REPORT)
        kept = [r for r in calibration.made if r.path not in old]
        made = [*kept, *(FileRecord.of(work / name, name) for name in written)]
        manifest = replace(
            calibration,
            stage="test",
            backend=backend.name,
            backend_reason=reason,
            made=made,
            options={**calibration.options, "test": _options(request)},
            outputs=output_tensors(work / XMODEL),
            results={
                **calibration.results,
                "test": evaluation.to_json(),
                "test_warnings": data_warnings(dataset),
            },
            started=started,
            finished=now(),
            versions=versions(),
        )
        write_manifest(work, manifest)
        for name in (MANIFEST, TEST_LOG, *REPORT):  # those of an earlier test would not belong
            _remove(folder / name)
        publish(work, folder, last=MANIFEST)
    return manifest, evaluation


def output_tensors(path: Path) -> Dict[str, str]:
    """The tensors of a quantized U-YNet's outputs by meaning, told apart by their shapes.

    Returns:
        ``{"mask": name, "classifier": name}``.

    Raises:
        MismatchError: the model does not have one output of each kind.
    """
    from ..compile.xir.xmodel import read_xmodel

    tails = {op.tensor.name: len(op.tensor.dims) for op in read_xmodel(path).tail_ops()}
    masks = [name for name, rank in tails.items() if rank == 4]
    classifiers = [name for name, rank in tails.items() if rank == 2]
    if len(masks) != 1 or len(classifiers) != 1:
        raise MismatchError(f"{path.name} has not one mask and one classifier output", str(tails))
    return {"mask": masks[0], "classifier": classifiers[0]}


def _origin(calibration: Manifest, checkpoint: Path, backend: str) -> List[Tuple[str, str]]:
    """What a report was made from and by, for people."""
    rows = [("checkpoint", str(checkpoint)), ("quantizer", backend)]
    rows += [(record.path, f"SHA-256 {record.sha256}") for record in calibration.made]
    return rows + [(name, str(version)) for name, version in versions().items()]


def _example(checkpoint: Checkpoint) -> Tensor:
    """One picture of the shape the network takes."""
    import torch

    size = (checkpoint.preprocessing.height, checkpoint.preprocessing.width)
    return torch.zeros(1, checkpoint.model.n_channels, *size)


def _float_checkpoint(request: QuantRequest) -> Tuple[Path, str]:
    if request.checkpoint is not None:
        return request.checkpoint, "asked for"
    found = request.build.checkpoint()
    if found is not None:
        return found, "the one in the build folder"
    if not DEMO_CHECKPOINT.is_file():
        raise MissingError(
            "There is no checkpoint to quantize",
            f"none in {request.build.float_model}, none shipped at {DEMO_CHECKPOINT}",
            "name one with --checkpoint",
        )
    return DEMO_CHECKPOINT, "the shipped one, trained on synthetic faces, no detector for the wild"


def _calibrated_checkpoint(request: QuantRequest, calibration: Manifest) -> Path:
    kept = request.build.float_model / str(calibration.model.get("file", ""))
    path = request.checkpoint or kept
    if not path.is_file():
        raise OrderError(f"The calibrated checkpoint {path} is not there", "", CALIB_COMMAND)
    wanted = calibration.model.get("sha256")
    found = sha256(path)
    if found != wanted:
        raise MismatchError(
            f"The calibration in {request.build.quant_model} is of another model than {path}",
            f"SHA-256 {found[:12]} here, {str(wanted)[:12]} calibrated",
            f"{CALIB_COMMAND} --checkpoint {path}",
        )
    return path


def _calibration(request: QuantRequest) -> Optional[Manifest]:
    """The manifest of our calibration, checked; ``None`` for files that another tool left."""
    from ..quantize.backend import CALIBRATION_FILES

    folder = request.build.quant_model
    if not (folder / MANIFEST).is_file() and all(
        (folder / name).is_file() for name in CALIBRATION_FILES
    ):
        return None
    calibration = read_manifest(folder, made_by=CALIB_COMMAND)
    _check_calibration(folder, calibration)
    return calibration


def _release(request: QuantRequest, calibration: Optional[Manifest]) -> Tuple[str, bool]:
    """The release to test by, and whether it was said and not only told by the files' form.

    It is the calibrated one.

    Raises:
        MismatchError: another one is asked for.
    """
    from ..quantize import results

    made = None if calibration is None else calibration.options.get("release")
    if made is not None:
        if request.release not in (None, made):
            raise MismatchError(
                f"The calibration in {request.build.quant_model} was made by release {made}, "
                f"--release says {request.release}",
                f"release in {MANIFEST}",
                f"leave --release out, or {CALIB_COMMAND} --release {request.release}",
            )
        return str(made), True
    # Where the form leaves a choice, the user's word decides; reading refuses a contradiction.
    if request.release is not None:
        return request.release, True
    return results.load(request.build.quant_model).release.name, False


def _foreign_calibration(folder: Path, checkpoint: Checkpoint, release: str) -> Manifest:
    """What can be said of a calibration without a manifest, such as the vendor's own."""
    from ..quantize.backend import CALIBRATION_FILES

    reason = f"no {MANIFEST} beside {CALIBRATION_FILES[0]}: made by another tool"
    reason += f", in the form of release {release}"
    return Manifest(
        stage="calib",
        backend="unknown",
        backend_reason=reason,
        model=checkpoint.describe(),
        preprocessing=checkpoint.preprocessing,
        made=[FileRecord.of(folder / name, name) for name in CALIBRATION_FILES],
        options={"release": release},
        warnings=[f"{reason}; whether it belongs to these weights cannot be checked"],
    )


def _check_calibration(folder: Path, calibration: Manifest) -> None:
    from ..quantize.backend import CALIBRATION_FILES, PARAM

    files = (*CALIBRATION_FILES, PARAM)
    changed = [name for name in changed_files(folder, calibration) if name in files]
    missing = [name for name in CALIBRATION_FILES if not (folder / name).is_file()]
    if missing:
        raise OrderError(
            f"The calibration in {folder} is incomplete",
            f"missing {', '.join(missing)}",
            CALIB_COMMAND,
        )
    if changed:
        raise MismatchError(
            f"The calibration in {folder} is not the one its manifest describes",
            f"changed since: {', '.join(changed)}",
            CALIB_COMMAND,
        )


def _options(request: QuantRequest) -> Dict[str, object]:
    return {
        "data": str(request.data),
        "subset": request.subset,
        "batch_size": request.batch_size,
        "backend": request.backend,
        "fast_finetune": request.fast_finetune,
        "force": request.force,
        "release": request.release,
    }


def _say_notes(checkpoint: Checkpoint, say: Say) -> None:
    variant = "bilinear" if checkpoint.bilinear else "transposed-convolution"
    say(f"U-YNet of width {checkpoint.width}, {variant}")
    for note in checkpoint.notes:
        say(f"note: {note}")


def _keep_checkpoint(
    build: BuildFolder, checkpoint: Checkpoint, calibration: Manifest, work: Path
) -> None:
    """Copies the checkpoint to ``float_model/``, replacing one that an earlier call put there."""
    target = build.float_model / checkpoint.path.name
    folder = work / "float_model"
    folder.mkdir()
    inside = target.is_file() and sha256(target) == checkpoint.sha256
    if not inside:
        shutil.copyfile(str(checkpoint.path), str(folder / target.name))
    write_manifest(
        folder,
        replace(
            calibration,
            stage="float",
            made=() if inside else (FileRecord.of(folder / target.name, target.name),),
            results={},
            warnings=(),
        ),
    )
    for name in _copied_earlier(build.float_model):
        if name != target.name:
            _remove(build.float_model / name)
    publish(folder, build.float_model, last=MANIFEST)


def _copied_earlier(folder: Path) -> Sequence[str]:
    if not (folder / MANIFEST).is_file():
        return ()
    return [record.path for record in read_manifest(folder).made]


def _remove(path: Path) -> None:
    if path.is_file():
        path.unlink()
