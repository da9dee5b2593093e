"""What several checks need to know: the card, the container and its release, what is wanted.

Collected once. What cannot be found out is left open and said in ``troubles``; no check fails for
another's sake.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, FrozenSet, List, Optional, Sequence, Tuple, TypeVar

from ...board.cards import CardSearch
from ...board.releases import CardRelease, release_named
from ...board.vendor import State as VendorState
from ...errors import ToolkitError, UsageError
from ...inference.devices.preflight import Runtime
from ..container import card_release
from ..host import Host
from ..simulate.options import VARIABLE, active_options
from .findings import Purpose

VITIS = "/opt/vitis_ai"


class Place(enum.Enum):
    """Where the command runs."""

    HOST = "on the host"
    CONTAINER = "in a container that is not Vitis AI's"
    VITIS = "in a Vitis AI container"
    SIMULATED = "under deepfake-fpga simulate"


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        purpose: what must be fit; ``None`` for what ``auto`` would use.
        model: compiled model to hold against the card; ``None`` for that of ``run``.
        build_dir: the build folder.
        display: whether windows are wanted.
    """

    purpose: Optional[Purpose] = None
    model: Optional[Path] = None
    build_dir: Path = Path("build")
    display: bool = False


@dataclass(frozen=True)
class Choice:
    """What ``auto`` takes for one stage, and why."""

    stage: str
    taken: str
    reason: str


@dataclass(frozen=True)
class Facts:
    """What is known of the computer.

    Attributes:
        host: the computer.
        request: what is asked for.
        place: where the command runs.
        place_seen: how that was told.
        release: of Vitis AI: the container's, or on a host the one that goes with the card.
        release_seen: how that was told, or why it was not.
        search: cards.
        runtime: the interpreter with ``xir`` and ``vart``; ``None`` where none was looked for.
        choices: what ``auto`` takes.
        wanted: purposes that must be fit.
        wanted_reason: why those.
        troubles: what could not be found out: name and error.
    """

    host: Host
    request: Request
    place: Place
    place_seen: str
    release: Optional[CardRelease] = None
    release_seen: str = ""
    search: CardSearch = field(default_factory=lambda: CardSearch(()))
    runtime: Optional[Runtime] = None
    choices: Sequence[Choice] = ()
    wanted: FrozenSet[Purpose] = frozenset()
    wanted_reason: str = ""
    troubles: Tuple[Tuple[str, str], ...] = ()

    @property
    def inside(self) -> bool:
        """Whether the vendor's tools belong here, rather than in a container started from here."""
        return self.place in (Place.VITIS, Place.SIMULATED) or (
            self.runtime is not None and self.runtime.check.ok
        )

    @property
    def drop_in(self) -> bool:
        """Whether the runtime is our own stand-in, which needs no card."""
        return self.runtime is not None and self.runtime.drop_in

    @property
    def card_matters(self) -> bool:
        """Whether to look at what only a card needs."""
        return Purpose.CARD in self.wanted or bool(self.search.cards) or self.inside


Taken = TypeVar("Taken")


def collect(request: Request, host: Host, choose: Callable[[], Sequence[Choice]]) -> Facts:
    """Finds out what several checks need.

    Args:
        request: what is asked for.
        host: the computer.
        choose: what ``auto`` takes here.
    """
    troubles: List[Tuple[str, str]] = []

    def tried(name: str, work: Callable[[], Taken], otherwise: Taken) -> Taken:
        try:
            return work()
        except Exception as error:  # a check of a sick computer must not end in a traceback
            troubles.append((name, f"{type(error).__name__}: {error}"))
            return otherwise

    place, place_seen = tried(
        "place", lambda: find_place(host), (Place.HOST, "it could not be told")
    )
    search = tried("cards", host.cards, CardSearch(()))
    runtime = tried("xir and vart", lambda: _runtime(host, place), None)
    unknown: Tuple[Optional[CardRelease], str] = (None, "it could not be told")
    release, release_seen = tried("release", lambda: find_release(host, place, search), unknown)
    wanted, reason = _wanted(request, search, place)
    return Facts(
        host,
        request,
        place,
        place_seen,
        release,
        release_seen,
        search,
        runtime,
        tried("choices", choose, ()),
        wanted,
        reason,
        tuple(troubles),
    )


