"""``deepfake-fpga data``: data sets made from videos, divided by the faces in them, and checked."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional, Sequence, Tuple, TypeVar

import click

from ..progress import progress_bar
from .face_options import KINDS

if TYPE_CHECKING:
    from ...inference.corpus.cutting import CropOptions

F = TypeVar("F", bound=Callable[..., Any])

_Path = click.Path(path_type=Path)


def _all(*options: Callable[[F], F]) -> Callable[[F], F]:
    def add(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return add


_sources = click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
_jobs = click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Files at a time. Default: as many as there are processors, 16 at most.",
)
_identities = click.option(
    "--identities",
    type=_Path,
    metavar="FILE.csv",
    help="Who is in which video, beside metadata.json: columns video,identity.",
)
_output = click.option(
    "-o",
    "--output",
    required=True,
    type=_Path,
    metavar="TARGET",
    help="A folder; or FILE.tar or FILE.tar.gz, which appears when it is complete.",
)
_cutting = _all(
    _output,
    click.option(
        "--metadata",
        type=_Path,
        metavar="FILE",
        help="Labels and originals, instead of each metadata.json in the source.",
    ),
    click.option(
        "--frames",
        type=click.IntRange(min=0),
        default=16,
        show_default=True,
        metavar="N",
        help="Frames of each video, spread over it; 0 for no limit.",
    ),
    click.option(
        "--every",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        metavar="K",
        help="One frame of so many.",
    ),
    click.option(
        "--size",
        type=click.IntRange(min=16),
        metavar="PIXELS",
        help="Side of the crops. Default: as large as they are in the video.",
    ),
    click.option(
        "--margin",
        type=click.FloatRange(min=0, max=2),
        metavar="SHARE",
        help="Share of the face box added on each side. Default: a third.",
    ),
    click.option(
        "--faces",
        type=click.Choice(KINDS),
        default="auto",
        show_default=True,
        help="How faces are found, as in run: auto takes small square videos whole.",
    ),
    click.option("--face-model", type=_Path, metavar="FILE.onnx", help="For --faces yunet."),
    click.option(
        "--face-boxes", type=_Path, metavar="FILE", help="For --faces boxes: JSON Lines or CSV."
    ),
    click.option(
        "--min-face",
        type=click.FloatRange(min=20),
        metavar="PIXELS",
        help="Take faces from this size on. Default: 48.",
    ),
    _jobs,
    _json,
)


@click.group(
    "data",
    epilog="""\b
Examples:
  deepfake-fpga data masks dfdc_train_part_0 -o faces      crops and masks from fake and original
  deepfake-fpga data crops videos.tar -o crops.tar.gz      only crops, from tar to tar
  deepfake-fpga data split faces -o split                  no face of train in test, with proof
  deepfake-fpga data check split                           leaks, duplicates, damaged files ...

\b
SOURCE is a folder or a tar, plain or compressed, of videos or of crops, with metadata.json as
DFDC has it. What was interrupted goes on where it was when the same is typed again.""",
)
def command() -> None:
    """Make data sets from videos, divide them by the faces in them, check them."""


@command.command(
    "masks",
    epilog="""\b
Examples:
  deepfake-fpga data masks dfdc_train_part_0 -o faces
  deepfake-fpga data masks part_0.tar part_1.tar -o faces.tar --frames 8 --size 256
  deepfake-fpga data masks videos -o faces --threshold fixed --level 0.2

\b
Pairs are found by "original" in metadata.json; a REAL video gets empty masks.
Exit status: 0 done, 1 done but for videos that are listed, 2 wrong use.""",
)
@_sources
@_cutting
@click.option(
    "--threshold",
    type=click.Choice(["otsu", "fixed"]),
    default="otsu",
    show_default=True,
    help="The limit between changed and unchanged: found for each picture, or --level.",
)
@click.option(
    "--level",
    type=click.FloatRange(min=0, max=1),
    default=0.2,
    show_default=True,
    help="Dissimilarity from which a pixel counts as changed; for otsu the least limit.",
)
@click.option(
    "--structure-only", is_flag=True, help="Compare structure alone, without brightness and colour."
)
@click.option(
    "--keep-unchanged", is_flag=True, help="Keep faces of a FAKE that equal the original's."
)
def masks(
    sources: Sequence[str],
    output: Path,
    metadata: Optional[Path],
    jobs: Optional[int],
    as_json: bool,
    threshold: str,
    level: float,
    structure_only: bool,
    keep_unchanged: bool,
    **asked: Any,
) -> int:
    """Cut faces out of videos, and mark where fakes differ from their originals.

    A mask is where structure (SSIM) or colour of the fake differs from the original's frame of
    the same moment, thresholded and cleaned.
    """
    from dataclasses import replace

    from ...inference.corpus.difference import MaskOptions, Threshold

    mask = MaskOptions(
        threshold=Threshold(threshold), level=level, floor=level, colour=not structure_only
    )
    options = replace(_options(True, **asked), mask=mask, keep_unchanged=keep_unchanged)
    return _extract(sources, output, options, metadata, jobs, as_json)


@command.command(
    "crops",
    epilog="""\b
