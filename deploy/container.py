"""A session in the vendor's container: which image, what it is given, the docker command.

What happens inside is ``data/session.sh``. It is handed over as a file at a path without spaces,
and it leaves the command's status in a file: the images' own start scripts split words and may
lose the status.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from ..board.cards import CardSearch
from ..board.releases import (
    OVERLAYS,
    CardRelease,
    Setup,
    known_releases,
    release_named,
    releases_for,
)
from ..errors import DeviceError, MissingError, UsageError
from .docker import Docker, find_docker, first_image
from .host import Host

HOME = "/opt/deepfake_fpga"
"""Where the package, the session's folder and the wheels are inside; on ``PYTHONPATH``."""

WORKSPACE = "/workspace"
DATA = "/data"
VITIS_AI = "/vitis_ai_home"
OVERLAYBINS = OVERLAYS.rpartition("/")[0]
BODY = Path(__file__).resolve().parent / "data" / "session.sh"
PACKAGE = Path(__file__).resolve().parent.parent

DEFAULT_RELEASE = "3.0"


def card_release(search: CardSearch) -> Tuple[str, str]:
    """The newest release that goes with the card, and why; an empty name where none is known."""
    if not search.cards:
        return "", "there is no card"
    card = search.cards[0]
    if card.silicon is None and not card.shell:
        return "", f"neither make nor shell of the card {card.slot} is known"
    fitting = releases_for(card.installed)
    what = card.shell or f"{card.silicon.value if card.silicon else 'unknown'} silicon"
    if fitting:
        return fitting[0].name, f"the card {card.slot} has {what}"
    by_shell = [r for r in reversed(known_releases()) if r.shell.name == card.shell]
    if by_shell:
        return by_shell[0].name, f"the card {card.slot} has {what}; doctor says what does not fit"
    return "", f"no release goes with what the card {card.slot} has ({what})"


WHEELS = ("click", "PyYAML", "tqdm", "importlib-metadata", "typing-extensions")
"""What an image's Python may lack. The last two are for click and tqdm under 3.7: pip judges by its
own Python whether they are needed, and leaves them out."""


def download_command(release: CardRelease, *more: str) -> str:
    """How to fetch the wheels that an image's Python may lack, on a computer with a network.

    Args:
        release: of the image.
        more: further packages.
    """
    words = ["pip download -d wheels --only-binary=:all:", f"--python-version {release.python}"]
    return " ".join([*words, *dict.fromkeys([*WHEELS, *more])])


@dataclass(frozen=True)
class Mount:
    """One folder or file of the host inside the container."""

    source: str
    target: str
    read_only: bool = False

    def option(self) -> str:
        """The value of docker's ``--mount``; unlike ``-v`` it makes no folder and knows colons."""
        fields = ["type=bind", f"source={self.source}", f"target={self.target}"]
        fields += ["readonly"] if self.read_only else []
        return ",".join(_csv(text) for text in fields)


def _csv(text: str) -> str:
    if "," in text or '"' in text:
        return '"' + text.replace('"', '""') + '"'
    return text


@dataclass(frozen=True)
class SessionRequest:
    """What is asked for; paths are absolute.

    Attributes:
        build: the build folder, at ``/workspace/build`` inside.
        workspace: folder at ``/workspace`` inside.
        data: folder at ``/data`` inside, read only.
        release: of Vitis AI, or ``auto``.
        variant: of the DPU; ``None`` takes the release's first.
        image: instead of the release's own.
        card: whether the card is given to the container.
        wheels: folder of wheels to install from.
        vitis_ai: the release's Vitis-AI folder, for its ``setup.sh``.
        python: ``conda`` or ``system``.
        display: whether windows can be opened on the host's screen.
        docker_arguments: further words for ``docker run``.
        command: words to run; none for a shell.
        terminal: whether a person is at the other end.
    """

    build: Path
    workspace: Path
    data: Optional[Path] = None
    release: str = "auto"
    variant: Optional[str] = None
    image: str = ""
    card: bool = True
    wheels: Optional[Path] = None
    vitis_ai: Optional[Path] = None
    python: str = "conda"
    display: bool = False
    docker_arguments: Sequence[str] = ()
    command: Sequence[str] = ()
    terminal: bool = False


