"""The picture of a network: an SVG with one box per operator, from the inputs down.

Constants are left out, and so is a ``fix`` that alone follows an operator: its fix point is
written into that operator's box. Rows are layers (the longest way from an input); connections to
the next row are drawn directly, longer ones (the skips of a U-Net) in lanes on the right.
"""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import Dict, List, Optional, Set, Tuple

from .xir import Graph, Op
from .xir.diff import attr_text, shape_text, without_trace_label

_BOX_WIDTH = 250
_BOX_HEIGHT = 50
_COLUMN = _BOX_WIDTH + 28
_ROW = _BOX_HEIGHT + 34
_LANE = 14
_MARGIN = 24
_HEAD = 84

# Fill and stroke; distinguishable also without red-green vision and in print.
_COLOURS: Dict[str, Tuple[str, str]] = {
    "USER": ("#eef2f6", "#627d98"),
    "DPU": ("#d7ebff", "#1864ab"),
    "CPU": ("#fff0d6", "#c2700a"),
    "": ("#f4f1fa", "#6b5b95"),
}
_LEGEND = {"USER": "given by the user", "DPU": "on the DPU", "CPU": "on the CPU"}


@dataclass
class _Box:
    """One drawn operator, with a ``fix`` merged into it where there is one.

    Attributes:
        sources: boxes it reads, each once, in argument order.
        row: layer, 0 at the top.
        x: left edge.
    """

    op: Op
    result: Op
    device: str
    subgraph: int
    sources: List[_Box] = field(default_factory=list)
    users: List[_Box] = field(default_factory=list)
    row: int = 0
    x: float = 0.0

    @property
    def centre(self) -> float:
        return self.x + _BOX_WIDTH / 2

    @property
    def top(self) -> float:
        return _HEAD + _MARGIN + self.row * _ROW


def svg(graph: Graph) -> str:
    """An SVG document that shows ``graph``; devices by colour, subgraphs by number."""
    boxes = _boxes(graph)
    rows = _rows(boxes)
    _place(rows)
    right = max([box.x + _BOX_WIDTH for box in boxes], default=_BOX_WIDTH)
    edges, width = _edges(boxes, right)
    width = max(width + _MARGIN, 480)
    height = _HEAD + 2 * _MARGIN + len(rows) * _ROW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" '
        f'viewBox="0 0 {width:.0f} {height}" font-family="DejaVu Sans, Arial, sans-serif">',
        f"<title>{_escape(graph.name)}</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0,0.5 L8,4 L0,7.5 z" fill="#52606d"/></marker>'
        "</defs>",
        f'<rect width="{width:.0f}" height="{height}" fill="#ffffff"/>',
        *_header(graph, boxes),
        '<g fill="none" stroke="#52606d" stroke-width="1.3">',
        *edges,
        "</g>",
        *(_drawn(box, graph.name) for box in boxes),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


# ---------------------------------------------------------------- what is drawn


def _boxes(graph: Graph) -> List[_Box]:
    hidden = _constants(graph)
    consumers = graph.consumers()
    numbers: Dict[str, int] = {}
    devices: Dict[str, str] = {}
    for number, child in enumerate(graph.root.children, 1):
        for name in child.all_ops():
            numbers[name] = number
            devices[name] = child.device or ""
    made_by: Dict[str, _Box] = {}
    boxes: List[_Box] = []
    for op in graph.ops.values():
        if op.name in hidden or op.name in made_by:
            continue
        users = consumers[op.name]
        merged = len(users) == 1 and users[0].type == "fix" and op.type != "fix"
        result = users[0] if merged else op
        box = _Box(op, result, devices.get(op.name, ""), numbers.get(op.name, 0))
        made_by[op.name] = made_by[result.name] = box
        boxes.append(box)
    for box in boxes:
        for name in box.op.input_names:
            source = made_by.get(name)
            if source is not None and source is not box and source not in box.sources:
                box.sources.append(source)
                source.users.append(box)
    return boxes


def _constants(graph: Graph) -> Set[str]:
    """Operators whose value is fixed: constants and whatever is computed from them alone."""
    fixed: Set[str] = set()
    for op in graph.ops.values():
        names = op.input_names
        if op.type in ("const", "const-fix") or (names and all(n in fixed for n in names)):
            fixed.add(op.name)
    return fixed


# ---------------------------------------------------------------- where it goes