Examples:
  deepfake-fpga data crops videos -o crops --frames 16
  deepfake-fpga data crops videos.tar.gz -o crops.tar --every 30 --frames 0
  deepfake-fpga data crops videos -o crops --faces yunet --face-model yunet.onnx --size 256
  deepfake-fpga data crops photographs -o crops --faces cascade

Exit status: 0 done, 1 done but for videos that are listed, 2 wrong use.""",
)
@_sources
@_cutting
def crops(
    sources: Sequence[str],
    output: Path,
    metadata: Optional[Path],
    jobs: Optional[int],
    as_json: bool,
    **asked: Any,
) -> int:
    """Cut faces out of videos, without masks; labels are kept where there are any.

    A SOURCE without any video is taken as photographs.
    """
    return _extract(sources, output, _options(False, **asked), metadata, jobs, as_json)


@command.command(
    "split",
    epilog="""\b
Examples:
  deepfake-fpga data split faces -o split
  deepfake-fpga data split faces -o split --parts train=70,test=30 --seed 4
  deepfake-fpga data split faces.tar -o split.tar --identities people.csv
  deepfake-fpga data split videos -o lists --how list

\b
Videos that show the same face (a fake and its original, fakes of one original, videos of one
named person) stay together. split.json and split.html prove it.
Exit status: 0 done, 1 it cannot be divided so or an archive is damaged, 2 wrong use.""",
)
@_sources
@_output
@click.option(
    "--parts",
    metavar="NAME=SHARE,...",
    default="train=80,validation=10,test=10",
    show_default=True,
    help="What to divide into, in any unit.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Another one, another split.")
@click.option(
    "--how",
    type=click.Choice(["auto", "link", "copy", "list"]),
    default="auto",
    show_default=True,
    help="Link to the files, copy them, or write lists only; auto links where it can.",
)
@_identities
@click.option("--by-folder", is_flag=True, help="Each folder's videos count as of one person.")
@click.option(
    "--keep-unlinked",
    is_flag=True,
    help="Keep fakes of which neither original nor person is known; else they are left out.",
)
@_jobs
@_json
def split(
    sources: Sequence[str],
    output: Path,
    parts: str,
    seed: int,
    how: str,
    identities: Optional[Path],
    by_folder: bool,
    keep_unlinked: bool,
    jobs: Optional[int],
    as_json: bool,
) -> int:
    """Divide a data set so that no face of one part appears in another.

    Parts are balanced by label and by number of files; the same seed gives the same split.
    """
    from ...inference.corpus.division import shares
    from ...inference.corpus.layout import take_inventory
    from ...inference.corpus.metadata import read_identities
    from ...inference.corpus.shelf import open_shelf
    from ...inference.corpus.splitting import SplitOptions, plan_split, write_split
    from ...inference.corpus.work import usual_jobs
    from ..data_report import split_text

    options = SplitOptions(shares(parts), seed, keep_unlinked, by_folder, how)
    with contextlib.ExitStack() as stack:
        shelves = [stack.enter_context(open_shelf(source)) for source in sources]
        inventory = take_inventory(shelves)
        if identities is not None:
            inventory.metadata.identify(read_identities(identities))
        planned = plan_split(inventory, sources, options)
        advance = stack.enter_context(progress_bar("split", "file", quiet=as_json))
        done = write_split(planned, inventory, output, jobs or usual_jobs(), advance)
        if as_json:
            click.echo(json.dumps(done.to_json(), indent=2, ensure_ascii=False))
        else:
            notes = "".join(f"{note}\n" for shelf in shelves for note in shelf.notes)
            click.echo(split_text(done, str(output)) + notes, nl=False)
    return 1 if any(shelf.damaged for shelf in shelves) else 0


@command.command(
    "check",
    epilog="""\b
