"""What the ``data`` commands print: crops made, a split, what is wrong with a data set."""

from __future__ import annotations

import shlex
from typing import List, Sequence

from ..inference.corpus.extraction import Extraction
from ..inference.corpus.faults import Examination, Kind
from ..inference.corpus.splitting import Split

SHOWN = 10
"""Skipped videos and notes that are listed."""

EXAMPLES = 2


def extraction_text(result: Extraction, masks: bool) -> str:
    """Counts, what was left out, notes, and the next step."""
    what = "crops with masks" if masks else "crops"
    labels = ", ".join(f"{count} {label}" for label, count in result.labels.items())
    again = f", {result.resumed} of them before" if result.resumed else ""
    lines = [
        f"{result.target}: {result.crops} {what} from {result.done} of {result.videos} videos"
        f"{again}" + (f" ({labels})" if labels else "")
    ]
    for how, count in sorted(result.faces.items(), key=lambda item: -item[1]):
        lines.append(f"Faces: {how} ({count} {'video' if count == 1 else 'videos'})")
    if result.skipped:
        lines.append(f"Left out: {len(result.skipped)}")
        lines += _some([f"{name}: {why}" for name, why in result.skipped.items()])
    if result.notes:
        lines.append("Notes")
        lines += _some(result.notes)
    if result.crops and masks:
        lines.append(f"Next: deepfake-fpga data split {shlex.quote(str(result.target))} -o FOLDER")
    return "\n".join(lines) + "\n"


def split_text(split: Split, target: str) -> str:
    """Counts of each part, the proof in a sentence, what it rests on."""
    record = split.to_json()
    rows = [["part", "wanted", "got", "files", "videos", "groups", "labels"]]
    for name, part in record["parts"].items():
        labels = ", ".join(f"{one['files']} {label}" for label, one in part["labels"].items())
        rows.append(
            [name, f"{part['wanted']:.0%}", f"{part['got']:.0%}", str(part["files"]),
             str(part["videos"]), str(part["groups"]), labels]
        )  # fmt: skip
    lines = _table(rows, right=(1, 2, 3, 4, 5))
    lines += ["", "No two parts share a video, an original or a named person. This rests on:"]
    lines += [f"  {line}" for line in record["proof"]["assumptions"]]
    if split.left_out:
        lines.append(f"Left out: {len(split.left_out)}")
        lines += _some([f"{name}: {why}" for name, why in split.left_out.items()])
    way, reason = split.how
    lines.append(f"{target}: split.json, split.html, lists; files: {way} ({reason})")
    return "\n".join(lines) + "\n"


def examination_text(found: Examination) -> str:
    """Parts, then a table of what is wrong with examples, then what to do about each."""
    lines = []
    for part, labels in found.parts.items():
        counts = ", ".join(f"{count} {label}" for label, count in sorted(labels.items()))
        lines.append(f"{part}: {counts}")
    lines.append(f"Parts by {found.by}")
    kinds = [kind for kind in Kind if found.of(kind)]
    if kinds:
        rows = [["", "count", "what", "examples"]]
        for kind in kinds:
            mark = "fix" if kind.value.must else "note"
            faults = found.of(kind)
            for number, fault in enumerate(faults[:EXAMPLES]):
                text = f"{fault.where}: {fault.detail}" if fault.detail else fault.where
                first = [mark, str(len(faults)), kind.value.text]
                rows.append([*(first if number == 0 else ["", "", ""]), text])
        lines += ["", *_table(rows, right=(1,)), ""]
    for kind in kinds:
        if kind.value.must:
            commands = [fault.command for fault in found.of(kind) if fault.command]
            example = f", for example: {commands[0]}" if commands else ""
            lines.append(f"{kind.value.text}: {found.step(kind)}{example}")
    must = sum(len(found.of(kind)) for kind in kinds if kind.value.must)
    lines.append(
        f"{found.files} files, nothing must be fixed"
        if found.sound
        else f"{found.files} files, {must} {'fault' if must == 1 else 'faults'} must be fixed"
    )
    return "\n".join(lines) + "\n"


def _some(lines: Sequence[str]) -> List[str]:
    shown = [f"  {line}" for line in lines[:SHOWN]]
    if len(lines) > SHOWN:
        shown.append(f"  and {len(lines) - SHOWN} more; all are in --json")
    return shown


def _table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> List[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
