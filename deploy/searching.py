"""Quantization search on a build folder: what is judged on, what is kept, what is said of it.

Half of the people of a labelled set choose, the other half tell what the choice is worth, so the
figures that are reported are of faces that chose nothing. A search that is stopped leaves
``search/`` in the build folder; the next one with the same checkpoint, pictures and options goes on
from there. The folder goes when the calibration is written.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Set, Tuple

from ..errors import DataError, UnsupportedError

if TYPE_CHECKING:
    from ..quantize.backend import CalibrationSummary, QuantizeBackend
    from ..quantize.checkpoint import Checkpoint
    from ..quantize.dataset import Dataset
    from ..quantize.metrics import Scores
    from ..quantize.samples import Samples
    from .build_folder import BuildFolder
    from .quantization import Progress, QuantRequest, Say

FOLDER = "search"
REPORT = "search.json"


@dataclass(frozen=True)
class SearchRequest:
    """What a search is asked for.

    Attributes:
        judge: folder of labelled crops, of people who are not in the calibration data.
        floor_auc, floor_iou: what the INT8 model must reach; ``None`` asks for nothing.
        finetune_images: tune on so many pictures; 0 leaves fast finetune out.
        judge_images: at most so many pictures choose, and as many report.
    """

    judge: Path
    floor_auc: Optional[float] = None
    floor_iou: Optional[float] = None
    finetune_images: int = 12
    judge_images: int = 200


def search_folder(build: BuildFolder) -> Path:
    """Where a search that is stopped keeps what it tried."""
    return build.path / FOLDER


def search(
    request: QuantRequest,
    backend: QuantizeBackend,
    checkpoint: Checkpoint,
    dataset: Dataset,
    folder: Path,
    say: Say,
    progress: Progress,
) -> Tuple[CalibrationSummary, Dict[str, Any]]:
    """Searches, and leaves the best calibration in ``folder``.

    Args:
        request: with a ``SearchRequest``.
        backend: ours; the vendor's cannot be told its fix positions.
        checkpoint: the float network.
        dataset: the calibration pictures.
        folder: where the calibration's files go.
        say: see ``calibrate``.
        progress: see ``calibrate``.

    Returns:
        The calibration, and the record of the search: what was tried and what it was worth.

    Raises:
        UnsupportedError: the backend is the vendor's.
        DataError: the labelled set cannot judge, or no candidate reaches the floors.
    """
    from ..quantize.backend import summary_of
    from ..quantize.candidates import Floors, Judge, Recipe
    from ..quantize.options import QuantizeOptions
    from ..quantize.search import Search
    from .stage_pictures import float_batches

    asked = request.search
    assert asked is not None  # the caller looked
    if backend.name != "sim":
        raise UnsupportedError(
            "The vendor's quantizer finds its own fix positions and cannot search",
            f"backend {backend.name}",
            "use --backend sim, which writes the same files",
        )
    choosing, reporting, people = judges(asked, checkpoint)
    say(
        f"search: {len(choosing)} pictures of {people[0]} people choose, {len(reporting)} of "
        f"{people[1]} others report; it takes long and can be stopped and gone on with"
    )
    done = _Trials(progress)
    held = Search(
        checkpoint.model,
        list(float_batches(dataset, request, checkpoint)),
        choosing,
        Floors(asked.floor_auc, asked.floor_iou),
        QuantizeOptions(release=backend.release),
        search_folder(request.build),
        asked.finetune_images,
        done,
    )
    found = held.run()
    found.calibration.save(folder)
    judge = Judge(checkpoint.model, reporting)
    default = held.calibration(Recipe())
    assert default is not None  # it was tried first
    before, _ = judge(held.quantizer.quantized(default))
    after, _ = judge(held.quantizer.quantized(found.calibration))
    missed = held.floors.missed(after)
    record: Dict[str, Any] = {
        "chosen": found.chosen.to_json(),
        "finetuned": found.chosen.recipe.finetuned,
        "trials": [trial.to_json() for trial in found.trials],
        "choosing": {"images": len(choosing), "people": people[0], "float": found.exact.to_json()},
        "reporting": {
            "images": len(reporting),
            "people": people[1],
            "float": judge.exact.to_json(),
            "default": before.to_json(),
            "chosen": after.to_json(),
        },
        "floors": {"auc": asked.floor_auc, "iou": asked.floor_iou, "missed_in_report": missed},
    }
    for line in search_lines(found.chosen.recipe.words(), len(found.trials), judge.exact, before,
                             after):  # fmt: skip
        say(line)
    summary = summary_of(held.quantizer, found.calibration)
    if missed:
        text = f"on the people who chose nothing, {'; '.join(missed)}"
        summary = replace(summary, warnings=(*summary.warnings, text))
    return summary, record


def judges(
    asked: SearchRequest, checkpoint: Checkpoint
) -> Tuple[Samples, Samples, Tuple[int, int]]:
    """The labelled pictures that choose, those that report, and how many people are in each.

    Videos that show the same face (see ``inference.corpus.links``) stay together.

    Raises:
        DataError: a half has not both kinds of pictures.
    """
    from ..inference.corpus.links import groups
    from ..inference.corpus.metadata import read_metadata
    from ..quantize.dataset import read_dataset
    from ..quantize.samples import load_samples

    dataset = read_dataset(asked.judge)
    metadata = asked.judge / "metadata.json"
    if not metadata.is_file():
        raise DataError(
            f"The pictures in {asked.judge} cannot judge", dataset.unlabelled,
            "give a folder with crops/, masks/ and metadata.json to --judge",
        )  # fmt: skip
    people: List[Set[str]] = [
        {video.stem for video in group.videos}
        for group in groups(read_metadata([], metadata).videos.values())
    ]
    present = {item.video for item in dataset.items}
    people = [stems for stems in people if stems & present]
    halves = []
    for first in (0, 1):
        stems = set().union(*people[first::2])
        items = tuple(item for item in dataset.items if item.video in stems)
        half = replace(dataset, items=items, problems=[]).subset(asked.judge_images)
        labels = {item.label for item in half.items}
        if not {"REAL", "FAKE"} <= labels:
            raise DataError(
                f"The pictures in {asked.judge} cannot judge: half of them has not both kinds",
                f"{len(people)} people, {len(half)} pictures in a half: "
                f"{', '.join(sorted(str(label) for label in labels)) or 'none'}",
                "give crops of more people, authentic and manipulated, to --judge",
            )
        halves.append(load_samples(half, checkpoint.preprocessing))
    return halves[0], halves[1], (len(people[0::2]), len(people[1::2]))


def search_lines(
    words: str, tried: int, exact: Scores, default: Scores, chosen: Scores
) -> List[str]:
    """What a search found, for people."""
    lines = [f"search: {tried} tried; chosen: {words}"]
    lines.append(f"{'on people who chose nothing':<30}{'float':>9}{'default':>9}{'chosen':>9}")
    for title, name in (("verdict AUC", "auc"), ("verdict accuracy", "accuracy"),
                        ("mask IoU", "iou")):  # fmt: skip
        values = "".join(f"{getattr(scores, name):>9.4f}" for scores in (exact, default, chosen))
        lines.append(f"{title:<30}{values}")
    return lines


class _Trials:
    """A bar whose total shrinks when fewer candidates are left than were foreseen."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._advance: Optional[Callable[[int], None]] = None
        self._shown = self._total = 0

    def __call__(self, done: int, total: int) -> None:
        if self._advance is None:
            self._total = total
            self._advance = self._progress("search", total, "trial")
        # What is foreseen changes when the shifts are known; the bar's length stays.
        share = min(self._total, max(self._shown, done * self._total // max(total, 1)))
        self._advance(share - self._shown)
        self._shown = share
