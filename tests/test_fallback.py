"""A second device where the first fails: nothing lost, nothing doubled, each answer labelled."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any, Dict, List, Optional, Set

import cv2
import numpy as np
import pytest

from deepfake_fpga.compile.xir.xmodel import write_xmodel
from deepfake_fpga.errors import DeviceError, MismatchError, UsageError
from deepfake_fpga.inference import session as session_module
from deepfake_fpga.inference.artifact import Artifact, artifact_of
from deepfake_fpga.inference.devices import sim_available
from deepfake_fpga.inference.devices.base import Batch, Device, TensorInfo
from deepfake_fpga.inference.devices.fallback import FallbackDevice
from deepfake_fpga.inference.devices.handmade import uynet
from deepfake_fpga.inference.devices.recording import Recording
from deepfake_fpga.inference.session import Session

from .calling import exit_code
from .cards import card_options, for_card
from .test_session import chain


class Echo(Device):
    """Answers with its input; fails for good at a given submission or a given answer."""

    def __init__(
        self, name: str, bad_submit: Optional[int] = None, bad_wait: Optional[int] = None
    ) -> None:
        self.name = name
        self.inputs = self.outputs = (TensorInfo("x", (1, 1), 0),)
        self.bad_submit, self.bad_wait = bad_submit, bad_wait
        self.seen: List[int] = []
        self.answered: List[int] = []
        self.open: Dict[int, Batch] = {}
        self.dead = self.closed = False
        self.lock = threading.Lock()

    def submit(self, batch: Batch) -> int:
        with self.lock:
            self.dead = self.dead or len(self.seen) == self.bad_submit
            if self.dead:
                raise DeviceError(f"{self.name} is dead")
            self.seen.append(int(batch["x"][0, 0]))
            self.open[len(self.seen)] = batch
            return len(self.seen)

    def wait(self, ticket: int) -> Dict[str, np.ndarray]:
        with self.lock:
            self.dead = self.dead or len(self.answered) == self.bad_wait
            if self.dead:
                raise DeviceError(f"{self.name} is dead", "seen", "do")
            answer = dict(self.open.pop(ticket))
            self.answered.append(int(answer["x"][0, 0]))
            return answer

    def close(self) -> None:
        self.closed = True


def number(value: int) -> Batch:
    return {"x": np.full((1, 1), value, np.int8)}


@pytest.mark.parametrize("ahead", [1, 3, 7])
@pytest.mark.parametrize("where", ["bad_submit", "bad_wait"])
@pytest.mark.parametrize("at", [0, 1, 5, 19])
def test_every_batch_is_answered_once_and_in_order(ahead: int, where: str, at: int) -> None:
    first, second = Echo("first", **{where: at}), Echo("second")
    labels, tickets = [], []
    with FallbackDevice(first, lambda: second) as device:
        for value in range(20 + ahead):
            if value < 20:
                tickets.append(device.submit(number(value)))
            if value >= ahead:
                answer = device.answer(tickets[value - ahead])
                assert int(answer.outputs["x"][0, 0]) == value - ahead
                labels.append(answer.device)
        assert labels == sorted(labels)  # first, then second, never back
        assert set(labels) <= {"first", "second"}
        assert labels[-1] == "second"
        assert first.answered == list(range(labels.count("first")))
        assert second.answered == list(range(labels.count("first"), 20))
        assert second.seen == second.answered
        (incident,) = device.incidents()
        assert "first was given up" in incident
    assert first.closed
    assert second.closed


def test_a_device_that_does_not_fail_is_left_alone() -> None:
    def never() -> Device:
        raise AssertionError("the second device was opened")

    with FallbackDevice(Echo("first"), never) as device:
        assert int(device.wait(device.submit(number(4)))["x"][0, 0]) == 4
        assert not device.incidents()
        with pytest.raises(DeviceError, match="no batch under ticket"):
            device.wait(1)
        with pytest.raises(DeviceError, match="wrong input tensors"):
            device.submit({"y": np.zeros((1, 1), np.int8)})
    with pytest.raises(DeviceError, match="closed"):
        device.submit(number(1))


def test_several_threads_meet_the_failure_together() -> None:
    for trial in range(20):
        first, second = Echo("first", bad_wait=trial), Echo("second")
        device = FallbackDevice(first, lambda second=second: second)
        tickets = [device.submit(number(value)) for value in range(40)]
        found: Dict[int, int] = {}

        def take(
            values: List[int], device: Any = device, tickets: Any = tickets, found: Any = found
        ):
            for value in values:
                found[value] = int(device.wait(tickets[value])["x"][0, 0])

        threads = [
            threading.Thread(target=take, args=(list(range(start, 40, 4)),)) for start in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert found == {value: value for value in range(40)}
        assert sorted(first.answered + second.answered) == list(range(40))
        assert len(second.seen) == len(set(second.seen))


def test_a_second_device_that_cannot_be_opened_is_an_error_of_both() -> None:
    calls = []

    def refuse() -> Device:
        calls.append(1)
        raise DeviceError("there is no second", "none", "type this")

    device = FallbackDevice(Echo("first", bad_wait=0), refuse)
    tickets = [device.submit(number(1)), device.submit(number(2))]
    for ticket in tickets:
        with pytest.raises(DeviceError, match="nothing to go on with") as error:
            device.wait(ticket)
    assert "there is no second" in error.value.evidence
    assert error.value.next_step == "type this"
    assert len(calls) == 1


def test_a_second_device_that_fails_as_well_is_the_end() -> None:
    device = FallbackDevice(Echo("first", bad_wait=0), lambda: Echo("second", bad_wait=0))
    with pytest.raises(DeviceError, match="second is dead"):
        device.wait(device.submit(number(1)))


def test_a_second_device_with_other_tensors_is_refused() -> None:
    other = Echo("second")
    other.outputs = (TensorInfo("y", (1, 1), 0),)
    device = FallbackDevice(Echo("first", bad_submit=0), lambda: other)
    with pytest.raises(MismatchError, match="other tensors"):
        device.submit(number(1))
    assert other.closed


# -- sessions on a simulated card ---------------------------------------------------------------


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs of cards that failed are kept in the temporary folder."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return artifact_of(for_card(uynet(4, size=112)), Path("none") / "YNET.xmodel")


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (40, 112, 112, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def expected(artifact: Artifact, pictures: np.ndarray) -> List[np.ndarray]:
    with Session(artifact, "sim", threads=1) as session:
        return [session.run(pictures[at : at + 8]).logits for at in range(0, 40, 8)]


@pytest.mark.parametrize(
    "hostile",
    [
        {"dies_after": 2},
        {"dies_after": 0},
        {"hangs_after": 2, "timeout": 1.0},
        {"fail_jobs": (3, 4, 5, 6, 7, 8, 9, 10, 11, 12)},
    ],
    ids=["dies", "dies at once", "hangs", "fails"],
)
def test_a_session_goes_on_without_the_card(
    artifact: Artifact,
    pictures: np.ndarray,
    expected: List[np.ndarray],
    tmp_path: Path,
    hostile: Dict[str, Any],
) -> None:
    card = card_options(tmp_path, **{"device": "sim", **hostile})
    labels: List[str] = []
    with Session(artifact, "card", threads=1, card=card, fallback="sim") as session:
        assert session.device_name == "card"
        tickets = [session.submit(pictures[at : at + 8]) for at in range(0, 40, 8)]
        for ticket, logits in zip(tickets, expected):
            prediction = session.result(ticket)
            assert np.array_equal(prediction.logits, logits)
            labels.append(prediction.device)
        incidents = session.incidents()
    assert labels == sorted(labels)
    assert labels[-1] == "sim"
    assert any("card was given up" in line for line in incidents)


@pytest.mark.parametrize(
    ("hostile", "words"),
    [
        ({"firmware": False}, "XLNX_VART_FIRMWARE is not set"),
        ({"variant": "6pe_misc"}, "DPUCVDX8H/VCK50006PEMISC"),
        ({"card": "absent"}, "XRT sees no card"),
    ],
)
def test_a_card_that_is_refused_is_replaced_at_once(
    artifact: Artifact,
    pictures: np.ndarray,
    expected: List[np.ndarray],
    tmp_path: Path,
    hostile: Dict[str, Any],
    words: str,
) -> None:
    card = card_options(tmp_path, **hostile)
    with pytest.raises(DeviceError) as error:
        Session(artifact, "card", card=card)
    assert words in error.value.evidence
    with Session(artifact, "card", threads=1, card=card, fallback="sim") as session:
        assert session.device_name == "sim"
        assert words in session.reason
        assert words in session.incidents()[0]
        prediction = session.run(pictures[:8])
    assert prediction.device == "sim"
    assert np.array_equal(prediction.logits, expected[0])


def test_a_batch_of_which_each_device_did_a_part_names_both(
    pictures: np.ndarray, tmp_path: Path
) -> None:
    artifact = artifact_of(for_card(chain()), Path("none") / "YNET.xmodel")
    with Session(artifact, "reference") as session:
        right = session.run(pictures[:8])
    # Every batch takes two jobs: the first of the second batch is the last that is answered.
    card = card_options(tmp_path, dies_after=3)
    found: Set[str] = set()
    with Session(artifact, "card", card=card, fallback="reference") as session:
        for _ in range(4):
            prediction = session.run(pictures[:8])
            assert np.array_equal(prediction.logits, right.logits)
            assert np.array_equal(prediction.real, right.real)
            found.add(prediction.device)
    assert found == {"card", "card+reference", "reference"}


def test_a_recording_holds_every_answer_once(
    artifact: Artifact, pictures: np.ndarray, expected: List[np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / "run.rec"
    card = card_options(tmp_path, device="sim", dies_after=2)
    with Session(artifact, "card", card=card, fallback="sim", record=path) as session:
        tickets = [session.submit(pictures[at : at + 8]) for at in range(0, 40, 8)]
        for ticket in tickets:
            session.result(ticket)
    with Recording(path) as recording:
        assert recording.images == [8] * 5
        for at, logits in enumerate(expected):
            answer = recording.read(at, 0, "out")
            assert any(np.array_equal(array, logits) for array in answer.values())


def test_a_fallback_that_cannot_compute_is_refused_first(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="null"):
        Session(artifact, "card", fallback="null")
    monkeypatch.setattr(session_module, "sim_available", lambda: (False, "no onnxruntime"))
    with pytest.raises(DeviceError, match="fallback sim") as error:
        Session(artifact, "card", fallback="sim")
    assert "--fallback reference" in error.value.next_step


def test_a_card_that_gets_too_hot_is_given_up(
    artifact: Artifact,
    pictures: np.ndarray,
    expected: List[np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card = card_options(tmp_path, device="sim", hot_after=3, watch_seconds=0.1)
    for name, value in card.environment.items():
        monkeypatch.setenv(name, value)  # the temperature is read by this process
    labels: List[str] = []
    with Session(artifact, "card", threads=1, card=card, fallback="sim") as session:
        while "sim" not in labels[:-4]:
            at = len(labels) % 5
            prediction = session.run(pictures[8 * at : 8 * at + 8])
            assert np.array_equal(prediction.logits, expected[at])
            labels.append(prediction.device)
        incidents = session.incidents()
    assert labels == sorted(labels)
    assert labels[0] == "card"
    assert any("over a limit" in line for line in incidents)


# -- the command --------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path, artifact: Artifact) -> Path:
    path = tmp_path / "model" / "YNET.xmodel"
    path.parent.mkdir()
    write_xmodel(artifact.graph, path)
    return path


@pytest.fixture
def images(tmp_path: Path, pictures: np.ndarray) -> Path:
    folder = tmp_path / "faces"
    folder.mkdir()
    for at, picture in enumerate(pictures):
        assert cv2.imwrite(str(folder / f"v_{at:02d}.png"), picture)
    (folder / "v_17.png").write_bytes(b"no picture")
    return folder


def call(*words: Any) -> int:
    return exit_code("run", *words)


def records(folder: Path) -> List[Dict[str, Any]]:
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


needs_sim = pytest.mark.skipif(not sim_available()[0], reason=sim_available()[1])


@needs_sim
def test_run_labels_every_record_and_says_why(
    images: Path,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--images", images, "--model", model, "--no-overlay", "-t", 1]
    assert call(*words, "-o", tmp_path / "sim", "--device", "sim") == 0
    options = card_options(tmp_path / "host", device="sim", dies_after=4, shuffle=True, delay=0.02)
    for name, value in options.environment.items():
        monkeypatch.setenv(name, value)
    capsys.readouterr()
    assert call(*words, "-o", tmp_path / "card", "--device", "card", "--fallback", "sim") == 0
    out, err = capsys.readouterr()
    got, want = records(tmp_path / "card"), records(tmp_path / "sim")
    labels = [record.pop("device") for record in got]
    assert {record.pop("device") for record in want} == {"sim"}
    assert got == want
    judged = [label for label, record in zip(labels, got) if record["status"] == "ok"]
    assert judged == sorted(judged)
    summary = json.loads((tmp_path / "card" / "summary.json").read_text())
    assert summary["complete"]
    assert summary["frames_by_device"] == {n: judged.count(n) for n in dict.fromkeys(judged)}
    assert sum(summary["frames_by_device"].values()) == 39
    assert summary["frames_by_device"]["sim"] > 0
    assert any("card was given up" in note for note in summary["notes"])
    assert "Warning: device card was given up" in err
    assert "VART_DPU_TIMEOUT_ERROR" in err
    assert f"{judged.count('sim')} frames by sim" in out


@needs_sim
def test_run_without_a_fallback_keeps_what_was_done(
    images: Path,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = card_options(tmp_path / "host", device="sim", dies_after=3, delay=0.01)
    for name, value in options.environment.items():
        monkeypatch.setenv(name, value)
    output = tmp_path / "out"
    words = ["--images", images, "--model", model, "--no-overlay", "-o", output]
    assert call(*words, "--device", "card", "--card-timeout", 5, "--max-celsius", 90) == 1
    _, err = capsys.readouterr()
    assert "could not be opened again" in err
    assert "VART_DPU_TIMEOUT_ERROR" in err
    # What was done is in the journal: the same command on another device does the rest, once.
    parts = (output / "parts").glob("*.jsonl")
    done = sum(len(part.read_text().splitlines()) for part in parts)
    assert call(*words, "--device", "sim") == 0
    got = [record["source"] for record in records(output)]
    assert got == sorted(str(path) for path in images.iterdir())
    assert done < len(got)
    assert json.loads((output / "summary.json").read_text())["complete"]


@pytest.mark.parametrize(
    "words", [["--fallback", "sim"], ["--card-timeout", "3"], ["--max-celsius", "80"]]
)
def test_options_of_the_card_are_for_the_card(
    images: Path, tmp_path: Path, words: List[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("--images", images, "-o", tmp_path / "out", "--device", "sim", *words) == 2
    assert f"{words[0]} is for the card" in capsys.readouterr().err