@dataclass(frozen=True)
class SessionPlan:
    """One session, decided.

    Attributes:
        release: of Vitis AI.
        image: of the container.
        variant: of the DPU.
        folder: the session's folder on the host: holds ``session.sh``, takes ``status``.
        docker: the program.
        devices: nodes given to the container.
        mounts: what it sees of the host.
        environment: its variables.
        gpus: whether it gets the GPUs.
        terminal: whether a person is at the other end.
        arguments: further words for ``docker run``.
        script: what ``session.sh`` holds.
        reasons: what was chosen and why.
        warnings: what the user should know.
    """

    release: CardRelease
    image: str
    variant: str
    folder: Path
    docker: str = "docker"
    devices: Tuple[str, ...] = ()
    mounts: Tuple[Mount, ...] = ()
    environment: Tuple[Tuple[str, str], ...] = ()
    gpus: bool = False
    terminal: bool = False
    arguments: Tuple[str, ...] = ()
    script: str = ""
    reasons: Tuple[str, ...] = ()
    warnings: Tuple[str, ...] = field(default=())

    def to_json(self) -> Dict[str, Any]:
        """The plan with the docker command, for ``--dry-run --json``."""
        return {
            "release": self.release.name,
            "image": self.image,
            "variant": self.variant,
            "reasons": list(self.reasons),
            "warnings": list(self.warnings),
            "command": docker_command(self),
            "script": self.script,
        }


def docker_command(plan: SessionPlan) -> List[str]:
    """The words of ``docker run`` for a plan, in a fixed order."""
    words = [plan.docker, "run", "--rm", "-it" if plan.terminal else "-i", "--network=host"]
    words += [f"--device={node}" for node in plan.devices]
    words += ["--gpus", "all"] if plan.gpus else []
    for mount in plan.mounts:
        words += ["--mount", mount.option()]
    for name, value in plan.environment:
        words += ["-e", f"{name}={value}"]
    words += ["-w", WORKSPACE, *plan.arguments, plan.image]
    # No word with a space: the image's start script takes these apart again.
    return [*words, "bash", f"{HOME}/session/session.sh"]


def plan_session(request: SessionRequest, host: Host, dry: bool = False) -> SessionPlan:
    """Decides a session and checks that it can start.

    Args:
        request: what is asked for.
        host: the computer.
        dry: only to be shown: what is missing becomes a warning.

    Raises:
        MissingError: docker, the image or a folder is not here.
        DeviceError: docker may not be used or does not answer, or there is no card.
        UsageError: the release has no such variant, or ``--display`` without a display.
    """
    reasons: List[str] = []
    warnings: List[str] = []
    release = _choose_release(request, host, reasons)
    setup = release.setup(request.variant)
    docker, image = _docker_and_image(request, release, host, reasons, warnings, dry)
    devices: Tuple[str, ...] = ()
    if request.card:
        devices = _card_nodes(host, release, warnings, dry)
    else:
        reasons.append("no card: asked for with --no-card")
    if release.python == "3.6":
        warnings.append(
            f"the image of Vitis AI {release.name} has Python 3.6: deepfake-fpga needs 3.7 and does"
            " not run in it, the vendor's own tools do"
        )
    gpus = "gpu" in image.split(":")[0].lower()
    if gpus:
        reasons.append(f"all GPUs: {image} is a GPU image")
    folder = request.build / ".session"
    mounts = _mounts(request, host, release, folder, reasons)
    name, uid, gid = host.user
    environment = [
        ("USER", name),
        ("UID", str(uid)),
        ("GID", str(gid)),
        ("VERSION", image.rpartition(":")[2] if ":" in image else "latest"),
    ]
    if request.display:
        more, variables = _display(host, warnings)
        mounts += more
        environment += variables
    return SessionPlan(
        release,
        image,
        setup.variant,
        folder,
        docker,
        devices,
        tuple(mounts),
        tuple(environment),
        gpus,
        request.terminal,
        tuple(request.docker_arguments),
        _script(request, release, setup, dict(environment).get("DISPLAY", "")),
        tuple(reasons),
        tuple(warnings),
    )


def _choose_release(request: SessionRequest, host: Host, reasons: List[str]) -> CardRelease:
    if request.release != "auto":
        reasons.append(f"Vitis AI {request.release}: asked for")
        return release_named(request.release)
    name, why = card_release(host.cards())
    if name:
        reasons.append(f"Vitis AI {name}: {why}")
        return release_named(name)
    reasons.append(f"Vitis AI {DEFAULT_RELEASE}: the last release for this card ({why})")
    return release_named(DEFAULT_RELEASE)


def _docker_and_image(
    request: SessionRequest,
    release: CardRelease,
    host: Host,
    reasons: List[str],
    warnings: List[str],
    dry: bool,
) -> Tuple[str, str]:
    wanted = (request.image,) if request.image else release.images
    found = find_docker(host)
    if found.state is not Docker.READY:
        if not dry:
            kind = MissingError if found.state is Docker.ABSENT else DeviceError
            raise kind("The container cannot be started", found.seen, found.fix)
        warnings.append(f"{found.seen} (next: {found.fix})")
        reasons.append(f"image {wanted[0]}: {'asked for' if request.image else 'the release has'}")
        return "docker", wanted[0]
    image = first_image(host, found.path, wanted)
    if image is None:
        if not dry:
            raise MissingError(
                f"The image {wanted[0]} is not on this host",
                "docker image inspect finds none of " + ", ".join(wanted),
                f"docker pull {wanted[0]} (some 10 GB), or name another with --image",
            )
        warnings.append(f"the image {wanted[0]} is not on this host: docker pull {wanted[0]}")
        image = wanted[0]
    reasons.append(f"image {image}: {'asked for' if request.image else 'of this release'}")
    return "docker", image


