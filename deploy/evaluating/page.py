"""The page of an evaluation, ``eval.html``: ``eval.json`` for a person who is no engineer.

It knows the record only, nothing of models or pictures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

from ..report import Section, write_page
from .drawings import confusion_svg, intervals_svg, reliability_svg, roc_svg, side_by_side
from .measures import FEW
from .words import (
    LEVEL_WORDS,
    MEANING,
    TITLES,
    Record,
    change,
    figure,
    flip_line,
    main_rows,
    robustness_rows,
    threshold_lines,
    undefined,
)

STYLE = """<style>
.measured { background: #2b6cb0 } .worse { background: #c62f2f }
td { font-size: 0.9rem }
</style>"""
MOST_ROWS = 50


def write_eval_page(path: Path, record: Record) -> None:
    """Writes the page, whole or not at all.

    Args:
        path: the HTML file.
        record: what ``eval.json`` holds.
    """
    sections = [_answer(record), _figures(record), _meaning(), _curves(record), _trust(record)]
    sections += [_confusion(record), _thresholds(record)]
    for name, device in record["devices"].items():
        sections += [_robustness(name, device), _breakdown(name, device)]
    sections += [_flips(record), _baseline(record), _mistakes(record), _notes(record)]
    sections.append(_origin(record))
    kept = [section for section in sections if section is not None]
    kept[0].drawing = STYLE + kept[0].drawing
    worse = bool(record["baseline"] and record["baseline"]["worse"])
    write_page(
        path,
        "How good the detector is",
        ("worse" if worse else "measured", _sentence(record)),
        "These figures hold for these videos and others like them. On videos from elsewhere "
        "(another camera, another way of faking) the same detector may do much worse; only "
        "measuring there tells.",
        kept,
    )


def _first(record: Record) -> Tuple[str, Record]:
    name = next(iter(record["devices"]))
    return name, record["devices"][name]


def _sentence(record: Record) -> str:
    _, device = _first(record)
    total, right = device["counts"]["videos"], device["video"]["accuracy_decided"]
    undecided = sum(own["inconclusive"] for own in device["confusion"].values())
    if right["value"] is None:
        return f"Of {total} videos not one could be decided."
    text = f"Where the detector decides, {100 * right['value']:.1f} % of its answers are right"
    if right["low"] is not None:
        text += f" (for other such videos {100 * right['low']:.1f} to {100 * right['high']:.1f} %)"
    return f"{text}; it leaves {undecided} of {total} videos undecided."


def _answer(record: Record) -> Section:
    name, device = _first(record)
    counts, settings = device["counts"], record["settings"]
    real = counts["videos"] - counts["videos_fake"]
    text = (
        f"{counts['videos_fake']} manipulated and {real} authentic videos of "
        f"{record['data']['name']} were given to the detector ({name}), {counts['frames']} frames "
        "in all. "
    )
    table = device["confusion"]
    missed, accused = table["FAKE"]["authentic"], table["REAL"]["manipulated"]
    undecided = table["FAKE"]["inconclusive"] + table["REAL"]["inconclusive"]
    text += (
        f"It missed {missed} of the manipulated ones (called them authentic), accused {accused} of "
        f"the authentic ones, and left {undecided} undecided. A video's answer comes from "
        f"{settings['video_score']}."
    )
    if counts["videos"] < FEW:
        text += f" These are only {counts['videos']} videos: all intervals are a rough guide."
    return Section("In short", text, confusion_svg(table))


def _figures(record: Record) -> Section:
    header = ("of", "figure", *record["devices"])
    return Section("All figures", "", "", header, list(main_rows(record)))


def _meaning() -> Section:
    return Section("What the figures mean", "", "", ("figure", "meaning"), list(MEANING))


def _curves(record: Record) -> Section:
    devices: Dict[str, Any] = record["devices"]
    drawings = []
    for level in ("video", "frame"):
        curves = {name: own["curves"][level]["roc"] for name, own in devices.items()}
        if any(curves.values()):
            drawings.append(f"<div>{LEVEL_WORDS[level]}<br>{_roc(devices, level, curves)}</div>")
    text = (
        "Every detector can be made stricter or milder. The curve shows what that costs: going up, "
        "more of the manipulated ones are found; going right, more authentic ones are accused. The "
        "nearer to the upper left corner the better; the dashed line is guessing. The disc is the "
        "threshold chosen for few false alarms."
    )
    if not drawings:
        text = "There is no curve: it needs manipulated and authentic videos."
    return Section("Strict or mild (ROC)", text, side_by_side(drawings) if drawings else "")


def _roc(devices: Dict[str, Any], level: str, curves: Dict[str, Any]) -> str:
    chosen = {}
    for name, own in devices.items():
        alarms, found = own["alarms_at_threshold"].get(level), own[level]["detection"]["value"]
        if alarms is not None and found is not None and alarms["authentic"]:
            chosen[name] = (alarms["wrong"] / alarms["authentic"], found)
    return roc_svg(curves, chosen)


def _trust(record: Record) -> Section:
    devices = record["devices"]
    drawings = [
        f"<div>{LEVEL_WORDS[level]}<br>"
        + reliability_svg(
            {name: own["curves"][level]["reliability"] for name, own in devices.items()}
        )
        + "</div>"
        for level in ("video", "frame")
    ]
    text = (
        "Can a stated probability be believed? Of all that was said to be manipulated with about "
        "70 %, 70 % should be. On the dashed line that holds; below it the detector exaggerates, "
        "above it it is too shy. Larger discs rest on more cases."
    )
    return Section("Can the probability be believed (reliability)", text, side_by_side(drawings))


def _confusion(record: Record) -> Section:
    drawings = [
        f"<div>{name}, frames<br>{confusion_svg(own['frame_confusion'])}</div>"
        for name, own in record["devices"].items()
    ]
    drawings += [
        f"<div>{name}, videos<br>{confusion_svg(own['confusion'])}</div>"
        for name, own in list(record["devices"].items())[1:]
    ]
    threshold = record["settings"]["threshold"]
    text = (
        f"What was said (across) against the truth (down). A frame counts as FAKE from a "
        f"probability of {threshold:g} on. Green is right, red is wrong, amber is undecided."
    )
    return Section("Right and wrong (confusion)", text, side_by_side(drawings))


def _thresholds(record: Record) -> Section:
    share = 100 * record["settings"]["false_alarms"]
    rows: List[Sequence[str]] = []
    for name, own in record["devices"].items():
        for line in threshold_lines(own, record):
            rows.append((name, line))
    text = (
        f"The lowest threshold at which no more than {share:g} % of the authentic ones here are "
        "accused, for run --threshold. It was chosen on these very videos; how many it accuses "
        "elsewhere is less sure, as the table says."
    )
    if not rows:
        text = "No threshold can be chosen on these data; the reasons are at the end of this page."
    return Section("A threshold with few false alarms", text, "", ("device", "what it gives"), rows)


def _robustness(name: str, device: Record) -> Any:
    if not device["robustness"]:
        return None
    rows = robustness_rows(device)
    level = "video" if device["video"]["auc"]["value"] is not None else "frame"
    name_of = "auc" if device[level]["auc"]["value"] is not None else "accuracy"
    base = device[level][name_of]["value"]
    bars = [
        (one["perturbation"], *(one[level][name_of][key] for key in ("value", "low", "high")))
        for one in device["robustness"]
    ]
    text = (
        "The same videos after what happens to videos on their way: compressed, shrunk, blurred, "
        f"noisy, lit otherwise. The drawing shows {TITLES[name_of]} of {LEVEL_WORDS[level]}; the "
        "dashed line is the value without any of it."
    )
    drawing = intervals_svg(bars, f"{TITLES[name_of]} by perturbation", base)
    return Section(f"Robustness ({name})", text, drawing, rows[0], list(rows[1:]))


def _breakdown(name: str, device: Record) -> Any:
    if not device["breakdown"] and not device["no_breakdown"]:
        return None
    columns = (
        ("video", "auc"), ("video", "accuracy"), ("frame", "auc"), ("frame", "accuracy"),
        ("mask", "iou"),
    )  # fmt: skip
    used = [
        (a, b)
        for a, b in columns
        if any(part[a][b]["value"] is not None for part in device["breakdown"])
    ]
    rows: List[Sequence[str]] = [
        (
            part["by"],
            part["group"],
            str(part["counts"]["videos"]),
            str(part["counts"]["frames"]),
            *(figure(part[a][b]) for a, b in used),
        )
        for part in device["breakdown"]
    ]
    titles = (f"{LEVEL_WORDS[a]}: {TITLES[b]}" for a, b in used)
    header = ("by", "group", "videos", "frames", *titles)
    why = "; ".join(f"{key}: {text}" for key, text in device["no_breakdown"].items())
    text = "Where it does well and where it does not."
    if why:
        text += f" Not split by {why}."
    return Section(f"By part of the data ({name})", text, "", header, rows)


def _flips(record: Record) -> Any:
    if not record["flips"]:
        return None
    rows: List[Sequence[str]] = []
    for one in record["flips"]:
        for kind in ("videos", "frames"):
            for flip in one[kind][:MOST_ROWS]:
                cells = []
                for side in ("first", "second"):
                    p = flip[side]["fake_probability"]
                    told = "" if p is None else f" ({p:.3f})"
                    cells.append(f"{one[side]}: {flip[side]['verdict']}{told}")
                rows.append((kind[:-1], flip["name"], flip["label"], *cells))
    text = ". ".join(flip_line(one) for one in record["flips"]) + "."
    header = ("", "name", "truth", "first device", "second device")
    return Section("Where the devices differ", text, "", header, rows)


def _baseline(record: Record) -> Any:
    baseline = record["baseline"]
    if not baseline:
        return None
    rows: List[Sequence[str]] = []
    for one in baseline["devices"]:
        for entry in one["changes"]:
            told = "worse" if entry["worse"] else ""
            told += ", beyond chance" if entry["beyond_chance"] and told else ""
            rows.append(
                (
                    one["device"],
                    LEVEL_WORDS[entry["level"]],
                    TITLES[entry["name"]],
                    figure({**entry["before"], "low": None}),
                    figure({**entry["now"], "low": None}),
                    change(entry["change"]),
                    told,
                )
            )
    text = (
        f"Against {baseline['path']}, on the videos that both have. A figure counts as worse where "
        f"it lost more than {baseline['tolerance']:g}; where the interval of the change leaves 0 "
        "out, chance alone does not explain it."
    )
    header = ("device", "of", "figure", "before", "now", "change", "")
    return Section("Against the baseline", text, "", header, rows)


def _mistakes(record: Record) -> Any:
    name, device = _first(record)
    rows: List[Sequence[str]] = [
        (one["video"], one["label"], f"{one['fake_probability']:.3f}", one["verdict"])
        for one in device["mistakes"]
    ]
    if not rows:
        return None
    text = f"The videos on whose wrong side the score is, the surest mistakes first ({name})."
    header = ("video", "truth", "probability of being manipulated", "verdict")
    return Section("Mistakes", text, "", header, rows)


def _notes(record: Record) -> Any:
    rows: List[Sequence[str]] = [
        ("not defined, or no interval", text) for text in undefined(record)
    ]
    rows += [("data", text) for text in record["data"]["notes"]]
    for name, own in record["devices"].items():
        rows += [(name, text) for text in own["notes"][:MOST_ROWS]]
    return Section("Remarks", "", "", ("of", "remark"), rows) if rows else None


def _origin(record: Record) -> Section:
    settings = record["settings"]
    rows: List[Sequence[str]] = [
        ("data", f"{record['data']['name']} (SHA-256 {record['data']['sha256']})"),
        ("model", f"{record['model']['path']} (SHA-256 {record['model']['sha256']})"),
        *((f"device {name}", own["reason"]) for name, own in record["devices"].items()),
        ("confidence", f"{settings['resamples']} resamples, seed {settings['seed']}"),
        ("resampled", settings["resampled"]),
        ("calibration error", settings["calibration_error"]),
        ("boundary F within", settings["boundary_tolerance"]),
        ("frames taken", "all" if settings["every"] == 1 else f"one of {settings['every']}"),
        ("version", record["version"]),
    ]
    return Section("Made by", "", "", ("what", "which"), rows)
