"""The page of a calibration report: ``report.json`` as tables and drawings for a person.

It knows the record only, nothing of models or pictures.
"""

from __future__ import annotations

import html
import math
from pathlib import Path
from typing import Any, List, Mapping, Optional, Sequence, Tuple

from .calibration_drawings import histogram_svg, reliability_svg, rows_svg, scatter_svg
from .report import Section, write_page
from .timeline import GREEN, RED

Record = Mapping[str, Any]

STANDS_OUT = 1.0
"""Decibels by which keeping a layer in float must help to be called out."""

NOTE = (
    "INT8 here is computed by the quantized model on this machine, on these pictures. Other "
    "pictures may fare differently; what a card computes is compared by deepfake-fpga parity."
)
STYLE = f"""<style>
.close {{ background: {GREEN} }} .worse {{ background: #b7791f }} .bad {{ background: {RED} }}
table.layers {{ font-size: 0.8rem }} table.layers td, table.layers th {{ padding: 0.15rem 0.4rem }}
table.layers td.r, table.layers th.r {{ text-align: right; white-space: nowrap }}
table.layers td {{ vertical-align: middle }} .hot {{ color: {RED}; font-weight: 600 }}
.key {{ display: inline-block; width: 0.7rem; height: 0.7rem; border-radius: 50% }}
.pair {{ display: flex; flex-wrap: wrap; gap: 1rem; margin-bottom: 1rem }}
.scroll {{ overflow-x: auto }}
</style>"""


def write_calibration_page(path: Path, record: Record, origin: Sequence[Tuple[str, str]]) -> None:
    """Writes the page, whole or not at all.

    Args:
        path: the HTML file.
        record: what ``report.json`` holds.
        origin: what it was made by, as ``(what, which)``.
    """
    summary = record["summary"]
    sections = [_heads(record), _verdicts(record)]
    if record["layers"]:
        sections += [_damaging(record), _noise(record), _layer_table(record), _weights(record)]
    sections += [_gate(record), Section("Made by", header=("what", "which"), rows=list(origin))]
    sections[0].drawing = STYLE + sections[0].drawing
    write_page(
        path,
        "What INT8 did to the model",
        (summary["kind"], summary["sentence"]),
        NOTE,
        [section for section in sections if section is not None],
    )


def _heads(record: Record) -> Section:
    if not record["heads"]:
        alike = record["agreement"]
        return Section(
            "The two heads",
            f"There is no truth to measure by: {record['why_no_scores']}. So the two models are "
            "compared with each other.",
            header=("agreement", "value"),
            rows=[
                ("pictures", str(alike["images"])),
                ("verdicts that differ", str(alike["verdict_flips"])),
                ("mask pixels of the same class", f"{100 * alike['mask_pixels']:.3f} %"),
                ("Dice of the INT8 mask against the float mask", f"{alike['mask_dice']:.4f}"),
                ("fake probability moves by, mean", f"{alike['mean_difference']:.4f}"),
                ("fake probability moves by, at most", f"{alike['max_difference']:.4f}"),
            ],
        )
    rows: List[Sequence[str]] = []
    for row in record["heads"]:
        change = row["change"]
        if change is None:
            effect = ""
        elif abs(change) < 5e-5:
            effect = "the same"
        else:
            effect = "better" if (change > 0) == (row["better"] == "higher") else "worse"
        rows.append(
            (
                row["head"],
                row["metric"],
                _figure(row["float"]),
                _figure(row["int8"]),
                "-" if change is None else f"{change:+.4f}",
                effect,
            )
        )
    text = (
        f"Masks of {record['masked']} and labels of {record['labelled']} of {record['images']} "
        f"pictures in {record['data']}. Log-loss, EER and calibration error are better when lower."
    )
    return Section(
        "The two heads", text, header=("head", "metric", "float", "INT8", "change", ""), rows=rows
    )


