"""Fetching from a server that misbehaves in every way: a clear error or the whole file."""

from __future__ import annotations

import hashlib
import io
import json
import stat
import sys
import types
import zipfile
from collections import namedtuple
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import numpy as np
import pytest
import yaml

from deepfake_fpga.deploy.fetching import fetching, transfer, unpacking
from deepfake_fpga.deploy.fetching.fetching import Fetched, FetchRequest
from deepfake_fpga.deploy.fetching.sources import Source, read_lock, read_sources
from deepfake_fpga.errors import (
    FormatError,
    MismatchError,
    MissingError,
    ToolkitError,
    UsageError,
    WorkError,
)

from .calling import exit_code
from .unruly import Behaviour, Server, serving

DATA = np.random.default_rng(1).integers(0, 256, 1_500_000, np.uint8).tobytes()
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(transfer, "ATTEMPTS", 3)
    monkeypatch.setattr(transfer, "MARGIN", 0)
    monkeypatch.setattr(fetching, "MARGIN", 0)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        running.behaviour.data = DATA
        yield running


class Place:
    """A data folder, what was said and how far the bars came."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "data"
        self.said: List[str] = []
        self.waited: List[float] = []
        self.progress: Dict[str, Any] = {}
        monkeypatch.setattr(
            fetching,
            "download",
            lambda *args, **options: transfer.download(
                *args, **options, sleep=self.waited.append, silence=5.0
            ),
        )

    def fetch(self, source: Source, **options: Any) -> Fetched:
        request = FetchRequest([source], self.folder, **options)
        (outcome,) = fetching.fetch(request, self.said.append, self._bar)
        return outcome

    def refused(self, kind: type, source: Source, **options: Any) -> ToolkitError:
        """The error of a fetch; no file is there after it."""
        before = self.files()
        with pytest.raises(kind) as caught:
            self.fetch(source, **options)
        assert self.files() == before
        assert isinstance(caught.value, ToolkitError)
        assert caught.value.next_step
        return caught.value

    def files(self) -> List[str]:
        """Everything but what is kept to go on with."""
        found = (p.relative_to(self.folder) for p in self.folder.rglob("*") if p.is_file())
        return sorted(str(path) for path in found if path.parts[0] != ".fetching")

    def kept(self) -> int:
        """Bytes kept to go on with."""
        return sum(p.stat().st_size for p in self.folder.glob(".fetching/*/download/data"))

    def _bar(self, title: str) -> Callable[[int, Optional[int]], None]:
        def show(done: int, total: Optional[int]) -> None:
            self.progress[title] = (done, total)

        return show


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch)


def weights(server: Server, **fields: Any) -> Source:
    return Source("weights", "", server.url, "w.pth", "weights", **fields)


def whole(place: Place) -> bool:
    return (place.folder / "weights" / "w.pth").read_bytes() == DATA


# ---------------------------------------------------------------- whole downloads


def test_a_file_is_fetched_recorded_and_then_present(server: Server, place: Place) -> None:
    first = place.fetch(weights(server))
    assert whole(place)
    assert (first.state, first.size, first.sha256) == ("fetched", len(DATA), SHA)
    assert "recorded in" in first.reason
    assert place.progress["weights"] == (len(DATA), len(DATA))
    assert place.files() == ["fetch.lock.yaml", "weights/w.pth"]
    assert not (place.folder / ".fetching").exists()
    lock = yaml.safe_load((place.folder / "fetch.lock.yaml").read_text())
    assert lock["weights"]["sha256"] == SHA
    again = place.fetch(weights(server))
    assert (again.state, len(server.asked)) == ("present", 1)
    forced = place.fetch(weights(server), force=True)
    assert (forced.state, len(server.asked)) == ("fetched", 2)


def test_a_dry_run_asks_for_nothing_and_writes_nothing(server: Server, place: Place) -> None:
    planned = place.fetch(weights(server), dry_run=True)
    assert planned.state == "planned"
    assert "not here yet" in planned.reason
    assert not place.folder.exists()
    assert server.asked == []


def test_a_slow_server_is_waited_for(server: Server, place: Place) -> None:
    server.behaviour.data = DATA[:20_000]
    server.behaviour.drip, server.behaviour.step = 0.02, 1000
    place.fetch(weights(server))
    assert place.waited == []
    assert (place.folder / "weights" / "w.pth").read_bytes() == DATA[:20_000]


# ---------------------------------------------------------------- cut connections


def test_a_cut_download_goes_on_where_it_stopped(server: Server, place: Place) -> None:
    server.behaviour.cuts = [400_000, 400_000, 400_000]
    place.fetch(weights(server))
    assert whole(place)
    assert server.asked == ["", "bytes=400000-", "bytes=800000-", "bytes=1200000-"]
    assert len(place.waited) == 3
    assert "going on at 400000 of 1500000 bytes" in " ".join(place.said)


def test_a_later_call_goes_on_too(server: Server, place: Place) -> None:
    server.behaviour.cuts = [700_000, 0, 0, 0]
    error = place.refused(WorkError, weights(server))
    assert "700000 of 1500000" in error.evidence
    assert "700000 bytes are kept" in error.next_step
    assert place.kept() == 700_000
    server.behaviour.cuts = []
    place.fetch(weights(server))
    assert server.asked[-1] == "bytes=700000-"
    assert whole(place)


def test_without_ranges_it_starts_anew(server: Server, place: Place) -> None:
    server.behaviour.ranges = False
    server.behaviour.cuts = [400_000]
    place.fetch(weights(server))
    assert whole(place)
    assert "starting anew" in " ".join(place.said)


def test_without_ranges_and_always_cut_it_is_given_up(server: Server, place: Place) -> None:
    server.behaviour.ranges = False
    server.behaviour.cuts = [400_000] * 9
    error = place.refused(WorkError, weights(server))
    assert "3 attempts in a row" in error.evidence
    assert "--from w.pth" in error.next_step
    assert place.waited == [1.0, 2.0]


def test_a_part_of_another_version_is_not_continued(server: Server, place: Place) -> None:
    server.behaviour = Behaviour(bytes(1000) + DATA, '"old"', cuts=[400_000, 0, 0, 0])
    place.refused(WorkError, weights(server))
    server.behaviour = Behaviour(DATA, '"new"')
    place.fetch(weights(server))
    assert server.asked[-1] == "bytes=400000-"
    assert "starting anew" in place.said[-1]
    assert whole(place)


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_strong_validator_nothing_is_continued(
    etag: str, server: Server, place: Place
) -> None:
    server.behaviour.etag = etag
    server.behaviour.cuts = [400_000]
    place.fetch(weights(server))
    assert server.asked == ["", ""]
    assert whole(place)


def test_a_part_that_was_not_asked_for_is_not_taken(
    server: Server, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.behaviour.cuts = [400_000]
    answers = iter([(5, len(DATA))])  # the second answer claims to begin elsewhere
    monkeypatch.setattr(transfer, "_range", lambda text: next(answers))
    place.fetch(weights(server))
    assert whole(place)
    assert server.asked == ["", "bytes=400000-", ""]


def test_a_download_that_is_whole_already_is_not_asked_for_again(
    server: Server, place: Place
) -> None:
    server.behaviour.cuts = [len(DATA), 0, 0]
    # All bytes have come, but the program ended before they were moved into place.
    partial = transfer.Partial(place.folder / ".fetching" / "weights" / "download")
    partial.begin({"address": server.url, "validator": '"1"', "size": len(DATA)})
    partial.data.write_bytes(DATA)
    place.fetch(weights(server))
    assert server.asked == [f"bytes={len(DATA)}-"]
    assert whole(place)


@pytest.mark.parametrize("stated", [len(DATA) + 10, len(DATA) - 10])
def test_a_wrong_length_is_noticed(stated: int, server: Server, place: Place) -> None:
    server.behaviour.length = stated
    server.behaviour.ranges = False
    error = place.refused(Exception, weights(server, size=len(DATA)))
    assert str(stated) in error.evidence


def test_without_a_length_the_size_decides(server: Server, place: Place) -> None:
    server.behaviour.length = -1
    server.behaviour.cuts = [900_000]
    error = place.refused(MismatchError, weights(server, size=len(DATA)))
    assert "900000 bytes" in error.evidence
    place.fetch(weights(server, size=len(DATA)))
    assert whole(place)


# ---------------------------------------------------------------- another content


def test_a_second_download_must_be_as_the_first(server: Server, place: Place) -> None:
    place.fetch(weights(server))
    (place.folder / "weights" / "w.pth").unlink()
    server.behaviour = Behaviour(DATA[:-1] + b"x", '"2"')
    error = place.refused(MismatchError, weights(server))
    assert SHA in error.evidence
    assert "--force" in error.next_step
    assert place.kept() == 0
    server.behaviour = Behaviour(DATA + b"longer", '"3"')
    error = place.refused(MismatchError, weights(server))
    assert "1500006 bytes, 1500000 expected" in error.evidence
    place.fetch(weights(server), force=True)
    assert read_lock(place.folder)["weights"].size == 1_500_006


def test_a_stated_checksum_holds_even_with_force(server: Server, place: Place) -> None:
    error = place.refused(MismatchError, weights(server, sha256="0" * 64), force=True)
    assert "stated by the source" in error.evidence
    place.fetch(weights(server, sha256=SHA))
    assert whole(place)


def test_what_is_not_ours_is_not_replaced(server: Server, place: Place) -> None:
    path = place.folder / "weights" / "w.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    error = place.refused(UsageError, weights(server))
    assert "move it away" in error.next_step
    assert path.read_bytes() == b"mine"
    place.fetch(weights(server), force=True)
    assert whole(place)


# ---------------------------------------------------------------- pages and errors

PAGES = {
    "quota": ("<html>Google Drive - Quota exceeded", "quota is spent"),
    "virus": ("<!DOCTYPE html><html>Google Drive can't scan this file for viruses", "confirm"),
    "login": ("<html><a href='https://accounts.google.com/x'>Sign in</a>", "login"),
    "other": ("<html><body>hello</body></html>", "no file"),
}


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
@pytest.mark.parametrize("page", sorted(PAGES))
def test_a_page_instead_of_the_file_is_explained(
    page: str, kind: str, server: Server, place: Place
) -> None:
    text, meaning = PAGES[page]
    server.behaviour = Behaviour(text.encode(), headers={"Content-Type": kind})
    error = place.refused(WorkError, weights(server))
    assert "web page" in error.cause
    assert meaning in error.evidence
    assert f"open {server.url} in a browser" in error.next_step
    assert "deepfake-fpga fetch weights --from w.pth" in error.next_step
    assert len(server.asked) == 1


@pytest.mark.parametrize(("status", "times"), [(404, 1), (403, 1), (500, 3), (429, 3), (503, 3)])
def test_error_statuses(status: int, times: int, server: Server, place: Place) -> None:
    server.behaviour.statuses = [status] * 9
    error = place.refused(WorkError, weights(server))
    assert str(status) in error.evidence
    assert len(server.asked) == times
    assert not (place.folder / ".fetching").exists()


def test_a_server_that_recovers_is_asked_again_as_late_as_it_says(
    server: Server, place: Place
) -> None:
    server.behaviour.statuses = [503, 429]
    server.behaviour.headers = {"Retry-After": "7"}
    place.fetch(weights(server))
    assert place.waited == [7.0, 7.0]
    assert whole(place)


def test_a_long_wait_is_left_to_the_user(server: Server, place: Place) -> None:
    server.behaviour.statuses = [429]
    server.behaviour.headers = {"Retry-After": "3600"}
    assert "3600 s" in place.refused(WorkError, weights(server)).evidence
    assert place.waited == []


@pytest.mark.parametrize("where", ["/again", "file:///etc/passwd"])
def test_redirects_that_lead_nowhere(where: str, server: Server, place: Place) -> None:
    server.behaviour.redirect = where
    assert "302" in place.refused(WorkError, weights(server)).evidence
    assert len(server.asked) < 15


def test_no_server_at_all(server: Server, place: Place) -> None:
    source = Source("weights", "", "http://127.0.0.1:1/w", "w.pth", "weights")
    assert "no connection" in place.refused(WorkError, source).evidence
    assert not (place.folder / ".fetching").exists()


def test_an_encoded_answer_is_refused(server: Server, place: Place) -> None:
    server.behaviour.headers = {"Content-Encoding": "gzip"}
    assert "gzip" in place.refused(WorkError, weights(server)).evidence


Usage = namedtuple("Usage", "total used free")


def test_a_small_disk_is_noticed_before(
    server: Server, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda path: Usage(9, 9, 1_000_000))
    error = place.refused(WorkError, weights(server))
    assert "no room" in error.cause
    assert "1500000 bytes are to come" in error.evidence
    assert "--data-dir" in error.next_step


# ---------------------------------------------------------------- archives


def archive(files: Dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] = id) -> bytes:  # type: ignore[assignment]
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            change(entry)
            packed.writestr(entry, content)
    return data.getvalue()


FACES = {
    "fyp/crops/a.png": DATA[:5000],
    "fyp/crops/deep/b.png": DATA[5000:9000],
    "fyp/masks/a.png": b"mask",
    "__MACOSX/fyp/._a.png": b"junk",
    "fyp/.DS_Store": b"junk",
}


def faces(server: Server) -> Source:
    return Source("faces", "", server.url, "f.zip", "faces", unpack=True, holds=("crops", "masks"))


def test_an_archive_is_unpacked_where_it_belongs(server: Server, place: Place) -> None:
    server.behaviour.data = archive(FACES)
    outcome = place.fetch(faces(server))
    assert outcome.path == str(place.folder / "faces")
    assert place.files() == [
        "faces/crops/a.png", "faces/crops/deep/b.png", "faces/masks/a.png", "fetch.lock.yaml"
    ]  # fmt: skip
    assert (place.folder / "faces/crops/deep/b.png").read_bytes() == DATA[5000:9000]
    assert not (place.folder / ".fetching").exists()
    assert place.fetch(faces(server)).state == "present"
    (place.folder / "faces/masks/a.png").unlink()
    assert "move it away" in place.refused(UsageError, faces(server)).next_step
    place.fetch(faces(server), force=True)
    assert (place.folder / "faces/masks/a.png").read_bytes() == b"mask"


def _link(entry: zipfile.ZipInfo) -> None:
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16


def _device(entry: zipfile.ZipInfo) -> None:
    entry.external_attr = (stat.S_IFCHR | 0o666) << 16


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("../evil", id, "leads out"),
        ("crops/../../evil", id, "leads out"),
        ("/etc/evil", id, "leads out"),
        ("C:/evil", id, "leads out"),
        ("..\\evil", id, "leads out"),
        ("crops/x", _link, "a link"),
        ("crops/x", _device, "a special file"),
    ],
)
def test_dangerous_entries_are_refused(
    name: str, change: Any, said: str, server: Server, place: Place
) -> None:
    bad = archive({name: b"/etc/passwd"}, change)
    merged = io.BytesIO(archive({"crops/a": b"1", "masks/a": b"2"}))
    with zipfile.ZipFile(merged, "a") as packed, zipfile.ZipFile(io.BytesIO(bad)) as other:
        packed.writestr(other.infolist()[0], b"/etc/passwd")
    server.behaviour.data = merged.getvalue()
    assert said in place.refused(FormatError, faces(server)).cause
    assert not (place.folder / ".fetching").exists()
    assert not (place.folder.parent / "evil").exists()


def test_a_bomb_is_refused_before_it_goes_off(
    server: Server, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "SMALL", 1 << 20)
    server.behaviour.data = archive({"crops/a": bytes(4 << 20), "masks/a": b"1"})
    error = place.refused(FormatError, faces(server))
    assert "absurdly much" in error.cause
    assert str((4 << 20) + 1) in error.evidence
    monkeypatch.setattr(unpacking, "MAX_ENTRIES", 1)
    assert "too many entries" in place.refused(FormatError, faces(server)).cause


def test_a_bomb_that_understates_itself_is_cut(server: Server, place: Place) -> None:
    data = bytearray(archive({"crops/a": bytes(1 << 20), "masks/a": b"1"}))
    size = (1 << 20).to_bytes(4, "little")
    while size in data:
        at = data.index(size)
        data[at : at + 4] = (1000).to_bytes(4, "little")
    server.behaviour.data = bytes(data)
    error = place.refused(FormatError, faces(server))
    assert "damaged" in error.cause
    assert "crops/a" in error.evidence


def test_damaged_and_foreign_archives_are_refused(server: Server, place: Place) -> None:
    good = archive(FACES)
    server.behaviour.data = good[: len(good) // 2]
    assert "no whole ZIP" in place.refused(FormatError, faces(server)).cause
    at = good.index(DATA[:5000][100:140])
    server.behaviour.data = good[:at] + b"\0" * 40 + good[at + 40 :]
    assert "damaged" in place.refused(FormatError, faces(server)).cause
    server.behaviour.data = archive({"other/x": b"1"})
    error = place.refused(FormatError, faces(server))
    assert "wanted: crops, masks" in error.evidence
    encrypted = bytearray(archive(FACES))
    for mark, place_of_flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = encrypted.index(mark) + place_of_flags
        encrypted[at] |= 1
    server.behaviour.data = bytes(encrypted)
    assert "encrypted" in place.refused(FormatError, faces(server)).cause
    assert place.files() == []
    server.behaviour.data = good
    place.fetch(faces(server))
    assert len(place.files()) == 4


def test_unpacking_goes_on_after_an_interruption(
    server: Server, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.behaviour.data = archive(FACES)
    one = unpacking._unpack_one
    unpacked: List[str] = []

    def interrupted(packed: Any, entry: Any, target: Path, name: str) -> None:
        if len(unpacked) == 2:
            raise KeyboardInterrupt
        unpacked.append(target.name)
        one(packed, entry, target, name)

    monkeypatch.setattr(unpacking, "_unpack_one", interrupted)
    with pytest.raises(KeyboardInterrupt):
        place.fetch(faces(server))
    assert place.files() == []
    stale = place.folder / ".fetching" / "faces" / "unpacked" / "crops" / "stale.png"
    stale.write_bytes(b"of another archive")
    monkeypatch.setattr(unpacking, "_unpack_one", lambda *a: (unpacked.append(a[2].name), one(*a)))
    place.fetch(faces(server))
    assert unpacked == ["a.png", "b.png", "a.png"]
    assert len(place.files()) == 4
    # The download was whole, so only its end was asked for.
    assert server.asked[1] == f"bytes={len(server.behaviour.data)}-"


# ---------------------------------------------------------------- files by hand, gdown


def test_a_file_saved_with_a_browser_is_taken(server: Server, place: Place, tmp_path: Path) -> None:
    saved = tmp_path / "saved (1).pth"
    saved.write_bytes(DATA)
    place.fetch(weights(server), local=saved)
    assert whole(place)
    assert saved.exists()
    assert server.asked == []
    zipped = tmp_path / "saved.zip"
    zipped.write_bytes(archive(FACES))
    place.fetch(faces(server), local=zipped)
    assert zipped.exists()
    assert len(place.files()) == 5
    page = tmp_path / "page.pth"
    page.write_text(PAGES["quota"][0])
    assert "web page" in place.refused(WorkError, weights(server), local=page, force=True).cause
    place.refused(MissingError, weights(server), local=tmp_path / "absent", force=True)


def test_a_file_saved_into_its_place_is_taken(server: Server, place: Place) -> None:
    path = place.folder / "weights" / "w.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    place.fetch(weights(server), local=path)
    assert whole(place)
    assert place.fetch(weights(server)).state == "present"


DRIVE = Source("weights", "abc-1", "", "w.pth", "weights")


def give_gdown(monkeypatch: pytest.MonkeyPatch, download: Any) -> None:
    module = types.ModuleType("gdown")
    module.download = download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gdown", module)


def test_gdown_of_today_is_asked_by_identifier(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: List[Any] = []

    def download(
        url: Any = None, output: Any = None, quiet: bool = False, id: Any = None,  # noqa: A002
        resume: bool = False,
    ) -> str:  # fmt: skip
        asked.append((url, id, resume))
        Path(output).write_bytes(DATA)
        return str(output)

    give_gdown(monkeypatch, download)
    assert "gdown" in place.fetch(DRIVE).reason
    assert asked == [(None, "abc-1", True)]
    assert whole(place)


def test_gdown_of_old_is_asked_by_address(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: List[Any] = []

    def download(url: str, output: str, quiet: bool) -> str:
        asked.append(url)
        Path(output).write_bytes(DATA)
        return output

    give_gdown(monkeypatch, download)
    place.fetch(DRIVE)
    assert asked == ["https://drive.google.com/uc?id=abc-1"]
    assert whole(place)


def _nothing(output: str, id: str) -> None:  # noqa: A002
    return None


def _page(output: str, id: str) -> str:  # noqa: A002
    Path(output).write_text(PAGES["virus"][0])
    return output


def _quota(output: str, id: str) -> str:  # noqa: A002
    raise RuntimeError("Too many users have viewed or downloaded this file recently.")


def _crash(output: str, id: str) -> str:  # noqa: A002
    raise OSError("the wire fell out")


@pytest.mark.parametrize(
    ("download", "said"),
    [
        (_nothing, "stands above"),
        (_page, "confirm"),
        (_quota, "quota is spent"),
        (_crash, "the wire fell out"),
    ],
)
def test_failures_of_gdown_are_explained(
    download: Any, said: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_gdown(monkeypatch, download)
    error = place.refused(WorkError, DRIVE)
    assert said in error.evidence
    assert "https://drive.google.com/file/d/abc-1/view" in error.next_step
    assert "--from w.pth" in error.next_step


def test_without_gdown_the_download_address_is_tried(
    server: Server, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepfake_fpga.deploy.fetching import drive

    monkeypatch.setitem(sys.modules, "gdown", None)
    assert drive._ADDRESS.startswith("https://drive.usercontent.google.com/download?id={}")
    monkeypatch.setattr(drive, "_ADDRESS", server.url + "?id={}")
    server.behaviour = Behaviour(PAGES["quota"][0].encode(), headers={"Content-Type": "text/html"})
    assert "pip install gdown" in place.refused(WorkError, DRIVE).next_step
    server.behaviour = Behaviour(DATA)
    assert "gdown is missing" in place.fetch(DRIVE).reason
    assert whole(place)


# ---------------------------------------------------------------- sources, command


def test_the_shipped_sources_are_the_published_ones() -> None:
    sources = read_sources()
    assert {name: (s.drive, s.file) for name, s in sources.items()} == {
        "weights": ("1pmXnmlShfY9eIOAqmx8H_iBIOTNnNbw3", "checkpoint_epoch_224x224_35.pth"),
        "calibration": ("15nZtiX05VepLW0DGgB79iySGC1HsfXJd", "fyp_data.zip"),
        "unseen": ("1l6Z1DuO3uGyBdz_-XS4yJKe7wSpMaj15", "unseen.zip"),
    }
    assert sources["calibration"].holds == ("crops", "masks")
    assert sources["unseen"].holds == ("crops", "metadata.json")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no sources"),
        ("[1]", "map names"),
        ("a: 1", "map names"),
        ("a: {", "cannot be read"),
        ("a: {drive: x, file: f, target: t, colour: red}", "colour"),
        ("a: {drive: x, url: 'http://x', file: f, target: t}", "either drive or url"),
        ("a: {file: f, target: t}", "either drive or url"),
        ("a: {url: 'ftp://x', file: f, target: t}", "neither http"),
        ("a: {drive: 'x&y', file: f, target: t}", "no identifier"),
        ("a: {drive: x, file: ../f, target: t}", "plain file name"),
        ("a: {drive: x, file: f, target: /t}", "relative folder"),
        ("a: {drive: x, file: f, target: t/../..}", "relative folder"),
        ("a: {drive: x, file: f, target: t, holds: crops}", "list of names"),
        ("a: {drive: x, file: f, target: t, size: big}", "number of bytes"),
        ("a: {drive: x, file: f, target: t, sha256: abc}", "sha256"),
        ("a: {drive: 5, file: f, target: t}", "in quotes"),
        ("a: {drive: x, file: f, target: t, unpack: 3}", "neither true"),
    ],
)
def test_wrong_sources_are_named(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(FormatError, match=said):
        read_sources(path)


def call(*words: Any) -> int:
    return exit_code("fetch", *words)


def test_the_command_with_sources_of_ones_own(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = {
        "good": {"url": server.url, "file": "g.bin", "target": "x"},
        "bad": {"url": server.url, "file": "b.bin", "target": "x", "sha256": "0" * 64},
    }
    path = tmp_path / "sources.yaml"
    path.write_text(yaml.safe_dump(table, sort_keys=False))
    options = ["--sources", path, "--data-dir", tmp_path / "d"]
    assert call("good", *options, "--dry-run") == 0
    assert "good: planned" in capsys.readouterr().out
    # One that fails does not keep the others away.
    assert call("bad", "good", *options) == 1
    assert (tmp_path / "d" / "x" / "g.bin").read_bytes() == DATA
    assert "SHA-256" in capsys.readouterr().err
    assert call("good", *options, "--json") == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert (record["state"], record["sha256"]) == ("present", SHA)
    assert call("other", *options) == 2
    assert call("all", *options, "--from", path) == 2
    assert call("good", "--sources", tmp_path / "absent.yaml") == 2
