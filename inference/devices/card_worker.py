"""The child process in which the vendor's ``xir`` and ``vart`` run; started by ``card_process``.

A script of its own: standard library, numpy and the vendor's modules, no package import, valid
from Python 3.6 on, because in the vendor's containers the runtime often lives in the system's
Python. One JSON object per line, commands on standard input, answers on what was standard output
(the vendor's own prints go to standard error, which the parent keeps as a log). Arrays are in a
memory file that both processes map.

    parent                                             child
    {"open": model, "subgraphs": [..], "memory": fd}   {"opened": tensors}
    {"map": bytes, "slots": [offset..], "tensors": ..} {"mapped": bytes}
    {"run": 7, "part": 0, "slot": 2}                   {"done": 7, "status": 0}
    {"close": true}, or the end of input               {"closed": true}

Anything that goes wrong as a Python exception is {"failed": ..}; the vendor's libraries abort
instead, and then the parent reads the log.
"""

import collections
import importlib
import json
import mmap
import os
import select
import signal
import sys
from typing import Any, Deque, Dict, List, Optional, Tuple

import numpy as np

ORDINARY_END = 0
FAILED = 1


class Commands:
    """Lines from a file descriptor, read without waiting where that is asked for."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = b""
        self._lines: Deque[bytes] = collections.deque()
        self.ended = False

    def next(self, block: bool) -> Optional[Dict[str, Any]]:
        """The next command; ``None`` at the end, or where there is none yet and ``block`` is not.

        ``ended`` tells the two apart.
        """
        while not self._lines and not self.ended:
            if not block and not select.select([self._descriptor], [], [], 0)[0]:
                return None
            data = os.read(self._descriptor, 1 << 16)
            if not data:
                self.ended = True
            *lines, self._buffer = (self._buffer + data).split(b"\n")
            self._lines.extend(lines)
        if not self._lines:
            return None
        command: Dict[str, Any] = json.loads(self._lines.popleft().decode("utf-8"))
        return command


class Part:
    """One DPU subgraph with its runner and the tensors it names."""

    def __init__(self, vart: Any, subgraph: Any) -> None:
        self.subgraph = subgraph
        self.runner = vart.Runner.create_runner(subgraph, "run")
        self.inputs = list(self.runner.get_input_tensors())
        self.outputs = list(self.runner.get_output_tensors())

    def describe(self) -> Dict[str, Any]:
        """Its tensors in the runner's order, which differs from one process to the next."""
        return {
            "name": self.subgraph.get_name(),
            "inputs": [describe_tensor(tensor) for tensor in self.inputs],
            "outputs": [describe_tensor(tensor) for tensor in self.outputs],
        }


class Worker:
    """The graph and all that hangs on it, released in the reverse order of its making.

    The runner holds no reference to its subgraph, nor the subgraph to its graph: a graph that is
    collected under a runner is a crash.
    """

    def __init__(self, answers: Any) -> None:
        self._answers = answers
        self._graph: Any = None
        self._parts: List[Part] = []
        self._limit = 0
        self._descriptor = -1
        self._memory: Optional[mmap.mmap] = None
        self._arrays: List[List[Tuple[List[np.ndarray], List[np.ndarray]]]] = []
        self._waiting: Deque[Tuple[int, Any, Any]] = collections.deque()

    def say(self, **message: Any) -> None:
        """Sends one answer."""
        self._answers.write(json.dumps(message) + "\n")
        self._answers.flush()

    def open(self, command: Dict[str, Any]) -> None:
        """Imports the vendor's modules, reads the model and makes the runners."""
        self._limit, self._descriptor = int(command["limit"]), int(command["memory"])
        vart: Any = importlib.import_module("vart")
        xir: Any = importlib.import_module("xir")
        self._graph = xir.Graph.deserialize(command["open"])
        children = self._graph.get_root_subgraph().toposort_child_subgraph()
        by_name = {child.get_name(): child for child in children}
        for name in command["subgraphs"]:
            if name not in by_name:
                raise LookupError(f"the model has no subgraph {name!r}")
            self._parts.append(Part(vart, by_name[name]))
        self.say(opened=[part.describe() for part in self._parts])

    def map(self, command: Dict[str, Any]) -> None:
        """Maps the shared memory and makes one array per slot and tensor, exact and contiguous."""
        memory = mmap.mmap(self._descriptor, int(command["map"]))
        self._memory = memory
        for slot in command["slots"]:
            arrays = []
            for part, offsets in zip(self._parts, command["tensors"]):
                arrays.append(
                    (
                        [self._array(memory, t, slot + offsets[t.name]) for t in part.inputs],
                        [self._array(memory, t, slot + offsets[t.name]) for t in part.outputs],
                    )
                )
            self._arrays.append(arrays)
        self.say(mapped=len(memory))

    def run(self, command: Dict[str, Any]) -> None:
        """Starts one job; ``finish_oldest`` waits for it."""
        inputs, outputs = self._arrays[command["slot"]][command["part"]]
        runner = self._parts[command["part"]].runner
        pair = runner.execute_async(inputs, outputs)
        if pair[1] != 0:
            self.say(done=command["run"], status=int(pair[1]))
        else:
            self._waiting.append((command["run"], runner, pair))

    def finish_oldest(self) -> bool:
        """Waits for the job that was started first; false where none is under way."""
        if not self._waiting:
            return False
        number, runner, pair = self._waiting.popleft()
        # The wait holds Python's lock and has no limit of its own. Should the parent be gone when
        # the card hangs, this ends the process.
        signal.alarm(self._limit)
        status = runner.wait(pair)
        signal.alarm(0)
        self.say(done=number, status=int(status or 0))
        return True

    def serve(self, commands: Commands) -> None:
        """Starts jobs as they come and waits for them in order, several under way at a time."""
        while True:
            command = commands.next(block=not self._waiting)
            if command is None:
                if commands.ended and not self._waiting:
                    return
                self.finish_oldest()
            elif "run" in command:
                self.run(command)
            elif "map" in command:
                self.map(command)
            elif "open" in command:
                self.open(command)
            else:  # close
                while self.finish_oldest():
                    pass
                return

    def release(self) -> None:
        """Arrays, runners, subgraphs, graph, in that order."""
        self._waiting.clear()
        del self._arrays[:]
        while self._parts:
            part = self._parts.pop()
            part.inputs, part.outputs = [], []
            part.runner = None
            part.subgraph = None
        self._graph = None

    @staticmethod
    def _array(memory: mmap.mmap, tensor: Any, offset: int) -> np.ndarray:
        dims = tuple(int(size) for size in tensor.dims)
        count = 1
        for size in dims:
            count *= size
        return np.frombuffer(memory, np.int8, count, offset).reshape(dims)


def describe_tensor(tensor: Any) -> Dict[str, Any]:
    """Name, shape, type and fix point of a runner's tensor."""
    # Reading an attribute that is not there ends the process.
    known = tensor.has_attr("fix_point")
    return {
        "name": str(tensor.name),
        "dims": [int(size) for size in tensor.dims],
        "dtype": str(tensor.dtype),
        "fix_point": int(tensor.get_attr("fix_point")) if known else None,
    }


def main() -> int:
    """Serves one parent until it closes or ends."""
    # What the vendor prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker(answers)
    status = ORDINARY_END
    try:
        worker.serve(Commands(0))
    except BrokenPipeError:
        return FAILED
    except Exception as error:
        status = FAILED
        worker.say(failed=type(error).__name__, text=str(error))
    # Not before: while an exception is treated, its traceback still holds the runner.
    worker.release()
    if status == ORDINARY_END:
        worker.say(closed=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
