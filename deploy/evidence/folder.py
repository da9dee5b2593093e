"""The evidence of a run, written beside its records: a folder per video, and what leads to them.

::

    OUT/                       one video            several: OUT/<video>/ each, and in OUT
        overlay.mp4            by the run           index.html, evidence.json of kind "index",
        records.jsonl          by the run           records.jsonl, summary.json, journal of all
        summary.json           by the run
        timeline.json .vtt .png
        contact.png
        report.html
        evidence.json          names all of these with their SHA-256
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

import numpy as np

from ...errors import WorkError
from ...files import replacing, sha256, write_json, write_text
from ...inference.artifact import Artifact
from ...inference.journal import JOURNAL
from ...inference.journal.base import PARTS
from ...inference.run import RECORDS, SUMMARY
from ...inference.summary import Summary
from ...inference.verdicts.gallery import Gallery
from ...inference.verdicts.pictures import contact_sheet, timeline_picture
from ...inference.verdicts.timeline import (
    Interval,
    IntervalRules,
    find_intervals,
    timeline_record,
    webvtt,
)
from ..build_folder import now
from ..defaults import DEMO_CHECKPOINT
from .clips import Clip, Stamp, clips_of, stamps
from .manifest import HASH, MANIFEST, hashes, printable, write_manifest
from .origin import all_versions, device_record, input_record, model_record, strict
from .page import Story, index, report

REPORT, INDEX = "report.html", "index.html"
TIMELINE, SUBTITLES, CURVE = "timeline.json", "timeline.vtt", "timeline.png"
CONTACT, OVERLAY = "contact.png", "overlay.mp4"


@dataclass(frozen=True)
class EvidenceOptions:
    """What is written.

    Attributes:
        report: the page for people.
        pictures: contact sheet and timeline as PNG.
        key: signs the manifests.
        options: of the command, as they took effect, for the manifest.
        before: size and time of the inputs before the run (``stamps``).
        also: files of the run that its summary does not name; those in its folder are listed.
    """

    report: bool = True
    pictures: bool = True
    key: Optional[bytes] = None
    options: Mapping[str, Any] = field(default_factory=dict)
    before: Mapping[str, Stamp] = field(default_factory=dict)
    also: Sequence[Path] = ()


@dataclass(frozen=True)
class Evidence:
    """What was written.

    Attributes:
        summary: that of the run, with all outputs; also in ``summary.json``.
        manifest: the ``evidence.json`` that covers everything; ``None`` where there is no video.
        sha256: the hash in it, worth noting elsewhere.
    """

    summary: Summary
    manifest: Optional[Path] = None
    sha256: str = ""


def write_evidence(
    output: Path, summary: Summary, artifact: Artifact, gallery: Gallery, options: EvidenceOptions
) -> Evidence:
    """Writes the evidence of every video of a run that is complete.

    Args:
        output: the folder of the run.
        summary: what it came to.
        artifact: the model.
        gallery: was a viewer of the run.
        options: what is written.

    Returns:
        What was written; nothing where the run had no video.

    Raises:
        WorkError: something could not be written.
    """
    try:
        clips = clips_of(output, summary, gallery, options.pictures)
        if not clips:
            return Evidence(summary)
        common = _common(summary, artifact, options)
        for clip in clips:
            common["inputs"][clip.name] = input_record(clip.name, clip.gallery.video)
        if len(clips) == 1 and clips[0].folder == output:
            return _single(clips[0], summary, common, options)
        return _several(output, clips, summary, common, options)
    except OSError as error:
        raise WorkError(
            "The evidence could not be written",
            f"{error.filename or output}: {error.strerror or error}",
            "make room or choose another -o, and run again",
        ) from error


def _copy(path: Path, target: Path) -> None:
    """A second name for a file, or a copy where the file system has no second names."""
    with replacing(target) as temporary:
        try:
            os.link(str(path), str(temporary))
        except OSError:
            shutil.copyfile(str(path), str(temporary))


def _single(
    clip: Clip, summary: Summary, common: Dict[str, Any], options: EvidenceOptions
) -> Evidence:
    output = clip.folder
    made = _write_views(clip, summary, common, options)
    outputs = list(summary.outputs)
    last = [path for path in outputs if Path(path).name == SUMMARY]
    new = [str(path) for path in [*made, output / MANIFEST] if str(path) not in outputs]
    outputs = [path for path in outputs if path not in last] + new + last
    listed = [*outputs, *_existing(options.also)]
    summary = replace(summary, outputs=outputs, notes=[*summary.notes, *_strangers(output, listed)])
    write_json(output / SUMMARY, summary.to_json())
    content = _content(clip, summary, common)
    content["files"] = _hashes(output, listed)
    digest = write_manifest(output, content, options.key)
    return Evidence(summary, output / MANIFEST, digest)


def _several(
    output: Path,
    clips: Sequence[Clip],
    summary: Summary,
    common: Dict[str, Any],
    options: EvidenceOptions,
) -> Evidence:
    moved: Dict[str, str] = {}
    for clip in clips:
        clip.folder.mkdir(parents=True, exist_ok=True)
        overlay = summary.overlays.get(clip.name)
        if overlay is not None and summary.journal is not None:
            _copy(Path(overlay), clip.folder / OVERLAY)  # the journal wants to find its own
        elif overlay is not None:
            os.replace(overlay, str(clip.folder / OVERLAY))
            moved[overlay] = str(clip.folder / OVERLAY)
    _part_records(output, clips)
    folders, rows, written = [], [], []
    for clip in clips:
        made = _write_views(clip, summary, common, options)
        made += [clip.folder / RECORDS, clip.folder / SUMMARY]
        made += [clip.folder / OVERLAY] if clip.name in summary.overlays else []
        about = {"source": printable(clip.name), **clip.verdict.to_json()}
        write_json(clip.folder / SUMMARY, about)
        content = _content(clip, summary, common)
        content["files"] = [entry.to_json() for entry in hashes(clip.folder, made)]
        digest = write_manifest(clip.folder, content, options.key)
        place = clip.folder.relative_to(output).as_posix()
        folders.append({"path": place, "source": printable(clip.name), HASH: digest})
        rows.append((place, clip.name, clip.verdict))
        written.append(str(clip.folder))
    inside = [path for path in summary.outputs if path not in moved]
    last = [path for path in inside if Path(path).name == SUMMARY]
    outputs = [path for path in inside if path not in last]
    outputs += [str(output / name) for name in (JOURNAL, PARTS) if (output / name).exists()]
    if options.report:
        write_text(output / INDEX, index(rows, common["demonstration"]))
        outputs.append(str(output / INDEX))
    listed = [*outputs, *last, *_existing(options.also)]
    strangers = _strangers(output, [*listed, *written, str(output / MANIFEST)])
    summary = replace(
        summary,
        outputs=[*outputs, *written, str(output / MANIFEST), *last],
        notes=[*summary.notes, *strangers],
        overlays={name: moved.get(path, path) for name, path in summary.overlays.items()},
    )
    write_json(output / SUMMARY, summary.to_json())
    content = {
        "kind": "index",
        "created": common["created"],
        "verdict": summary.verdict.to_json(),
        "versions": common["versions"],
        "folders": folders,
        "files": _hashes(output, listed),
    }
    digest = write_manifest(output, content, options.key)
    return Evidence(summary, output / MANIFEST, digest)


def _write_views(
    clip: Clip, summary: Summary, common: Dict[str, Any], options: EvidenceOptions
) -> List[Path]:
    """Timeline, pictures and report of one video."""
    rules = IntervalRules.around(summary.threshold)
    intervals = find_intervals(clip.scores, rules)
    folder = clip.folder
    name = printable(clip.name)
    record = timeline_record(name, clip.scores, clip.verdict, intervals, rules)
    write_json(folder / TIMELINE, record)
    write_text(folder / SUBTITLES, webvtt(name, intervals))
    made = [folder / TIMELINE, folder / SUBTITLES]
    if options.pictures:
        worst = clip.gallery.worst
        curve = timeline_picture(clip.scores, clip.verdict, intervals, worst, summary.threshold)
        _write_png(folder / CURVE, curve)
        _write_png(folder / CONTACT, contact_sheet(clip.gallery.chosen(), summary.threshold))
        made += [folder / CURVE, folder / CONTACT]
    if options.report:
        write_text(folder / REPORT, report(_story(clip, intervals, summary, common, options)))
        made.append(folder / REPORT)
    return made


def _story(
    clip: Clip,
    intervals: Sequence[Interval],
    summary: Summary,
    common: Dict[str, Any],
    options: EvidenceOptions,
) -> Story:
    source = common["inputs"][clip.name]
    model = common["model"]
    facts = [
        ("video", f"{source['path']}, {_size(source)}"),
        ("fingerprint of the video (SHA-256)", source["sha256"] or str(source["reason"])),
        ("judged on", common["created"]),
        ("model", f"{model['xmodel']['path']}, SHA-256 {model['xmodel']['sha256']}"),
        ("trained weights", f"{model['checkpoint']['file']}, {model['checkpoint']['sha256']}"),
        ("computed by", f"{summary.device}: {summary.device_reason}"),
        ("way of judging", f"{summary.rules.aggregation}; {summary.rules.calibration.reason}"),
        ("program", f"deepfake-fpga {common['versions']['deepfake-fpga']}"),
    ]
    return Story(
        clip.name,
        clip.verdict,
        clip.scores,
        intervals,
        clip.gallery.worst if options.pictures else (),
        summary.rules,
        common["demonstration"],
        _notes(clip, summary, common),
        facts,
        f"deepfake-fpga verify {shlex.quote(str(clip.folder))}",
    )


def _common(summary: Summary, artifact: Artifact, options: EvidenceOptions) -> Dict[str, Any]:
    """What the manifests of all videos of a run share."""
    model = model_record(artifact)
    demo = DEMO_CHECKPOINT.is_file() and sha256(DEMO_CHECKPOINT)
    return {
        "created": now(),
        "model": model,
        "demonstration": bool(demo) and model["checkpoint"]["sha256"] == demo,
        "device": device_record(artifact, summary.device, summary.device_reason),
        "preprocessing": artifact.preprocessing.to_json(),
        "versions": all_versions(),
        "options": strict(dict(options.options)),
        "before": options.before,
        "inputs": {},
    }


def _content(clip: Clip, summary: Summary, common: Dict[str, Any]) -> Dict[str, Any]:
    return {
        "kind": "video",
        "created": common["created"],
        "input": common["inputs"][clip.name],
        "verdict": clip.verdict.to_json(),
        "rules": summary.rules.to_json(),
        "model": common["model"],
        "device": {**common["device"], "frames_by_device": summary.devices},
        "preprocessing": common["preprocessing"],
        "faces": strict(summary.faces),
        "options": common["options"],
        "versions": common["versions"],
        "notes": [printable(note) for note in _notes(clip, summary, common)],
    }


def _notes(clip: Clip, summary: Summary, common: Dict[str, Any]) -> List[str]:
    prefix = f"{clip.name}: "
    # What is of the run and of no video goes where the run has one video only.
    own = [
        note[len(prefix) :] if note.startswith(prefix) else note
        for note in summary.notes
        if note.startswith(prefix) or len(common["inputs"]) == 1
    ]
    video = clip.gallery.video
    path = str(clip.name if video is None else video.path)
    before = common["before"].get(path)
    if before is not None and stamps([Path(path)]).get(path) != before:
        own.append("the file was changed while it was read; its fingerprint is that of afterwards")
    return own


def _part_records(output: Path, clips: Sequence[Clip]) -> None:
    """Gives every video its own lines of the records."""
    folders = {clip.name: clip.folder for clip in clips}
    parts: Dict[str, List[str]] = {}
    with (output / RECORDS).open(encoding="utf-8") as lines:
        for line in lines:
            parts.setdefault(json.loads(line)["source"], []).append(line)
    for name, folder in folders.items():
        write_text(folder / RECORDS, "".join(parts.get(name, [])))


def _existing(paths: Sequence[Path]) -> List[str]:
    return [str(path) for path in paths if path.is_file()]


def _strangers(output: Path, listed: Sequence[str]) -> List[str]:
    """A note about files in the folder that are not of this run, as ``verify`` will name them."""
    known = {Path(path).resolve() for path in listed}
    found = []
    for path in sorted(output.rglob("*")):
        place = path.resolve()
        if path.is_file() and place not in known and not known.intersection(place.parents):
            found.append(path.relative_to(output).as_posix())
    if not found:
        return []
    shown = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
    return [f"{output} holds files that are not of this run: {printable(shown)}"]


def _hashes(output: Path, paths: Sequence[str]) -> List[Dict[str, Any]]:
    """Those of the outputs that lie in the folder, without the manifest itself."""
    root = output.resolve()
    inside = [
        Path(path)
        for path in paths
        if Path(path).name != MANIFEST and root in Path(path).resolve().parents
    ]
    return [entry.to_json() for entry in hashes(output, inside)]


def _write_png(path: Path, picture: np.ndarray) -> None:
    import cv2

    good, data = cv2.imencode(".png", np.ascontiguousarray(picture[:, :, ::-1]))
    if not good:
        raise OSError(f"OpenCV cannot encode {path}")
    with replacing(path) as temporary:
        temporary.write_bytes(bytes(data))


def _size(source: Mapping[str, Any]) -> str:
    return "size unknown" if source["bytes"] is None else f"{source['bytes']:,} bytes"
