"""The command ``compile``: a quantized model to the file a card, or its simulation, loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import click

from ..compilation import NET_NAME, SOURCE, TARGET
from .common import build_dir_option, quiet_option, teller

if TYPE_CHECKING:
    from ...compile.compiler import CompileResult


@click.command(
    "compile",
    epilog="""\b
Examples:
  deepfake-fpga compile
  deepfake-fpga compile -a VCK50006PEDWC -d build
  deepfake-fpga compile -x UYNet_int.xmodel -a arch.json -o compiled -n YNET
  deepfake-fpga compile -e '{"input_shape": "1,224,224,3"}'

\b
A target is any of:
  a DPU name         DPUCVDX8H_ISA1_F2W2_8PE
  a vendor folder    VCK50008PE, VCK50006PEDWC, VCK50006PEMISC, VCK50004PE
  a variant          8pe_normal, 6pe_dwc, 6pe_misc, 4pe_miscdwc
  a fingerprint      0x501000000140fee
  an arch.json       with "target" or "fingerprint"

\b
Options (-e) are a dict:
  input_shape        "1,224,224,3"; must be the model's
  output_ops         "a_fix,b_fix": these are the outputs
  plugins, mode      for the vendor's compiler only

\b
In the output folder:
  YNET.xmodel        the compiled model
  meta.json          target, kernels, MD5
  md5sum.txt         for md5sum -c
  compile.log        what the vendor's compiler said

Where vai_c_xir is on the PATH it compiles. Our own compiler writes no instructions: its models run
on the simulated card only.""",
)
@click.option(
    "-x",
    "--xmodel",
    type=click.Path(path_type=Path),
    help=f"Quantized model. Default: {SOURCE} in the build folder's quant_model/.",
)
@click.option(
    "-a",
    "--arch",
    metavar="TARGET|arch.json",
    default=TARGET,
    show_default=True,
    help="What to compile for.",
)
@click.option(
    "-o",
    "--output-dir",
    "--output_dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the result goes. Default: compiled/ in the build folder.",
)
@click.option(
    "-n",
    "--net-name",
    "--net_name",
    default=NET_NAME,
    show_default=True,
    help="Name of the compiled model.",
)
@build_dir_option("Folder with float_model/, quant_model/ and compiled/.")
@click.option(
    "--backend",
    type=click.Choice(["auto", "vitis", "sim"]),
    default="auto",
    show_default=True,
    help="Whose compiler.",
)
@click.option(
    "-e",
    "--options",
    metavar="DICT",
    default="",
    help="Options of the compiler, a dict; see below.",
)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Stop the vendor's compiler after this. Default: 3600.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result to standard output.")
@quiet_option
def command(
    xmodel: Optional[Path],
    arch: str,
    output_dir: Optional[Path],
    net_name: str,
    build_dir: Path,
    backend: str,
    options: str,
    time_limit: Optional[float],
    as_json: bool,
    quiet: bool,
) -> None:
    """Compile a quantized model for the card's DPU.

    Without options the build folder's quantized model becomes its compiled one.
    """
    from ..build_folder import BuildFolder
    from ..compilation import CompileRequest, compile_build

    request = CompileRequest(
        BuildFolder(build_dir), xmodel, arch, output_dir, net_name, backend, options, time_limit
    )
    compilation = compile_build(request, teller(quiet), _quiet if quiet else teller(quiet))
    for warning in compilation.manifest.warnings:
        click.echo(f"Warning: {warning}", err=True)
    if as_json:
        click.echo(json.dumps(compilation.to_json(), indent=2, ensure_ascii=False))
    elif not quiet:
        click.echo(summary(compilation.result))


def summary(result: CompileResult) -> str:
    """What came out and what to type next."""
    from ...compile.compiler import is_simulated

    workload = result.graph.root.get("workload", 0)
    on_arch = result.graph.root.get("workload_on_arch")
    use = f", {100 * workload / on_arch:.1f} % of the arrays' work" if on_arch else ""
    lines = [
        f"{result.xmodel}: {result.target.dpu_name}, batch {result.target.engines}",
        f"{result.dpu_subgraphs} DPU subgraph{'' if result.dpu_subgraphs == 1 else 's'}, "
        f"{workload / 1e9:.3f} Gop per image{use}",
    ]
    lines += [f"On the CPU: {op.name} ({op.type}): {op.reason}" for op in result.cpu]
    if result.dpu_subgraphs > 1:
        lines.append("Several DPU subgraphs: the operators above interrupt the card's work.")
    if is_simulated(result.graph):
        lines.append("It holds no instructions: it runs on the simulated card, not on a VCK5000.")
    lines.append(f"Next: deepfake-fpga run --model {result.xmodel} --images DIR")
    return "\n".join(lines)


def _quiet(line: str) -> None:
    if line.startswith("[UNILOG][WARNING]"):
        click.echo(line, err=True)
