"""What a device was given and what it answered, kept in a file: written during a run, read back.

The file is a ZIP archive, each array raw and deflated by itself, so that it is written and read as
a stream and any unpacker shows what is in it::

    recording.json          model and its SHA-256, device, tensors of every DPU subgraph
    000000/0.in.0           batch 0, subgraph 0, its input 0 (C order, of the recorded dtype)
    000000/0.out.0          its output 0
    images.json             pictures in each batch; written last, so a file without it is cut off
"""

from __future__ import annotations

import contextlib
import json
import threading
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from ...errors import FormatError, MissingError
from ...files import refuse_impostor, replacing
from .base import Answer, Batch, Device, TensorInfo

HEAD, TAIL = "recording.json", "images.json"
FORMAT = 1
_LEVEL = 1  # a run waits for the compression; higher levels gain a few percent
_DATE = (1980, 1, 1, 0, 0, 0)
_MOST_JSON = 16 << 20


@dataclass(frozen=True)
class Part:
    """The tensors of one DPU subgraph.

    Attributes:
        name: of the subgraph.
        inputs: what it was given, in the order of the file.
        outputs: what it answered, taps included.
    """

    name: str
    inputs: Tuple[TensorInfo, ...]
    outputs: Tuple[TensorInfo, ...]


class Recorder:
    """Writes one recording; the file appears when it is closed as complete.

    Args:
        path: the file.
        model: name of the compiled model, for people.
        model_sha256: of its file.
        device: the device recorded.
        reason: what the device said of itself.

    Raises:
        MissingError: the file cannot be made.
    """

    def __init__(self, path: Path, model: str, model_sha256: str, device: str, reason: str) -> None:
        self.path = path
        self._head = {
            "format": FORMAT,
            "model": model,
            "model_sha256": model_sha256,
            "device": device,
            "reason": reason,
        }
        self._lock = threading.Lock()
        self._parts: List[Part] = []
        self._images: List[int] = []
        self._headed = False
        self._stack: Optional[contextlib.ExitStack] = contextlib.ExitStack()
        try:
            temporary = self._stack.enter_context(replacing(path))
            self._zip = zipfile.ZipFile(str(temporary), "w", zipfile.ZIP_DEFLATED)
        except OSError as error:
            raise MissingError(
                f"The recording {path} cannot be written", str(error), "choose another --record"
            ) from error

    def wrap(self, device: Device, subgraph: str) -> Device:
        """The device with everything that passes it written down; before the first batch."""
        self._parts.append(Part(subgraph, device.inputs, device.outputs))
        return _RecordedDevice(device, self, len(self._parts) - 1)

    def batch(self, images: int) -> None:
        """Says how many pictures the next batch holds; the rest of it is padding."""
        with self._lock:
            self._images.append(images)

    def write(self, batch: int, part: int, direction: str, arrays: Batch) -> None:
        """Writes the arrays of one batch; ``direction`` is ``in`` or ``out``."""
        infos = self._parts[part].inputs if direction == "in" else self._parts[part].outputs
        with self._lock:
            if self._stack is None:
                return
            self._write_head()
            for at, info in enumerate(infos):
                self._put(f"{batch:06d}/{part}.{direction}.{at}", arrays[info.name].tobytes())

    def close(self, complete: bool) -> None:
        """Ends the recording; one that is not complete is dropped. Safe to call twice."""
        with self._lock:
            stack, self._stack = self._stack, None
            if stack is None:
                return
            if complete:
                self._write_head()
                self._put(TAIL, json.dumps(self._images).encode("ascii"))
            self._zip.close()
            if complete:
                stack.close()
            else:
                stack.__exit__(_DroppedError, _DroppedError(), None)

    def _write_head(self) -> None:
        if self._headed:
            return
        self._headed = True
        parts = [
            {
                "name": part.name,
                "inputs": [_described(info) for info in part.inputs],
                "outputs": [_described(info) for info in part.outputs],
            }
            for part in self._parts
        ]
        self._put(HEAD, json.dumps({**self._head, "parts": parts}, indent=1).encode("utf-8"))

    def _put(self, name: str, data: bytes) -> None:
        self._zip.writestr(zipfile.ZipInfo(name, _DATE), data, zipfile.ZIP_DEFLATED, _LEVEL)


class _DroppedError(Exception):
    """Thrown into ``replacing`` where the file is not to appear."""


class _RecordedDevice(Device):
    """Passes everything on to a device and writes it down."""

    def __init__(self, device: Device, recorder: Recorder, part: int) -> None:
        self.name, self.notes = device.name, device.notes
        self.inputs, self.outputs = device.inputs, device.outputs
        self._device, self._recorder, self._part = device, recorder, part
        self._numbers: Dict[int, int] = {}
        self._submitted = 0

    def submit(self, batch: Batch) -> int:
        ticket = self._device.submit(batch)
        number, self._submitted = self._submitted, self._submitted + 1
        self._numbers[ticket] = number
        self._recorder.write(number, self._part, "in", batch)
        return ticket

    def wait(self, ticket: int) -> Dict[str, np.ndarray]:
        return self.answer(ticket).outputs

    def answer(self, ticket: int) -> Answer:
        answer = self._device.answer(ticket)
        self.seconds = self._device.seconds
        self._recorder.write(self._numbers.pop(ticket), self._part, "out", answer.outputs)
        return answer

    def incidents(self) -> List[str]:
        return self._device.incidents()

    def close(self) -> None:
        self._device.close()


