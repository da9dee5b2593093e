"""From frames to a verdict: aggregation, rules, calibration, timeline, and what is shown of it."""

from .judgement import Rules, choose_rules, judge_pictures, judge_together, judge_video
from .records import FrameScore, Reason, State, TrackVerdict, VideoVerdict
from .scores import Scores

__all__ = [
    "FrameScore",
    "Reason",
    "Rules",
    "Scores",
    "State",
    "TrackVerdict",
    "VideoVerdict",
    "choose_rules",
    "judge_pictures",
    "judge_together",
    "judge_video",
]
