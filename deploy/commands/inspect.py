"""``deepfake-fpga inspect``: what is inside an xmodel, its picture, and how two differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

import click

if TYPE_CHECKING:
    from ...compile.xir import Graph


@click.command(
    "inspect",
    epilog="""\b
Examples:
  deepfake-fpga inspect YNET.xmodel                  target, subgraphs, what is on the CPU
  deepfake-fpga inspect YNET.xmodel --svg ynet.svg   a picture of the network as well
  deepfake-fpga inspect YNET.xmodel --json | jq .target
  deepfake-fpga inspect UYNet_int.xmodel --diff vitis/UYNet_int.xmodel --ignore-trace-numbers

Exit status: 0 done (with --diff: no difference), 1 the files differ or the file is not an
xmodel, 2 wrong use or no such file.""",
)
@click.argument("file", metavar="F.xmodel")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@click.option("--svg", metavar="FILE", help="Draw the network into this SVG file.")
@click.option(
    "--diff", "other", metavar="OTHER.xmodel", help="List what differs from OTHER.xmodel."
)
@click.option(
    "--ignore-trace-numbers",
    is_flag=True,
    help="With --diff: pair operators by their connections, so that labels PyTorch's tracer puts "
    "into names (ret_3, 4490), which differ between releases, do not count.",
)
@click.pass_context
def command(
    ctx: click.Context,
    file: str,
    as_json: bool,
    svg: Optional[str],
    other: Optional[str],
    ignore_trace_numbers: bool,
) -> None:
    """Show what is inside an xmodel.

    Reads quantized and compiled files, ours and the vendor's: network, target and fingerprint,
    inputs and outputs with their fix points, subgraphs with workload and memory, and every
    operator that stays on the CPU, with the reason.

    With --diff it compares two files in meaning instead: operators, wiring, constants, tensor
    types, subgraphs. The order in the file and the stored operator definitions do not count.
    """
    from pathlib import Path

    from ...compile.report import inspect_graph, text
    from ...compile.report import svg as draw
    from ...compile.xir import read_xmodel
    from ...errors import UsageError
    from ...files import write_text

    if ignore_trace_numbers and other is None:
        raise UsageError(
            "--ignore-trace-numbers is for comparing two files",
            "there is no --diff",
            f"deepfake-fpga inspect {file} --diff OTHER.xmodel --ignore-trace-numbers",
        )
    graph = read_xmodel(file)
    if svg is not None:
        if Path(svg).is_dir() or Path(svg).suffix.lower() == ".xmodel":
            raise UsageError(
                f"--svg wants the name of an SVG file to write, {svg} is not one",
                next_step=f"deepfake-fpga inspect {file} --svg {graph.name}.svg",
            )
        write_text(Path(svg), draw(graph))
        click.echo(f"wrote {svg}", err=True)
    if other is not None:
        ctx.exit(_compare(file, graph, other, as_json, ignore_trace_numbers))
    report = inspect_graph(graph, file)
    click.echo(report.to_json() if as_json else text(report), nl=as_json)


def _compare(file: str, graph: Graph, other: str, as_json: bool, ignore_trace_numbers: bool) -> int:
    """Prints the differences; returns the exit status."""
    import dataclasses
    import json

    from ...compile.xir import read_xmodel
    from ...compile.xir.diff import diff_graphs

    found = diff_graphs(graph, read_xmodel(other), ignore_trace_numbers=ignore_trace_numbers)
    if as_json:
        record = {
            "left": file,
            "right": other,
            "differences": [dataclasses.asdict(difference) for difference in found],
        }
        click.echo(json.dumps(record, indent=2, ensure_ascii=False))
    elif found:
        click.echo(f"{file} | {other}")
        for difference in found:
            click.echo(f"  {difference}")
        click.echo(f"{len(found)} difference{'' if len(found) == 1 else 's'}")
    else:
        click.echo("no difference")
    return 1 if found else 0
