"""Runs with evidence for tests: clips whose brightness is what is found, on the shipped model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, List, Sequence

import numpy as np

from deepfake_fpga.deploy.defaults import default_model
from deepfake_fpga.deploy.evidence.clips import stamps
from deepfake_fpga.deploy.evidence.folder import (
    Evidence,
    EvidenceOptions,
    write_evidence,
)
from deepfake_fpga.inference.artifact import load_artifact
from deepfake_fpga.inference.run import RunOptions, run
from deepfake_fpga.inference.sources import open_video
from deepfake_fpga.inference.verdicts.gallery import Gallery
from deepfake_fpga.inference.verdicts.judgement import Rules

from .clips import write_clip
from .fakes import FakeSession

DARK, BRIGHT = 20, 235
"""Greys that are found to be manipulated, and authentic."""


def grey_session() -> FakeSession:
    """Says that a picture is REAL to the degree that it is bright."""
    session = FakeSession(size=224)
    session.artifact = load_artifact(default_model())  # type: ignore[assignment]
    session.reals = lambda images: (images.mean(axis=(1, 2, 3)) / 255).astype(np.float32)
    return session


def grey_clip(path: Path, greys: Sequence[int]) -> Path:
    """A clip of one grey per frame, 20 frames a second."""
    pictures = [np.full((64, 64, 3), grey, np.uint8) for grey in greys]
    return write_clip(path, len(greys), pictures=pictures)


def judged(clips: Sequence[Path], output: Path, **options: Any) -> Evidence:
    """Runs over clips and writes the evidence; ``options`` are those of the evidence."""
    sources: List[Any] = [open_video(str(clip)) for clip in clips]
    before = stamps(place for source in sources for place in source.places())
    session, gallery = grey_session(), Gallery()
    how = RunOptions(
        rules=Rules(aggregation="mean"), viewers=[gallery], pictures=options.get("pictures", True)
    )
    summary = run(sources, session.as_session(), output, how)
    wanted = EvidenceOptions(**{"before": before, **options})
    return write_evidence(output, summary, load_artifact(default_model()), gallery, wanted)
