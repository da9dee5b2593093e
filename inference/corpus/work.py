"""Many small pieces of work on several threads, with what is done told as it is done.

Threads are enough: decoders and OpenCV let go of the interpreter while they work.
"""

from __future__ import annotations

import os
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Callable, Iterator, Sequence, Set, Tuple, TypeVar

Piece = TypeVar("Piece")
Result = TypeVar("Result")

MOST_JOBS = 16


def usual_jobs() -> int:
    """As many as there are processors this process may use, ``MOST_JOBS`` at most."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        count = os.cpu_count() or 1
    return max(1, min(count, MOST_JOBS))


def work(
    pieces: Sequence[Piece], do: Callable[[Piece], Result], jobs: int
) -> Iterator[Tuple[Piece, Result]]:
    """Does the pieces, and gives each with its result in the order in which they are finished.

    What a piece raises is raised here; those not yet begun are then left.

    Args:
        pieces: what is to be done.
        do: called on one of ``jobs`` threads.
        jobs: threads; with 1 all is done on the caller's, in order.
    """
    if jobs <= 1:
        for piece in pieces:
            yield piece, do(piece)
        return
    with ThreadPoolExecutor(jobs, thread_name_prefix="data") as pool:
        todo = iter(pieces)
        running: Set[Future[Tuple[Piece, Result]]] = set()
        try:
            while True:
                for piece in todo:
                    running.add(pool.submit(_one, do, piece))
                    if len(running) >= 2 * jobs:  # more would only lie in memory
                        break
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            for future in running:
                future.cancel()


def _one(do: Callable[[Piece], Result], piece: Piece) -> Tuple[Piece, Result]:
    return piece, do(piece)