def _runtime(host: Host, place: Place) -> Optional[Runtime]:
    """Starting other interpreters to look for it is left out where it cannot be."""
    if place in (Place.VITIS, Place.SIMULATED) or host.package("vart").usable:
        return host.runtime()
    return None


def find_place(host: Host) -> Tuple[Place, str]:
    """Where the command runs, and how that was told."""
    if host.env.get(VARIABLE) and host.package("vart").state is VendorState.SIMULATED:
        return Place.SIMULATED, f"{VARIABLE} is set"
    marks = [path for path in ("/.dockerenv", "/run/.containerenv") if host.exists(path)]
    if not marks and re.search(r"docker|containerd|kubepods|libpod", host.read("/proc/1/cgroup")):
        marks = ["/proc/1/cgroup"]
    if host.is_dir(VITIS):
        return Place.VITIS, ", ".join([f"{VITIS} exists", *(f"{mark} exists" for mark in marks)])
    if marks:
        return Place.CONTAINER, f"{marks[0]} says so, there is no {VITIS}"
    return Place.HOST, "no sign of a container"


def find_release(host: Host, place: Place, search: CardSearch) -> Tuple[Optional[CardRelease], str]:
    """The release of Vitis AI and how it was told.

    Inside the container: of that container. On a host: the newest that goes with the card.
    """
    if place is Place.SIMULATED:
        name = active_options(host.env).release
        return release_named(name), f"{VARIABLE} says {name}"
    if place is Place.VITIS:
        return _container_release(host)
    name, why = card_release(search)
    return (release_named(name) if name else None), why


def _container_release(host: Host) -> Tuple[Optional[CardRelease], str]:
    for source, text in (
        ("VERSION", host.env.get("VERSION", "")),
        ("/etc/VERSION.txt", host.read("/etc/VERSION.txt")),
    ):
        found = re.search(r"(?<![\d.])(\d\.\d+(?:\.\d+)*)", text.replace("-", " "))
        if found:
            return _named(found.group(1), f"{source} is {text.strip()[:60]!r}")
    system = re.search(r'^VERSION_ID="?([\d.]+)', host.read("/etc/os-release"), re.MULTILINE)
    ubuntu = system.group(1) if system else ""
    libraries = host.glob(f"{VITIS}/conda/envs/vitis-ai-pytorch/lib", "python3.*")
    python = libraries[0].rpartition("python")[2] if libraries else ""
    seen = f"Ubuntu {ubuntu or 'unknown'}, Python {python or 'unknown'} of vitis-ai-pytorch"
    name = {
        ("18.04", "3.6"): "2.0",
        ("18.04", "3.7"): "2.5",
        ("20.04", "3.7"): "3.0",
        ("20.04", "3.8"): "3.5",
    }.get((ubuntu, python))
    if name is None:
        return None, seen
    return _named(name, seen)


def _named(name: str, seen: str) -> Tuple[Optional[CardRelease], str]:
    try:
        return release_named(name), seen
    except UsageError as error:
        return None, f"{seen}: {error.cause}"


def _wanted(request: Request, search: CardSearch, place: Place) -> Tuple[FrozenSet[Purpose], str]:
    if request.purpose is not None:
        return frozenset({request.purpose}), "asked for with --for"
    if search.cards:
        return frozenset({Purpose.RUN, Purpose.CARD}), "there is a VCK5000 in this computer"
    if place is Place.SIMULATED:
        return frozenset({Purpose.RUN, Purpose.CARD}), "the card is simulated"
    return frozenset({Purpose.RUN}), "there is no VCK5000 here: the simulated device is used"


def default_choices() -> Sequence[Choice]:
    """What ``auto`` takes on this computer, stage by stage."""
    from ...compile.backend import select_backend as compiler
    from ...inference.devices import choose_device
    from ...quantize.backend import select_backend as quantizer

    device, why = choose_device("auto")[:2]
    choices = [Choice("run", device, why)]
    for stage, select in (("quant", quantizer), ("compile", compiler)):
        try:
            backend, reason = select("auto")[:2]
            choices.append(Choice(stage, backend.name, reason))
        except ToolkitError as error:
            choices.append(Choice(stage, "nothing", str(error)))
    return choices
