"""What the figures are called, what they mean, and how a number with its confidence is written."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Sequence, Tuple

Record = Mapping[str, Any]

TITLES: Dict[str, str] = {
    "accuracy": "accuracy",
    "auc": "AUC",
    "eer": "equal error rate",
    "average_precision": "average precision",
    "log_loss": "log-loss",
    "calibration_error": "calibration error",
    "decided": "share decided",
    "accuracy_decided": "accuracy where decided",
    "dice": "Dice of the mask",
    "iou": "IoU of the mask",
    "iou_per_frame": "IoU per manipulated frame",
    "boundary_f": "boundary F per manipulated frame",
    "threshold": "threshold for few false alarms",
    "detection": "found at that threshold",
}
SHOWN = tuple(name for name in TITLES if name not in ("threshold", "detection"))
"""Figures of the main table; the two others have a table of their own."""

MEANING: List[Tuple[str, str]] = [
    ("accuracy", "share of right answers; guessing gives about one half where both are as many"),
    (
        "AUC",
        "how often a manipulated one scores higher than an authentic one; 0.5 is guessing, 1 "
        "perfect",
    ),
    (
        "equal error rate",
        "the share of mistakes where as many authentic ones are accused as manipulated ones are "
        "missed; 0 is perfect",
    ),
    (
        "average precision",
        "how pure the list of suspects is, from the most suspicious down; it depends on how many "
        "are manipulated",
    ),
    (
        "log-loss",
        "how much the stated probabilities surprise one who knows the truth; 0.69 says nothing, "
        "lower is better",
    ),
    (
        "calibration error",
        "by how much a stated probability misses what comes true, on average; 0.05 means five "
        "percentage points",
    ),
    ("share decided", "videos that got a verdict other than inconclusive"),
    ("Dice, IoU", "overlap of the marked pixels with the truly manipulated ones; 1 is perfect"),
    (
        "boundary F",
        "how much of the outline of the manipulated area is met to within 0.8 % of the diagonal",
    ),
    (
        "in brackets",
        "with 95 % confidence the figure lies there, if other videos of the same kind were taken; "
        "whole videos were drawn again and again, since frames of one video resemble each other",
    ),
]

LEVEL_WORDS = {"frame": "frames", "video": "videos", "mask": "masks"}


def figure(record: Record, digits: int = 3) -> str:
    """A number with its interval, as ``0.941 [0.902, 0.971]``; ``-`` where it is not defined."""
    if record["value"] is None:
        return "-"
    text = f"{record['value']:.{digits}f}"
    if record["low"] is None or record["high"] is None:
        return text
    return f"{text} [{record['low']:.{digits}f}, {record['high']:.{digits}f}]"


def change(record: Record) -> str:
    """The same for a difference, with its sign."""
    if record["value"] is None:
        return "-"
    text = f"{record['value']:+.3f}"
    if record["low"] is None or record["high"] is None:
        return text
    return f"{text} [{record['low']:+.3f}, {record['high']:+.3f}]"


def main_rows(record: Record) -> List[List[str]]:
    """Level, figure and one cell per device, for every figure that is defined on one of them."""
    devices = record["devices"]
    first = next(iter(devices.values()))
    rows = []
    for level, words in LEVEL_WORDS.items():
        for name in SHOWN:
            if name in first[level]:
                cells = [figure(own[level][name]) for own in devices.values()]
                if any(cell != "-" for cell in cells):
                    rows.append([words, TITLES[name], *cells])
    return rows


def undefined(record: Record) -> List[str]:
    """Why figures are not defined, or have no interval, each reason once."""
    found: Dict[str, List[str]] = {}
    for device, own in record["devices"].items():
        for level, words in LEVEL_WORDS.items():
            for name, entry in own[level].items():
                if entry.get("reason"):
                    key = f"{device}, {words}: {entry['reason']}"
                    found.setdefault(key, []).append(TITLES[name])
    return [f"{key} ({', '.join(names)})" for key, names in found.items()]


def table(rows: Sequence[Sequence[str]], left: int = 2) -> str:
    """Rows as columns of text; the first ``left`` columns are flush left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    )


