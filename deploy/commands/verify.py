"""The command ``verify``: whether anything in a folder of results was changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Optional

import click


@click.command(
    "verify",
    epilog="""\b
Examples:
  deepfake-fpga verify result
  deepfake-fpga verify result --input clip.mp4 --model YNET.xmodel
  deepfake-fpga verify result --expect 5f0c...   the hash that run printed
  deepfake-fpga verify result --key secret.key   a result that was signed with run --key

\b
A hash is no signature: who can change the files can also write a new evidence.json.
Note its hash elsewhere when it is made (--expect), or sign it (--key).

Exit status: 0 nothing was changed, 1 something was, 2 wrong use.""",
)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--input",
    "original",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The video that was judged. Default: where it was, if it is still there.",
)
@click.option(
    "--model",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The compiled model. Default: where it was, if it is still there.",
)
@click.option(
    "--key",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The key the result has to be signed with.",
)
@click.option(
    "--expect", default="", metavar="SHA256", help="The hash of the manifest, as noted elsewhere."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    folder: Path,
    original: Optional[Path],
    model: Optional[Path],
    key: Optional[Path],
    expect: str,
    as_json: bool,
) -> int:
    """Say whether a result of run was changed since it was written.

    Every file is compared with its SHA-256 in evidence.json: changed, missing and added ones are
    named, and so are another input and another model.
    """
    from ..evidence.manifest import read_key
    from ..evidence.verification import verify

    result = verify(
        folder,
        key=None if key is None else read_key(key),
        expected=expect,
        original=original,
        model=model,
    )
    if as_json:
        click.echo(json.dumps(result.to_json(), indent=2, ensure_ascii=False, allow_nan=False))
        return 0 if result.intact else 1
    for finding in result.findings:
        detail = f": {finding.detail}" if finding.detail else ""
        click.echo(f"{finding.kind:<8} {finding.path}{detail}")
    if result.intact:
        signed = f", signed with key {result.signed}" if result.signed else ""
        click.echo(f"Nothing was changed: {result.checked} files are as recorded{signed}.")
    else:
        count = len(result.findings)
        click.echo(f"{folder} is not as it was written: {count} finding{'s' * (count > 1)}.")
    click.echo(f"Manifest: SHA-256 {result.manifest_sha256}")
    for note in result.notes:
        click.echo(f"Note: {note}")
    return 0 if result.intact else 1
