"""How far a fast finetune got: one file, renewed after every layer, from which it goes on.

A layer's tuning depends on nothing but the data, the float parameters and the layers before it, so
a run that was stopped and one that was not end with the same parameters.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterable, List, Optional, Sequence

import numpy as np

from ..errors import FormatError
from ..files import replacing
from .graph import QuantizerGraph

if TYPE_CHECKING:
    from .calibration import Run

FORMAT = 1
_ABOUT = "about"


@dataclass(frozen=True)
class Layer:
    """How one layer's tuning went.

    Attributes:
        name: of the layer in result files.
        sweeps: passes over the batches.
        kept: sweeps after which the change stayed.
        losses: root mean squared error of every network output afterwards.
    """

    name: str
    sweeps: int
    kept: int
    losses: List[float]


@dataclass(frozen=True)
class Progress:
    """What is known after some layers.

    Attributes:
        found: the calibration that gave the fix positions.
        params: parameter key to float32 values on their grids; those of layers to come untuned.
        layers: those that are done, in order.
    """

    found: Run
    params: Dict[str, np.ndarray]
    layers: List[Layer]


@dataclass(frozen=True)
class Journal:
    """The file of one run.

    Attributes:
        path: a ``.npz`` file.
        run: digest of everything the result depends on, see ``digest``.
    """

    path: Path
    run: str

    def read(self, graph: QuantizerGraph) -> Optional[Progress]:
        """The progress of the same run; ``None`` where there is none, or only another run's.

        Raises:
            FormatError: the file is damaged.
        """
        if not self.path.is_file():
            return None
        try:
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                about = json.loads(bytes(archive[_ABOUT]).decode("utf-8"))
                if about["format"] != FORMAT or about["run"] != self.run:
                    return None
                params = {key: archive[f"param/{key}"] for key in about["params"]}
            return Progress(
                _run(graph, about["params"], about["histories"]),
                params,
                [Layer(**layer) for layer in about["layers"]],
            )
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise FormatError(
                f"{self.path} is not the state of a fast finetune",
                f"{type(error).__name__}: {error}",
                f"delete {self.path} to begin anew",
            ) from error

    def write(self, graph: QuantizerGraph, progress: Progress) -> None:
        """Notes the progress, whole or not at all."""
        about = {
            "format": FORMAT,
            "run": self.run,
            "params": progress.found.params,
            "histories": {graph.node_name(n): h for n, h in progress.found.histories.items()},
            "layers": [asdict(layer) for layer in progress.layers],
        }
        text = np.frombuffer(json.dumps(about).encode("utf-8"), np.uint8)
        arrays: Dict[str, Any] = {f"param/{key}": v for key, v in progress.params.items()}
        arrays[_ABOUT] = text
        with replacing(self.path) as part:
            np.savez(str(part), **arrays)

    def remove(self) -> None:
        """Removes the file, once the result is kept elsewhere."""
        if self.path.is_file():
            self.path.unlink()


def digest(rules: str, batches: Iterable[Sequence[np.ndarray]]) -> str:
    """SHA-256 over what a fast finetune depends on.

    Args:
        rules: names the float parameters and the options.
        batches: the data, batch by batch.
    """
    found = hashlib.sha256(rules.encode())
    for batch in batches:
        for array in batch:
            found.update(str(array.shape).encode())
            found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def _run(graph: QuantizerGraph, params: Dict[str, int], histories: Dict[str, List[int]]) -> Run:
    from .calibration import Run

    nodes = graph.by_name()
    found = {nodes[name]: history for name, history in histories.items()}
    return Run(params=params, histories=found, corrections={}, saturated={}, ranges={}, images=0)