def _card_nodes(
    host: Host, release: CardRelease, warnings: List[str], dry: bool
) -> Tuple[str, ...]:
    management, render = host.device_nodes()
    problems: List[Tuple[str, str]] = []
    if not management:
        problems.append(("there is no /dev/xclmgmt*", "sudo modprobe xclmgmt"))
    if not render:
        problems.append(("there is no /dev/dri/renderD*", "sudo modprobe xocl"))
    if not host.is_dir(OVERLAYBINS):
        problems.append(
            (
                f"there is no {OVERLAYBINS}",
                f"source install.sh in {release.setup_folder} of Vitis-AI",
            )
        )
    if problems and not dry:
        steps = " && ".join(step for _, step in problems if step.startswith("sudo"))
        raise DeviceError(
            "The card cannot be given to the container",
            "; ".join(seen for seen, _ in problems),
            " then ".join(filter(None, [steps, *(s for _, s in problems if s[:4] != "sudo")]))
            + " (deepfake-fpga doctor --for card says more);"
            " without the card: deepfake-fpga session --no-card",
        )
    warnings += [f"{seen} (next: {step})" for seen, step in problems]
    return (*management, *render)


def _mounts(
    request: SessionRequest,
    host: Host,
    release: CardRelease,
    folder: Path,
    reasons: List[str],
) -> List[Mount]:
    mounts = [
        Mount("/dev/shm", "/dev/shm"),
        Mount(_folder(request.workspace, "workspace"), WORKSPACE),
        Mount(str(request.build), f"{WORKSPACE}/build"),
        Mount(str(folder), f"{HOME}/session"),
        Mount(str(PACKAGE), f"{HOME}/deepfake_fpga", read_only=True),
    ]
    if request.card:
        for path in ("/opt/xilinx/dsa", OVERLAYBINS):
            if host.is_dir(path):
                mounts.append(Mount(path, path, read_only=True))
        if release.name in ("1.4.1", "2.0") and host.is_dir("/etc/xbutler"):
            mounts.append(Mount("/etc/xbutler", "/etc/xbutler", read_only=True))
    if request.data is not None:
        mounts.append(Mount(_folder(request.data, "data"), DATA, read_only=True))
        reasons.append(f"{request.data} is {DATA} inside")
    if request.wheels is not None:
        wheels = _folder(request.wheels, "wheels")
        if not any(request.wheels.glob("*.whl")):
            raise MissingError(
                f"There is no wheel in {request.wheels}", "", download_command(release)
            )
        mounts.append(Mount(wheels, f"{HOME}/wheels", read_only=True))
    if request.vitis_ai is not None:
        mounts.append(Mount(_folder(request.vitis_ai, "vitis-ai"), VITIS_AI))
    return mounts


def _folder(path: Path, option: str) -> str:
    if not path.is_dir():
        kind = "is a file" if path.exists() else "does not exist"
        raise MissingError(f"The folder {path} {kind}", "", f"check --{option}")
    return str(path)


def _display(host: Host, warnings: List[str]) -> Tuple[List[Mount], List[Tuple[str, str]]]:
    display = host.env.get("DISPLAY", "")
    if not display or not host.is_dir("/tmp/.X11-unix"):
        seen = "DISPLAY is not set" if not display else "there is no /tmp/.X11-unix"
        raise UsageError(
            "There is no screen to open windows on",
            seen,
            "log in on the screen (or leave --display out: results are written to files)",
        )
    mounts = [Mount("/tmp/.X11-unix", "/tmp/.X11-unix")]
    cookie = host.env.get("XAUTHORITY") or f"{host.env.get('HOME', '')}/.Xauthority"
    if host.is_file(cookie):
        mounts.append(Mount(cookie, "/tmp/.Xauthority", read_only=True))
    else:
        warnings.append(f"there is no {cookie}: if windows are refused, type xhost +local: first")
    return mounts, [("DISPLAY", display)]


def _script(request: SessionRequest, release: CardRelease, setup: Setup, display: str) -> str:
    values = {
        "folder": f"{HOME}/session",
        "release": release.name,
        "python": request.python,
        "card": "yes" if request.card else "",
        "argument": setup.argument,
        "xclbins": f"{OVERLAYS}/{setup.folder}",
        "xclbins_next": f"Next, on the host: source install.sh in {release.setup_folder} of the"
        f" Vitis-AI folder of release {release.name}",
        "wheels": f"{HOME}/wheels" if request.wheels is not None else "",
        "download": download_command(release),
        "display": display,
        "command": " ".join(shlex.quote(word) for word in request.command),
    }
    lines = [f"session_{name}={shlex.quote(value)}" for name, value in values.items()]
    return "\n".join([*lines, "", BODY.read_text(encoding="utf-8")])
