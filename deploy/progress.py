"""How far a stage is: one bar with the time left, on standard error, only for a person watching."""

from __future__ import annotations

import shutil
import sys
from typing import Callable


def show_progress(title: str, total: int, unit: str = "image") -> Callable[[int], None]:
    """Opens a bar for ``total`` of ``unit`` and returns what to tell how many more are done.

    The bar closes by itself at the total. Nothing is drawn where standard error is no terminal.
    """
    if not sys.stderr.isatty():
        return lambda done: None
    from tqdm import tqdm

    # A terminal in a container may say it has no size; tqdm would then draw nothing.
    size = shutil.get_terminal_size((80, 24))
    bar = tqdm(total=total, desc=title, unit=unit, ncols=min(size.columns, 100), nrows=size.lines)

    def advance(done: int) -> None:
        bar.update(done)
        if bar.n >= total:
            bar.close()

    return advance
