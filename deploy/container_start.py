"""A planned session started: as a process whose end is waited for, or as a script to keep."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Iterator, List, Mapping, Optional

from ..errors import DeviceError, WorkError
from ..files import write_text
from .container import WORKSPACE, SessionPlan, docker_command


def shell_text(plan: SessionPlan) -> str:
    """The session as a shell script that can be kept, read and run without this package."""
    folder = shlex.quote(str(plan.folder))
    words = [shlex.quote(word) for word in docker_command(plan)]
    # An option and its value stay on one line.
    lines: List[str] = []
    for word in words:
        if lines and lines[-1] in ("--mount", "-e", "-w", "--gpus"):
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    build = shlex.quote(str(plan.folder.parent))
    return "\n".join(
        [
            "#!/bin/bash",
            *(f"# {line}" for line in plan.reasons),
            f"mkdir -p {build} {folder} && rm -f {folder}/status",
            f"cat >{folder}/session.sh <<'END_OF_SESSION'",
            plan.script.rstrip("\n"),
            "END_OF_SESSION",
            " \\\n    ".join(lines),
            f'exit "$(cat {folder}/status 2>/dev/null || echo 1)"',
            "",
        ]
    )


@contextlib.contextmanager
def _session_folder(plan: SessionPlan) -> Iterator[Path]:
    """The session's folder with its script, gone at the end."""
    # Docker would make the place for the build folder inside the workspace itself, as root.
    places = [Path(m.source, "build") for m in plan.mounts if m.target == WORKSPACE]
    try:
        for folder in [*places, plan.folder]:
            folder.mkdir(parents=True, exist_ok=True)
        write_text(plan.folder / "session.sh", plan.script)
    except OSError as error:
        raise WorkError(
            "The session's folder cannot be made", str(error), "name others: --workspace, -d"
        ) from None
    try:
        yield plan.folder
    finally:
        shutil.rmtree(str(plan.folder), ignore_errors=True)


def run_session(plan: SessionPlan, number: int, env: Optional[Mapping[str, str]] = None) -> int:
    """Starts the container, waits for its end and returns the status of what ran inside.

    Args:
        plan: of ``plan_session``.
        number: told from those of other sessions on the same build folder (a process id).
        env: of the docker program; ``None`` for this process's own.

    Raises:
        DeviceError: docker could not start the container.
        WorkError: the container ended before the session's script did.
    """
    own = plan.folder.with_name(f"{plan.folder.name}-{number}")
    mounts = tuple(
        replace(mount, source=str(own)) if mount.source == str(plan.folder) else mount
        for mount in plan.mounts
    )
    plan = replace(plan, folder=own, mounts=mounts)
    with _session_folder(plan) as folder:
        process = subprocess.Popen(docker_command(plan), env=None if env is None else dict(env))
        while True:
            # Ctrl-C goes to docker as well, which ends the container; its end is waited for.
            with contextlib.suppress(KeyboardInterrupt):
                status = process.wait()
                break
        file = folder / "status"
        said = file.read_text(encoding="utf-8").strip() if file.is_file() else ""
    if said.isdigit():
        return int(said)
    if status == 125:
        raise DeviceError(
            "Docker could not start the container",
            f"docker run ended with status {status}; what it said stands above",
            "deepfake-fpga doctor --for card",
        )
    if status == 0:
        raise WorkError(
            "The container ended before the session's script did",
            "docker run ended with status 0 and there is no status from inside",
            "deepfake-fpga session --dry-run shows what is started",
        )
    return status
