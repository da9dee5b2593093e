"""A comparison of two ways to compute a model: what they are fed, and the page that shows it."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from ..errors import DataError, MismatchError, UsageError
from ..inference.comparison import Comparison, Parity, TensorResult
from ..inference.sides import Entry, RecordingSide, Side, Value, open_side
from ..preprocessing import Preprocessing, fit
from .report import Section, write_page

Progress = Callable[[int, Optional[int]], None]
"""Called with pictures done and pictures expected."""

_BATCH = 4
_SHOWN = 24
_SEED = 0


@dataclass(frozen=True)
class ParityRequest:
    """What is compared, and on what.

    Attributes:
        left: see ``inference.sides.FORMS``.
        right: likewise.
        images: image files, folders or patterns.
        data: a folder with crops, masks and labels, or of pictures.
        subset: at most so many pictures.
        tolerance: largest difference taken for equal, in codes.
        threshold: fake probability from which a verdict is FAKE.
        weights: quantized file to take the constants of compiled models from.
        threads: of devices; ``None`` for one per core.
    """

    left: str
    right: str
    images: Sequence[str] = ()
    data: Optional[Path] = None
    subset: Optional[int] = None
    tolerance: float = 0.0
    threshold: float = 0.5
    weights: Optional[Path] = None
    threads: Optional[int] = None


@dataclass(frozen=True)
class _Pictures:
    images: np.ndarray
    names: Tuple[str, ...]
    labels: Tuple[int, ...]


def compare(request: ParityRequest, progress: Progress = lambda done, total: None) -> Parity:
    """Feeds both sides alike and compares every tensor both have.

    A recording is compared on what it recorded; two models of one picture on the pictures given,
    or on generated ones; other models on random codes at the inputs of their DPU subgraphs.

    Raises:
        UsageError: pictures were given where none can be used.
        MismatchError: the two have nothing in common, or want different preprocessing.
        DataError: no picture could be read.
        ToolkitError: a side cannot be opened or computed.
    """
    batch = _recorded_batch(request) or _BATCH
    left = open_side(request.left, batch=batch, threads=request.threads, weights=request.weights)
    try:
        right = open_side(
            request.right, batch=batch, threads=request.threads, weights=request.weights
        )
    except BaseException:
        left.close()
        raise
    try:
        return _compare(request, left, right, batch, progress)
    finally:
        left.close()
        right.close()


def _compare(
    request: ParityRequest, left: Side, right: Side, batch: int, progress: Progress
) -> Parity:
    comparison = Comparison(left, right, request.tolerance, request.threshold)
    given = bool(request.images) or request.data is not None
    recordings = [side for side in (left, right) if isinstance(side, RecordingSide)]
    if recordings or left.picture is None or right.picture is None:
        if given:
            raise UsageError(
                "Pictures cannot be compared on here",
                f"{recordings[0].text} is a recording"
                if recordings
                else f"{(left if left.picture is None else right).text} does not take one picture",
                "leave --images and --data out",
            )
        if recordings:
            return _on_recording(comparison, recordings, progress)
        return _on_codes(comparison, left, right, progress)
    if left.picture != right.picture:
        raise MismatchError(
            "The two sides want different preprocessing",
            f"{left.text}: {left.picture}; {right.text}: {right.picture}",
            "compare models of one checkpoint",
        )
    stimulus, total, batches, notes = _pictures(request, left.picture, batch)
    done = 0
    for number, part in enumerate(batches):
        mine = left.run(left.feeds(part.images), number)
        theirs = right.run(right.feeds(part.images), number)
        comparison.add(mine, theirs, part.names, part.labels)
        done += len(part.images)
        progress(done, total)
    if not done:
        raise DataError(
            "No picture could be read", "; ".join(notes) or stimulus, "check --images or --data"
        )
    count = f"{done} picture{'' if done == 1 else 's'}"
    return comparison.result(f"{count}: {stimulus}", done, notes)


def _on_recording(
    comparison: Comparison, recordings: Sequence[RecordingSide], progress: Progress
) -> Parity:
    left, right = comparison.left, comparison.right
    counts = [len(recording.images) for recording in recordings]
    notes = []
    if len(set(counts)) > 1:
        notes.append(f"the recordings hold {counts[0]} and {counts[1]} batches")
    images = 0
    for number in range(min(counts)):
        feeds = recordings[0].recorded(number)
        comparison.add(left.run(feeds, number), right.run(feeds, number))
        images += recordings[0].images[number]
        progress(number + 1, min(counts))
    return comparison.result(f"{min(counts)} recorded batches, {images} pictures", images, notes)


def _on_codes(comparison: Comparison, left: Side, right: Side, progress: Progress) -> Parity:
    # The compiled side knows where the DPU begins; a quantized one only the network's inputs.
    entries = max((left.entries, right.entries), key=len)
    random = np.random.default_rng(_SEED)
    feeds = {entry.name: _random(random, entry) for entry in entries}
    comparison.add(left.run(feeds, 0), right.run(feeds, 0))
    progress(1, 1)
    return comparison.result(
        f"random codes at {', '.join(entry.name for entry in entries)}",
        1,
        ["the models do not take one picture, or something between their parts cannot be run here"],
    )


def _random(random: np.random.Generator, entry: Entry) -> Value:
    codes = random.integers(-128, 128, (1, *entry.shape)).astype(np.int8)
    if entry.fix_point is None:
        return Value(codes.astype(np.float32) / np.float32(128), None)
    return Value(codes, entry.fix_point)


def _recorded_batch(request: ParityRequest) -> int:
    """Pictures per batch of the recordings among the two; 0 where there is none."""
    from ..inference.devices.recording import Recording, is_recording

    largest = 0
    for text in (request.left, request.right):
        path = Path(text)
        if path.is_file() and path.suffix.lower() != ".xmodel" and is_recording(path):
            with Recording(path) as recording:
                largest = max([largest, *recording.images])
    return largest


def _pictures(
    request: ParityRequest, preprocessing: Preprocessing, batch: int
) -> Tuple[str, Optional[int], Iterator[_Pictures], List[str]]:
    """What the pictures are, how many, the pictures in batches, and notes added while reading."""
    notes: List[str] = []
    if request.data is not None:
        from ..quantize.dataset import read_dataset

        dataset = read_dataset(request.data)
        if request.subset is not None:
            dataset = dataset.subset(min(request.subset, len(dataset)))
        batches = (
            _Pictures(
                part.images,
                tuple(item.image.name for item in part.items),
                tuple(int(label) for label in part.labels),
            )
            for part in dataset.batches(batch, preprocessing, masks=False)
        )
        return str(request.data), len(dataset), batches, notes
    if request.images:
        named = _named(request.images, request.subset, preprocessing, batch, notes)
        return ", ".join(request.images), None, named, notes
    count = request.subset or _BATCH
    notes.append("no --images and no --data: generated pictures were compared on")
    return "generated noise and gradients", count, _generated(count, preprocessing, batch), notes


def _named(
    texts: Sequence[str],
    most: Optional[int],
    preprocessing: Preprocessing,
    batch: int,
    notes: List[str],
) -> Iterator[_Pictures]:
    from ..inference.sources import open_images

    images: List[np.ndarray] = []
    names: List[str] = []
    done = 0
    for text in dict.fromkeys(texts):
        for frame in open_images(text):
            if most is not None and done >= most:
                break
            if frame.image is None:
                notes.append(f"{frame.source}: {frame.reason}")
                continue
            images.append(fit(frame.image, preprocessing))
            names.append(frame.source)
            done += 1
            if len(images) == batch:
                yield _Pictures(np.stack(images), tuple(names), ())
                images, names = [], []
    if images:
        yield _Pictures(np.stack(images), tuple(names), ())


def _generated(count: int, preprocessing: Preprocessing, batch: int) -> Iterator[_Pictures]:
    """Noise and smooth gradients by turns; the same on every machine."""
    random = np.random.default_rng(_SEED)
    size = (preprocessing.height, preprocessing.width, 3)
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float64)
    pictures = []
    for number in range(count):
        if number % 2 == 0:
            pictures.append(random.integers(0, 256, size).astype(np.uint8))
            continue
        angles = random.uniform(0, np.pi, 3)
        ramp = (
            np.cos(angles) * rows[..., None] / size[0]
            + np.sin(angles) * columns[..., None] / (size[1])
        )
        pictures.append(np.asarray(np.clip(np.abs(ramp) * 255, 0, 255), np.uint8))
    for start in range(0, count, batch):
        part = pictures[start : start + batch]
        names = tuple(f"generated {start + at}" for at in range(len(part)))
        yield _Pictures(np.stack(part), names, ())


# -- the page -----------------------------------------------------------------------------------


def write_parity_page(path: Path, parity: Parity) -> None:
    """Writes the comparison as one self-contained HTML file."""
    different = [tensor for tensor in parity.tensors if not tensor.equal]
    kind = "equal" if parity.equal else "different"
    sections = [
        Section(
            "What was compared",
            rows=[
                ("first", parity.sides[0]["text"], parity.sides[0]["about"]),
                ("second", parity.sides[1]["text"], parity.sides[1]["about"]),
                ("on", parity.stimulus, f"tolerance {parity.tolerance:g} codes"),
            ],
        )
    ]
    if parity.divergence is not None:
        sections.append(_divergence_section(parity))
    if parity.verdicts is not None:
        sections.append(Section("What it comes to", rows=_verdict_rows(parity)))
    sections.append(
        Section(
            "Every tensor, in the order of the operators",
            f"Differences are second minus first, in codes. Only one side has "
            f"{len(parity.alone[0])} and {len(parity.alone[1])} tensors more.",
            header=("tensor", "operator", "fix points", "values", "different", "largest", "mean"),
            rows=[tensor_row(tensor) for tensor in parity.tensors],
        )
    )
    for tensor in different[:_SHOWN]:
        sections.append(Section(f"Differences of {tensor.name}", drawing=histogram_svg(tensor)))
    if len(different) > _SHOWN:
        sections.append(Section("", f"{len(different) - _SHOWN} more tensors differ."))
    note = "; ".join(parity.notes) or (
        "Equal means equal in every value on what was fed, not on everything that could be."
    )
    write_page(path, "Parity", (kind, headline(parity)), note, sections)


def headline(parity: Parity) -> str:
    """One sentence: how many tensors were compared and how many differ."""
    different = sum(not tensor.equal for tensor in parity.tensors)
    text = f"{len(parity.tensors)} tensors compared on {parity.stimulus}: "
    if not different:
        return text + "all equal"
    worst = max(tensor.largest for tensor in parity.tensors)
    return text + f"{different} differ, by up to {worst:g} codes"


def tensor_row(tensor: TensorResult) -> Tuple[str, ...]:
    """The cells of one tensor: name, operator, fix points, values, different, largest, mean."""
    points = ["float" if point is None else str(point) for point in tensor.fix_points]
    return (
        tensor.name,
        tensor.type,
        points[0] if points[0] == points[1] else " / ".join(points),
        str(tensor.values),
        "equal" if tensor.equal else str(tensor.different),
        f"{tensor.largest:.4g}",
        f"{tensor.mean:.3g}",
    )


def histogram_svg(tensor: TensorResult) -> str:
    """Bars of the counts by difference, on a logarithmic scale."""
    reach = max(3, *(abs(at) for at, _ in tensor.histogram)) if tensor.histogram else 3
    most = max((count for _, count in tensor.histogram), default=1)
    width, height, base = 760, 120, 100
    step = width / (2 * reach + 1)
    bars = []
    for at, count in tensor.histogram:
        tall = max(1.0, 90 * np.log1p(count) / np.log1p(most))
        colour = "#829ab1" if at == 0 else "#c62f2f"
        bars.append(
            f'<rect x="{(at + reach) * step:.2f}" y="{base - tall:.1f}" '
            f'width="{max(step - 0.5, 0.8):.2f}" height="{tall:.1f}" fill="{colour}">'
            f"<title>{at:+d}: {count}</title></rect>"
        )
    name = html.escape(tensor.name, quote=True)
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="differences of {name}">'
        f'{"".join(bars)}<text x="0" y="116" font-size="12">{-reach}</text>'
        f'<text x="{width / 2:.0f}" y="116" font-size="12" text-anchor="middle">0</text>'
        f'<text x="{width}" y="116" font-size="12" text-anchor="end">{reach}</text></svg>'
    )


def _divergence_section(parity: Parity) -> Section:
    found: Any = parity.divergence
    state = {True: "equal", False: "different", None: "not known"}
    rows = [(f"input {name}", state[equal]) for name, equal in found.inputs]
    rows += [(f"parameters {name}", state[equal]) for name, equal in found.constants]
    operators = " > ".join(found.operators)
    return Section(
        "The first operator that diverges",
        f"{found.tensor}{f', made by {operators}' if operators else ''}: {found.conclusion}.",
        header=("what it reads", "state") if rows else (),
        rows=[tuple(row) for row in rows],
    )


def _verdict_rows(parity: Parity) -> List[Sequence[str]]:
    return [tuple(line.split(": ", 1)) for line in verdict_lines(parity)]


def verdict_lines(parity: Parity) -> List[str]:
    """What the differences come to for the two heads, one fact a line."""
    found = parity.verdicts
    if found is None:
        return []
    lines = [
        f"verdicts that flip: {found.flips} of {found.images}"
        + (f" ({', '.join(found.flipped[:5])})" if found.flips else ""),
        f"largest change of the fake probability: {found.largest_change:.6f}",
        f"mask IoU of the two: mean {found.mean_iou:.6f}, smallest {found.smallest_iou:.6f}",
        f"mask pixels that differ: {100 * found.pixels:.4f} %",
    ]
    if found.accuracy is not None:
        first, second = found.accuracy
        lines.append(f"accuracy of the two: {100 * first:.2f} % and {100 * second:.2f} %")
    return lines