Examples:
  deepfake-fpga data check split                           folders train, validation, test
  deepfake-fpga data check train=faces_a test=faces_b.tar
  deepfake-fpga data check dfdc_train_part_0 --deep        every frame of every video
  deepfake-fpga data check split --json | jq .faults.leak_identity
  deepfake-fpga data check split --fixes mend.sh           what would mend it, as a script to read

Exit status: 0 nothing must be fixed, 1 something must, 2 wrong use.""",
)
@_sources
@click.option(
    "--parts-by",
    type=click.Choice(["auto", "source", "folder", "metadata", "none"]),
    default="auto",
    show_default=True,
    help="What tells train from test: the sources named, folders, or split in metadata.json.",
)
@click.option("--deep", is_flag=True, help="Decode every frame of videos, not only the first.")
@click.option(
    "--bits",
    type=click.IntRange(min=0, max=128),
    metavar="N",
    help="Pictures of two parts are near-duplicates if so many of 256 hash bits differ. "
    "Default: 12.",
)
@click.option(
    "--least-share",
    type=click.FloatRange(min=0, max=0.5),
    metavar="SHARE",
    help="Least share of the rarer of REAL and FAKE. Default: 0.1.",
)
@_identities
@click.option(
    "--resume",
    type=_Path,
    metavar="FILE",
    help="Keep what was seen in this file, and look only at what is new there.",
)
@click.option(
    "--fixes", type=_Path, metavar="FILE.sh", help="Write the commands that would mend it."
)
@_jobs
@_json
def check(
    sources: Tuple[str, ...],
    parts_by: str,
    deep: bool,
    bits: Optional[int],
    least_share: Optional[float],
    identities: Optional[Path],
    resume: Optional[Path],
    fixes: Optional[Path],
    jobs: Optional[int],
    as_json: bool,
) -> int:
    """Find leaks, duplicates, damaged files, wrong masks and labels in anyone's data set.

    Nothing is changed. A leak is what two parts share: a video, an original, a person, a file, or
    pictures that look alike.
    """
    from ...files import write_text
    from ...inference.corpus.checking import CheckOptions
    from ...inference.corpus.checking import check as check_data
    from ...inference.corpus.metadata import read_identities
    from ...inference.corpus.work import usual_jobs
    from ..data_report import examination_text

    usual = CheckOptions()
    options = CheckOptions(
        parts_by,
        deep,
        usual.bits if bits is None else bits,
        usual.label_share if least_share is None else least_share,
    )
    people = None if identities is None else read_identities(identities)
    with progress_bar("check", "file", quiet=as_json) as advance:
        found = check_data(sources, options, jobs or usual_jobs(), resume, people, advance)
    if fixes is not None:
        write_text(fixes, found.script())
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    else:
        click.echo(examination_text(found), nl=False)
    return 0 if found.sound else 1


def _options(
    masks: bool,
    frames: int,
    every: int,
    size: Optional[int],
    margin: Optional[float],
    faces: str,
    face_model: Optional[Path],
    face_boxes: Optional[Path],
    min_face: Optional[float],
) -> CropOptions:
    from ...inference.corpus.cutting import CropOptions
    from ...inference.faces import FaceOptions, Kind

    found = FaceOptions(Kind(faces), face_model, face_boxes, smallest=min_face)
    found.check()
    return CropOptions(masks, every, frames or None, size, found, margin)


def _extract(
    sources: Sequence[str],
    output: Path,
    options: CropOptions,
    metadata: Optional[Path],
    jobs: Optional[int],
    as_json: bool,
) -> int:
    from ...inference.corpus.extraction import extract
    from ...inference.corpus.shelf import open_shelf
    from ...inference.corpus.work import usual_jobs
    from ..data_report import extraction_text

    title = "masks" if options.masks else "crops"
    with contextlib.ExitStack() as stack:
        shelves = [stack.enter_context(open_shelf(source)) for source in sources]
        with progress_bar(title, "video", quiet=as_json) as advance:
            result = extract(
                shelves, output, options, jobs or usual_jobs(), metadata, advance
            )  # fmt: skip
    if as_json:
        click.echo(json.dumps(result.to_json(), indent=2, ensure_ascii=False))
    else:
        click.echo(extraction_text(result, options.masks), nl=False)
    return 1 if result.skipped or any(shelf.damaged for shelf in shelves) else 0
