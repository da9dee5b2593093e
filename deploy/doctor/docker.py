"""Checks of docker, where a container is started from here."""

from __future__ import annotations

from typing import Iterator

from ..docker import Docker, find_docker, first_image
from .facts import Facts, Place
from .findings import Finding, Purpose, needs

_CARD = needs(Purpose.CARD)


def check_docker(facts: Facts) -> Iterator[Finding]:
    """The program, its daemon, the right to use it, and the release's image."""
    if facts.place is not Place.HOST or facts.inside:
        yield Finding("docker", None, f"not needed {facts.place.value}")
        return
    found = find_docker(facts.host)
    ready = found.state is Docker.READY
    if found.state is Docker.ABSENT and not facts.card_matters:
        yield Finding("docker", None, f"{found.seen}; only the vendor's tools need it")
        return
    yield Finding("docker", ready, found.seen, found.fix, _CARD)
    if not ready or not facts.card_matters:
        return
    if facts.release is None:
        yield Finding("image", None, f"no release goes with the card: {facts.release_seen}")
        return
    images = facts.release.images
    present = first_image(facts.host, found.path, images)
    yield Finding(
        "image",
        present is not None,
        present or f"{images[0]} is not on this host",
        f"docker pull {images[0]}",
        _CARD,
    )
