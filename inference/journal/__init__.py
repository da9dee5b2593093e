"""The journal of a collection, so that long work survives anything and can be shared."""

from __future__ import annotations

from .base import JOURNAL, Journal
from .blocks import BlockSink, block_sources
from .final import failures, make_final, results
from .opening import journal_there, open_journal, reading
from .planning import Input, plan
from .status import Progress, progress_of

__all__ = [
    "JOURNAL",
    "BlockSink",
    "Input",
    "Journal",
    "Progress",
    "block_sources",
    "failures",
    "journal_there",
    "make_final",
    "open_journal",
    "plan",
    "progress_of",
    "reading",
    "results",
]
