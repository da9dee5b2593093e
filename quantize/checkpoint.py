"""A U-YNet checkpoint: which network a file of weights belongs to, and that network with them.

The width and the variant are read from the shapes, so a checkpoint needs no description beside it.
What a published checkpoint may have and the network does not use (the fifth ``down`` block) is
dropped and said; anything else that does not fit is refused by name.

Importing this module imports torch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

import torch
from torch import Tensor

from ..errors import DataError, FormatError, MismatchError
from ..files import sha256
from ..preprocessing import Preprocessing
from .model import UYNet
from .tensor_file import read_tensors

FIRST_KEY = "inc.double_conv.0.weight"
UNUSED_BLOCK = "down5."
MAX_WIDTH = 256
_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights")
_SHOWN = 4


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A float model and where it came from.

    Attributes:
        model: U-YNet in eval mode, float32, on the CPU, without gradients.
        path: the file it was read from.
        sha256: of that file.
        width: channels of the first level (64 is the original).
        bilinear: the variant that upsamples by interpolation.
        dropped: keys of the file that the network does not use.
        notes: what a person should know (half precision converted, a block dropped).
        metadata: plain values stored beside the weights (epoch, training record).
        preprocessing: the record stored with the weights, or the default.
    """

    model: UYNet
    path: Path
    sha256: str
    width: int
    bilinear: bool
    dropped: Tuple[str, ...]
    notes: Tuple[str, ...]
    metadata: Mapping[str, Any]
    preprocessing: Preprocessing

    def describe(self) -> Dict[str, Any]:
        """The checkpoint's entry in a manifest."""
        return {
            **self.model.describe(),
            "file": self.path.name,
            "sha256": self.sha256,
            "dropped": len(self.dropped),
            "notes": list(self.notes),
        }


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a ``.pth``, ``.pt`` or ``.safetensors`` file into the U-YNet its shapes describe.

    Nothing stored in the file is executed. Wrapped dictionaries (``state_dict``, ``model``, ...)
    and prefixes (``module.``) are seen through; missing ``num_batches_tracked`` counters do not
    matter.

    Raises:
        MissingError: there is no such file.
        FormatError: the file is truncated, unsafe or of another format.
        MismatchError: its keys or shapes are not those of a U-YNet; the first few are named.
        DataError: a weight is NaN or infinite, or a variance is negative.
    """
    file = read_tensors(path)
    state, wrapped, metadata = _find_state(path, file.content)
    metadata.update(file.metadata)
    notes: List[str] = []
    if wrapped:
        notes.append(f"the weights were found under {wrapped!r}")
    dropped = tuple(key for key in state if key.startswith(UNUSED_BLOCK))
    if dropped:
        count = sum(state.pop(key).numel() for key in dropped)
        notes.append(f"dropped the unused block down5 ({count / 1e6:.1f} M values)")
    model = _build(path, state)
    _check_fit(path, state, model)
    converted = _to_float32(state)
    if converted:
        notes.append(f"converted {converted} to float32")
    _check_values(path, state)
    counters = {k: v for k, v in model.state_dict().items() if k.endswith("num_batches_tracked")}
    model.load_state_dict({**counters, **state})
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return Checkpoint(
        model=model,
        path=path,
        sha256=sha256(path),
        width=model.width,
        bilinear=model.bilinear,
        dropped=dropped,
        notes=tuple(notes),
        metadata=metadata,
        preprocessing=_preprocessing(path, metadata),
    )


def _find_state(path: Path, content: Any) -> Tuple[Dict[str, Tensor], str, Dict[str, Any]]:
    """The state dictionary without prefix, the wrapper it was in, the plain values beside it."""
    if isinstance(content, Tensor) or not isinstance(content, Mapping):
        raise FormatError(
            f"The checkpoint {path} holds no state_dict",
            f"it holds a {type(content).__name__}",
            "save it with torch.save(model.state_dict(), 'weights.pth')",
        )
    candidates = list(_mappings(content, "", 3))
    for where, mapping in candidates:
        first = [key for key in mapping if isinstance(key, str) and key.endswith(FIRST_KEY)]
        if first:
            prefix = min(first, key=len)[: -len(FIRST_KEY)]
            return _strip(mapping, prefix), where, _plain(content)
    where, mapping = max(candidates, key=lambda item: len(_tensors(item[1])))
    tensors = _tensors(mapping)
    shown = _few([f"{key} {list(value.shape)}" for key, value in tensors.items()])
    raise MismatchError(
        f"The checkpoint {path} is not a U-YNet: it has no {FIRST_KEY}",
        f"it has {len(tensors)} tensors: {shown}" if tensors else "it has no tensors",
        "give a checkpoint of a U-YNet",
    )


def _mappings(value: Mapping[Any, Any], where: str, depth: int) -> Iterator[Tuple[str, Any]]:
    """The mapping and those inside it, the usual wrapper names first."""
    yield where, value
    if depth == 0:
        return
    order = [name for name in _WRAPPERS if name in value]
    order += [key for key in value if isinstance(key, str) and key not in _WRAPPERS]
    for name in order:
        if isinstance(value[name], Mapping):
            yield from _mappings(value[name], f"{where}.{name}" if where else name, depth - 1)


def _tensors(mapping: Mapping[Any, Any]) -> Dict[str, Tensor]:
    return {str(key): value for key, value in mapping.items() if isinstance(value, Tensor)}


def _strip(mapping: Mapping[str, Any], prefix: str) -> Dict[str, Tensor]:
    state = {}
    for key, value in _tensors(mapping).items():
        state[key[len(prefix) :] if key.startswith(prefix) else key] = value.detach()
    return state


def _plain(content: Mapping[Any, Any]) -> Dict[str, Any]:
    return {
        str(key): value
        for key, value in content.items()
        if isinstance(value, (str, int, float, bool))
    }


def _build(path: Path, state: Mapping[str, Tensor]) -> UYNet:
    """An unloaded network of the size and variant that the shapes tell."""
    first = state[FIRST_KEY]
    out = state.get("outc.conv.weight")
    width = int(first.shape[0]) if first.dim() == 4 else 0
    fits = 1 <= width <= MAX_WIDTH and list(first.shape[1:]) == [3, 3, 3]
    if not fits or (out is not None and out.shape[:1] != (2,)):
        shape = list(out.shape) if out is not None else "missing"
        raise MismatchError(
            f"The checkpoint {path} is no U-YNet for RGB and two classes, width 1 to {MAX_WIDTH}",
            f"{FIRST_KEY} is {list(first.shape)}, outc.conv.weight is {shape}",
            "give a checkpoint of a U-YNet",
        )
    return UYNet(bilinear="up1.up.weight" not in state, width=width)


def _check_fit(path: Path, state: Mapping[str, Tensor], model: UYNet) -> None:
    wanted = model.state_dict()
    missing = [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in state if k not in wanted]
    wrong = [
        f"{k} is {list(state[k].shape)}, should be {list(v.shape)}"
        for k, v in wanted.items()
        if k in state and state[k].shape != v.shape
    ]
    wrong += [
        f"{k} is {state[k].dtype}, should be a float type"
        for k, v in wanted.items()
        if k in state and v.is_floating_point() and not state[k].is_floating_point()
    ]
    parts = [
        f"{len(keys)} {title}: {_few(keys)}"
        for title, keys in (("missing", missing), ("unexpected", unexpected), ("wrong", wrong))
        if keys
    ]
    if parts:
        variant = "bilinear" if model.bilinear else "transposed-convolution"
        raise MismatchError(
            f"The checkpoint {path} does not fit a {variant} U-YNet of width {model.width}",
            "; ".join(parts),
            "give a checkpoint of a U-YNet; up1.up.weight tells the variants apart",
        )


def _to_float32(state: Dict[str, Tensor]) -> str:
    """Converts in place; returns the types converted, for the note."""
    found = set()
    for key, value in state.items():
        if value.is_floating_point() and value.dtype != torch.float32:
            found.add(str(value.dtype).replace("torch.", ""))
            state[key] = value.float()
    return " and ".join(sorted(found))


def _check_values(path: Path, state: Mapping[str, Tensor]) -> None:
    bad: Optional[str] = None
    for key, value in state.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            count = int((~torch.isfinite(value)).sum())
            bad = f"{key} has {count} NaN or infinite of {value.numel()} values"
        elif key.endswith("running_var") and bool((value < 0).any()):
            bad = f"{key} has negative variances"
        if bad:
            raise DataError(
                f"The checkpoint {path} has weights that cannot be used",
                bad,
                "take an earlier checkpoint of the training",
            )


def _preprocessing(path: Path, metadata: Mapping[str, Any]) -> Preprocessing:
    record = metadata.get("preprocessing")
    if not isinstance(record, str):
        return Preprocessing()
    try:
        return Preprocessing.from_json(json.loads(record))
    except (ValueError, TypeError) as error:
        raise FormatError(
            f"The preprocessing record of the checkpoint {path} cannot be read", str(error)
        ) from error


def _few(items: List[str]) -> str:
    more = len(items) - _SHOWN
    return ", ".join(items[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
