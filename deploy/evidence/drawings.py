"""The drawings of the report: how sure the answer is, and the points of the curve."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

import numpy as np

from ...inference.verdicts.judgement import Rules
from ...inference.verdicts.records import limits
from ...inference.verdicts.scores import Scores

MOST_POINTS = 1200
"""Of the curve of a long video."""


def percent(probability: Optional[float]) -> str:
    """A probability as people say it; nothing is ever sure."""
    if probability is None:
        return "-"
    if probability > 0.99:
        return "more than 99 %"
    return "less than 1 %" if probability < 0.01 else f"{100 * probability:.0f} %"


def scale_svg(probability: float, rules: Rules) -> str:
    """A bar from genuine to manipulated with the undecided zone and a mark."""
    left, width = 20, 720
    low, high = (left + width * value for value in limits(rules.threshold, rules.band))
    mark = left + width * probability
    end = left + width
    anchor = "start" if probability < 0.1 else "end" if probability > 0.9 else "middle"
    return (
        '<figure><svg viewBox="0 0 760 86" width="760" height="86" role="img" '
        f'aria-label="{percent(probability)}" font-family="system-ui, sans-serif" '
        'font-size="13" fill="#1f2933">'
        f'<rect x="{left}" y="34" width="{low - left:.1f}" height="18" fill="#8fd0ab"/>'
        f'<rect x="{low:.1f}" y="34" width="{high - low:.1f}" height="18" fill="#d9e2ec"/>'
        f'<rect x="{high:.1f}" y="34" width="{end - high:.1f}" height="18" fill="#f0a3a3"/>'
        f'<rect x="{mark - 2:.1f}" y="26" width="4" height="34" fill="#1f2933"/>'
        f'<text x="{mark:.1f}" y="20" text-anchor="{anchor}" font-weight="600">'
        f"{percent(probability)}</text>"
        f'<text x="{left}" y="76">genuine</text>'
        f'<text x="{(low + high) / 2:.1f}" y="76" text-anchor="middle">no answer</text>'
        f'<text x="{end}" y="76" text-anchor="end">manipulated</text></svg></figure>'
    )


def curve_points(scores: Scores) -> List[Dict[str, Any]]:
    """Times and scores for the curve: the highest of all faces, and of each small stretch."""
    good = ~(np.isnan(scores.times) | np.isnan(scores.probabilities))
    times, place = np.unique(scores.times[good], return_inverse=True)
    values = np.zeros(len(times))
    np.maximum.at(values, place.ravel(), scores.probabilities[good])
    points: List[Dict[str, Any]] = []
    for group in np.array_split(np.arange(len(times)), min(len(times), MOST_POINTS) or 1):
        if len(group):
            top = group[int(np.argmax(values[group]))]
            points.append(
                {
                    "status": "ok",
                    "time": float(times[top]),
                    "fake_probability": float(values[top]),
                }
            )
    return points