def _verdicts(record: Record) -> Section:
    verdicts = record["verdicts"]
    alike, flips, fit = record["agreement"], verdicts["flips"], verdicts["threshold"]
    text = (
        f"The fake probability moves by {alike['mean_difference']:.4f} on average and by "
        f"{alike['max_difference']:.4f} at most; {len(flips)} of {alike['images']} verdicts differ"
        f"{' (ringed)' if flips else ''}. "
    )
    if fit["int8"] is not None:
        text += (
            f"The threshold that serves the INT8 scores best is {fit['int8']:.4f} with a balanced "
            f"accuracy of {fit['int8_balanced_accuracy']:.4f} (at one half: "
            f"{fit['int8_balanced_accuracy_at_half']:.4f}); for the float scores it is "
            f"{fit['float']:.4f}. Criterion: {fit['criterion']}. It was fitted on these very "
            "pictures, so check it on others before using it with run --threshold."
        )
    drawing = scatter_svg(verdicts["points"], fit["int8"])
    if any(count for count, _, _ in verdicts["reliability"]["int8"]):
        drawing += reliability_svg(verdicts["reliability"])
        text += (
            " Right: for every tenth of the fake probability, the share of its pictures that are "
            "FAKE; on the diagonal the probability can be believed."
        )
    rows: List[Sequence[str]] = [
        (
            flip["picture"],
            flip["label"] or "not known",
            f"{flip['float']:.4f}",
            f"{flip['int8']:.4f}",
            {"float": "float", "int8": "INT8", None: "not known"}[flip["right"]],
        )
        for flip in flips[:50]
    ]
    return Section(
        "Verdicts",
        text,
        f'<div class="pair">{drawing}</div>',
        ("picture", "label", "float", "INT8", "who is right"),
        rows,
    )


def _damaging(record: Record) -> Section:
    rows = record["damaging"]
    heads = sorted({head for row in rows for head in row["gain_db"]})
    cells = ["<th>layer</th>", '<th class="r">own S/N</th>']
    cells += [f'<th class="r">{html.escape(head)}</th>' for head in heads]
    lines = ["".join(cells) + "<th>why it is noisy, and what to try</th>"]
    most = 0.0
    for row in rows:
        gains = [row["gain_db"].get(head) for head in heads]
        most = max([most] + [gain for gain in gains if gain is not None])
        line = f"<td>{html.escape(row['label'])}</td>"
        line += f'<td class="r">{_decibels(row["own_snr_db"])} dB</td>'
        for gain in gains:
            hot = " hot" if gain is not None and gain >= STANDS_OUT else ""
            line += f'<td class="r{hot}">{"-" if gain is None else f"{gain:+.1f} dB"}</td>'
        steps = html.escape("; ".join(row["try"]))
        lines.append(f"{line}<td>{html.escape(row['cause'])}.<br><em>Try:</em> {steps}.</td>")
    text = (
        f"The {record['tried_layers']} layers that add most noise of their own were each kept in "
        "float while all others stayed INT8. By how much the noise of the mask and of the verdict "
        "falls then says what the layer costs; the most damaging comes first. Tried on "
        f"{record['tried_images']} pictures. "
    )
    if most < STANDS_OUT:
        text += (
            f"No layer stands out ({STANDS_OUT:g} dB or more): the noise is the sum of many. What "
            "helps then is what moves all of them, quant --mode calib --fast-finetune."
        )
    table = "".join(f"<tr>{line}</tr>\n" for line in lines)
    return Section("Most damaging layers", text, f'<table class="layers">\n{table}</table>')


def _noise(record: Record) -> Section:
    layers = record["layers"]
    text = (
        "Signal to noise of every tensor in dB, from input to output; 6 dB are one bit. Filled: "
        "against the float network, with all that the layers before have done. Hollow: this layer "
        "alone. A wide gap says that the noise was inherited; a hollow mark far to the left, that "
        "it is made here."
    )
    drawing = rows_svg(
        [layer["label"] for layer in layers],
        [(layer["own_snr_db"], layer["snr_db"]) for layer in layers],
        "dB",
    )
    return Section("Where the noise comes from", text, drawing)


