"""What can be fetched and from where, and what the first download of each was."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple
from urllib.parse import urlsplit

from ...errors import FormatError, MissingError
from ...files import write_text

SHIPPED = Path(__file__).resolve().parent.parent / "data" / "sources.yaml"
LOCK = "fetch.lock.yaml"

_HEAD = "# What the first downloads were; later ones are compared with it. Written by fetch.\n"


@dataclass(frozen=True)
class Source:
    """One thing to fetch.

    Attributes:
        name: how it is asked for.
        drive: identifier of a Google Drive file, or empty.
        url: http or https address, or empty.
        file: name under which it is kept.
        target: folder under the data folder, relative.
        about: what it is.
        unpack: whether it is a ZIP archive whose content is wanted.
        holds: files or folders that must be in the archive.
        size: bytes; ``None`` where not known.
        sha256: of the file, lower case; ``None`` where not known.
    """

    name: str
    drive: str
    url: str
    file: str
    target: str
    about: str = ""
    unpack: bool = False
    holds: Tuple[str, ...] = ()
    size: Optional[int] = None
    sha256: Optional[str] = None

    @property
    def page(self) -> str:
        """The address for a browser."""
        return self.url or f"https://drive.google.com/file/d/{self.drive}/view"


@dataclass(frozen=True)
class Record:
    """What a first download was.

    Attributes:
        address: where it came from.
        file: its name.
        size: bytes.
        sha256: of the file.
        date: when, UTC.
        files: how many files were unpacked; 0 where nothing is.
        unpacked: bytes of these.
    """

    address: str
    file: str
    size: int
    sha256: str
    date: str
    files: int = 0
    unpacked: int = 0


def read_sources(path: Optional[Path] = None) -> Dict[str, Source]:
    """The sources of a YAML file; those that ship where none is given.

    Raises:
        MissingError: there is no such file.
        FormatError: it is not of the form that the shipped one explains.
    """
    path = path or SHIPPED
    content = _read_yaml(path)
    if not content:
        raise FormatError(f"{path} names no sources", "it is empty", f"compare with {SHIPPED}")
    return {name: _source(path, name, entry) for name, entry in content.items()}


def read_lock(folder: Path) -> Dict[str, Record]:
    """The records beside the downloads in ``folder``; none where nothing was fetched yet.

    Raises:
        FormatError: the file cannot be read.
    """
    path = folder / LOCK
    if not path.exists():
        return {}
    try:
        return {name: Record(**entry) for name, entry in _read_yaml(path).items()}
    except TypeError as error:
        raise FormatError(
            f"{path} cannot be read", str(error), "move it away: the next fetch records anew"
        ) from error


def write_lock(folder: Path, records: Mapping[str, Record]) -> None:
    """Writes the records whole or not at all."""
    import yaml

    table = {name: asdict(records[name]) for name in sorted(records)}
    write_text(folder / LOCK, _HEAD + yaml.safe_dump(table, sort_keys=False, allow_unicode=True))


def _read_yaml(path: Path) -> Dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingError(f"There is no file {path}", "", "check --sources") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FormatError(f"{path} cannot be read", " ".join(str(error).split())) from error
    if content is None:
        return {}
    wrong = not isinstance(content, dict) or [
        name for name, entry in content.items() if not isinstance(entry, dict)
    ]
    if wrong:
        raise FormatError(f"{path} should map names to their fields", repr(content)[:80])
    return {str(name): entry for name, entry in content.items()}


def _source(path: Path, name: str, entry: Dict[str, Any]) -> Source:
    def refuse(what: str) -> FormatError:
        return FormatError(f"The source {name!r} in {path} {what}", repr(entry)[:200])

    values = {key: value for key, value in entry.items() if value is not None}
    unknown = set(values) - set(Source.__dataclass_fields__) | ({"name"} & set(values))
    if unknown:
        raise refuse(f"has a field that is not known: {', '.join(sorted(map(str, unknown)))}")
    for key in ("drive", "url", "file", "target", "about", "sha256"):
        if not isinstance(values.setdefault(key, ""), str):
            raise refuse(f"has a {key} that is no text; put it in quotes")
    if bool(values["drive"]) == bool(values["url"]):
        raise refuse("needs either drive or url")
    if values["url"] and urlsplit(values["url"]).scheme not in ("http", "https"):
        raise refuse("has an address that is neither http nor https")
    if not re.fullmatch(r"[\w-]*", values["drive"]):
        raise refuse("has a drive that is no identifier")
    if not _is_plain(values["file"]) or "/" in values["file"]:
        raise refuse("needs a plain file name in file")
    if not _is_plain(values["target"]):
        raise refuse("needs a relative folder in target")
    holds = values.get("holds", [])
    if not isinstance(holds, list) or not all(isinstance(h, str) and _is_plain(h) for h in holds):
        raise refuse("should have a list of names in holds")
    if not isinstance(values.setdefault("unpack", False), bool):
        raise refuse("has an unpack that is neither true nor false")
    size = values.get("size")
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size <= 0):
        raise refuse("has a size that is no number of bytes")
    checksum = values["sha256"].lower()
    if checksum and not re.fullmatch(r"[0-9a-f]{64}", checksum):
        raise refuse("has a sha256 that is none")
    return Source(**{**values, "name": name, "holds": tuple(holds), "sha256": checksum or None})


def _is_plain(name: str) -> bool:
    """Whether a relative path stays where it is put."""
    parts = name.split("/")
    return bool(name) and "\\" not in name and ":" not in name and not {"", ".", ".."} & set(parts)
