"""Checks of the container and its release against card, shell, XRT, XRM and the arch folders."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Iterator, List

from ...board.releases import Installed, Problem, problems, releases_for
from ...board.vendor import State as VendorState
from ...compile.arch import arch_roots, find_arch
from ...compile.targets import resolve_target
from .facts import VITIS, Facts, Place
from .findings import Finding, Purpose, needs
from .firmware import variant_wanted

_CARD = needs(Purpose.CARD)
_SECONDS = 20.0
ENVIRONMENT = "vitis-ai-pytorch"
"""The conda environment of the vendor's images that holds quantizer and compiler."""


def check_place(facts: Facts) -> Iterator[Finding]:
    """Where the command runs, and in a Vitis AI container which environment is active."""
    yield Finding("place", True, f"{facts.place.value} ({facts.place_seen})")
    if facts.place is Place.VITIS:
        active = facts.host.env.get("CONDA_DEFAULT_ENV", "")
        yield Finding(
            "conda",
            active == ENVIRONMENT,
            f"{active or 'no environment'} is active; quantizer and compiler are in {ENVIRONMENT}",
            f". {VITIS}/conda/etc/profile.d/conda.sh && conda activate {ENVIRONMENT}",
        )


def check_release(facts: Facts) -> Iterator[Finding]:
    """Which release of Vitis AI this is, or which one the card wants, and what does not fit."""
    if facts.release is None:
        unknown = facts.place is Place.VITIS or bool(facts.search.cards)
        yield Finding(
            "Vitis AI",
            False if unknown else None,
            facts.release_seen,
            "deepfake-fpga session  # takes the container of 2.5 or 3.0",
            _CARD if "not support" in facts.release_seen else frozenset(),
        )
        return
    name = facts.release.name
    if facts.place is Place.HOST:
        yield Finding("Vitis AI", True, f"{name} is the one to use: {facts.release_seen}")
    else:
        yield Finding("Vitis AI", True, f"{name} ({facts.release_seen})")
    card = facts.search.cards[0] if facts.search.cards else None
    installed = Installed(
        silicon=card.silicon if card else None,
        shell=card.shell if card else "",
        xrt=xrt_version(facts),
        xrm=xrm_version(facts),
        sc_version=card.sc_version if card else "",
    )
    wrong = problems(installed, facts.release)
    for problem in wrong:
        fix = problem.fix
        if problem.what == "silicon":
            fitting = releases_for(Installed(installed.silicon))
            fix = f"deepfake-fpga session --release {fitting[0].name}" if fitting else fix
        yield Finding(_title(problem), False, _words(problem, name), fix, _CARD)
    named = {problem.what for problem in wrong}
    # Card and shell are lines of their own where they fit.
    for what, found in (("XRT", installed.xrt), ("XRM", installed.xrm)):
        if what in named or not facts.card_matters or facts.place is Place.SIMULATED:
            continue
        if found:
            yield Finding(what, True, f"{found}, as Vitis AI {name} wants it")
        else:
            package = what.lower()
            fix = (
                f"dpkg-query -W {package}  # on the host install.sh of Vitis AI {name} installs it"
            )
            yield Finding(what, False, "its version was not found", fix)
    if facts.place is Place.VITIS and facts.card_matters:
        yield Finding(
            "host's versions",
            None,
            f"XRT {facts.release.xrt} and XRM {facts.release.xrm} are needed on the host too; "
            "that cannot be seen from inside (on the host: deepfake-fpga doctor --for card)",
        )


def _title(problem: Problem) -> str:
    return {"silicon": "card's make", "satellite controller": "controller"}.get(
        problem.what, problem.what
    )


def _words(problem: Problem, name: str) -> str:
    return f"{problem.found}, Vitis AI {name} wants {problem.wanted}"


def xrt_version(facts: Facts) -> str:
    """Version of XRT: as its tools say, else from its own file, else of the package."""
    if facts.search.versions.xrt:
        return facts.search.versions.xrt
    if facts.place is Place.SIMULATED:
        return ""
    root = facts.host.env.get("XILINX_XRT", "/opt/xilinx/xrt")
    try:
        record = json.loads(facts.host.read(f"{root}/version.json"))
        return str(record["BUILD_VERSION"])
    except (ValueError, KeyError, TypeError):
        return _package(facts, "xrt")


def xrm_version(facts: Facts) -> str:
    """Version of the installed XRM package, empty where there is none."""
    return "" if facts.place is Place.SIMULATED else _package(facts, "xrm")


def _package(facts: Facts, name: str) -> str:
    for words in (
        ["dpkg-query", "-W", "-f", "${Version}", name],
        ["rpm", "-q", "--qf", "%{VERSION}", name],
    ):
        program = facts.host.which(words[0])
        if program is None:
            continue
        outcome = facts.host.run([program, *words[1:]], _SECONDS)
        found = re.match(r"[\d.]+", outcome.output.strip())
        if outcome.ok and found:
            return found.group(0)
    return ""


def check_arch(facts: Facts) -> Iterator[Finding]:
    """Whether the compiler has an ``arch.json`` for the variant."""
    compiler = facts.host.program("vai_c_xir")
    if not compiler.usable:
        yield Finding("arch folder", None, "only the vendor's compiler needs one")
        return
    variant, why = variant_wanted(facts)
    target = resolve_target(variant).target
    env = dict(facts.host.env)
    if compiler.state is VendorState.GENUINE:
        env["VAI_ROOT"] = str(facts.host.at(env.get("VAI_ROOT") or "/opt/vitis_ai"))
    choice = find_arch(target, compiler.path, env)
    if choice.path is not None:
        yield Finding("arch folder", True, f"{choice.path} ({why})")
        return
    others: List[str] = sorted(
        f"{path.parent.parent.name}/{path.parent.name}"
        for root in arch_roots(compiler.path, env)
        for path in Path(root).glob("DPUCVDX8H/*/arch.json")
    )
    yield Finding(
        "arch folder",
        False,
        f"{choice.reason} ({why}); there are {', '.join(others) or 'none for this card'}",
        f"deepfake-fpga session --variant {target.variant}  # an image of 2.5 or 3.0",
        needs(Purpose.COMPILE),
    )
