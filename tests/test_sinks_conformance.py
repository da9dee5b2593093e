"""What every sink must do, over all that keep results in files (videos: ``test_sinks``)."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Iterator, List

import numpy as np
import pytest

from deepfake_fpga.errors import UsageError
from deepfake_fpga.inference.pipeline import run_pipeline
from deepfake_fpga.inference.run import RunOptions, run
from deepfake_fpga.inference.session import Prediction
from deepfake_fpga.inference.sinks import Format

from .fakes import SIZE, FakeSession, ListSink, PaintedSource
from .sink_cases import BY_NAME, CASES, Case, fill, results

ROOT = Path(__file__).resolve().parent.parent
LINES = [case.name for case in CASES if case.name not in ("sqlite", "masks")]


@pytest.fixture(params=[case.name for case in CASES])
def case(request: pytest.FixtureRequest) -> Case:
    return BY_NAME[request.param]


def names(folder: Path) -> List[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_complete_run_is_kept_whole_and_in_order(case: Case, tmp_path: Path) -> None:
    given = results(40)
    folder = tmp_path / "new" / "folder"
    sink = case.make(folder)
    with sink:
        fill(sink, given)
    assert names(folder) == sorted(case.files)
    assert case.contents(folder) == case.expected(given)
    assert len(case.expected(given)) > 20
    assert [path.relative_to(folder).as_posix() for path in sink.outputs()] == list(case.files)
    assert list(sink.notes) == []


def test_a_run_that_ends_early_keeps_what_is_done(case: Case, tmp_path: Path) -> None:
    given = results(9)
    sink = case.make(tmp_path)
    with contextlib.suppress(KeyError), sink:
        fill(sink, given)
        raise KeyError
    assert names(tmp_path) == sorted(case.files)
    assert case.contents(tmp_path) == case.expected(given)
    assert [path.relative_to(tmp_path).as_posix() for path in sink.outputs()] == list(case.files)


def test_no_file_has_its_name_before_it_is_whole(case: Case, tmp_path: Path) -> None:
    if not case.replaces:
        pytest.skip("what is there is whole at any time")
    for name in case.files:
        (tmp_path / name).write_bytes(b"of an earlier run")
    given = results(9)
    sink = case.make(tmp_path)
    sink.open()
    fill(sink, given)
    for name in case.files:
        assert (tmp_path / name).read_bytes() == b"of an earlier run"
    assert sink.outputs() == []
    sink.close(complete=True)
    assert case.contents(tmp_path) == case.expected(given)
    assert names(tmp_path) == sorted(case.files)


def test_a_run_without_a_result_is_no_failure(case: Case, tmp_path: Path) -> None:
    sink = case.make(tmp_path)
    with sink:
        pass
    if case.name in ("npy", "masks"):
        assert names(tmp_path) == []
        assert sink.outputs() == []
    else:
        assert names(tmp_path) == list(case.files)


def test_the_order_of_the_frames_is_kept_for_any_number_of_threads(
    case: Case, tmp_path: Path
) -> None:
    class Session(FakeSession):
        def result(self, ticket: int) -> Prediction:
            images = self.open[ticket]
            plain = super().result(ticket)
            numbers = images[:, 0, 0, 0].astype(float) * 256 + images[:, 0, 0, 1]
            codes = np.zeros((*images.shape[:3], 2), np.int8)
            codes[..., 1] = plain.mask
            codes[:, 0, 0, 0] = -numbers
            return Prediction(plain.mask, plain.real, codes, scale=0.125, score=numbers / 4)

    class Images(PaintedSource):
        def frame(self, number: int):  # type: ignore[no-untyped-def]
            plain = super().frame(number)
            object.__setattr__(plain, "source", f"{number:03d}.png")
            return plain

    source, listing = Images(60, broken={0, 17, 59}), ListSink()
    pauses = random.Random(3)
    source.reading = lambda number: time.sleep(pauses.random() * 0.003)
    listing.on_render = lambda result: time.sleep(pauses.random() * 0.003)
    sink = case.make(tmp_path)
    run_pipeline([source], Session().as_session(), [listing, sink], threads=5)
    kept = case.contents(tmp_path)
    if case.name == "npy":
        assert [score for _, score in kept] == [
            [1e9] if number in source.broken else [number / 4] for number in range(60)
        ]
        assert np.array(kept[16][0]).shape == (SIZE, SIZE, 2)
        assert kept[16][0][0][0] == [-2.0, 0.125]
        return
    for result in listing.results:  # a picture is gone from those that no sink wanted to draw
        if result.frame.image is None and result.judged:
            blank = np.zeros((SIZE, SIZE, 3), np.uint8)
            object.__setattr__(result.frame, "image", blank)
    assert kept == case.expected(listing.results)
    assert len(kept) >= 57


class At(PaintedSource):
    """A source whose only file is the one given."""

    def __init__(self, path: Path) -> None:
        super().__init__(2, name=str(path))
        self.paths = [path]

    def places(self) -> Iterator[Path]:
        yield from self.paths


@pytest.mark.parametrize("form", list(Format))
def test_an_input_is_never_replaced(form: Format, tmp_path: Path) -> None:
    for name in form.files:
        path = tmp_path / name
        path.write_bytes(b"precious")
        source = At(path)
        options = RunOptions(formats=(form,))
        with pytest.raises(UsageError, match="replace"):
            run([source], FakeSession().as_session(), tmp_path, options)
        assert path.read_bytes() == b"precious"
        # Without the format nothing of the kind would be written.
        run([source], FakeSession().as_session(), tmp_path, RunOptions(pictures=False))
        assert path.read_bytes() == b"precious"


CHILD = """
import resource, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from deepfake_fpga.inference.sinks import arrays, database, lines
from tests.sink_cases import BY_NAME, fill, results
lines.FLUSH_SECONDS = arrays.FLUSH_SECONDS = database.SECONDS = {flush}
sink = BY_NAME[{name!r}].make(Path({folder!r}))
sink.open()
{work}
"""


def child(name: str, folder: Path, work: str, flush: float) -> List[str]:
    text = CHILD.format(root=str(ROOT), name=name, folder=str(folder), work=work, flush=flush)
    return [sys.executable, "-c", text]


@pytest.mark.parametrize("name", [*LINES, "sqlite"])
def test_what_is_written_survives_a_kill(name: str, tmp_path: Path) -> None:
    work = "fill(sink, results(40)); print('done', flush=True); time.sleep(60)"
    with subprocess.Popen(child(name, tmp_path, work, -1.0), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        process.send_signal(signal.SIGKILL)
    case = BY_NAME[name]
    assert case.contents(tmp_path, part=True) == case.expected(results(40))


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
@pytest.mark.parametrize("name", [*LINES, "sqlite"])
def test_a_full_disk_leaves_whole_items(name: str, tmp_path: Path) -> None:
    work = """
resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, ROOM))
try:
    for _ in range(20):
        fill(sink, results(100))
except Exception as error:
    print(type(error).__name__)
else:
    sys.exit("nothing was refused")
try:
    sink.close(complete=False)
except Exception as error:
    print(type(error).__name__)
"""
    # One row a transaction for the database, so that some come through; its log needs more room.
    flush, limit = (-1.0, "400_000") if name == "sqlite" else (1.0, "30_000")
    words = child(name, tmp_path, work.replace("ROOM", limit), flush)
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True)
    assert done.stdout.split()[0] == (b"WorkError" if name == "sqlite" else b"OSError")
    case = BY_NAME[name]
    kept = case.contents(tmp_path)
    whole = case.expected(results(100))
    assert len(kept) > 5
    assert kept == (whole * 20)[: len(kept)]
    with contextlib.suppress(StopIteration):
        part = next(tmp_path.glob("*.part*"))
        pytest.fail(f"{part} is left")
