"""From a source to files in the data folder: plan, download, check, put in place, remember."""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

from ...errors import (
    FormatError,
    MismatchError,
    MissingError,
    ToolkitError,
    UsageError,
    WorkError,
)
from ...files import refuse_impostor, replacing, sha256
from .answers import HEAD, page_error, web_page
from .drive import download_drive, load_gdown
from .sources import LOCK, Record, Source, read_lock, write_lock
from .transfer import MARGIN, Partial, download, no_room
from .unpacking import Content, look_into, measure, open_archive, unpack

Progress = Callable[[str], Callable[[int, Optional[int]], None]]
"""Title to what is told bytes done and in all."""

_WORK = ".fetching"


@dataclass(frozen=True)
class FetchRequest:
    """What to fetch and how.

    Attributes:
        sources: each in turn.
        folder: the data folder.
        local: a file that was downloaded otherwise, for a single source.
        force: fetches also what is there, and accepts what differs from the first download.
        dry_run: only says what would be done.
    """

    sources: Sequence[Source]
    folder: Path
    local: Optional[Path] = None
    force: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class Fetched:
    """What became of a source.

    Attributes:
        name: the source.
        state: ``present``, ``fetched``, or ``planned`` of a dry run.
        reason: why.
        address: where it comes from.
        path: the file, or the folder of what was unpacked.
        size: bytes of the download; ``None`` where not known.
        sha256: of the download; ``None`` where not known.
    """

    name: str
    state: str
    reason: str
    address: str
    path: str
    size: Optional[int]
    sha256: Optional[str]

    def to_json(self) -> Dict[str, Any]:
        """All fields."""
        return asdict(self)


def fetch(
    request: FetchRequest, say: Callable[[str], None], progress: Progress
) -> Sequence[Fetched]:
    """Fetches each source that is not there yet; one that fails does not keep the others away.

    Raises:
        UsageError: a local file for several sources, or something else in the place of a source.
        MismatchError: what came is not what came the first time, or what the source states.
        WorkError: it cannot be had, stored or unpacked.
    """
    if request.local is not None and len(request.sources) != 1:
        raise UsageError(
            "--from gives one file", f"{len(request.sources)} were asked for", "name the one"
        )
    outcome: List[Fetched] = []
    errors: List[ToolkitError] = []
    for source in request.sources:
        try:
            outcome.append(_Fetch(source, request, say, progress).run())
        except ToolkitError as error:
            errors.append(error)
            if source is not request.sources[-1]:
                say(f"{source.name}: {error}")
    if errors:
        raise errors[0]
    return outcome


