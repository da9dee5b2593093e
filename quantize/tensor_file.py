"""What a file of tensors holds, read without executing anything stored in it.

Two formats: PyTorch's own (``.pth``, ``.pt``: a pickle with storages, in a zip since 1.6) and
safetensors (a JSON header and raw little-endian data, the format's public description). The format
is decided by content, never by suffix.

A pickle can name any function to be called while it loads. Where the installed torch can refuse
that (``weights_only``, 1.13 on) it is told to; older releases get an unpickler that knows the few
names a tensor needs. TorchScript archives and tar files are refused before torch sees them, because
some releases run what they hold in spite of ``weights_only``.
"""

from __future__ import annotations

import collections
import inspect
import json
import pickle
import re
import tarfile
import zipfile
from pathlib import Path
from typing import Any, Dict, Mapping, NamedTuple, Set, Tuple

import torch
from torch import Tensor

from ..errors import FormatError
from ..files import refuse_impostor

_SAFETENSORS_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_MAX_HEADER = 100_000_000
_FOREIGN = {
    b"\x89HDF": "an HDF5 file (Keras or TensorFlow weights)",
    b"\x93NUMPY": "a numpy array",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"GGUF": "a GGUF file",
}
_ELEMENTS = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_HARMLESS: Set[Tuple[str, str]] = {
    ("collections", "OrderedDict"),
    ("collections", "defaultdict"),
    ("torch", "Size"),
    ("torch", "device"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch.nn.parameter", "Parameter"),
    ("torch.serialization", "_get_layout"),
    *(("torch", f"{name}Storage") for name in _ELEMENTS),
}
_RESAVE = (
    "where the checkpoint was made, keep only its weights: "
    "torch.save(model.state_dict(), 'weights.pth')"
)


class TensorFile(NamedTuple):
    """A file's content.

    Attributes:
        content: nested dictionaries with tensors on the CPU; other plain values are kept.
        metadata: the text entries of a safetensors header; empty for other formats.
        format: ``safetensors`` or ``pytorch``.
    """

    content: Any
    metadata: Dict[str, str]
    format: str


def read_tensors(path: Path) -> TensorFile:
    """Reads a PyTorch or safetensors file onto the CPU.

    Raises:
        MissingError: there is no such file.
        FormatError: it is truncated, unsafe (it wants code executed), TorchScript, a Git-LFS
            pointer, an HTML page or another format; the message says which.
    """
    refuse_impostor(path, "checkpoint")
    with path.open("rb") as file:
        head = file.read(16)
    for start, name in _FOREIGN.items():
        if head.startswith(start):
            raise _wrong(path, f"is {name}, not a checkpoint", f"first bytes {head[:8]!r}")
    if head.startswith(b"PK"):
        _check_zip(path)
        return TensorFile(_read_pytorch(path), {}, "pytorch")
    if head[8:9] == b"{" or path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    if tarfile.is_tarfile(str(path)):
        raise _wrong(path, "is a tar archive", "tar checkpoints of PyTorch 0.1 are not read")
    if not head.startswith(b"\x80"):
        raise _wrong(
            path, "is neither a PyTorch nor a safetensors file", f"first bytes {head[:8]!r}"
        )
    return TensorFile(_read_pytorch(path), {}, "pytorch")


def _wrong(path: Path, what: str, evidence: str, next_step: str = "") -> FormatError:
    return FormatError(
        f"The checkpoint {path} {what}",
        evidence,
        next_step or "give a .pth, .pt or .safetensors file with a state_dict",
    )


def _check_zip(path: Path) -> None:
    try:
        with zipfile.ZipFile(str(path)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise _wrong(
            path,
            "is truncated or damaged: the directory at its end cannot be read",
            f"{path.stat().st_size} bytes; {error}",
            "copy or download the file again",
        ) from error
    inner = {name.split("/", 1)[-1] for name in names}
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        raise _wrong(path, "is a TorchScript archive (a program)", "it has constants.pkl", _RESAVE)
    if "data.pkl" not in inner:
        shown = ", ".join(sorted(names)[:4])
        raise _wrong(path, "is a zip archive without a state_dict", f"it holds {shown}")


def _read_pytorch(path: Path) -> Any:
    """The unpickled content; see the module's text for what is allowed."""
    options: Dict[str, Any] = {"pickle_module": _RestrictedPickle}
    if "weights_only" in inspect.signature(torch.load).parameters:
        options = {"weights_only": True}
    try:
        return torch.load(str(path), map_location="cpu", **options)
    except Exception as error:  # a hostile or damaged pickle can raise anything
        name = _forbidden_name(str(error))
        if name:
            raise _wrong(
                path,
                "holds more than weights: loading it would run code, so it was not loaded",
                f"it asks for {name}",
                _RESAVE,
            ) from error
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise _wrong(
            path, "is truncated or damaged", first_line, "copy or download the file again"
        ) from error


def _forbidden_name(message: str) -> str:
    for pattern in (r"GLOBAL ([\w.]+)", r"[Uu]nsupported (?:class|global):? ([\w.]+)"):
        found = re.search(pattern, message)
        if found:
            return found.group(1)
    return ""


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _HARMLESS:
            raise pickle.UnpicklingError(f"Unsupported global: GLOBAL {module}.{name}")
        if module == "collections":
            return getattr(collections, name)
        return super().find_class(module, name)


class _RestrictedPickle:
    """What ``torch.load`` needs of a pickle module."""

    Unpickler = _RestrictedUnpickler
    UnpicklingError = pickle.UnpicklingError
    __name__ = "restricted pickle"

    @staticmethod
    def load(file: Any, **options: Any) -> Any:
        return _RestrictedUnpickler(file, **options).load()


def _read_safetensors(path: Path) -> TensorFile:
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    if not 2 <= length <= min(_MAX_HEADER, max(len(raw) - 8, 0)):
        raise _wrong(
            path,
            "is not a complete safetensors file",
            f"its header should have {length} bytes, the file has {len(raw)}",
            "copy or download the file again",
        )
    try:
        header = json.loads(raw[8 : 8 + length].decode("utf-8"))
        metadata = {str(k): str(v) for k, v in header.pop("__metadata__", {}).items()}
        tensors = {
            name: _safetensor(path, name, entry, raw, 8 + length) for name, entry in header.items()
        }
    except (UnicodeDecodeError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise _wrong(path, "has a damaged safetensors header", repr(error)) from error
    return TensorFile(tensors, metadata, "safetensors")


def _safetensor(path: Path, name: str, entry: Mapping[str, Any], raw: bytes, data: int) -> Tensor:
    dtype = _SAFETENSORS_DTYPES.get(entry["dtype"])
    if dtype is None:
        raise _wrong(path, f"has a tensor of type {entry['dtype']}", f"tensor {name}")
    shape = [int(n) for n in entry["shape"]]
    begin, end = (int(n) for n in entry["data_offsets"])
    count = 1
    for n in shape:
        count *= n
    if min([0, *shape]) < 0 or begin < 0 or end - begin != count * dtype_size(dtype):
        raise ValueError(f"{name}: {end - begin} bytes for shape {shape} of {entry['dtype']}")
    if data + end > len(raw):
        raise _wrong(
            path,
            "is truncated",
            f"tensor {name} ends at byte {data + end}, the file has {len(raw)}",
            "copy or download the file again",
        )
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    flat = torch.frombuffer(bytearray(raw[data + begin : data + end]), dtype=dtype)
    return flat.reshape(shape)


def dtype_size(dtype: torch.dtype) -> int:
    """Bytes of one element."""
    return torch.empty(0, dtype=dtype).element_size()
