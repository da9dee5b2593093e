"""The command ``journal``: how far a run over a collection is, and what failed."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ...errors import MissingError


@click.command(
    "journal",
    epilog="""\b
Examples:
  deepfake-fpga journal result
  deepfake-fpga journal result --json | jq '.failed[]'
  deepfake-fpga journal result --records

\b
It may be asked at any time, also while runs are at work. To go on with what is
left, type the command of the run again; add --retry-failed for what failed.

Exit status: 0 everything is done, 1 something is left, 2 wrong use.""",
)
@click.argument("output", type=click.Path(file_okay=False, path_type=Path), metavar="DIR")
@click.option("--records", is_flag=True, help="Make records.jsonl of what is done until now.")
@click.option("--json", "as_json", is_flag=True, help="Print the state as JSON.")
@click.pass_context
def command(ctx: click.Context, output: Path, records: bool, as_json: bool) -> None:
    """Show how far a run over many files is, and what failed."""
    from ...inference.journal import journal_there, make_final, progress_of, reading
    from ...inference.run import RECORDS
    from ...inference.sinks import RecordSink

    if not journal_there(output):
        raise MissingError(
            f"There is no journal in {output}",
            "only a run over more than one file has one",
            "give the folder that was the run's -o",
        )
    with reading(output) as journal:
        if records:
            make_final(journal, [RecordSink(output / RECORDS)])
        state = progress_of(journal)
    if as_json:
        click.echo(json.dumps(state.to_json(), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        click.echo("\n".join(state.lines()))
    if state.counts["new"] or state.counts["claimed"]:
        ctx.exit(1)
