"""A split as a page to be read: what each part holds, and why no face is in two of them."""

from __future__ import annotations

import html
from typing import Any, List, Mapping

MOST_ROWS = 500
"""Groups and left-out files shown; all stand in ``split.json``."""

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;width:100%;margin:1rem 0}
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #ddd;vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
code{font-size:85%;overflow-wrap:anywhere}
.good{border-left:.4rem solid #2a7;padding:.5rem 1rem;background:#f2faf6}
"""


def split_page(record: Mapping[str, Any]) -> str:
    """The page.

    Args:
        record: the content of ``split.json``.
    """
    parts = record["parts"]
    proof = record["proof"]
    names = " and ".join(parts) if len(parts) == 2 else ", ".join(parts)
    out: List[str] = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>Split</title>",
        f"<style>{_STYLE}</style>",
        f"<h1>{_text(names)}</h1>",
        f"<p>Divided from {_text(', '.join(record['sources']))}, seed {record['seed']}.</p>",
        "<div class=good><p><b>No two parts share a video, an original or a named person.</b> "
        f"{_text(proof['method'][0].upper() + proof['method'][1:])}.</p></div>",
        "<h2>What this rests on</h2><ul>",
        *(f"<li>{_text(line)}</li>" for line in proof["assumptions"]),
        "</ul><h2>Parts</h2><table><tr><th>part<th class=n>wanted<th class=n>got<th class=n>files"
        "<th class=n>videos<th class=n>groups<th>labels</tr>",
    ]
    for name, part in parts.items():
        labels = "; ".join(
            f"{label}: {count['files']} of {count['videos']} videos"
            for label, count in part["labels"].items()
        )
        out.append(
            f"<tr><td>{_text(name)}<td class=n>{part['wanted']:.1%}<td class=n>{part['got']:.1%}"
            f"<td class=n>{part['files']}<td class=n>{part['videos']}<td class=n>{part['groups']}"
            f"<td>{_text(labels)}</tr>"
        )
    out.append("</table><h2>Lists</h2><table><tr><th>list<th>SHA-256</tr>")
    for part in parts.values():
        out.append(f"<tr><td>{_text(part['list'])}<td><code>{part['sha256']}</code></tr>")
    out.append(
        "</table><h2>Groups that show the same faces</h2><table><tr><th>part<th>videos"
        "<th>tied by</tr>"
    )
    for group in record["groups"][:MOST_ROWS]:
        ties = [f"original {name}" for name in group["originals"]]
        ties += [f"person {name}" for name in group["identities"]]
        out.append(
            f"<tr><td>{_text(group['part'])}<td>{_text(', '.join(group['videos']))}"
            f"<td>{_text(', '.join(ties) or 'nothing: one video')}</tr>"
        )
    out.append("</table>" + _more(len(record["groups"])))
    left = record["left_out"]
    if left:
        out.append(f"<h2>Left out: {len(left)}</h2><table><tr><th>file<th>why</tr>")
        for name, why in list(left.items())[:MOST_ROWS]:
            out.append(f"<tr><td>{_text(name)}<td>{_text(why)}</tr>")
        out.append("</table>" + _more(len(left)))
    out.append("</html>\n")
    return "\n".join(out)


def _more(count: int) -> str:
    return f"<p>and {count - MOST_ROWS} more in split.json</p>" if count > MOST_ROWS else ""


def _text(text: str) -> str:
    return html.escape(str(text))
