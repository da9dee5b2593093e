"""Checks of a compiled model against the card's xclbin."""

from __future__ import annotations

from typing import Iterator

from ...compile.weights import is_simulated
from ...compile.xir.xmodel import read_xmodel
from ...errors import ToolkitError
from ...inference.devices.preflight import check_model as card_checks
from ...inference.devices.preflight import model_build
from ..defaults import choose_model, default_model
from .facts import Facts
from .findings import EVERYTHING, Finding, Purpose, needs
from .firmware import VARIABLE


def check_model(facts: Facts) -> Iterator[Finding]:
    """Whether the model can be read, what it is compiled for, and whether the card takes it."""
    named = facts.request.model is not None
    needed = EVERYTHING if named else needs(Purpose.RUN, Purpose.CARD)
    try:
        path, reason = choose_model(facts.request.model, facts.request.build_dir)
        graph = read_xmodel(path)
    except ToolkitError as error:
        yield Finding(
            "model", False, f"{error.cause} {error.evidence}".strip(), error.next_step, needed
        )
        return
    parts = graph.subgraphs("DPU")
    build = model_build(parts[0]) if parts else None
    by = "our own compiler" if is_simulated(graph) else "the vendor's compiler"
    what = build.variant if build else "no DPU of this card"
    yield Finding("model", True, f"{path} ({reason}), for {what}, by {by}")
    if not facts.card_matters:
        return
    env = dict(facts.host.env)
    if env.get(VARIABLE):
        env[VARIABLE] = str(facts.host.at(env[VARIABLE]))
    for check in card_checks(graph, path, facts.drop_in, env):
        if check.name == "model" and check.ok:
            continue
        if check.name == "fingerprint" and check.ok and not env.get(VARIABLE):
            yield Finding("fingerprint", None, "there is no xclbin to hold it against")
            continue
        # The shipped model is only taken because nothing has been compiled yet.
        needed = needs() if path == default_model() and not named else needs(Purpose.CARD)
        yield Finding(check.name, check.ok, check.evidence, check.fix, needed)