class Recording:
    """A recording opened for reading; several threads may read.

    Args:
        path: the file.

    Attributes:
        path: as given.
        model: name of the compiled model.
        model_sha256: of its file.
        device: the device recorded.
        parts: its DPU subgraphs in the order of execution.
        images: pictures in each batch; the rest of a batch is padding.

    Raises:
        MissingError: there is no such file.
        FormatError: it is no recording, or a damaged one.
    """

    def __init__(self, path: Path) -> None:
        path = Path(path)
        refuse_impostor(path, "recording")
        self.path = path
        self._lock = threading.Lock()
        try:
            self._zip = zipfile.ZipFile(str(path))
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise self._broken("is no recording, or was cut off", str(error)) from error
        try:
            self._read_head()
        except BaseException:
            self._zip.close()
            raise

    def part(self, subgraph: str) -> Optional[int]:
        """The index of the subgraph called so, ``None`` where there is none."""
        names = [part.name for part in self.parts]
        return names.index(subgraph) if subgraph in names else None

    def read(self, batch: int, part: int, direction: str) -> Dict[str, np.ndarray]:
        """Arrays of one batch by tensor name, the whole batch with its padding.

        Args:
            batch: from 0.
            part: index into ``parts``.
            direction: ``in`` or ``out``.

        Raises:
            FormatError: an array is missing or damaged.
        """
        infos = self.parts[part].inputs if direction == "in" else self.parts[part].outputs
        return {
            info.name: self._array(f"{batch:06d}/{part}.{direction}.{at}", info, batch)
            for at, info in enumerate(infos)
        }

    def close(self) -> None:
        """Closes the file; safe to call twice."""
        with self._lock:
            self._zip.close()

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _array(self, entry: str, info: TensorInfo, batch: int) -> np.ndarray:
        size = int(np.prod(info.shape, dtype=np.int64)) * info.dtype.itemsize
        data = self._entry(entry, size, f"batch {batch}, tensor {info.name!r}")
        if len(data) != size:
            raise self._broken(
                "is damaged", f"batch {batch}, tensor {info.name!r}: {len(data)} bytes of {size}"
            )
        array: np.ndarray = np.frombuffer(data, info.dtype).reshape(info.shape)
        return array

    def _entry(self, name: str, most: int, where: str) -> bytes:
        """At most ``most`` bytes: what the directory says of a size need not be true."""
        try:
            with self._lock, self._zip.open(name) as file:
                data = file.read(most + 1)
        except KeyError:
            raise self._broken("is incomplete", f"{where} is not in it") from None
        except (
            zipfile.BadZipFile,
            zlib.error,
            OSError,
            EOFError,
            ValueError,
            RuntimeError,
            NotImplementedError,
        ) as error:
            raise self._broken("is damaged", f"{where}: {error}") from error
        if len(data) > most:
            raise self._broken("is damaged", f"{where} is longer than {most} bytes")
        return data

    def _read_head(self) -> None:
        if HEAD not in self._zip.namelist():
            raise self._broken("is no recording", f"a ZIP archive without {HEAD}")
        head = self._json(HEAD)
        try:
            if head["format"] != FORMAT:
                raise FormatError(
                    f"The recording {self.path} is of format {head['format']!r}",
                    f"this version reads {FORMAT}",
                    "use the version of deepfake-fpga that wrote it",
                )
            self.model, self.device = str(head["model"]), str(head["device"])
            self.model_sha256 = str(head["model_sha256"])
            self.parts = tuple(
                Part(str(p["name"]), _tensors(p["inputs"]), _tensors(p["outputs"]))
                for p in head["parts"]
            )
            self.images = [int(count) for count in self._json(TAIL)]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._broken("is damaged", f"{type(error).__name__}: {error}") from error

    def _json(self, name: str) -> Any:
        try:
            return json.loads(self._entry(name, _MOST_JSON, name).decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise self._broken("is damaged", f"{name}: {error}") from error

    def _broken(self, what: str, evidence: str) -> FormatError:
        return FormatError(
            f"The recording {self.path} {what}",
            evidence,
            "record again: deepfake-fpga run --record FILE",
        )


def is_recording(path: Path) -> bool:
    """Whether the file is a ZIP archive with a recording's head; the rest is not looked at."""
    try:
        with zipfile.ZipFile(str(path)) as archive:
            return HEAD in archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def _described(info: TensorInfo) -> Dict[str, Any]:
    return {"name": info.name, "shape": list(info.shape), "fix_point": info.fix_point}


def _tensors(records: Sequence[Any]) -> Tuple[TensorInfo, ...]:
    found = []
    for record in records:
        shape, fix_point = tuple(record["shape"]), record["fix_point"]
        if not shape or not all(isinstance(d, int) and 0 < d < 2**31 for d in shape):
            raise ValueError(f"tensor {record['name']!r} has shape {list(shape)}")
        if fix_point is not None and not isinstance(fix_point, int):
            raise ValueError(f"tensor {record['name']!r} has fix point {fix_point!r}")
        found.append(TensorInfo(str(record["name"]), shape, fix_point))
    return tuple(found)
