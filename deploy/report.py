"""The page a person reads at the end: what was found, where, by which numbers, made by what.

One self-contained HTML file: no script, no font, no picture from elsewhere.
"""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass, field
from pathlib import Path
from typing import List, Sequence, Tuple

from ..files import replacing

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1f2933; background: #fff; max-width: 820px;
       margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0.2rem } h2 { font-size: 1.15rem; margin-top: 2rem }
.verdict { display: inline-block; padding: 0.3rem 0.9rem; border-radius: 6px; color: #fff;
           font-weight: 600 }
.manipulated, .different { background: #c62f2f } .authentic, .equal { background: #2f855a }
.inconclusive { background: #627d98 }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: 0.3rem 0.6rem;
        border-bottom: 1px solid #d9e2ec; vertical-align: top }
td.n { font-variant-numeric: tabular-nums } img, svg { max-width: 100%; height: auto }
.note { background: #fffbea; border-left: 4px solid #f0b429; padding: 0.6rem 1rem }
code { background: #f0f4f8; padding: 0 0.25rem; word-break: break-all }
"""


@dataclass
class Section:
    """One heading of the page with, in this order, a paragraph, a drawing and a table.

    Attributes:
        title: the heading.
        text: plain text, escaped here.
        drawing: an ``<svg>`` or ``<img>`` element, put in as it is.
        header: column names of the table.
        rows: its cells, plain text.
    """

    title: str
    text: str = ""
    drawing: str = ""
    header: Sequence[str] = ()
    rows: List[Sequence[str]] = field(default_factory=list)


def picture(png: bytes, text: str) -> str:
    """An ``<img>`` element that carries a PNG within the page.

    Args:
        png: the encoded picture.
        text: what it shows, for those who cannot see it.
    """
    data = base64.b64encode(png).decode("ascii")
    return f'<img alt="{html.escape(text, quote=True)}" src="data:image/png;base64,{data}">'


def write_page(
    path: Path, title: str, verdict: Tuple[str, str], note: str, sections: Sequence[Section]
) -> None:
    """Writes the page, whole or not at all.

    Args:
        path: the HTML file.
        title: its heading.
        verdict: ``manipulated``, ``authentic``, ``inconclusive`` or another kind of answer, and a
            sentence beside it.
        note: what the result does not mean; shown first.
        sections: the rest.
    """
    kind, sentence = verdict
    parts = [
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n',
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n",
        f"<h1>{html.escape(title)}</h1>\n",
        f'<p><span class="verdict {html.escape(kind, quote=True)}">{html.escape(kind)}</span> ',
        f'{html.escape(sentence)}</p>\n<p class="note">{html.escape(note)}</p>\n',
    ]
    for section in sections:
        parts.append(f"<h2>{html.escape(section.title)}</h2>\n")
        if section.text:
            parts.append(f"<p>{html.escape(section.text)}</p>\n")
        if section.drawing:
            parts.append(section.drawing + "\n")
        if section.rows:
            parts.append(_table(section.header, section.rows))
    parts.append("</html>\n")
    with replacing(path) as temporary:
        temporary.write_text("".join(parts), encoding="utf-8")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f'<td class="n">{html.escape(cell)}</td>' for cell in row) + "</tr>\n"
        for row in rows
    )
    return f"<table>\n<tr>{head}</tr>\n{body}</table>\n" if head else f"<table>\n{body}</table>\n"