def terminal_text(record: Record, written: Sequence[str]) -> str:
    """What is printed: the main table, thresholds, flips, robustness, baseline."""
    devices = record["devices"]
    names = list(devices)
    counts = devices[names[0]]["counts"]
    lines = [
        f"{counts['videos']} videos, {counts['videos_fake']} of them FAKE; {counts['frames']} "
        f"frames, {counts['frames_judged']} judged, {counts['frames_with_mask']} with a known mask",
        f"videos: {record['settings']['video_score']}",
        "",
        table([["of", "figure", *names], *main_rows(record)]),
        "",
    ]
    lines += [
        f"{name}: {text}" for name in names for text in threshold_lines(devices[name], record)
    ]
    for one in record["flips"]:
        lines.append(flip_line(one))
        for kind in ("videos", "frames"):
            lines += [f"  {flip_words(flip, one)}" for flip in one[kind][:5]]
            if len(one[kind]) > 5:
                lines.append(f"  ... and {len(one[kind]) - 5} more {kind}, in eval.json")
    for name in names:
        if devices[name]["robustness"]:
            rows = robustness_rows(devices[name], NARROW, "perturbation")
            lines += ["", f"{name}, the same perturbed:", table(rows, 1)]
    if record["baseline"]:
        lines += ["", *baseline_lines(record["baseline"])]
    for name in names:
        lines += [f"note: {name}: {text}" for text in devices[name]["notes"][:5]]
        if len(devices[name]["notes"]) > 5:
            lines.append(f"note: {name}: {len(devices[name]['notes']) - 5} more, in eval.json")
    lines += [f"note: {text}" for text in undefined(record)[:5]]
    lines += ["written: " + ", ".join(written)]
    return "\n".join(lines)


def threshold_lines(device: Record, record: Record) -> List[str]:
    """What the threshold for few false alarms finds, for frames and videos."""
    share = 100 * record["settings"]["false_alarms"]
    lines = []
    for level in ("frame", "video"):
        own, alarms = device[level], device["alarms_at_threshold"].get(level)
        if own["threshold"]["value"] is None or alarms is None:
            continue
        sure = ""
        if alarms["high"] is not None:
            sure = f"; with 95 % confidence at most {100 * alarms['high']:.1f} % in truth"
        lines.append(
            f"{level}s at most {share:g} % false alarms: threshold {figure(own['threshold'])}, "
            f"finds {figure(own['detection'])}, {alarms['wrong']} of {alarms['authentic']} "
            f"authentic accused{sure}"
        )
    return lines


def flip_line(one: Record) -> str:
    """How many verdicts two devices differ in."""
    text = (
        f"{one['second']} against {one['first']}: {len(one['videos'])} video verdicts and "
        f"{len(one['frames'])} of {one['compared']} frame verdicts flip"
    )
    if one["mean_change"] is not None:
        text += (
            f"; the probability of a frame moves by {one['mean_change']:.4f} on average, "
            f"{one['largest_change']:.4f} at most"
        )
    return text


def flip_words(flip: Record, one: Record) -> str:
    """One flip."""
    sides = []
    for side in ("first", "second"):
        p = flip[side]["fake_probability"]
        told = "" if p is None else f" {p:.3f}"
        sides.append(f"{one[side]} {flip[side]['verdict']}{told}")
    return f"{flip['name']} ({flip['label']}): {', '.join(sides)}"


ROBUST = (
    ("frame", "auc"), ("frame", "accuracy"), ("frame", "eer"), ("video", "auc"),
    ("video", "accuracy"), ("mask", "iou"), ("mask", "boundary_f"),
)  # fmt: skip


NARROW = (("frame", "auc"), ("video", "auc"), ("video", "accuracy"), ("mask", "iou"))
"""Of these what fits a terminal."""


def robustness_rows(
    device: Record, names: Sequence[Tuple[str, str]] = ROBUST, key: str = "words"
) -> List[List[str]]:
    """Header, the data as they are, and one row per perturbation.

    Args:
        device: its record.
        names: level and name of the columns; those without a value are left out.
        key: what a perturbation is called by, ``words`` or ``perturbation``.
    """
    used = [(a, b) for a, b in names if device[a][b]["value"] is not None]
    head = ["perturbation"] + [f"{LEVEL_WORDS[a]}: {TITLES[b]}" for a, b in used]
    rows = [head, ["as it is"] + [figure(device[a][b]) for a, b in used]]
    for one in device["robustness"]:
        rows.append([one[key]] + [figure(one[a][b]) for a, b in used])
    return rows


def baseline_lines(baseline: Record) -> List[str]:
    """Every device against the baseline."""
    lines = []
    for one in baseline["devices"]:
        rows = [["of", "figure", "before", "now", "change", ""]]
        for entry in one["changes"]:
            if entry["change"]["value"] is not None or entry["worse"]:
                told = "WORSE" if entry["worse"] else ""
                told += " beyond chance" if entry["beyond_chance"] else ""
                rows.append(
                    [
                        LEVEL_WORDS[entry["level"]],
                        TITLES[entry["name"]],
                        figure({**entry["before"], "low": None}),
                        figure({**entry["now"], "low": None}),
                        change(entry["change"]),
                        told.strip(),
                    ]
                )
        same = "the same data" if one["same_data"] else "NOT the same data, only what both have"
        lines.append(
            f"{one['device']} against {one['baseline']} of {baseline['path']}: {one['videos']} "
            f"videos, {same}; a figure may be worse by {baseline['tolerance']:g}"
        )
        lines.append(table(rows))
    return lines
