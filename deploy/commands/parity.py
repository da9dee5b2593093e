"""The command ``parity``: two ways of computing a model, compared tensor by tensor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, List, Optional, Tuple

import click

from ...errors import UsageError
from ..progress import progress_bar

if TYPE_CHECKING:
    from ...inference.comparison import Parity

_LINES = 20


@click.command(
    "parity",
    epilog="""\b
A and B are each one of:
  model.pth, model.safetensors   the float checkpoint
  build                          the quantized model in a build folder
  UYNet_int.xmodel               the quantized model, executed
  YNET.xmodel                    a compiled model, on the default device
  sim:YNET.xmodel                a compiled model on sim; likewise reference:
  run.rec                        what run --record kept

\b
Examples:
  deepfake-fpga parity build build/compiled/YNET.xmodel
  deepfake-fpga parity sim:YNET.xmodel reference:YNET.xmodel --images faces
  deepfake-fpga parity run.rec build/compiled/YNET.xmodel --html parity.html
  deepfake-fpga parity model.pth UYNet_int.xmodel --data faces --json

Exit status: 0 equal, 1 different or the work failed, 2 wrong use.""",
)
@click.argument("left", metavar="A")
@click.argument("right", metavar="B")
@click.option(
    "--images",
    multiple=True,
    metavar="DIR|FILE|GLOB",
    help="Pictures to compare on; quote a pattern. Default: generated ones.",
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of pictures with labels, as for quant.",
)
@click.option("--subset", type=click.IntRange(min=1), help="At most so many pictures.")
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Largest difference taken for equal, in codes.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Fake probability from which the verdict is FAKE.",
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    metavar="INT.xmodel",
    help="Quantized file to take the constants of compiled models from.",
)
@click.option(
    "--html",
    "page",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a page with every tensor and histograms.",
)
@click.option("-t", "--threads", type=click.IntRange(min=1), help="Default: one per core.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Only the exit status, warnings and errors.")
@click.pass_context
def command(
    ctx: click.Context,
    left: str,
    right: str,
    images: Tuple[str, ...],
    data: Optional[Path],
    subset: Optional[int],
    tolerance: float,
    threshold: float,
    weights: Optional[Path],
    page: Optional[Path],
    threads: Optional[int],
    as_json: bool,
    quiet: bool,
) -> None:
    """Compare two ways of computing a model, tensor by tensor.

    Says which tensors are equal, how far the others are apart in codes, which operator diverges
    first and whether its inputs were still equal, and what it comes to in verdicts and masks.
    """
    if images and data is not None:
        raise UsageError("--images and --data cannot both be given", "", "leave one out")
    from ..parity import ParityRequest, compare, write_parity_page

    request = ParityRequest(
        left, right, images, data, subset, tolerance, threshold, weights, threads
    )
    with progress_bar("parity", quiet=quiet, leave=False) as progress:
        parity = compare(request, progress)
    if page is not None:
        write_parity_page(page, parity)
    if as_json:
        click.echo(json.dumps(parity.to_json(), indent=2, ensure_ascii=False, allow_nan=False))
    elif not quiet:
        click.echo(text(parity))
        if page is not None:
            click.echo(f"written: {page}")
    ctx.exit(0 if parity.equal else 1)


def text(parity: Parity) -> str:
    """The comparison for a terminal: headline, differing tensors, first divergence, verdicts."""
    from ..parity import headline, tensor_row, verdict_lines

    lines = [f"{side['text']}: {side['about']}" for side in parity.sides]
    lines += [headline(parity), *(f"note: {note}" for note in parity.notes)]
    different = [tensor for tensor in parity.tensors if not tensor.equal]
    if different:
        header = ("tensor", "operator", "fix points", "values", "different", "largest", "mean")
        rows = [header, *(tensor_row(tensor) for tensor in different[:_LINES])]
        lines += ["", *_columns(rows)]
        if len(different) > _LINES:
            lines.append(f"... and {len(different) - _LINES} more (--json or --html shows all)")
    if parity.divergence is not None:
        found = parity.divergence
        state = {True: "equal", False: "different", None: "not known"}
        lines += ["", f"first to diverge: {found.tensor} ({' > '.join(found.operators)})"]
        lines += [f"  input {name}: {state[equal]}" for name, equal in found.inputs]
        lines += [f"  parameters {name}: {state[equal]}" for name, equal in found.constants]
        lines.append(f"  {found.conclusion}")
    verdicts = verdict_lines(parity)
    return "\n".join(lines + (["", *verdicts] if verdicts else []))


def _columns(rows: List[Tuple[str, ...]]) -> List[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]
