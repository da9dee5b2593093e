"""Modules ``xir`` and ``vart`` that fail in ways the drop-in modules do not: written into a folder.

They compute ``cards.sums`` only, whatever file they are given. ``FAKE_FAULT`` chooses the failure,
``FAKE_STATE`` is a folder in which jobs and processes are counted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict

XIR = """
import vart
class Graph:
    @staticmethod
    def deserialize(path):
        vart.fault("deserialize")
        return Graph()
    def __del__(self):
        vart.note("graph")
    def get_root_subgraph(self):
        return self
    def toposort_child_subgraph(self):
        return [Subgraph(self)]
class Subgraph:
    def __init__(self, graph):
        self.graph = graph
    def __del__(self):
        vart.note("subgraph")
    def get_name(self):
        return "subgraph_dpu"
"""

VART = """
import ctypes, os, signal, sys, time
import numpy as np
__drop_in__ = "a test"
FAULT, STATE = os.environ.get("FAKE_FAULT", ""), os.environ["FAKE_STATE"]
ENGINES = int(os.environ.get("FAKE_ENGINES", "8"))

def count(name):
    with open(os.path.join(STATE, name), "a") as stream:
        stream.write(".")
        return stream.tell()

def note(name):
    with open(os.path.join(STATE, "released"), "a") as stream:
        stream.write(name + " ")

def fault(place):
    if FAULT == place + " raises":
        raise RuntimeError("Error: Could not acquire CU")
    if FAULT == place + " hangs":
        time.sleep(600)
    if FAULT == place + " segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if FAULT == place + " throws":
        print("terminate called after throwing an instance of 'std::runtime_error'\\n"
              "  what():  bad any_cast", file=sys.stderr, flush=True)
        os.abort()

class Tensor:
    def __init__(self, name, *dims):
        self.name, self.dims, self.dtype = name, [ENGINES, *dims], "xint8"
    def has_attr(self, name):
        return name == "fix_point"
    def get_attr(self, name):
        return 4

class Runner:
    @staticmethod
    def create_runner(subgraph, mode=""):
        assert mode == "run"
        fault("create_runner")
        return Runner(subgraph)
    def __init__(self, subgraph):
        self.jobs = {}
    def __del__(self):
        note("runner")
    def get_input_tensors(self):
        return [Tensor("image_fix_upload_0", 4, 4, 3)]
    def get_output_tensors(self):
        return [Tensor("top_fix_download_0", 1, 1, 2), Tensor("conv_fix_download_0", 4, 4, 2)]
    def execute_async(self, inputs, outputs):
        number = count("jobs")
        print("noise of the library on standard output", flush=True)
        if FAULT == "execute status" and number == 2:
            return 0, -7
        if FAULT == "poison" and (inputs[0] == 99).any():
            os.abort()
        if number == 3:
            fault("execute")
        self.jobs[number] = (inputs[0], outputs)
        return number, 0
    def wait(self, pair):
        # Like the genuine one it holds the lock of Python: a call by PyDLL does not release it.
        ctypes.PyDLL(None).usleep(1000)
        x, (top, conv) = self.jobs.pop(pair[0])
        total = x.astype(int).sum(-1, keepdims=True).repeat(2, -1).clip(-128, 127)
        conv[...] = total
        top[...] = total.max(axis=(1, 2), keepdims=True)
        if FAULT == "wait hangs" and pair[0] == 3:
            ctypes.PyDLL(None).sleep(600)
        return 0
"""


def fake_vendor(folder: Path, fault: str = "", **variables: str) -> Dict[str, str]:
    """Writes the modules; returns the variables by which a child finds them."""
    state = folder / "state"
    state.mkdir(parents=True)
    (folder / "xir.py").write_text(XIR, encoding="utf-8")
    (folder / "vart.py").write_text(VART, encoding="utf-8")
    found = {"PYTHONPATH": str(folder), "FAKE_STATE": str(state), "FAKE_FAULT": fault}
    return {**found, **variables}


def released(folder: Path) -> str:
    """What was let go by the processes, in order."""
    file = folder / "state" / "released"
    return file.read_text(encoding="utf-8").strip() if file.exists() else ""


def jobs_begun(folder: Path) -> int:
    """Jobs that reached the fake card, over all processes."""
    counter = folder / "state" / "jobs"
    return counter.stat().st_size if counter.exists() else 0