def _layer_table(record: Record) -> Section:
    head = ("layer", "fix", "S/N", "own", "clipped", "unused bits", "codes", "activations")
    cells = [
        "".join(
            f'<th class="r">{name}</th>' if 0 < i < 7 else f"<th>{name}</th>"
            for i, name in enumerate(head)
        )
    ]
    for layer in record["layers"]:
        clipped = layer["saturated_share"]
        low, high = layer["codes"]
        numbers = (
            (str(layer["position"]), False),
            (_decibels(layer["snr_db"]), (layer["snr_db"] or 99) < 20),
            (_decibels(layer["own_snr_db"]), (layer["own_snr_db"] or 99) < 30),
            (f"{clipped:.3%}" if clipped else "0", clipped > 0.005),
            (str(layer["unused_bits"]), layer["unused_bits"] >= 2),
            (f"{low}..{high}", False),
        )
        body = "".join(f'<td class="r{" hot" if hot else ""}">{text}</td>' for text, hot in numbers)
        cells.append(
            f'<td title="{html.escape(layer["name"], quote=True)}">{html.escape(layer["label"])}'
            f"</td>{body}<td>{histogram_svg(layer['histogram'], clipped > 0)}</td>"
        )
    table = "".join(f"<tr>{row}</tr>\n" for row in cells)
    text = (
        f"Over {record['layer_images']} pictures. A tensor's values are code times 2 to the minus "
        "fix; unused bits lie between its largest code and 127. Activations: how often each code "
        "from -128 to 127 occurs, logarithmic; red ends are clipped values. An exact layer adds no "
        "noise. Red numbers: signal to noise under 20 dB, own under 30 dB, over 0.5 % clipped, two "
        "bits or more unused."
    )
    return Section(
        "Every layer", text, f'<div class="scroll"><table class="layers">\n{table}</table></div>'
    )


def _weights(record: Record) -> Section:
    weights = record["weights"]
    text = (
        "Largest weight of every layer before (hollow) and after (filled) equalization, "
        "logarithmic. Spread is the widest output channel over the narrowest; all channels share "
        "one fix position, so a large spread costs the narrow ones their bits."
    )
    drawing = rows_svg(
        [w["key"] for w in weights],
        [(_log2(w["before"]), _log2(w["after"])) for w in weights],
        "",
        powers=True,
    )
    rows: List[Sequence[str]] = [
        (
            w["key"],
            str(w["position"]),
            f"{w['before']:.3g} to {w['after']:.3g}",
            f"{w['spread_before']:.1f} to {w['spread_after']:.1f}",
            _decibels(w["snr_db"]),
        )
        for w in weights
    ]
    return Section(
        "Weights before and after equalization",
        text,
        drawing,
        ("weights", "fix", "largest", "spread", "S/N in dB"),
        rows,
    )


def _gate(record: Record) -> Section:
    calibration = record["calibration"]
    gate = calibration["gate"]
    count = calibration["images"]
    if gate is None:
        return Section("The calibration", "Made by another tool; its pictures were not judged.")
    pictures, found = gate["pictures"], gate["overridden"]
    labels = ", ".join(f"{n} {name}" for name, n in pictures["labels"].items()) or "no labels"
    sources = (
        f"{pictures['sources']} videos, the largest with {pictures['largest_source']} pictures"
        if pictures["sources"]
        else "videos not known"
    )
    text = (
        f"{count} pictures; {labels}; {sources}; {pictures['near_duplicates']} look like an "
        "earlier one. "
    )
    text += (
        "It was made with --force against these findings:"
        if found
        else "Its gate found nothing to object to."
    )
    return Section(
        "The calibration",
        text,
        header=("finding", "evidence", "what to do"),
        rows=[(f["check"], f["evidence"], f["next_step"]) for f in found],
    )


def _figure(value: Optional[float]) -> str:
    return "-" if value is None else f"{value:.4f}"


def _decibels(value: Optional[float]) -> str:
    return "exact" if value is None else f"{value:.1f}"


def _log2(value: Optional[float]) -> Optional[float]:
    return math.log2(value) if value else None
