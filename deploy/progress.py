"""How far a stage is: one bar with the time left, on standard error, only for a person watching.

Without tqdm there are a few plain lines instead.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from typing import Any, Callable, Iterator, Optional


def show_progress(title: str, total: int, unit: str = "image") -> Callable[[int], None]:
    """Opens a bar for ``total`` of ``unit`` and returns what to tell how many more are done.

    The bar closes by itself at the total. Nothing is drawn where standard error is no terminal.
    """
    if not sys.stderr.isatty():
        return lambda done: None
    bar = _bar(title, unit, total)

    def advance(done: int) -> None:
        bar.update(done)
        if bar.n >= total:
            bar.close()

    return advance


@contextlib.contextmanager
def progress_bar(
    title: str,
    unit: str = "image",
    *,
    quiet: bool = False,
    leave: bool = True,
    scale: bool = False,
) -> Iterator[Callable[[int, Optional[int]], None]]:
    """A bar whose total may come late or change, as a context.

    Args:
        title: what is being done.
        unit: what is counted.
        quiet: draws nothing; nor is anything drawn where standard error is no terminal.
        leave: whether the full bar stays.
        scale: shows thousands and millions by their letters, for bytes.

    Yields:
        What to tell how many are done, and of how many (``None`` where that is not known).
    """
    if quiet or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    bar = _bar(title, unit, None, leave=leave, unit_scale=scale)

    def show(done: int, total: Optional[int]) -> None:
        bar.total = total
        bar.update(done - bar.n)

    try:
        yield show
    finally:
        bar.close()


def _bar(title: str, unit: str, total: Optional[int], **options: Any) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        return _Lines(title, unit, total)
    # A terminal in a container may say it has no size; tqdm would then draw nothing.
    size = shutil.get_terminal_size((80, 24))
    columns = min(size.columns, 100)
    return tqdm(total=total, desc=title, unit=unit, ncols=columns, nrows=size.lines, **options)


class _Lines:
    """What of tqdm is used here, as plain lines: one for each tenth, or for each doubling."""

    def __init__(self, title: str, unit: str, total: Optional[int]) -> None:
        self.title, self.unit, self.total = title, unit, total
        self.n = 0
        self._next = 0
        self._start = time.monotonic()

    def update(self, done: int) -> None:
        self.n += done
        if self.n < self._next or not self.n:
            return
        spent = time.monotonic() - self._start
        if self.total:
            left = spent * max(0, self.total - self.n) / self.n
            text = f"{self.n} of {self.total} {self.unit}s, {left:.0f} s left"
            self._next = (10 * self.n // self.total + 1) * self.total // 10
        else:
            text = f"{self.n} {self.unit}s in {spent:.0f} s"
            self._next = 2 * self.n
        print(f"{self.title}: {text}", file=sys.stderr)

    def close(self) -> None:
        pass
