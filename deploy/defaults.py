"""Which compiled model and which checkpoint are taken where none is named."""

from __future__ import annotations

from pathlib import Path
from typing import Optional, Tuple

from ..errors import MissingError
from .build_folder import BuildFolder

MODEL = "YNET.xmodel"
DATA = Path(__file__).resolve().parent / "data"
DEMO_CHECKPOINT = DATA / "uynet_demo.safetensors"
"""The checkpoint that ships with the package; docs/model-card.md says what it is worth."""


def default_model() -> Path:
    """Where the model that ships with the package is."""
    return DATA / MODEL


def choose_model(model: Optional[Path], build_dir: Path) -> Tuple[Path, str]:
    """The model named, else the build folder's compiled one, else the shipped one.

    Args:
        model: from ``--model``.
        build_dir: from ``--build-dir``.

    Returns:
        The path and, in words, why it was taken.

    Raises:
        MissingError: the one named does not exist, or there is none at all.
    """
    if model is not None:
        if not model.is_file():
            raise MissingError(f"The model {model} does not exist", "", "check --model")
        return model, "named with --model"
    built = BuildFolder(build_dir).compiled / MODEL
    if built.is_file():
        return built, f"compiled in the build folder {build_dir}"
    shipped = default_model()
    if shipped.is_file():
        return shipped, f"shipped with the package: there is no {built}"
    raise MissingError(
        "There is no compiled model to run",
        f"neither {built} nor {shipped}",
        "deepfake-fpga compile, or name one with --model",
    )


def choose_checkpoint(model: Path, build_dir: Path) -> Optional[Path]:
    """The float weights that belong to a compiled model taken by ``choose_model``.

    Returns:
        The shipped checkpoint for the shipped model, else the build folder's; ``None`` where
        there is none.
    """
    if model == default_model():
        return DEMO_CHECKPOINT if DEMO_CHECKPOINT.is_file() else None
    return BuildFolder(build_dir).checkpoint()