def _rows(boxes: List[_Box]) -> List[List[_Box]]:
    """Assigns rows; a box without sources stands directly above its first user."""
    for box in boxes:
        box.row = max([source.row + 1 for source in box.sources], default=0)
    for box in boxes:
        if not box.sources and box.users:
            box.row = max(0, min(user.row for user in box.users) - 1)
    rows: List[List[_Box]] = [[] for _ in range(max([b.row for b in boxes], default=-1) + 1)]
    for box in boxes:
        rows[box.row].append(box)
    for _ in range(4):
        for row in rows:
            row.sort(key=lambda box: _mean([rows[s.row].index(s) for s in box.sources]))
    return rows


def _place(rows: List[List[_Box]]) -> None:
    """Sets ``x``: under the mean of the neighbours, as far as the row has room."""
    for row in rows:
        for index, box in enumerate(row):
            box.x = index * _COLUMN
    for step in range(8):
        down = step % 2 == 0
        for row in rows if down else reversed(rows):
            wishes = []
            for box in row:
                near = box.sources if down else box.users
                near = [n for n in near if abs(n.row - box.row) == 1]
                wishes.append(_mean([n.x for n in near]) if near else box.x)
            _spread(row, wishes)
    left = min((box.x for row in rows for box in row), default=0.0)
    for row in rows:
        for box in row:
            box.x += _MARGIN - left


def _spread(row: List[_Box], wishes: List[float]) -> None:
    """Puts boxes at their wishes, pushed apart in their order around the mean push."""
    placed: List[float] = []
    for wish in wishes:
        placed.append(max(wish, placed[-1] + _COLUMN) if placed else wish)
    shift = _mean([p - w for p, w in zip(placed, wishes)])
    for box, x in zip(row, placed):
        box.x = x - shift


