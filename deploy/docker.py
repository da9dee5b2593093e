"""What docker is on a host: its program, daemon and images, and what to type where it fails."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Optional, Sequence, Tuple

from .host import Host

SECONDS = 20.0
"""Time allowed for one question to docker."""


class Docker(enum.Enum):
    """How far a command gets with docker."""

    READY = "ready"
    ABSENT = "absent"
    FORBIDDEN = "forbidden"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True)
class DockerState:
    """What was found.

    Attributes:
        state: how far one gets.
        seen: what was seen, one phrase.
        fix: what to type; empty where nothing is wrong.
        path: of the program.
    """

    state: Docker
    seen: str
    fix: str = ""
    path: str = ""


def find_docker(host: Host) -> DockerState:
    """Looks for docker and asks its daemon for the version."""
    path = host.which("docker")
    if path is None:
        return DockerState(
            Docker.ABSENT,
            "there is no docker on PATH",
            "sudo apt-get install docker.io && sudo usermod -aG docker $USER",
        )
    answer = host.run([path, "version", "--format", "{{.Server.Version}}"], SECONDS)
    if answer.ok:
        return DockerState(Docker.READY, f"docker {answer.output.strip()}", "", path)
    said = answer.error or answer.output
    if "permission denied" in said.lower():
        return DockerState(
            Docker.FORBIDDEN,
            f"{host.user[0]} may not use docker's socket",
            "sudo usermod -aG docker $USER && newgrp docker",
            path,
        )
    if "cannot connect" in said.lower() or "is the docker daemon running" in said.lower():
        return DockerState(
            Docker.STOPPED,
            "docker is installed, its daemon does not answer",
            "sudo systemctl enable --now docker",
            path,
        )
    return DockerState(
        Docker.FAILED,
        f"docker version fails: {answer.said or 'it says nothing'}",
        "docker version",
        path,
    )


def has_image(host: Host, docker: str, image: str) -> bool:
    """Whether an image is on this host."""
    return host.run([docker, "image", "inspect", "--format", "{{.Id}}", image], SECONDS).ok


def first_image(host: Host, docker: str, images: Sequence[str]) -> Optional[str]:
    """The first of some images that is on this host."""
    return next((image for image in images if has_image(host, docker, image)), None)


def data_root(host: Host, docker: str) -> str:
    """The folder where docker keeps its images; the usual one if it does not say."""
    answer = host.run([docker, "info", "--format", "{{.DockerRootDir}}"], SECONDS)
    return answer.output.strip() if answer.ok and answer.output.strip() else "/var/lib/docker"


def has_gpu_runtime(host: Host, docker: str) -> Tuple[bool, str]:
    """Whether docker can give a container the GPUs, and what was seen."""
    answer = host.run([docker, "info", "--format", "{{json .Runtimes}}"], SECONDS)
    return answer.ok and "nvidia" in answer.output, answer.output.strip() or answer.said
