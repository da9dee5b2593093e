"""The device ``card`` over the drop-in modules in a child process: equal answers, in any order."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import numpy as np
import pytest

from deepfake_fpga.compile.xir.attributes import blob
from deepfake_fpga.compile.xir.xmodel import read_xmodel, write_xmodel
from deepfake_fpga.errors import DeviceError, MismatchError, MissingError, UnsupportedError
from deepfake_fpga.inference.artifact import artifact_of
from deepfake_fpga.inference.devices import heat, open_device
from deepfake_fpga.inference.devices.base import Device, TensorInfo
from deepfake_fpga.inference.devices.card import CardDevice, open_card
from deepfake_fpga.inference.devices.card_process import WORKER, shared_memory
from deepfake_fpga.inference.devices.card_tensors import match_tensors
from deepfake_fpga.inference.devices.handmade import uynet
from deepfake_fpga.inference.session import Session

from .cards import batch_of_sums, card_options, for_card, right, sums
from .test_session import chain


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where models and logs of the card go."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@contextlib.contextmanager
def opened(folder: Path, batch: int = 8, graph: Any = None, **options: Any) -> Iterator[Device]:
    graph = sums() if graph is None else graph
    parts = graph.subgraphs("DPU")
    device = open_card(graph, parts, batch=batch, options=card_options(folder, **options))[0]
    try:
        yield device
    finally:
        device.close()


def assert_answers(device: Device, numbers: List[int], batch: int = 8) -> None:
    """Every batch is answered once and right, three under way at a time."""
    tickets: Dict[int, int] = {}
    for number in numbers:
        tickets[number] = device.submit(batch_of_sums(number, batch))
    for number in numbers:
        answer = device.wait(tickets[number])
        expected = right(batch_of_sums(number, batch))
        assert set(answer) == set(expected)
        for name, array in expected.items():
            assert answer[name].dtype == np.int8
            assert np.array_equal(answer[name], array), (number, name)
        with pytest.raises(DeviceError, match="no batch under ticket"):
            device.wait(tickets[number])


def test_batches_are_answered_in_any_order_by_name(tmp_path: Path) -> None:
    with opened(tmp_path) as device:
        assert device.name == "card"
        assert device.batch == 8
        assert any("drop-in vart" in note for note in device.notes)
        assert_answers(device, list(range(9)))
        tickets = {n: device.submit(batch_of_sums(n)) for n in range(9)}
        for number in reversed(range(9)):
            answer = device.wait(tickets[number])
            for name, array in right(batch_of_sums(number)).items():
                assert np.array_equal(answer[name], array)
        assert device.seconds > 0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_shuffled_tensors_and_strict_buffers(tmp_path: Path, seed: int) -> None:
    with opened(tmp_path, shuffle=True, strict_buffers=True, seed=seed) as device:
        assert_answers(device, list(range(3)))


def test_late_answers_stay_with_their_batches(tmp_path: Path) -> None:
    with opened(tmp_path, delay=0.05) as device:
        assert_answers(device, list(range(12)))


@pytest.mark.parametrize("batch", [3, 8, 13])
def test_a_batch_that_is_not_the_cards_is_split_and_padded(tmp_path: Path, batch: int) -> None:
    with opened(tmp_path, batch=batch) as device:
        assert device.batch == batch
        assert any("8 pictures at once" in note for note in device.notes) == (batch != 8)
        assert_answers(device, list(range(4)), batch)


def test_one_thread_submits_and_another_waits(tmp_path: Path) -> None:
    with opened(tmp_path, delay=0.01) as device:
        tickets: List[int] = []
        ready = threading.Semaphore(0)
        wrong: List[int] = []

        def wait() -> None:
            for number in range(20):
                assert ready.acquire(timeout=60)
                answer = device.wait(tickets[number])
                for name, array in right(batch_of_sums(number)).items():
                    if not np.array_equal(answer[name], array):
                        wrong.append(number)

        waiter = threading.Thread(target=wait)
        waiter.start()
        for number in range(20):
            tickets.append(device.submit(batch_of_sums(number)))
            ready.release()
        waiter.join(timeout=60)
        assert not waiter.is_alive()
        assert not wrong


def test_closing_ends_the_child_and_what_waits_for_it(tmp_path: Path) -> None:
    with opened(tmp_path, delay=30.0, close_seconds=0.5) as device:
        assert isinstance(device, CardDevice)
        ticket = device.submit(batch_of_sums(0))
        pid = device._card.pid
        assert pid is not None
        errors: List[BaseException] = []

        def wait() -> None:
            try:
                device.wait(ticket)
            except DeviceError as error:
                errors.append(error)

        waiter = threading.Thread(target=wait)
        waiter.start()
        device.close()
        waiter.join(timeout=60)
        assert "closed" in str(errors[0])
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        with pytest.raises(DeviceError, match="closed"):
            device.submit(batch_of_sums(0))
        device.close()


def test_the_child_ends_with_its_parent(tmp_path: Path) -> None:
    """Closed input is the end, after the jobs that were given before it."""
    write_xmodel(sums(), tmp_path / "model.xmodel")
    options = card_options(tmp_path / "host")
    with shared_memory(1 << 16) as memory:
        child = subprocess.Popen(
            [sys.executable, str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=[memory.fileno()],
            env=options.child_environment(),
        )
        command = '{"open": "%s", "subgraphs": ["subgraph_dpu"], "memory": %d, "limit": 60}\n'
        text = command % (tmp_path / "model.xmodel", memory.fileno())
        out, _ = child.communicate(text.encode(), timeout=60)
    kinds = [line.split(b'"')[1] for line in out.splitlines()]
    assert kinds == [b"opened", b"closed"]
    assert child.returncode == 0


def test_the_card_has_no_tensors_to_tap(tmp_path: Path) -> None:
    graph = sums()
    with pytest.raises(UnsupportedError, match="outputs of a subgraph"):
        open_card(graph, graph.subgraphs("DPU"), batch=8, taps=["conv_fix"])


def test_nothing_is_left_in_the_temporary_folder(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_tool(limits: Any) -> Any:
        raise MissingError("There is no xbutil")

    # A reading of the temperature has a folder of its own there while it lasts.
    monkeypatch.setattr(heat, "read_health", no_tool)
    with opened(tmp_path) as device:
        assert_answers(device, [0])
        assert len(list(temporary.iterdir())) == 2  # the model and the log
    assert not list(temporary.iterdir())


def test_constants_taken_from_another_file_reach_the_drop_in(tmp_path: Path) -> None:
    """As with ``--weights``: the graph in memory has them, its file does not."""
    other = sums()
    other.op("conv_weight").attrs["data"] = blob(bytes(6))
    write_xmodel(other, tmp_path / "model.xmodel")
    graph, options = sums(), card_options(tmp_path)
    parts, path = graph.subgraphs("DPU"), tmp_path / "model.xmodel"
    with open_card(graph, parts, batch=8, model=path, options=options)[0] as device:
        assert_answers(device, [0])


def test_a_subgraph_of_a_genuine_model(shared: Path, tmp_path: Path) -> None:
    path = shared / "xmodels" / "vck5000_8pe_tf2mnist_v2.5.xmodel"
    graph = read_xmodel(path)
    part = next(p for p in graph.subgraphs("DPU") if "dense" in p.name)
    options = card_options(tmp_path, shuffle=True, strict_buffers=True)
    with open_card(graph, [part], batch=8, model=path, options=options)[0] as device:
        (source,) = device.inputs
        codes = np.random.default_rng(0).integers(-128, 128, source.shape).astype(np.int8)
        answer = device.wait(device.submit({source.name: codes}))
    with open_device("reference", graph, part, batch=8) as reference:
        expected = reference.wait(reference.submit({source.name: codes}))
    assert set(answer) == set(expected)
    for name, array in expected.items():
        assert np.array_equal(answer[name], array)


# -- names --------------------------------------------------------------------------------------


def offer(name: str, dims: Any = (8, 4, 4, 3), fix_point: Any = 4) -> Dict[str, Any]:
    return {"name": name, "dims": list(dims), "dtype": "xint8", "fix_point": fix_point}


WANTED = TensorInfo("image_fix", (8, 4, 4, 3), 4)
OTHER = TensorInfo("conv_fix", (8, 4, 4, 3), 4)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("image_fix", "image_fix"),
        ("image_fix", "image_fix_upload_0"),
        ("image_fix", "image_upload_0"),
        ("quant_image", "image_upload_0_fix"),
        ("conv_download_0_fix", "conv_fix_download_0"),
    ],
)
def test_a_tensor_is_found_under_its_other_names(ours: str, theirs: str) -> None:
    wanted = [TensorInfo(ours, (8, 4, 4, 3), 4), TensorInfo("else_fix", (8, 4, 4, 3), 4)]
    for offered in ([offer(theirs), offer("else_fix")], [offer("else_fix"), offer(theirs)]):
        found, notes = match_tensors(wanted, offered, "s")
        assert found[ours]["name"] == theirs
        assert found["else_fix"]["name"] == "else_fix"
        assert not notes


def test_a_single_tensor_of_another_name_is_taken_and_said() -> None:
    found, notes = match_tensors([WANTED], [offer("input_1")], "s")
    assert found["image_fix"]["name"] == "input_1"
    assert notes == ["the runner calls tensor 'image_fix' 'input_1'"]


def test_a_missing_fix_point_is_said() -> None:
    _, notes = match_tensors([WANTED], [offer("image_fix", fix_point=None)], "s")
    assert "no fix point" in notes[0]


@pytest.mark.parametrize(
    "offered",
    [
        [offer("a"), offer("b")],  # two strangers could be either
        [offer("image_fix")],
        [offer("image_fix"), offer("image_fix")],
        [offer("image_fix"), offer("conv_fix", fix_point=5)],
        [offer("image_fix"), offer("conv_fix", dims=(8, 2, 2, 3))],
    ],
)
def test_tensors_of_another_model_are_refused(offered: List[Dict[str, Any]]) -> None:
    with pytest.raises(MismatchError):
        match_tensors([WANTED, OTHER], offered, "s")


# -- sessions -----------------------------------------------------------------------------------


def test_several_subgraphs_share_one_child(tmp_path: Path) -> None:
    pictures = np.random.default_rng(2).integers(0, 256, (8, 112, 112, 3)).astype(np.uint8)
    artifact = artifact_of(for_card(chain()), tmp_path / "none.xmodel")
    with Session(artifact, "reference") as session:
        expected = session.run(pictures[:3])
    with Session(artifact, "card", card=card_options(tmp_path)) as session:
        assert session.device_name == "card"
        devices = session._model.devices
        assert len(devices) == 2
        assert len({device._card.pid for device in devices}) == 1  # type: ignore[attr-defined]
        tickets = [session.submit(pictures[:3]) for _ in range(3)]
        for ticket in tickets:
            prediction = session.result(ticket)
            assert prediction.device == "card"
            assert np.array_equal(prediction.logits, expected.logits)
            assert np.array_equal(prediction.real, expected.real)


def test_auto_takes_the_card_where_there_is_one(tmp_path: Path) -> None:
    artifact = artifact_of(for_card(uynet(4, size=112)), tmp_path / "none.xmodel")
    pictures = np.random.default_rng(3).integers(0, 256, (2, 112, 112, 3)).astype(np.uint8)
    with Session(artifact, "auto", card=card_options(tmp_path, device="sim")) as session:
        assert session.device_name == "card"
        assert "8PE" in session.reason
        got = session.run(pictures)
    with Session(artifact, "sim") as session:
        assert np.array_equal(session.run(pictures).logits, got.logits)


def next_child(device: CardDevice, before: Optional[int] = None) -> int:
    """Process number of a child that is not the one before."""
    while device._card.pid in (None, before):
        time.sleep(0.01)
    pid = device._card.pid
    assert pid is not None
    return pid


def test_a_killed_child_is_followed_by_another_once(tmp_path: Path) -> None:
    with opened(tmp_path, delay=20.0) as device:
        assert isinstance(device, CardDevice)
        ticket = device.submit(batch_of_sums(0))
        first = next_child(device)
        os.kill(first, signal.SIGKILL)
        second = next_child(device, first)
        assert "SIGKILL" in " ".join(device.incidents())
        os.kill(second, signal.SIGKILL)
        with pytest.raises(DeviceError, match="ended while it computed") as error:
            device.wait(ticket)
        assert "SIGKILL" in error.value.evidence
        with pytest.raises(DeviceError, match="ended while it computed"):
            device.submit(batch_of_sums(0))
