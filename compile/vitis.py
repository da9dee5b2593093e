"""The vendor's compiler ``vai_c_xir`` driven with care: checked before, believed only after.

Its exit status says nothing and it overwrites earlier results, so it writes into a folder of its
own, and what it leaves there is published when it is complete and for the right target.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import List, Optional, Set, Tuple

from ..errors import FormatError, MismatchError, UnsupportedError, WorkError
from ..files import md5, publish, workspace, write_json, write_text
from .arch import find_arch
from .backend import Backend
from .compiler import MD5SUM, META, CompileResult, Log, file_stem
from .lowering import check_quantized, output_names
from .options import NO_OPTIONS, CompilerOptions, output_ops_hint
from .targets import Target
from .vendor_log import VendorLog
from .vendor_process import run_program, shell_line
from .xir.graph import Graph
from .xir.soundness import refuse_unsound
from .xir.xmodel import read_xmodel

LOG = "compile.log"
"""The console of the compiler, in the output folder, kept after a failure too."""

ARCH = "arch.json"
"""Written to the output folder where the container has none for the target."""

TIME_LIMIT = 3600.0
"""Seconds one compilation may take."""


class VitisBackend(Backend):
    """The vendor's compiler.

    Args:
        program: ``vai_c_xir``.
        arch: the ``arch.json`` to use; ``None`` looks for the container's.
        time_limit: seconds it may take.
    """

    name = "vitis"

    def __init__(
        self, program: Path, arch: Optional[Path] = None, time_limit: float = TIME_LIMIT
    ) -> None:
        self.program, self.arch, self.time_limit = program, arch, time_limit

    def compile(
        self,
        source: Path,
        target: Target,
        output_dir: Path,
        net_name: str,
        log: Log,
        options: CompilerOptions = NO_OPTIONS,
    ) -> CompileResult:
        """See ``Backend.compile``; leaves ``compile.log`` too.

        Raises:
            UnsupportedError: the compiler says that it cannot compile the model.
            WorkError: it failed, hung, or says to have succeeded without leaving a model.
            MismatchError: it compiled for another target, or left another file than it says.
        """
        source, output_dir, name = Path(source), Path(output_dir), file_stem(net_name)
        graph = read_xmodel(source)
        refuse_unsound(graph, graph.ops.values())
        check_quantized(graph)
        wanted = list(options.output_ops) or output_names(graph)
        options.check(graph)
        with workspace(output_dir) as folder:
            arch, notes = self._arch(target, output_dir, log)
            command = self._command(source, arch, folder, name, options)
            seen = self._run(command, output_dir / LOG, log)
            xmodel = folder / f"{name}.xmodel"
            if not (seen.done and xmodel.is_file()):
                raise self._failed(seen, xmodel, output_dir / LOG, command)
            compiled = _checked(xmodel, target, seen)
            notes += _lost_outputs(compiled, wanted)
            if not compiled.subgraphs("DPU"):
                notes.append("no part of the model runs on the DPU")
            digest = md5(xmodel)
            _complete(folder, xmodel, compiled, target, digest)
            publish(folder, output_dir)
        return CompileResult(
            source,
            target,
            output_dir / xmodel.name,
            output_dir / META,
            output_dir / MD5SUM,
            digest,
            compiled,
            tuple(seen.cpu),
            shell_line(command),
            output_dir / LOG,
            tuple(notes),
        )

    def _arch(self, target: Target, output_dir: Path, log: Log) -> Tuple[Path, List[str]]:
        if self.arch is not None:
            log(f"arch: {self.arch}, as asked for")
            return self.arch, []
        choice = find_arch(target, self.program)
        if choice.path is not None:
            log(f"arch: {choice.reason}")
            return choice.path, []
        path = output_dir / ARCH
        write_json(path, {"target": target.dpu_name})
        note = f"{choice.reason}; {path} was written for it"
        log(f"arch: {note}")
        return path, [note]

    def _command(
        self, source: Path, arch: Path, folder: Path, name: str, options: CompilerOptions
    ) -> List[str]:
        # The program hands its words to other processes: absolute paths are safe from their moves.
        command = [str(self.program), "-x", os.path.abspath(str(source))]
        command += ["-a", os.path.abspath(str(arch)), "-o", os.path.abspath(str(folder))]
        command += ["-n", name]
        given = options.to_dict()
        return command + (["-e", repr(given)] if given else [])

    def _run(self, command: List[str], path: Path, log: Log) -> VendorLog:
        seen = VendorLog()
        with path.open("w", encoding="utf-8", buffering=1) as file:

            def on_line(line: str) -> None:
                file.write(line + "\n")
                log(line)
                seen.add(line)

            started = f"$ {shell_line(command)}"
            file.write(started + "\n")
            log(started)
            status = run_program(command, on_line, self.time_limit)
            file.write(f"# ended with status {status}\n")
        return seen

    def _failed(self, seen: VendorLog, xmodel: Path, log: Path, command: List[str]) -> WorkError:
        if seen.done and seen.fatal is None:
            return WorkError(
                f"{self.program.name} says it is done, but there is no {xmodel.name}",
                f"log {log}",
                "check free space and permissions: df -h . /tmp",
            )
        failure, line = seen.failure()
        evidence = f"{line} (log {log})"
        blanks = [word for word in command[1:7] if " " in word]
        if blanks:
            evidence += f"; blanks in {blanks[0]!r} may be the reason"
        if seen.cpu:
            last = seen.cpu[-1]
            evidence += f"; last given to the CPU: {last.name} ({last.type}): {last.reason}"
        kind = UnsupportedError if seen.fatal is not None else WorkError
        return kind(failure.cause, evidence, failure.next_step)


def _checked(xmodel: Path, target: Target, seen: VendorLog) -> Graph:
    """The compiled graph, if it is for ``target`` and the file that the log speaks of."""
    try:
        compiled = read_xmodel(xmodel)
    except FormatError as error:
        raise FormatError(
            "The vendor's compiler left a file that cannot be read", str(error), "compile again"
        ) from error
    digest = md5(xmodel)
    if seen.md5 and seen.md5 != digest:
        raise MismatchError(
            "The compiled file is not the one that the vendor's compiler speaks of",
            f"MD5 {digest} here, {seen.md5} in the log",
            "compile again, and see that nothing else writes there",
        )
    for subgraph in compiled.subgraphs("DPU"):
        found = subgraph.get("dpu_fingerprint")
        if found != target.fingerprint:
            said = "none" if found is None else f"{found:#x}"
            raise MismatchError(
                f"The vendor's compiler compiled for {subgraph.get('dpu_name') or 'another DPU'}, "
                f"wanted is {target.dpu_name}",
                f"fingerprint {said} in the result, {target.fingerprint:#x} wanted; its log says "
                f"{seen.architecture or 'no architecture'}",
                f"name the target instead of an arch.json: -a {target.dpu_name}",
            )
    return compiled


def _lost_outputs(compiled: Graph, wanted: List[str]) -> List[str]:
    """A note if outputs of the quantized model are inside or outside the compiled one."""
    visible: Set[str] = set()
    for child in compiled.root.children:
        for op in compiled.boundary(child)[1]:
            visible.update((op.name, op.tensor.name))
    # The conversion of an output to float is called by the output's name and an underscore.
    lost = [name for name in wanted if not {name, f"{name}_"} & visible]
    if not lost:
        return []
    hint = output_ops_hint(tuple(wanted))
    return [f"the compiled model lost the output {', '.join(lost)}; try: {hint}"]


def _complete(folder: Path, xmodel: Path, graph: Graph, target: Target, digest: str) -> None:
    """Adds what a release left out, and drops what is not part of the result."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(str(path))
        elif path.name not in (xmodel.name, META, MD5SUM):
            path.unlink()
    if not (folder / META).is_file():
        kernels = [subgraph.name for subgraph in graph.subgraphs("DPU")]
        write_json(
            folder / META,
            {"target": target.dpu_name, "filename": xmodel.name, "kernel": kernels, "md5": digest},
        )
    if not (folder / MD5SUM).is_file():
        write_text(folder / MD5SUM, f"{digest}  {xmodel.name}\n")
