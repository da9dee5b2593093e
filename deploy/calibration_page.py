"""The page of a calibration report: ``report.json`` as tables and drawings for a person.

It knows the record only, nothing of models or pictures.
"""

from __future__ import annotations

import html
import math
from pathlib import Path
from typing import Any, List, Mapping, Optional, Sequence, Tuple

from .report import Section, write_page
from .timeline import AMBER, GREEN, INK, PALE, RED

Record = Mapping[str, Any]

GREY, BLUE = "#627d98", "#2b6cb0"
STANDS_OUT = 1.0
"""Decibels by which keeping a layer in float must help to be called out."""

NOTE = (
    "INT8 here is computed by the quantized model on this machine, on these pictures. Other "
    "pictures may fare differently; what a card computes is compared by deepfake-fpga parity."
)
STYLE = f"""<style>
.close {{ background: {GREEN} }} .worse {{ background: #b7791f }} .bad {{ background: {RED} }}
table.layers {{ font-size: 0.8rem }} table.layers td, table.layers th {{ padding: 0.15rem 0.4rem }}
table.layers td.r, table.layers th.r {{ text-align: right; font-variant-numeric: tabular-nums }}
table.layers td {{ vertical-align: middle }} .hot {{ color: {RED}; font-weight: 600 }}
.key {{ display: inline-block; width: 0.7rem; height: 0.7rem; border-radius: 50% }}
.pair {{ display: flex; flex-wrap: wrap; gap: 1rem }}
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


def scatter_svg(points: Sequence[Sequence[Any]], threshold: Optional[float] = None) -> str:
    """INT8 against float fake probability, one mark per picture.

    Args:
        points: ``(float, INT8, "REAL", "FAKE" or None)``.
        threshold: refitted on INT8, a dotted line where it is not one half.
    """
    side, left, top = 300, 44, 10
    span = side - left - 16

    def x(value: float) -> float:
        return left + span * value

    def y(value: float) -> float:
        return top + span * (1 - value)

    parts = [_open(side, side + 14, "INT8 fake probability against float"), _square(x, y)]
    for value, dash in ((0.5, "4 4"), (threshold, "1 3")):
        if value is None or (value == 0.5 and dash == "1 3"):
            continue
        parts.append(_line(x(0), y(value), x(1), y(value), INK, dash))
        if dash == "4 4":
            parts.append(_line(x(value), y(0), x(value), y(1), INK, dash))
    parts.append(_line(x(0), y(0), x(1), y(1), PALE))
    colours = {"FAKE": RED, "REAL": GREEN, None: GREY}
    for exact, quantized, name in points:
        at = f'cx="{x(exact):.1f}" cy="{y(quantized):.1f}"'
        parts.append(f'<circle {at} r="3" fill="{colours[name]}" fill-opacity="0.55"/>')
        if (exact >= 0.5) != (quantized >= 0.5):
            parts.append(f'<circle {at} r="7" fill="none" stroke="{AMBER}" stroke-width="2.5"/>')
    used = [name for name in ("FAKE", "REAL", None) if any(p[2] == name for p in points)]
    parts.append(_axes(x, y, side, "float fake probability", "INT8"))
    for i, name in enumerate(used):
        parts.append(
            f'<circle cx="{left + 8 + 70 * i}" cy="{side + 4}" r="4" fill="{colours[name]}"/>'
            f'<text x="{left + 16 + 70 * i}" y="{side + 8}" fill="{INK}">{name or "no label"}'
            "</text>"
        )
    return "".join(parts) + "</svg>"


def reliability_svg(reliability: Mapping[str, Sequence[Sequence[Any]]]) -> str:
    """What came true against what was said, per tenth of the fake probability, both models."""
    side, left, top = 300, 44, 10
    span = side - left - 16

    def x(value: float) -> float:
        return left + span * value

    def y(value: float) -> float:
        return top + span * (1 - value)

    parts = [_open(side, side + 14, "reliability of the fake probability"), _square(x, y)]
    parts.append(_line(x(0), y(0), x(1), y(1), PALE))
    for place, (name, colour) in enumerate((("float", GREY), ("int8", BLUE))):
        table = [entry for entry in reliability[name] if entry[0]]
        most = max([count for count, _, _ in table] or [1])
        known = [(x(p), y(share), 2 + 5 * math.sqrt(count / most)) for count, p, share in table]
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b, _ in known)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}"/>')
        parts += [
            f'<circle cx="{a:.1f}" cy="{b:.1f}" r="{r:.1f}" fill="{colour}" fill-opacity="0.6"/>'
            for a, b, r in known
        ]
        parts.append(
            f'<circle cx="{left + 8 + 70 * place}" cy="{side + 4}" r="4" fill="{colour}"/>'
            f'<text x="{left + 16 + 70 * place}" y="{side + 8}" fill="{INK}">'
            f"{'INT8' if name == 'int8' else name}</text>"
        )
    parts.append(_axes(x, y, side, "fake probability said", "share of FAKE"))
    return "".join(parts) + "</svg>"


def rows_svg(
    labels: Sequence[str],
    pairs: Sequence[Tuple[Optional[float], Optional[float]]],
    unit: str,
    powers: bool = False,
) -> str:
    """One row per label with a hollow and a filled mark, joined by a line.

    Args:
        labels: of the rows.
        pairs: ``(hollow, filled)``; ``None`` draws nothing.
        unit: of the axis.
        powers: values are logarithms to the base 2 and the axis shows their powers.
    """
    values = [v for pair in pairs for v in pair if v is not None]
    low, high = (math.floor(min(values)), math.ceil(max(values))) if values else (0, 1)
    step = next((s for s in (1, 2, 5, 10, 20, 50) if (high - low) / s <= 10), 100)
    low, high = step * math.floor(low / step), step * math.ceil((high + 1e-9) / step)
    width, top, row = 780, 22, 17
    left = 24 + 6.3 * max(map(len, labels), default=0)  # of letters at this size, about
    height = top + row * len(labels) + 8

    def x(value: float) -> float:
        return left + (width - left - 20) * (value - low) / max(high - low, 1)

    parts = [_open(width, height, "one row per layer")]
    for tick in range(low, high + 1, step):
        shown = _power(tick) if powers else f"{tick}"
        parts.append(_line(x(tick), top - 4, x(tick), height - 4, PALE))
        parts.append(
            f'<text x="{x(tick):.1f}" y="12" text-anchor="middle" fill="{INK}">{shown}'
            f"{f' {unit}' if unit and tick == high else ''}</text>"
        )
    for i, (name, (hollow, filled)) in enumerate(zip(labels, pairs)):
        y = top + row * i + row / 2
        parts.append(
            f'<text x="{left - 10}" y="{y + 4:.1f}" text-anchor="end" fill="{INK}">'
            f"{html.escape(name)}</text>"
        )
        if hollow is not None and filled is not None:
            parts.append(_line(x(hollow), y, x(filled), y, PALE, width=3))
        if hollow is not None:
            parts.append(
                f'<circle cx="{x(hollow):.1f}" cy="{y:.1f}" r="4" fill="#fff" stroke="{BLUE}" '
                'stroke-width="1.5"/>'
            )
        if filled is not None:
            parts.append(f'<circle cx="{x(filled):.1f}" cy="{y:.1f}" r="4" fill="{BLUE}"/>')
    return "".join(parts) + "</svg>"


def histogram_svg(counts: Sequence[int], clipped: bool) -> str:
    """How often each of the 256 codes occurs, logarithmic; red ends where values were clipped."""
    width, height = 128, 26
    most = math.log1p(max(counts))
    bars: List[str] = []
    for i in range(0, 256, 2):
        count = max(counts[i], counts[i + 1])
        if count and most:
            tall = max(1.0, (height - 1) * math.log1p(count) / most)
            bars.append(f"M{i / 2:g} {height}v{-tall:.1f}h1V{height}z")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="histogram of codes">',
        f'<path d="{"".join(bars)}" fill="{GREY}"/>',
        _line(0, height - 0.5, width, height - 0.5, PALE),
        _line(64, 0, 64, height, PALE, "2 2"),
    ]
    for code, place in ((0, 0), (255, width - 2)):
        if clipped and counts[code]:
            parts.append(f'<rect x="{place}" y="0" width="2" height="{height}" fill="{RED}"/>')
    return "".join(parts) + "</svg>"


def _open(width: int, height: int, text: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="{html.escape(text, quote=True)}" '
        'font-family="system-ui, sans-serif" font-size="12">'
    )


def _line(
    x0: float, y0: float, x1: float, y1: float, colour: str, dash: str = "", width: float = 1
) -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="{colour}" '
        f'stroke-width="{width:g}"{dashed}/>'
    )


def _square(x: Any, y: Any) -> str:
    return (
        f'<rect x="{x(0):.1f}" y="{y(1):.1f}" width="{x(1) - x(0):.1f}" '
        f'height="{y(0) - y(1):.1f}" fill="none" stroke="{PALE}"/>'
    )


def _axes(x: Any, y: Any, side: int, across: str, up: str) -> str:
    parts = []
    for value in (0.0, 0.5, 1.0):
        parts.append(
            f'<text x="{x(value):.1f}" y="{y(0) + 15:.1f}" text-anchor="middle" fill="{INK}">'
            f'{value:g}</text><text x="{x(0) - 6:.1f}" y="{y(value) + 4:.1f}" text-anchor="end" '
            f'fill="{INK}">{value:g}</text>'
        )
    parts.append(
        f'<text x="{x(0.5):.1f}" y="{y(0) + 32:.1f}" text-anchor="middle" fill="{INK}">{across}'
        f'</text><text x="12" y="{y(0.5):.1f}" text-anchor="middle" fill="{INK}" '
        f'transform="rotate(-90 12 {y(0.5):.1f})">{up}</text>'
    )
    return "".join(parts)


def _figure(value: Optional[float]) -> str:
    return "-" if value is None else f"{value:.4f}"


def _decibels(value: Optional[float]) -> str:
    return "exact" if value is None else f"{value:.1f}"


def _log2(value: Optional[float]) -> Optional[float]:
    return math.log2(value) if value else None


def _power(exponent: int) -> str:
    return f"{2**exponent}" if exponent >= 0 else f"1/{2**-exponent}"
