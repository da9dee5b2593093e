"""``evidence.json``: what a folder of results is made of, so that a change of any byte is found.

The file has a hash of itself in ``manifest_sha256``: of everything else in it, in its order,
written without spaces. With a key it has a signature, too (HMAC-SHA256 of the same without the
signature). A hash is no signature: whoever can change the files can make a new manifest. Who
has to be sure notes the hash elsewhere, or keeps a key.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional

from ...errors import FormatError, MissingError, UsageError
from ...files import sha256, write_text

MANIFEST = "evidence.json"
SCHEMA = 1
HASH = "manifest_sha256"
SIGNATURE = "signature"
SHORTEST_KEY = 16
"""Bytes; a shorter key can be guessed."""


@dataclass(frozen=True)
class FileHash:
    """One file.

    Attributes:
        path: within the folder, with ``/``; or as it was named, for what was read.
        sha256: of its content.
        bytes: its size.
    """

    path: str
    sha256: str
    bytes: int

    @classmethod
    def of(cls, path: Path, shown: Optional[str] = None) -> FileHash:
        """Reads ``path``; ``shown`` is the path recorded."""
        name = printable(str(path) if shown is None else shown)
        return cls(name, sha256(path), path.stat().st_size)

    def to_json(self) -> Dict[str, Any]:
        """A JSON object."""
        return asdict(self)


def hashes(folder: Path, paths: Iterable[Path]) -> List[FileHash]:
    """The files at ``paths`` inside ``folder``, and all those in folders among them, by name."""
    found: Dict[str, FileHash] = {}
    for path in paths:
        inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in inside:
            name = file.relative_to(folder).as_posix()
            if name not in found:
                found[name] = FileHash.of(file, name)
    return [found[name] for name in sorted(found)]


def write_manifest(folder: Path, content: Mapping[str, Any], key: Optional[bytes] = None) -> str:
    """Writes ``evidence.json``.

    Args:
        folder: where.
        content: what it says, without hash and signature; strict JSON.
        key: signs it.

    Returns:
        The hash in it.
    """
    record = {"schema": SCHEMA, "tool": "deepfake-fpga", **content}
    if key is not None:
        record[SIGNATURE] = {
            "algorithm": "HMAC-SHA256",
            "key_id": key_id(key),
            "value": _signature(record, key),
        }
    record[HASH] = own_hash(record)
    write_text(folder / MANIFEST, text_of(record))
    return str(record[HASH])


def read_manifest(folder: Path) -> Dict[str, Any]:
    """The content of ``evidence.json``; nothing is checked but that it is a JSON object.

    Raises:
        MissingError: there is none.
        FormatError: it is no JSON object, or of a newer version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise MissingError(
            f"There is no {path}",
            "" if folder.is_dir() else f"{folder} is no folder",
            "name the folder that run -o wrote",
        )
    try:
        record = json.loads(path.read_bytes().decode("utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"{path} was changed: it is no JSON any more", str(error), "take a copy of the original"
        ) from error
    if not isinstance(record, dict):
        raise FormatError(f"{path} was changed: it is no JSON object", "", "take a copy")
    if record.get("schema") != SCHEMA:
        raise FormatError(
            f"{path} has schema {record.get('schema')!r}",
            f"this version reads {SCHEMA}",
            "use the version of deepfake-fpga that wrote it",
        )
    return record


def text_of(record: Mapping[str, Any]) -> str:
    """The manifest as it stands in the file; there is no other way to write the same."""
    return json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def own_hash(record: Mapping[str, Any]) -> str:
    """SHA-256 of everything in a manifest but this hash."""
    return hashlib.sha256(_canonical(record, HASH)).hexdigest()


def signature_fits(record: Mapping[str, Any], key: bytes) -> bool:
    """Whether a manifest's signature was made with this key, and of this content."""
    found = record.get(SIGNATURE)
    value = found.get("value") if isinstance(found, dict) else None
    if not isinstance(value, str):
        return False
    wanted = _signature(record, key)
    return hmac.compare_digest(wanted.encode("ascii"), value.encode("utf-8", "replace"))


def key_id(key: bytes) -> str:
    """Tells keys apart without giving them away."""
    return hashlib.sha256(b"deepfake-fpga evidence key\n" + key).hexdigest()[:16]


def read_key(path: Path) -> bytes:
    """The content of a key file, whatever it is.

    Raises:
        MissingError: there is no such file.
        UsageError: it is too short to be a secret.
    """
    if not path.is_file():
        raise MissingError(f"The key {path} does not exist", "", f"openssl rand -hex 32 > {path}")
    key = path.read_bytes()
    if len(key.strip()) < SHORTEST_KEY:
        raise UsageError(
            f"The key {path} is too short",
            f"{len(key.strip())} bytes; at least {SHORTEST_KEY} are wanted",
            f"openssl rand -hex 32 > {path}",
        )
    return key


def printable(text: str) -> str:
    """A path as text that is sure to be UTF-8; bytes that are not become escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _signature(record: Mapping[str, Any], key: bytes) -> str:
    content = _canonical(record, HASH, SIGNATURE)
    return hmac.new(key, content, hashlib.sha256).hexdigest()


def _canonical(record: Mapping[str, Any], *without: str) -> bytes:
    content = {name: value for name, value in record.items() if name not in without}
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.encode("ascii")
