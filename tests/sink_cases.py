"""Every sink that keeps results in files, with a reader of its own: for the conformance tests.

What a case reads back is compared with what its results say, item by item and in order.
"""

from __future__ import annotations

import csv
import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import cv2
import numpy as np

from deepfake_fpga.inference.overlay import full_mask
from deepfake_fpga.inference.records import Frame, FrameResult, Logits, Status
from deepfake_fpga.inference.sinks import (
    ArraySink,
    DatabaseSink,
    MaskSink,
    RecordSink,
    RunLengthSink,
    Sink,
    TableSink,
)

SIZE = 12
NAMES = ['a "b", c.png', "d\r\ne.png", "é 中.png", "x\udcff.png", "=1+1.png", "plain.png"]


def results(count: int) -> List[FrameResult]:
    """Frames of every kind: judged, not decoded, without a usable answer."""
    random = np.random.default_rng(5)
    found = []
    for number in range(count):
        name = f"{number:04d} {NAMES[number % len(NAMES)]}"
        time = None if number % 2 else number / 3
        if number % 5 == 2:
            lost = Frame(name, number, time, None, Status.DECODE_ERROR, 'broken, "badly"\nso')
            found.append(FrameResult(lost, None, None, "sim"))
            continue
        shape = (20 + number % 3, 31, 3)
        frame = Frame(name, number, time, random.integers(0, 256, shape).astype(np.uint8))
        codes = random.integers(-128, 128, (SIZE, SIZE, 2)).astype(np.int8)
        codes[: number % SIZE] = (1, 0)
        mask = (codes[..., 1] > codes[..., 0]).astype(np.uint8)
        real = float("nan") if number % 7 == 3 else float(np.float32(number % 11 / 10))
        logits = Logits(codes, 2.0**-3, number / 16)
        found.append(FrameResult(frame, real, mask, "sim", 0.5, 0, logits))
    return found


@dataclass(frozen=True)
class Case:
    """One sink.

    Attributes:
        name: for the test's name.
        make: the sink, writing into a folder.
        files: what is in the folder at the end.
        read: the items in the files, whose names are given.
        expect: the item of a result; ``None`` where it has none.
        replaces: whether the files of an earlier run are replaced at the end.
    """

    name: str
    make: Callable[[Path], Sink]
    files: Tuple[str, ...]
    read: Callable[[List[Path]], List[Any]]
    expect: Callable[[FrameResult], Any]
    replaces: bool = True

    def contents(self, folder: Path, part: bool = False) -> List[Any]:
        """The items in the files, or in those that have no name yet."""
        paths = [folder / name for name in self.files]
        if part and self.replaces:
            paths = [path.with_name(f"{path.stem}.part{path.suffix}") for path in paths]
        return self.read(paths)

    def expected(self, given: List[FrameResult]) -> List[Any]:
        """The items of the results that have one."""
        return [item for item in map(self.expect, given) if item is not None]


def fill(sink: Sink, given: List[FrameResult]) -> None:
    """Writes results as the pipeline does."""
    for result in given:
        sink.write(result, sink.render(result) if sink.renders else None)


def _strict(path: Path) -> List[Dict[str, Any]]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    text = path.read_bytes().decode("utf-8")
    assert text.endswith("\n")
    assert "\r" not in text
    return [json.loads(line, parse_constant=refuse) for line in text[:-1].split("\n")]


def _rows(paths: List[Path]) -> List[Dict[str, str]]:
    with paths[0].open(encoding="utf-8", newline="") as file:
        assert file.readline().endswith("\r\n")
        file.seek(0)
        return [dict(row) for row in csv.DictReader(file, strict=True)]


def _row(result: FrameResult) -> Dict[str, str]:
    def word(value: Any) -> str:
        if value is None:
            return ""
        return _escaped(value) if isinstance(value, str) else json.dumps(value)

    return {key: word(value) for key, value in result.to_json().items()}


def _table(paths: List[Path]) -> List[Dict[str, Any]]:
    base = sqlite3.connect(str(paths[0]))
    try:
        assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        cursor = base.execute("SELECT * FROM frames ORDER BY run, number")
        names = [column[0] for column in cursor.description]
        rows = [dict(zip(names, row)) for row in cursor]
    finally:
        base.close()
    assert [row.pop("number") for row in rows] == list(range(len(rows)))
    assert {row.pop("run") for row in rows} <= {1}
    return rows


def _stored(result: FrameResult) -> Dict[str, Any]:
    return {
        key: _escaped(value) if isinstance(value, str) else value
        for key, value in result.to_json().items()
    }


