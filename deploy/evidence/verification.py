"""Whether a folder of results is as it was written: every file, the manifest, input and model."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Dict, Iterable, List, Mapping, Optional, Set

from ...errors import FormatError, MissingError
from ...files import sha256
from .manifest import (
    HASH,
    MANIFEST,
    SIGNATURE,
    key_id,
    own_hash,
    read_manifest,
    signature_fits,
    text_of,
)

CHANGED, LOST, ADDED, REFUSED = "changed", "missing", "added", "refused"


@dataclass(frozen=True)
class Finding:
    """Something that is not as it was recorded.

    Attributes:
        kind: ``changed``, ``missing``, ``added`` or ``refused``.
        path: which file.
        detail: what was seen.
    """

    kind: str
    path: str
    detail: str = ""

    def to_json(self) -> Dict[str, str]:
        """A JSON object."""
        return {"kind": self.kind, "path": self.path, "detail": self.detail}


@dataclass
class Verification:
    """What was found about a folder.

    Attributes:
        folder: which one.
        manifest_sha256: the hash its manifest states; empty where it states none.
        findings: everything that is not as recorded.
        checked: files that were compared and are as recorded.
        notes: what could not be compared, and what that means.
        signed: the id of the key whose signature was checked and fits; empty if none was.
        prefix: stands before the names of files, in a folder of an index.
    """

    folder: Path
    manifest_sha256: str = ""
    findings: List[Finding] = field(default_factory=list)
    checked: int = 0
    notes: List[str] = field(default_factory=list)
    signed: str = ""
    prefix: str = ""

    def report(self, kind: str, name: str, detail: str = "") -> None:
        """Adds a finding about a file of the folder."""
        self.findings.append(Finding(kind, self.prefix + name, detail))

    @property
    def intact(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def to_json(self) -> Dict[str, Any]:
        """A JSON object."""
        return {
            "folder": str(self.folder),
            "intact": self.intact,
            "manifest_sha256": self.manifest_sha256 or None,
            "checked": self.checked,
            "signed_by": self.signed or None,
            "findings": [finding.to_json() for finding in self.findings],
            "notes": self.notes,
        }


def verify(
    folder: Path,
    *,
    key: Optional[bytes] = None,
    expected: str = "",
    original: Optional[Path] = None,
    model: Optional[Path] = None,
) -> Verification:
    """Compares a folder with its ``evidence.json``.

    Args:
        folder: what ``run -o`` wrote.
        key: the signature has to be there and fit it.
        expected: the manifest's hash as it was noted elsewhere.
        original: the file that was judged; looked for where it was if not given.
        model: the compiled model, likewise.

    Raises:
        MissingError: there is no manifest, or a file named here is not there.
        FormatError: the manifest cannot be read at all.
    """
    for path in (original, model):
        if path is not None and not path.is_file():
            raise MissingError(f"There is no file {path}", "", "check the path")
    return _verify(folder, "", key, expected, original, model)


def _verify(
    folder: Path,
    prefix: str,
    key: Optional[bytes],
    expected: str,
    original: Optional[Path] = None,
    model: Optional[Path] = None,
) -> Verification:
    record = read_manifest(folder)
    result = Verification(folder, str(record.get(HASH) or ""), prefix=prefix)
    _check_manifest(folder, record, result, key, expected)
    listed = {MANIFEST}
    listed.update(_check_files(folder, record, result))
    parts = _check_parts(folder, record, result, key)
    _find_added(folder, listed, parts, result)
    if parts:
        if original is not None or model is not None:
            result.notes.append("--input and --model are for the folder of one video")
    else:
        _check_read(record.get("input"), original, "input", result)
        _check_read(_at(record, "model", "xmodel"), model, "model", result)
    return result


def _check_manifest(
    folder: Path,
    record: Mapping[str, Any],
    result: Verification,
    key: Optional[bytes],
    expected: str,
) -> None:
    here = len(result.findings)
    if own_hash(record) != record.get(HASH):
        detail = "its content does not have the hash that it states"
        result.report(CHANGED, MANIFEST, detail)
    elif (folder / MANIFEST).read_bytes() != text_of(record).encode("utf-8", "surrogatepass"):
        detail = "it says the same, but is not written as it was"
        result.report(CHANGED, MANIFEST, detail)
    if expected and expected.lower() != result.manifest_sha256:
        detail = f"its hash is {result.manifest_sha256}, not {expected}"
        result.report(CHANGED, MANIFEST, detail)
    signature = record.get(SIGNATURE)
    if key is not None:
        if signature is None:
            result.report(REFUSED, MANIFEST, "it is not signed")
        elif not signature_fits(record, key):
            detail = "the signature was not made with this key of this content"
            result.report(REFUSED, MANIFEST, detail)
        else:
            result.signed = key_id(key)
    elif signature is not None:
        result.notes.append("the manifest is signed; the signature was not checked without --key")
    if not result.signed and not expected:
        result.notes.append(
            "a hash is no signature: whoever can change the files can write a new manifest, so "
            "compare its hash with one noted elsewhere (--expect), or sign it (run --key)"
        )
    result.checked += len(result.findings) == here


def _check_files(folder: Path, record: Mapping[str, Any], result: Verification) -> Set[str]:
    """Compares the listed files; returns their names."""
    listed: Set[str] = set()
    for entry in _entries(record.get("files")):
        name = str(entry.get("path"))
        listed.add(name)
        path = _inside(folder, name)
        if path is None:
            detail = "the manifest names a file outside of the folder"
            result.report(REFUSED, name, detail)
        elif path.is_symlink():
            result.report(CHANGED, name, "it is a link now")
        elif not path.is_file():
            result.report(LOST, name)
        else:
            _compare(path, name, entry, result)
    if not listed:
        result.report(REFUSED, MANIFEST, "it lists no files")
    return listed


def _check_parts(
    folder: Path, record: Mapping[str, Any], result: Verification, key: Optional[bytes]
) -> Set[str]:
    """Verifies the folders of an index; returns their names."""
    names: Set[str] = set()
    for entry in _entries(record.get("folders")):
        name = str(entry.get("path"))
        path = _inside(folder, name)
        if path is None:
            result.report(REFUSED, name, "the manifest names a folder outside of this one")
            continue
        names.add(name)
        try:
            part = _verify(path, f"{result.prefix}{name}/", key, str(entry.get(HASH)))
        except MissingError as error:
            result.report(LOST, f"{name}/{MANIFEST}", error.cause)
            continue
        except FormatError as error:
            result.report(CHANGED, f"{name}/{MANIFEST}", error.cause)
            continue
        result.checked += part.checked
        result.findings += part.findings
        result.notes += [f"{name}: {note}" for note in part.notes]
    return names


def _find_added(folder: Path, listed: Set[str], parts: Set[str], result: Verification) -> None:
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_dir() and not path.is_symlink():
            continue
        if relative.parts[0] in parts or relative.as_posix() in listed:
            continue
        detail = "it was not there when the manifest was written"
        result.report(ADDED, relative.as_posix(), detail)


def _check_read(entry: Any, given: Optional[Path], what: str, result: Verification) -> None:
    """Compares a file that was read: the one given, else the one at its recorded place."""
    if not isinstance(entry, dict) or not entry.get("sha256"):
        if given is not None:
            result.report(REFUSED, what, f"{given}: none was recorded to compare it with")
        return
    path = given or Path(str(entry.get("path")))
    if not path.is_file():
        result.notes.append(
            f"the {what} was not compared: there is no {path} here (name it with --{what})"
        )
        return
    _compare(path, what, entry, result, f"{path}: ")


def _compare(
    path: Path, name: str, entry: Mapping[str, Any], result: Verification, prefix: str = ""
) -> None:
    try:
        found = sha256(path)
    except OSError as error:
        detail = f"{prefix}it cannot be read: {error.strerror}"
        result.report(REFUSED, name, detail)
        return
    if found == entry.get("sha256"):
        result.checked += 1
        return
    size = path.stat().st_size
    detail = f"{prefix}SHA-256 is {found}, was {entry.get('sha256')}"
    if size != entry.get("bytes"):
        detail += f"; {size} bytes, were {entry.get('bytes')}"
    result.report(CHANGED, name, detail)


def _inside(folder: Path, name: str) -> Optional[Path]:
    pure = PurePosixPath(name)
    if pure.is_absolute() or not pure.parts or ".." in pure.parts or "\\" in name:
        return None
    return folder.joinpath(*pure.parts)


def _entries(value: Any) -> Iterable[Mapping[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _at(record: Mapping[str, Any], *names: str) -> Any:
    value: Any = record
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value
