"""Engines on disk: found again, never trusted when damaged, bounded, shared by processes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import List

import numpy as np
import pytest

from deepfake_fpga.compile.xir.attributes import blob
from deepfake_fpga.compile.xir.graph import Graph
from deepfake_fpga.inference.devices.engine_cache import VARIABLE, cache_folder, cached
from deepfake_fpga.inference.devices.handmade import uynet
from deepfake_fpga.inference.devices.translation import Engine, Part, Translation

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    return tmp_path / "engines"


def never() -> bytes:
    raise AssertionError("made again")


def entries(folder: Path) -> List[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_kept_engine_is_found_again(folder: Path) -> None:
    assert cached("a1", lambda: b"engine") == (b"engine", False)
    assert cached("a1", never) == (b"engine", True)
    assert entries(folder) == ["a1.engine"]


@pytest.mark.parametrize("place", [0, 31, 32, -1])
def test_a_damaged_entry_is_made_again(folder: Path, place: int) -> None:
    cached("a1", lambda: b"engine")
    data = bytearray((folder / "a1.engine").read_bytes())
    data[place] ^= 1
    (folder / "a1.engine").write_bytes(bytes(data))
    assert cached("a1", lambda: b"engine again") == (b"engine again", False)
    assert cached("a1", never) == (b"engine again", True)


def test_a_truncated_entry_is_made_again(folder: Path) -> None:
    cached("a1", lambda: b"engine")
    for size in (0, 10, 33):
        os.truncate(str(folder / "a1.engine"), size)
        assert cached("a1", lambda: b"engine") == (b"engine", False)


def test_the_least_recently_used_entry_goes_first(folder: Path) -> None:
    for number, key in enumerate(("a", "b", "c")):
        cached(key, lambda: bytes(1000))
        os.utime(str(folder / f"{key}.engine"), (number, number))
    cached("a", never)  # used last now
    cached("d", lambda: bytes(1000), limit=3 * 1032)
    assert entries(folder) == ["a.engine", "c.engine", "d.engine"]
    cached("e", lambda: bytes(10_000), limit=3 * 1032)  # larger than all may be together
    assert "e.engine" not in entries(folder)


def test_what_a_stopped_process_left_counts_and_goes(folder: Path) -> None:
    folder.mkdir()
    (folder / "x.partial").write_bytes(bytes(5000))
    os.utime(str(folder / "x.partial"), (1, 1))
    cached("a", lambda: bytes(1000), limit=3000)
    assert entries(folder) == ["a.engine"]


def test_off_and_unwritable_keep_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "off")
    assert cache_folder() is None
    assert cached("a", lambda: b"x") == cached("a", lambda: b"x") == (b"x", False)
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file"))
    assert cached("a", lambda: b"x") == (b"x", False)


def test_threads_writing_one_entry_do_no_harm(folder: Path) -> None:
    wrong: List[bytes] = []

    def work() -> None:
        for _ in range(50):
            with contextlib.suppress(FileNotFoundError):  # another thread has removed it
                (folder / "a.engine").unlink()
            data, _found = cached("a", lambda: b"engine" * 1000)
            if data != b"engine" * 1000:
                wrong.append(data)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert set(entries(folder)) <= {"a.engine"}


def test_an_engine_survives_packing() -> None:
    engine = Engine(
        (Part(("in",), ("a", "b"), ("in:in",), ("x", "y"), b"\n\0model"), Part(("a",), ("c",))),
        ("c (no exact form)",),
    )
    assert Engine.unpack(engine.pack()) == engine


def translation(graph: Graph, batch: int = 2, kept: tuple = ("logits",)) -> Translation:
    return Translation(graph, graph.subgraphs("DPU")[0], batch, kept, True)


def test_the_digest_knows_everything_the_engine_depends_on() -> None:
    graph = uynet(2)
    base = translation(graph).digest()
    assert translation(uynet(2)).digest() == base
    others = [translation(graph, batch=3), translation(graph, kept=("a",))]
    others.append(Translation(graph, graph.subgraphs("DPU")[0], 2, ("logits",), False))
    seen = {base, *(other.digest() for other in others)}
    assert len(seen) == 4
    constant = next(op for op in graph.ops.values() if op.type == "const-fix")
    data = bytearray(constant.get("data"))
    data[0] ^= 1
    constant.attrs["data"] = blob(bytes(data))
    assert translation(graph).digest() not in seen


def test_two_processes_open_one_model_at_once(folder: Path) -> None:
    """Both get the same answers, whoever of them wrote the entry."""
    pytest.importorskip("onnxruntime")
    code = (
        "import numpy as np, hashlib\n"
        "from deepfake_fpga.inference.devices import open_device\n"
        "from deepfake_fpga.inference.devices.handmade import uynet\n"
        "g = uynet(2)\n"
        "d = open_device('sim', g, g.subgraphs('DPU')[0], batch=1, threads=1)\n"
        "x = np.arange(224*224*3, dtype=np.int64).reshape(1,224,224,3) % 97\n"
        "y = d.wait(d.submit({d.inputs[0].name: x.astype(np.int8)}))\n"
        "print(hashlib.sha256(b''.join(y[k].tobytes() for k in sorted(y))).hexdigest())\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", code]
    pair = [subprocess.Popen(command, stdout=subprocess.PIPE, env=env) for _ in range(2)]
    answers = {process.communicate()[0] for process in pair}
    answers.add(subprocess.run(command, stdout=subprocess.PIPE, env=env, check=True).stdout)
    assert len(answers) == 1
    assert len(answers.pop()) == 65
    assert not [name for name in entries(folder) if name.endswith(".partial")]


def test_a_device_from_the_cache_computes_the_same(folder: Path) -> None:
    pytest.importorskip("onnxruntime")
    from deepfake_fpga.inference.devices.sim import SimDevice

    graph = uynet(2)
    subgraph = graph.subgraphs("DPU")[0]
    codes = np.random.default_rng(0).integers(-128, 128, (1, 224, 224, 3)).astype(np.int8)
    first = SimDevice(graph, subgraph, 1, 1, signed_weights=True)
    again = SimDevice(graph, subgraph, 1, 1, signed_weights=True)
    assert not [note for note in first.notes if "cache" in note]
    assert "engine from the cache" in again.notes
    batch = {first.inputs[0].name: codes}
    expected, found = first.compute(batch), again.compute(batch)
    assert expected.keys() == found.keys()
    assert all(np.array_equal(expected[name], found[name]) for name in expected)
