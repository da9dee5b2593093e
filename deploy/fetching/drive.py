"""Files on Google Drive: through gdown where it is installed, else by their download address."""

from __future__ import annotations

import contextlib
import inspect
import os
from typing import Any, Callable, Dict, Optional, Tuple

from ...errors import WorkError
from .answers import HEAD, by_hand, page_error, web_page
from .sources import Source
from .transfer import Partial, Progress, download

_ADDRESS = "https://drive.usercontent.google.com/download?id={}&export=download&confirm=t"


def load_gdown() -> Tuple[Any, str]:
    """The module ``gdown``, or ``None``, and why it is taken or not."""
    try:
        import gdown
    except ImportError as error:
        return None, f"by its download address, as gdown is missing ({error})"
    return gdown, f"with gdown {getattr(gdown, '__version__', 'of unknown version')}"


def download_drive(
    source: Source,
    partial: Partial,
    *,
    size: Optional[int],
    say: Callable[[str], None],
    progress: Progress,
) -> None:
    """Brings a file of Google Drive to ``partial.data``.

    Raises:
        WorkError: it cannot be had; the message says what to do.
    """
    gdown, why = load_gdown()
    say(f"{source.name}: {why}")
    if gdown is None:
        address = _ADDRESS.format(source.drive)
        download(source, address, partial, size=size, say=say, progress=progress)
        return
    partial.folder.mkdir(parents=True, exist_ok=True)
    # Its own name: gdown takes a file that has the name it was given for a whole one.
    output = partial.folder / "gdown"
    with contextlib.suppress(FileNotFoundError):
        output.unlink()
    options: Dict[str, Any] = {"output": str(output), "quiet": False, "resume": True}
    known = _parameters(gdown.download)
    if "id" in known:
        options["id"] = source.drive
    else:  # before 4.0
        options["url"] = f"https://drive.google.com/uc?id={source.drive}"
    options = {name: value for name, value in options.items() if name in known}
    try:
        done = gdown.download(**options)
    except Exception as error:  # its own classes differ between releases
        raise _failed(source, str(error) or type(error).__name__) from error
    if done is None or not output.is_file():  # releases before 5 print the reason
        raise _failed(source, "its reason stands above")
    os.replace(str(output), str(partial.data))
    with partial.data.open("rb") as file:
        meaning = web_page(file.read(HEAD))
    if meaning is not None:
        partial.drop()
        raise page_error(source, meaning)


def _parameters(function: Callable[..., Any]) -> Any:
    return inspect.signature(function).parameters


def _failed(source: Source, words: str) -> WorkError:
    meaning = web_page(words.encode(), "text/html")
    if meaning not in (None, "it is no file"):
        return page_error(source, str(meaning))
    return WorkError(
        f"gdown could not download {source.name}",
        " ".join(words.split())[:300],
        f"type the same again later; or open {source.page} in a browser, save {source.file}, "
        f"then type: {by_hand(source)}",
    )