def _mean(values: List[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _edges(boxes: List[_Box], right: float) -> Tuple[List[str], float]:
    """Paths of all connections, and the right edge of the lanes."""
    paths: List[str] = []
    long: List[Tuple[_Box, _Box]] = []
    for box in boxes:
        for source in box.sources:
            if box.row - source.row == 1:
                x, y = source.centre, source.top + _BOX_HEIGHT
                middle = (y + box.top) / 2
                paths.append(
                    f'<path d="M{x:.1f},{y} C{x:.1f},{middle} {box.centre:.1f},{middle} '
                    f'{box.centre:.1f},{box.top - 1}" marker-end="url(#tip)"/>'
                )
            else:
                long.append((source, box))
    # The shortest take the inner lanes, so that nested skips do not cross.
    long.sort(key=lambda edge: edge[1].row - edge[0].row)
    lanes: List[List[Tuple[int, int]]] = []
    for source, box in long:
        span = (source.row, box.row)
        lane = next(
            (
                i
                for i, used in enumerate(lanes)
                if all(b <= span[0] or a >= span[1] for a, b in used)
            ),
            len(lanes),
        )
        if lane == len(lanes):
            lanes.append([])
        lanes[lane].append(span)
        paths.append(_lane_path(source, box, right + _LANE * (lane + 1.5), lane))
    return paths, right + _LANE * (len(lanes) + 1)


def _lane_path(source: _Box, box: _Box, x: float, lane: int) -> str:
    """Out at the bottom, through the gap between rows, along the lane, in at the top."""
    nudge = 3 * (lane % 4)
    start, end = source.centre + 24 + nudge, box.centre + 24 + nudge
    out, back = source.top + _BOX_HEIGHT + 8 + nudge, box.top - 8 - nudge
    r = 6
    return (
        f'<path stroke-dasharray="5 3" d="M{start:.1f},{source.top + _BOX_HEIGHT} V{out - r} '
        f"Q{start:.1f},{out} {start + r:.1f},{out} H{x - r:.1f} Q{x:.1f},{out} {x:.1f},{out + r} "
        f"V{back - r} Q{x:.1f},{back} {x - r:.1f},{back} H{end + r:.1f} "
        f'Q{end:.1f},{back} {end:.1f},{box.top - 1}" marker-end="url(#tip)"/>'
    )


# ---------------------------------------------------------------- how it looks


def _header(graph: Graph, boxes: List[_Box]) -> List[str]:
    counts: Dict[str, int] = {}
    for box in boxes:
        counts[box.device] = counts.get(box.device, 0) + 1
    parts = [
        f'<text x="{_MARGIN}" y="34" font-size="18" font-weight="bold" fill="#1f2933">'
        f"{_escape(graph.name)}</text>"
    ]
    x = float(_MARGIN)
    for device, count in sorted(counts.items()):
        fill, stroke = _COLOURS.get(device, _COLOURS[""])
        label = _LEGEND.get(device, device or "not compiled: no device yet")
        label = f"{label} ({count})"
        parts.append(
            f'<rect x="{x:.0f}" y="50" width="14" height="14" rx="3" fill="{fill}" '
            f'stroke="{stroke}"/><text x="{x + 20:.0f}" y="61.5" font-size="12" '
            f'fill="#1f2933">{_escape(label)}</text>'
        )
        x += 20 + 7 * len(label) + 18
    if any(box.subgraph for box in boxes):
        parts.append(
            f'<text x="{_MARGIN}" y="82" font-size="10" fill="#627d98">'
            "the number in a corner is that of the subgraph</text>"
        )
    return parts


def _drawn(box: _Box, network: str) -> str:
    fill, stroke = _COLOURS.get(box.device, _COLOURS[""])
    x, y, middle = box.x, box.top, box.centre
    title = box.op.type + _geometry(box.op)
    second = " ".join(filter(None, [shape_text(box.result.tensor.dims), _number_form(box)]))
    badge = ""
    if box.subgraph:
        badge = (
            f'<text x="{x + _BOX_WIDTH - 6:.1f}" y="{y + 12}" font-size="9" text-anchor="end" '
            f'fill="{stroke}">{box.subgraph}</text>'
        )
    return (
        f"<g><title>{_escape(_tooltip(box))}</title>"
        f'<rect x="{x:.1f}" y="{y}" width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}" rx="6" '
        f'fill="{fill}" stroke="{stroke}" stroke-width="1.2"/>{badge}'
        f'<text x="{middle:.1f}" y="{y + 16}" font-size="12" font-weight="bold" '
        f'text-anchor="middle" fill="#102a43">{_escape(title)}</text>'
        f'<text x="{middle:.1f}" y="{y + 30}" font-size="11" text-anchor="middle" '
        f'fill="#243b53">{_escape(second)}</text>'
        f'<text x="{middle:.1f}" y="{y + 43}" font-size="9" text-anchor="middle" '
        f'fill="#829ab1">{_escape(_short(box, network))}</text></g>'
    )


def sides(op: Op, key: str) -> str:
    """Attribute ``key`` as height x width (the file has the width first), or nothing."""
    attr = op.attrs.get(key)
    if attr is None or not isinstance(attr.value, tuple) or len(attr.value) != 2:
        return ""
    return f"{attr.value[1]}x{attr.value[0]}"


def _geometry(op: Op) -> str:
    """Kernel, stride where not 1, and activation: `` 3x3 /2 RELU``."""
    kernel, stride = sides(op, "kernel"), sides(op, "stride")
    text = f" {kernel}" if kernel else ""
    if stride not in ("", "1x1"):
        high, _, wide = stride.partition("x")
        text += f" /{high}" if high == wide else f" /{stride}"
    nonlinear = op.get("nonlinear", "NONE")
    return text if nonlinear in ("", "NONE") else f"{text} {nonlinear}"


def _number_form(box: _Box) -> str:
    tensor = box.result.tensor
    point: Optional[int] = tensor.fix_point
    if point is None and box.result.type in ("fix", "float2fix"):
        point = box.result.get("fix_point")
    return tensor.type_name if point is None else f"{tensor.type_name} fix {point}"


def _short(box: _Box, network: str, length: int = 44) -> str:
    """The module path in an exported name (``down1.maxpool_conv.0``), or the name itself.

    The quantizer joins class and attribute of every module on the way: ``Net__Net_Down_down1__``
    ``MaxPool2d_0__4532`` is module ``down1.0`` of ``Net``.
    """
    name = box.op.name
    bare = without_trace_label(name).partition("__#")[0]
    start = f"{network}__{network}_"
    if bare.startswith(start) and bare != without_trace_label(name):
        parts = bare[len(start) :].split("__")
        name = ".".join(part.partition("_")[2] or part for part in parts)
    elif name.startswith(network + "__"):
        name = name[len(network) + 2 :]
    return name if len(name) <= length else "…" + name[-length + 1 :]


def _tooltip(box: _Box) -> str:
    lines = [f"{box.op.type} {box.op.name}", f"tensor {box.result.tensor.name}"]
    lines += [f"{key}: {attr_text(attr)}" for key, attr in sorted(box.op.attrs.items())]
    if box.result is not box.op:
        lines.append(f"fix {box.result.name}: fix point {box.result.get('fix_point')}")
    return "\n".join(lines)


def _escape(text: str) -> str:
    clean = "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
    return html.escape(clean, quote=True)