class _Fetch:
    """One source on its way."""

    def __init__(
        self, source: Source, request: FetchRequest, say: Callable[[str], None], progress: Progress
    ) -> None:
        self.source, self.request, self.say = source, request, say
        self._show = progress
        self.folder = request.folder
        self.target = self.folder.joinpath(*source.target.split("/"))
        self.path = self.target if source.unpack else self.target / source.file
        self.work = self.folder / _WORK / source.name
        self.record = read_lock(self.folder).get(source.name)

    def run(self) -> Fetched:
        present = self._present()
        if present and not self.request.force:
            return self._outcome("present", present)
        if not present and not self.request.force:
            self._refuse_strangers()
        reason = self._reason(present)
        if self.request.dry_run:
            return self._outcome("planned", reason)
        self.say(f"{self.source.name}: {reason}")
        try:
            with _alone(self.work, self.source):
                return self._bring(reason)
        except OSError as error:
            raise WorkError(
                f"{self.source.name} cannot be stored", str(error), f"look at {self.folder}"
            ) from error

    def _present(self) -> str:
        """Why nothing needs to be done; empty where something does."""
        if self.record is None:
            return ""
        if self.source.sha256 not in (None, self.record.sha256):
            return ""
        if self.source.unpack:
            whole = measure(self.target) == (self.record.files, self.record.unpacked)
            return f"{self.record.files} files, as recorded" if whole and self.record.files else ""
        with contextlib.suppress(OSError):
            size = self.path.stat().st_size
            if size == self.record.size and sha256(self.path) == self.record.sha256:
                return f"checksum as recorded on {self.record.date}"
        return ""

    def _refuse_strangers(self) -> None:
        """Refuses to replace what fetch did not put there, or what was changed since."""
        local = self.request.local
        if local is not None and self.path.exists() and self.path.samefile(local):
            return
        files = measure(self.target)[0] if self.source.unpack else int(self.path.exists())
        if files:
            raise UsageError(
                f"{self.path} is there and is not what fetch recorded",
                f"{files} files, {self.record.files or 1 if self.record else 'nothing'} recorded",
                "move it away, or replace it with --force",
            )

    def _reason(self, present: str) -> str:
        if self.request.local is not None:
            return f"taken from {self.request.local}"
        how = load_gdown()[1] if self.source.drive else "over http"
        if present:
            return f"asked for again with --force; {how}"
        if self.path.exists():
            return f"{self.path} is to be replaced; {how}"
        return f"not here yet; {how}"

    def _bring(self, reason: str) -> Fetched:
        partial = Partial(self.work / "download")
        if self.request.force:
            shutil.rmtree(str(self.work / "unpacked"), ignore_errors=True)
            partial.drop()
        file = self.request.local
        if file is None:
            self._download(partial)
            file = partial.data
        elif not file.is_file():
            raise MissingError(f"There is no file {file}", "", "check --from")
        record = self._check(file, partial)
        if self.source.unpack:
            try:
                record = self._unpack(file, record)
            except FormatError:
                partial.drop()
                shutil.rmtree(str(self.work / "unpacked"), ignore_errors=True)
                raise
        elif file == partial.data:
            self.target.mkdir(parents=True, exist_ok=True)
            os.replace(str(file), str(self.path))
        else:
            self._need_room(record.size)
            with replacing(self.path) as temporary:
                shutil.copyfile(str(file), str(temporary))
        first = self.record is None
        if first or self.record != replace(record, date=self.record.date if self.record else ""):
            write_lock(self.folder, {**read_lock(self.folder), self.source.name: record})
        self.record = record
        shutil.rmtree(str(self.work), ignore_errors=True)
        recorded = f"; size and checksum recorded in {self.folder / LOCK}" if first else ""
        return self._outcome("fetched", reason + recorded)

    def _download(self, partial: Partial) -> None:
        size = self.source.size
        if size is None and self.record is not None and not self.request.force:
            size = self.record.size
        show = self._show(self.source.name)
        if self.source.drive:
            download_drive(self.source, partial, size=size, say=self.say, progress=show)
        else:
            download(self.source, self.source.url, partial, size=size, say=self.say, progress=show)

    def _check(self, file: Path, partial: Partial) -> Record:
        """Compares the download with what is known of it, and describes it."""
        with file.open("rb") as opened:
            meaning = web_page(opened.read(HEAD))
        if meaning is not None:
            raise page_error(self.source, meaning)
        refuse_impostor(file, self.source.name)
        found = Record(
            self.request.local.name if self.request.local else self.source.page,
            self.source.file,
            file.stat().st_size,
            sha256(file),
            datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        known = [("stated by the source", self.source.size, self.source.sha256)]
        if self.record is not None and not self.request.force:
            known.append((f"recorded on {self.record.date}", self.record.size, self.record.sha256))
        for whence, size, checksum in known:
            if size not in (None, found.size) or checksum not in (None, found.sha256):
                partial.drop()
                raise MismatchError(
                    f"{self.source.name} is another file than is expected",
                    f"{found.size} bytes, SHA-256 {found.sha256}; {whence}: "
                    f"{size or '?'} bytes, {checksum or '?'}",
                    "look at its page whether there is a new version; --force accepts what "
                    "differs from the first download, --sources states another checksum",
                )
        return found

    def _unpack(self, file: Path, record: Record) -> Record:
        staging = self.work / "unpacked"
        with open_archive(file) as archive:
            content = look_into(archive, file.name if self.request.local else self.source.file,
                                self.source.holds)  # fmt: skip
            self._need_room(content.size - measure(staging)[1])
            show = self._show(f"{self.source.name}, unpacking")
            unpack(archive, content, staging, self.source.file, show)
        self._drop_strangers(staging, content)
        _exchange(staging, self.target, self.work / "before")
        files, size = measure(self.target)
        return replace(record, files=files, unpacked=size)

    def _drop_strangers(self, staging: Path, content: Content) -> None:
        """Removes what an earlier archive left in the staging folder."""
        for place, _, names in os.walk(str(staging)):
            for name in names:
                path = Path(place, name)
                if path.relative_to(staging).as_posix() not in content.files:
                    path.unlink()

    def _need_room(self, needed: int) -> None:
        free = shutil.disk_usage(str(self.work)).free
        if needed + MARGIN > free:
            raise no_room(self.work, self.source, needed, free)

    def _outcome(self, state: str, reason: str) -> Fetched:
        known = self.record
        return Fetched(
            self.source.name,
            state,
            reason,
            self.source.page,
            str(self.path),
            known.size if known else self.source.size,
            known.sha256 if known else self.source.sha256,
        )


def _exchange(new: Path, target: Path, aside: Path) -> None:
    """Puts a folder in the place of another; the other one comes back if that fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(str(aside), ignore_errors=True)
    if target.exists():
        os.replace(str(target), str(aside))
    try:
        os.replace(str(new), str(target))
    except BaseException:
        if aside.exists():
            os.replace(str(aside), str(target))
        raise


@contextlib.contextmanager
def _alone(work: Path, source: Source) -> Iterator[None]:
    """Keeps a second fetch of the same thing out; removes the work folder where it is empty."""
    work.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with (work / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise WorkError(
                f"{source.name} is being fetched already", str(work), "wait for it to end"
            ) from error
        try:
            yield
        finally:
            if {path.name for path in work.glob("*")} <= {"lock"}:
                shutil.rmtree(str(work), ignore_errors=True)
                with contextlib.suppress(OSError):
                    work.parent.rmdir()
