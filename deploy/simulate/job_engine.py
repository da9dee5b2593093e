"""Jobs of the simulated card: their numbers, the threads that finish them, and waiting for them.

Numbers come from a pool of 10000 that is shared by all runners of a process; ``wait`` gives a
number back, to the end of the pool.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Callable, Deque, Dict, Optional

from .abort import XirAbort, abort

MOST_JOBS = 10000
"""How many jobs can be under way or unwaited for."""


class JobEngine:
    """Runs jobs in the background.

    Args:
        workers: threads at most; ``None`` for ``RTENGINE_NUM_WORKERS``, else 64.
    """

    def __init__(self, workers: Optional[int] = None) -> None:
        self._free: Deque[int] = deque(range(MOST_JOBS))
        self._jobs: Dict[int, Future[int]] = {}
        self._lock = threading.Lock()
        self._workers = workers
        self._pool: Optional[ThreadPoolExecutor] = None

    def submit(self, task: Optional[Callable[[], int]]) -> int:
        """Starts a job and returns its number.

        Args:
            task: returns the job's status; ``None`` for a job that never ends.

        Raises:
            XirAbort: nobody waited for the last 10000 jobs.
        """
        with self._lock:
            if not self._free:
                raise abort(
                    "", "", f"{MOST_JOBS} jobs were not waited for; the genuine runner hangs here"
                )
            number = self._free.popleft()
            if task is None:
                self._jobs[number] = Future()
                return number
            if self._pool is None:
                self._pool = ThreadPoolExecutor(
                    self._workers or _worker_count(), thread_name_prefix="rt-engine"
                )
            self._jobs[number] = self._pool.submit(task)
        return number

    def wait(self, number: int) -> int:
        """Blocks until a job is done; returns its status, and 0 for a number not under way.

        Raises:
            XirAbort: the job failed as no card does: the computation behind it raised an error.
        """
        with self._lock:
            future = self._jobs.get(number)
        if future is None:
            return 0
        try:
            return future.result()
        except XirAbort:
            raise
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            raise abort("VART_DPU_EXEC_ERROR", "DPU run fail", text) from error
        finally:
            # A KeyboardInterrupt comes here too: the job goes on and can be waited for again.
            if future.done():
                with self._lock:
                    if self._jobs.get(number) is future:
                        del self._jobs[number]
                        self._free.append(number)


def _worker_count() -> int:
    text = os.environ.get("RTENGINE_NUM_WORKERS", "")
    return int(text) if text.isdigit() and int(text) > 0 else 64
