"""Recordings of a device and their replay: the same answers, other inputs refused, damage named."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any, Callable, Dict, List

import numpy as np
import pytest

from deepfake_fpga.compile.xir.graph import Graph
from deepfake_fpga.compile.xir.xmodel import write_xmodel
from deepfake_fpga.errors import (
    DeviceError,
    FormatError,
    MismatchError,
    MissingError,
    ToolkitError,
    UsageError,
)
from deepfake_fpga.inference.artifact import Artifact, load_artifact
from deepfake_fpga.inference.devices.handmade import uynet
from deepfake_fpga.inference.devices.recording import HEAD, Recording, is_recording
from deepfake_fpga.inference.session import Prediction, Session

SIZES = (8, 8, 3)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A small U-YNet in a file of its own, as a compiled model is."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "manifest.json").write_text('{"preprocessing": {"height": 112, "width": 112}}')
    return load_artifact(_written(uynet(4, size=112), folder / "YNET.xmodel"))


def _written(graph: Graph, path: Path) -> Path:
    for subgraph in graph.subgraphs():
        if subgraph.device == "USER":
            subgraph.attrs.pop("dpu_name", None)
    write_xmodel(graph, path)
    return path


@pytest.fixture(scope="module")
def batches() -> List[np.ndarray]:
    random = np.random.default_rng(5)
    return [random.integers(0, 256, (n, 112, 112, 3)).astype(np.uint8) for n in SIZES]


@pytest.fixture(scope="module")
def answers(artifact: Artifact, batches: List[np.ndarray]) -> List[Prediction]:
    with Session(artifact, "sim", threads=1) as session:
        return [session.run(batch) for batch in batches]


@pytest.fixture(scope="module")
def recorded(
    artifact: Artifact, batches: List[np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("recordings") / "run.rec"
    with Session(artifact, "sim", threads=1, record=path) as session:
        tickets = [session.submit(batch) for batch in batches]
        assert not path.exists()
        for ticket in tickets:
            session.result(ticket)
    return path


def test_a_replay_gives_the_recorded_answers(
    artifact: Artifact, batches: List[np.ndarray], answers: List[Prediction], recorded: Path
) -> None:
    with Session(artifact, "replay", recording=recorded) as session:
        assert session.device_name == "replay"
        assert f"recorded on sim: {recorded}" in session.reason
        tickets = [session.submit(batch) for batch in batches]
        for ticket, expected in reversed(list(zip(tickets, answers))):
            found = session.result(ticket)
            assert np.array_equal(found.mask, expected.mask)
            assert np.array_equal(found.real, expected.real)
            assert np.array_equal(found.logits, expected.logits)


def test_a_recording_says_what_it_is(artifact: Artifact, recorded: Path) -> None:
    assert is_recording(recorded)
    assert not is_recording(artifact.path)
    with Recording(recorded) as recording:
        assert recording.device == "sim"
        assert recording.model == "YNET.xmodel"
        assert recording.images == list(SIZES)
        (part,) = recording.parts
        assert [info.shape for info in part.inputs] == [(8, 112, 112, 3)]
        assert {info.shape for info in part.outputs} == {(8, 112, 112, 2), (8, 1)}
        padding = recording.read(2, 0, "in")["image_fix"][3:]
        assert not padding.any()
        with pytest.raises(FormatError, match="incomplete"):
            recording.read(3, 0, "in")
    raw = sum(8 * 112 * 112 * 5 + 8 for _ in SIZES)
    # Noise cannot be deflated, the padding of the last batch can.
    assert recorded.stat().st_size < raw


def test_other_pictures_are_refused_with_batch_and_tensor(
    artifact: Artifact, batches: List[np.ndarray], recorded: Path
) -> None:
    other = batches[1].copy()
    other[2, 5, 6, 1] ^= 0x80
    with Session(artifact, "replay", recording=recorded) as session:
        session.run(batches[0])
        with pytest.raises(MismatchError, match="Batch 1 is not the one") as error:
            session.submit(other)
    assert "'image_fix': 1 of 301056 values differ" in error.value.evidence


def test_more_batches_than_recorded_are_refused(
    artifact: Artifact, batches: List[np.ndarray], recorded: Path
) -> None:
    with Session(artifact, "replay", recording=recorded) as session:
        for batch in batches:
            session.run(batch)
        with pytest.raises(DeviceError, match="ends before batch 3"):
            session.submit(batches[0])


def test_a_recording_of_another_model_is_refused(
    artifact: Artifact, recorded: Path, tmp_path: Path
) -> None:
    shutil.copy(str(artifact.path.with_name("manifest.json")), str(tmp_path))
    other = load_artifact(_written(uynet(4, size=112, seed=1), tmp_path / "OTHER.xmodel"))
    with pytest.raises(MismatchError, match="is of another model"):
        Session(other, "replay", recording=recorded)


def test_a_session_that_fails_or_leaves_batches_open_keeps_no_recording(
    artifact: Artifact, batches: List[np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / "run.rec"

    def interrupted() -> None:
        with Session(artifact, "null", record=path) as session:
            session.run(batches[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with Session(artifact, "null", record=path) as session:
        session.submit(batches[0])
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_is_said(artifact: Artifact, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="needs a recording"):
        Session(artifact, "replay")
    with pytest.raises(MissingError, match="does not exist"):
        Session(artifact, "replay", recording=tmp_path / "none.rec")
    with pytest.raises(FormatError, match="is no recording"):
        Session(artifact, "replay", recording=artifact.path)
    with pytest.raises(UsageError, match="float device cannot be recorded"):
        Session(artifact, "float", checkpoint=tmp_path / "x.pth", record=tmp_path / "run.rec")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MissingError, match="cannot be written"):
        Session(artifact, "null", record=tmp_path / "file" / "run.rec")


def rewritten(source: Path, target: Path, change: Callable[[Dict[str, bytes]], None]) -> Path:
    """A recording with some entries changed."""
    with zipfile.ZipFile(str(source)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(str(target), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return target


def _head(**changes: Any) -> Callable[[Dict[str, bytes]], None]:
    def change(entries: Dict[str, bytes]) -> None:
        record = json.loads(entries[HEAD].decode())
        record.update(changes)
        entries[HEAD] = json.dumps(record).encode()

    return change


def _answer(data: bytes) -> Callable[[Dict[str, bytes]], None]:
    return lambda entries: entries.update({"000000/0.out.0": data})


@pytest.mark.parametrize(
    "change",
    [
        lambda entries: entries.pop("images.json"),
        lambda entries: entries.pop(HEAD),
        lambda entries: entries.update({HEAD: b"["}),
        lambda entries: entries.update({HEAD: b"[" * 100_000}),
        lambda entries: entries.update({HEAD: b"[]"}),
        lambda entries: entries.update({"images.json": b"{}  {"}),
        lambda entries: entries.pop("000000/0.out.0"),
        _answer(b"short"),
        # Would unpack to a hundred megabytes where a few hundred kilobytes belong.
        _answer(bytes(100 << 20)),
        _head(format=2),
        _head(parts=[{"name": "x"}]),
        _head(parts=[{"name": "x", "inputs": [{"name": "y", "shape": [-1], "fix_point": 0}]}]),
    ],
)
def test_damage_is_named(
    artifact: Artifact,
    batches: List[np.ndarray],
    recorded: Path,
    tmp_path: Path,
    change: Callable[[Dict[str, bytes]], None],
) -> None:
    def replay(path: Path) -> None:
        with Session(artifact, "replay", recording=path) as session:
            session.run(batches[0])

    replay(rewritten(recorded, tmp_path / "same.rec", lambda entries: None))
    broken = rewritten(recorded, tmp_path / "broken.rec", change)
    with pytest.raises(FormatError, match=r"broken\.rec"):
        replay(broken)


def test_cut_and_flipped_files_end_in_our_errors(
    artifact: Artifact, batches: List[np.ndarray], recorded: Path, tmp_path: Path
) -> None:
    data = recorded.read_bytes()
    random = np.random.default_rng(8)
    path = tmp_path / "broken.rec"
    outcomes = set()
    for attempt in range(60):
        if attempt % 2:
            path.write_bytes(data[: int(random.integers(0, len(data)))])
        else:
            changed = bytearray(data)
            # Half of the flips fall into the directory at the end.
            last = len(data) - 400 if attempt % 4 else 0
            changed[int(random.integers(last, len(data)))] ^= int(random.integers(1, 256))
            path.write_bytes(bytes(changed))
        try:
            with Session(artifact, "replay", recording=path) as session:
                session.run(batches[0])
            outcomes.add("fine")
        except ToolkitError as error:
            outcomes.add(type(error).__name__)
    assert "FormatError" in outcomes
