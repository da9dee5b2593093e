"""What a server answered in place of a file, and what a person can do about it."""

from __future__ import annotations

from typing import Optional

from ...errors import WorkError
from ...files import impostor
from .sources import Source

_PAGES = (
    (("quota exceeded", "too many users have viewed or downloaded"), "its download quota is spent"),
    (("virus scan", "scan this file for viruses"), "it asks to confirm a file too large to scan"),
    (("accounts.google.com", "sign in", "log in", "login"), "it asks for a login"),
    (("access denied", "you need access", "request access"), "the file is not shared with you"),
)

HEAD = 1 << 16
"""So many bytes are enough to know a page."""


def web_page(head: bytes, content_type: str = "") -> Optional[str]:
    """What a web page says that came in place of a file.

    Args:
        head: the first bytes of the answer.
        content_type: the header, empty where there is none.

    Returns:
        A phrase, or ``None`` where the answer is no page.
    """
    page = content_type.split(";")[0].strip().lower() in ("text/html", "application/xhtml+xml")
    if not page and "HTML" not in (impostor(head[:512]) or ""):
        return None
    text = head[:HEAD].decode("utf-8", "replace").lower()
    for words, meaning in _PAGES:
        if any(word in text for word in words):
            return meaning
    return "it is no file"


def page_error(source: Source, meaning: str, with_gdown: bool = True) -> WorkError:
    """The error of a source that answers with a page."""
    steps = f"open {source.page} in a browser, save {source.file}, then type: {by_hand(source)}"
    if source.drive and not with_gdown:
        steps = f"pip install gdown, and fetch again; or {steps}"
    return WorkError(f"The address of {source.name} answers with a web page", meaning, steps)


def by_hand(source: Source) -> str:
    """The command that takes a file saved with a browser."""
    return f"deepfake-fpga fetch {source.name} --from {source.file}"
