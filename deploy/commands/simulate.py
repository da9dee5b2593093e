"""The command ``simulate``: a program of Vitis AI's API, where there is no Vitis AI."""

from __future__ import annotations

from pathlib import Path
from typing import Optional, Tuple

import click

from ..simulate.options import ABORTS, CARDS, PACES, RELEASES, ROUNDINGS, SimulateOptions


@click.command(
    "simulate",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="""\b
Examples:
  deepfake-fpga simulate -- python quant.py --quant_mode calib
  deepfake-fpga simulate -- vai_c_xir -x UNet_int.xmodel -a arch.json -o out -n YNET
  deepfake-fpga simulate -- python app_mt.py -m out/YNET.xmodel -t 4
  deepfake-fpga simulate --shuffle --strict-buffers -- python app_mt.py
  deepfake-fpga simulate --crashes-after 3 -- deepfake-fpga run --device card \\
      --video clip.mp4 -o result
  deepfake-fpga simulate --pace vck5000 -- python app_mt.py -t 8
  deepfake-fpga simulate --card es1 -- xbutil examine

\b
The command sees
  Python modules     xir, vart, pytorch_nndct, nndct_shared
  programs           vai_c_xir, xbutil, xbmgmt, lspci
  variables          XLNX_VART_FIRMWARE, XCLBIN_PATH, VAI_ROOT
and nothing of them stays afterwards. Where the genuine libraries would abort the process,
XirAbort is raised (--aborts process: they abort).

Exit status: that of the command.""",
)
@click.option(
    "--release",
    type=click.Choice(RELEASES),
    default="3.0",
    show_default=True,
    help="Of Vitis AI: its texts, arguments, file forms and orders.",
)
@click.option(
    "--card", type=click.Choice(CARDS), default="production", show_default=True, help="Which card."
)
@click.option(
    "--variant",
    default="8pe_normal",
    show_default=True,
    metavar="VARIANT",
    help="Build of the DPU on the card; a model for another one is refused.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "sim", "reference", "null"]),
    default="auto",
    show_default=True,
    help="What computes; null gives zeros, to measure a program at the pace of the card.",
)
@click.option(
    "--pace",
    type=click.Choice(PACES),
    default="none",
    show_default=True,
    help="vck5000: every batch takes as long as on the card.",
)
@click.option("--strict-buffers", is_flag=True, help="Refuse arrays that would be misread.")
@click.option("--shuffle", is_flag=True, help="List tensors in another order in every run.")
@click.option(
    "--rounding",
    type=click.Choice(ROUNDINGS),
    default="truncate",
    show_default=True,
    help="How float inputs become int8; the genuine runner truncates.",
)
@click.option("--delay", type=click.FloatRange(min=0), default=0.0, help="Hold answers back, s.")
@click.option("--fail-job", "fail_jobs", type=int, multiple=True, help="This job fails.")
@click.option("--crashes-after", type=int, metavar="N", help="One abort after N jobs.")
@click.option("--dies-after", type=int, metavar="N", help="The card is gone after N jobs.")
@click.option("--hangs-after", type=int, metavar="N", help="No answer any more after N jobs.")
@click.option("--hot-after", type=int, metavar="N", help="Over its temperature after N jobs.")
@click.option(
    "--compile-fails",
    default="",
    metavar="ID",
    help="vai_c_xir ends with this error, XCOM_PM_FAIL.",
)
@click.option("--no-firmware", is_flag=True, help="No XLNX_VART_FIRMWARE.")
@click.option(
    "--aborts",
    type=click.Choice(ABORTS),
    default="exception",
    show_default=True,
    help="What becomes of an abort.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of everything random.")
@click.option(
    "--host",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Keep the simulated host here, so that several commands share one card.",
)
@click.option("-q", "--quiet", is_flag=True, help="Do not say what is simulated.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND")
def command(
    command: Tuple[str, ...],
    folder: Optional[Path],
    no_firmware: bool,
    quiet: bool,
    release: str,
    card: str,
    variant: str,
    device: str,
    pace: str,
    strict_buffers: bool,
    shuffle: bool,
    rounding: str,
    delay: float,
    fail_jobs: Tuple[int, ...],
    crashes_after: Optional[int],
    dies_after: Optional[int],
    hangs_after: Optional[int],
    hot_after: Optional[int],
    compile_fails: str,
    aborts: str,
    seed: int,
) -> int:
    """Run a Vitis AI program without Vitis AI and without a card.

    The command finds drop-in modules and programs of the genuine names, with the genuine numbers.
    """
    from ..simulate.host import SimulatedHost, choose_python

    options = SimulateOptions(
        release=release,
        card=card,
        variant=variant,
        device=device,
        pace=pace,
        strict_buffers=strict_buffers,
        shuffle=shuffle,
        rounding=rounding,
        delay=delay,
        fail_jobs=fail_jobs,
        crashes_after=crashes_after,
        dies_after=dies_after,
        hangs_after=hangs_after,
        hot_after=hot_after,
        compile_fails=compile_fails,
        firmware=not no_firmware,
        aborts=aborts,
        seed=seed,
    )
    words, reason = choose_python(command)
    with SimulatedHost(options, folder) as host:
        if not quiet:
            click.echo(f"Simulated: {host.describe()}", err=True)
            if reason:
                click.echo(f"Simulated: {reason}", err=True)
        return host.run(words)
