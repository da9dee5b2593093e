"""The log of a training: two CSV files always, TensorBoard's events where it is installed.

``steps.csv`` has the losses, ``epochs.csv`` what the validation said. A training that is resumed
goes on in the same files; lines of steps that are done again are dropped first.
"""

from __future__ import annotations

import csv
import importlib
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

from ..files import replacing

STEPS = ("step", "epoch", "seconds", "loss", "mask_loss", "label_loss", "rate")
EPOCHS = (
    "step", "epoch", "seconds", "images", "auc", "video_auc", "accuracy", "dice", "iou", "fake_iou",
    "eer", "log_loss", "ece",
)  # fmt: skip


class TrainingLog:
    """Writes the log of one training.

    Args:
        folder: of the training; made if it is not there.
        step: steps done so far; later lines are of a run that was cut off and are dropped.

    Attributes:
        tensorboard: why there are no TensorBoard events; empty where there are.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._files = {
            "steps": (folder / "steps.csv", STEPS),
            "epochs": (folder / "epochs.csv", EPOCHS),
        }
        for path, columns in self._files.values():
            _begin(path, columns, step)
        self.tensorboard = ""
        self._board: Optional[Any] = None
        try:
            self._board = _board(folder)
        except ImportError as error:
            self.tensorboard = f"TensorBoard is not installed ({error})"

    def add(self, kind: str, record: Mapping[str, Any]) -> None:
        """Adds a line to ``steps`` or ``epochs``; what is ``None`` stays empty."""
        path, columns = self._files[kind]
        with path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(["" if record.get(c) is None else record[c] for c in columns])
        if self._board is not None:
            for name, value in record.items():
                if name not in ("step", "epoch") and isinstance(value, (int, float)):
                    self._board.add_scalar(f"{kind}/{name}", value, record["step"])

    def close(self) -> None:
        """Writes what is still held back."""
        if self._board is not None:
            self._board.close()


def read(path: Path) -> List[Dict[str, str]]:
    """The lines of one of the files, column to text."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _board(folder: Path) -> Any:
    return importlib.import_module("torch.utils.tensorboard").SummaryWriter(str(folder / "events"))


def _begin(path: Path, columns: Any, step: int) -> None:
    lines = read(path) if path.is_file() else []
    kept = [line for line in lines if line.get("step", "").isdigit() and int(line["step"]) <= step]
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(kept)
