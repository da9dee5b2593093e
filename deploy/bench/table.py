"""A bench run for a terminal."""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence, Tuple

from .agreement import Agreement
from .baseline import Change
from .published import PUBLISHED
from .record import Bench, DeviceResult
from .rounds import Series

_HEAD = (
    "device",
    "images/s",
    "device only",
    "end to end",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "load s",
    "cached s",
    "peak MiB",
    "J/image",
)


def bench_text(bench: Bench, changes: Sequence[Change] = ()) -> str:
    """Everything a person wants to know of a run."""
    settings = bench.settings
    lines = [
        f"machine: {bench.machine.processor}, {bench.machine.cores} cores, "
        f"{bench.machine.instructions or 'no instructions for 8-bit sums known'}",
        f"model: {bench.model}",
        f"frames: {bench.frames}",
        f"rounds: {settings['rounds']}, in turn, medians shown; threads: {settings['threads']}; "
        f"batches in flight: {settings['in_flight']}",
        "",
    ]
    lines += columns([_HEAD, *(_row(device) for device in bench.devices)])
    for device in bench.devices:
        for layout, series in device.others.items():
            lines.append(
                f"{device.name}: {device.layout} counts, it is faster than {layout} "
                f"({_rate(series)})"
            )
    for name, reason in bench.left_out.items():
        lines.append(f"{name} is left out: {reason}")
    lines += _sweeps("batch", [(d.label, d.batch_sweep) for d in bench.devices])
    lines += _sweeps("threads", [(d.label, d.thread_sweep) for d in bench.devices])
    lines += ["", "outputs:", *(f"  {agreement_text(one)}" for one in bench.agreements)]
    lines += ["", "published, not measured here:"]
    lines += [f"  {one.label}: {one.frames:.1f} frames/s ({one.source})" for one in PUBLISHED]
    if changes:
        lines += ["", "beside the baseline:", *columns(_change_rows(changes))]
    lines += [f"note: {note}" for note in bench.notes]
    return "\n".join(lines)


def agreement_text(one: Agreement) -> str:
    """One device's answers in a sentence."""
    if one.equal is None:
        return f"{one.name}: {one.note}"
    if one.equal:
        return f"{one.name}: equal to {one.with_name} in every code of {_images(one.images)}"
    wrong = "WRONG, must be equal: " if one.failed else ""
    return (
        f"{one.name}: {wrong}{100 * one.different:.2f} % of the logits and "
        f"{100 * one.mask_pixels:.3f} % of the mask differ from {one.with_name} in "
        f"{_images(one.images)}, {one.flips} verdicts flip, "
        f"fake probability off by {one.probability:.4f} at most"
    )


def columns(rows: Sequence[Sequence[str]]) -> List[str]:
    """Lines of a table: the first column to the left, the others to the right."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]


def _row(device: DeviceResult) -> Tuple[str, ...]:
    memory = device.memory
    latency = device.latency
    return (
        device.label,
        _rate(device.images),
        _rate(device.device_only),
        _rate(device.end_to_end),
        f"{latency.p50:.2f}",
        f"{latency.p90:.2f}",
        f"{latency.p99:.2f}",
        _number(memory.get("load_seconds"), "{:.2f}"),
        _number(memory.get("cached_load_seconds"), "{:.2f}"),
        _number(memory.get("peak_bytes"), "{:.0f}", 1 / 2**20),
        _number(device.joules, "{:.3f}"),
    )


def _rate(series: Optional[Series]) -> str:
    if series is None:
        return "-"
    return f"{_short(series.median)} ±{50 * series.spread:.0f}%"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _number(value: Optional[float], form: str, factor: float = 1.0) -> str:
    return "-" if value is None else form.format(value * factor)


def _sweeps(what: str, found: Sequence[Tuple[str, Dict[int, Series]]]) -> List[str]:
    swept = [(label, sweep) for label, sweep in found if sweep]
    if not swept:
        return []
    numbers = sorted({number for _, sweep in swept for number in sweep})
    rows = [(f"images/s by {what}", *(str(number) for number in numbers))]
    for label, sweep in swept:
        rows.append((label, *(_rate(sweep.get(number)) for number in numbers)))
    return ["", *columns(rows)]


def _change_rows(changes: Sequence[Change]) -> List[Tuple[str, ...]]:
    rows: List[Tuple[str, ...]] = [("device", "before", "now", "ratio", "")]
    for one in changes:
        ratio = one.ratio
        rows.append(
            (
                one.device,
                "-" if one.before is None else _short(one.before),
                "-" if one.now is None else _short(one.now),
                "-" if ratio is None else f"{ratio:.2f}",
                "WORSE" if one.worse else "",
            )
        )
    return rows


def _images(count: int) -> str:
    return f"{count} image{'' if count == 1 else 's'}"
