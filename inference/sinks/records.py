"""The records of a run as JSON Lines: one strict JSON object per frame or face, in order."""

from __future__ import annotations

import json
from typing import Any

from ..records import FrameResult
from .lines import LineSink


class RecordSink(LineSink):
    """Writes ``records.jsonl``."""

    def line(self, result: FrameResult, rendered: Any) -> str:
        """The record of each part as a JSON object."""
        return "".join(
            json.dumps(part.to_json(), ensure_ascii=False, allow_nan=False) + "\n"
            for part in result.parts
        )