def _escaped(text: str) -> str:
    return text.replace("\udcff", "\\udcff")


def _arrays(paths: List[Path]) -> List[Any]:
    masks, scores = (np.load(str(path)) for path in paths)
    assert masks.dtype == scores.dtype == np.float64
    assert len(masks) == len(scores)
    assert scores.shape[1:] == (1,)
    # NaN is not equal to itself; no value of a test is so large.
    rows = zip(np.nan_to_num(masks, nan=1e9), np.nan_to_num(scores, nan=1e9))
    return [(mask.tolist(), score.tolist()) for mask, score in rows]


def _outputs(result: FrameResult) -> Any:
    if not result.judged or result.logits is None:
        return np.full((SIZE, SIZE, 2), 1e9).tolist(), [1e9]
    return (result.logits.mask / 8.0).tolist(), [result.logits.classifier]


def slow_decode(counts: Any, height: int, width: int) -> np.ndarray:
    """A mask out of either form of ``counts``, pixel by pixel."""
    if isinstance(counts, str):
        lengths: List[int] = []
        value = shift = 0
        for letter in counts:
            group = ord(letter) - 48
            assert 0 <= group < 64
            value += (group % 32) << shift
            shift += 5
            if group < 32:
                if group & 16:
                    value -= 1 << shift
                lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
                value = shift = 0
        assert shift == 0
    else:
        lengths = counts
    pixels: List[int] = []
    for place, length in enumerate(lengths):
        assert length > 0 or place == 0
        pixels.extend([place % 2] * length)
    assert len(pixels) == height * width
    return np.array(pixels, np.uint8).reshape(width, height).T


def _masks(paths: List[Path]) -> List[Any]:
    found: List[Any] = []
    for line in _strict(paths[0]):
        assert list(line) == ["source", "frame", "size", "counts", "area", "bbox"]
        key = (line["source"], line["frame"])
        if line["size"] is None:
            assert line["counts"] is line["area"] is line["bbox"] is None
            found.append((key, None))
            continue
        mask = slow_decode(line["counts"], *line["size"])
        assert line["area"] == mask.sum()
        rows, columns = np.nonzero(mask)
        if not len(rows):
            assert line["bbox"] == [0, 0, 0, 0]
        else:
            x, y = columns.min(), rows.min()
            assert line["bbox"] == [x, y, columns.max() - x + 1, rows.max() - y + 1]
        found.append((key, mask.tolist()))
    return found


def _mask(result: FrameResult, at_source: bool) -> Any:
    key = (result.frame.source, result.frame.index)
    if not result.judged or result.mask is None or result.frame.image is None:
        return key, None
    if not at_source:
        return key, result.mask.tolist()
    return key, (full_mask(result.mask, *result.frame.image.shape[:2]) // 255).tolist()


def _pngs(paths: List[Path]) -> List[Any]:
    found = []
    for path in sorted(paths[0].iterdir()):
        mask = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
        assert mask is not None
        found.append((path.name, (np.asarray(mask) // 255).tolist()))
    return found


def _png(result: FrameResult) -> Optional[Any]:
    mask = _mask(result, at_source=True)[1]
    return None if mask is None else (result.frame.source, mask)


CASES = [
    Case(
        "records",
        lambda folder: RecordSink(folder / "records.jsonl"),
        ("records.jsonl",),
        lambda paths: _strict(paths[0]),
        FrameResult.to_json,
    ),
    Case("csv", lambda folder: TableSink(folder / "records.csv"), ("records.csv",), _rows, _row),
    Case(
        "sqlite",
        lambda folder: DatabaseSink(folder / "records.sqlite", {"model": "YNET.xmodel"}),
        ("records.sqlite",),
        _table,
        _stored,
        replaces=False,
    ),
    Case(
        "npy",
        ArraySink,
        ("segmentation_output_array.npy", "classification_output_array.npy"),
        _arrays,
        _outputs,
    ),
    Case(
        "rle",
        lambda folder: RunLengthSink(folder / "masks.rle.jsonl"),
        ("masks.rle.jsonl",),
        _masks,
        lambda result: _mask(result, at_source=True),
    ),
    Case(
        "rle-list-network",
        lambda folder: RunLengthSink(folder / "masks.counts.jsonl", False, strings=False),
        ("masks.counts.jsonl",),
        _masks,
        lambda result: _mask(result, at_source=False),
    ),
    Case("masks", lambda folder: MaskSink(folder / "masks"), ("masks",), _pngs, _png, False),
]

BY_NAME = {case.name: case for case in CASES}
