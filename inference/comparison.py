"""How two sides differ: tensor by tensor in codes, the first operator that diverges, the verdicts.

Differences are counted in codes: in steps of the coarser of two fixed-point grids, of the one grid
where the other side is float, and in 127ths of the largest value where both are.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from ..errors import MismatchError
from ..quantize.metrics import iou
from .cpu_operators import sigmoid
from .session import first_largest
from .sides import Side, Value
from .wiring import Wiring, align

_NOT_FINITE = 2.0**63
REACH = 255
"""Differences beyond so many codes share the last place of a histogram."""


@dataclass(frozen=True)
class TensorResult:
    """One tensor over all batches.

    Attributes:
        name: common name, as the first side calls it.
        other: as the second calls it.
        type: of the operator that makes it; empty where no wiring is known.
        shape: of one picture.
        fix_points: of both sides, ``None`` for float values.
        values: how many were compared.
        different: how many are not equal.
        largest: largest difference, in codes.
        mean: mean absolute difference over all values, in codes.
        histogram: ``(difference rounded to whole codes, count)``, second minus first, no zeros
            counts.
        tolerated: whether the largest difference is within what the user allows.
    """

    name: str
    other: str
    type: str
    shape: Tuple[int, ...]
    fix_points: Tuple[Optional[int], Optional[int]]
    values: int
    different: int
    largest: float
    mean: float
    histogram: Tuple[Tuple[int, int], ...]
    tolerated: bool

    @property
    def equal(self) -> bool:
        """Whether every value is equal."""
        return not self.different


@dataclass(frozen=True)
class Divergence:
    """The first operator in topological order whose tensor differs.

    Attributes:
        tensor: its name.
        operators: types of the operators that make it from its inputs.
        inputs: the compared tensors it is made from, and whether each is equal.
        constants: the parameters it reads, and whether each is equal; ``None`` where one side's
            cannot be read.
        conclusion: what follows, in words.
    """

    tensor: str
    operators: Tuple[str, ...]
    inputs: Tuple[Tuple[str, bool], ...]
    constants: Tuple[Tuple[str, Optional[bool]], ...]
    conclusion: str


@dataclass(frozen=True)
class Verdicts:
    """What the differences come to for the two heads.

    Attributes:
        images: pictures judged.
        flips: pictures on which the two verdicts differ.
        flipped: their names.
        largest_change: largest difference of the fake probabilities.
        mean_iou, smallest_iou: of the two sides' masks; 1 where both are empty.
        pixels: share of mask pixels that differ.
        accuracy: of both sides, where labels are known.
    """

    images: int
    flips: int
    flipped: Tuple[str, ...]
    largest_change: float
    mean_iou: float
    smallest_iou: float
    pixels: float
    accuracy: Optional[Tuple[float, float]]


@dataclass(frozen=True)
class Parity:
    """The comparison of two sides.

    Attributes:
        sides: what was compared: ``text``, ``kind`` and ``about`` of each.
        stimulus: what they were fed, in words.
        images: how many pictures, or batches of codes.
        tolerance: largest difference taken for equal, in codes.
        tensors: in topological order.
        alone: tensors that only one side has, per side.
        divergence: the first that differs by more than the tolerance.
        constants: names of parameters that differ.
        verdicts: of the two heads; ``None`` where the model has none.
        notes: what a person should know.
    """

    sides: Tuple[Dict[str, str], Dict[str, str]]
    stimulus: str
    images: int
    tolerance: float
    tensors: Tuple[TensorResult, ...]
    alone: Tuple[Tuple[str, ...], Tuple[str, ...]]
    divergence: Optional[Divergence]
    constants: Tuple[str, ...]
    verdicts: Optional[Verdicts]
    notes: Tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        """Whether every tensor compared is equal, within the tolerance."""
        return all(tensor.tolerated for tensor in self.tensors)

    def to_json(self) -> Dict[str, Any]:
        """A JSON object for people and scripts."""
        record = asdict(self)
        for tensor, result in zip(record["tensors"], self.tensors):
            tensor["equal"] = result.equal
        return {"equal": self.equal, **record}


@dataclass
class _Sums:
    """Running sums of one tensor."""

    values: int = 0
    different: int = 0
    largest: float = 0.0
    total: float = 0.0
    shape: Tuple[int, ...] = ()
    fix_points: Tuple[Optional[int], Optional[int]] = (None, None)
    histogram: np.ndarray = field(default_factory=lambda: np.zeros(2 * REACH + 1, np.int64))

    def add(self, name: str, left: Value, right: Value) -> None:
        self.fix_points = (left.fix_point, right.fix_point)
        self.shape = tuple(left.array.shape[1:])
        if left.array.size != right.array.size:
            raise MismatchError(
                f"Tensor {name!r} has two shapes",
                f"{list(left.array.shape)} and {list(right.array.shape)}",
                "compare models of one network",
            )
        self.values += left.array.size
        if left.fix_point == right.fix_point and left.fix_point is not None:
            mine, theirs = left.array.reshape(-1), right.array.reshape(-1)
            if np.array_equal(mine, theirs):
                self.histogram[REACH] += mine.size
                return
            codes = (theirs.astype(np.int16) - mine).astype(np.float64)
        else:
            codes = (right.real.reshape(-1) - left.real.reshape(-1)) * _steps(left, right)
        codes = np.where(np.isfinite(codes), codes, _NOT_FINITE)
        distance = np.abs(codes)
        self.different += int(np.count_nonzero(codes))
        self.largest = max(self.largest, float(distance.max()) if codes.size else 0.0)
        self.total += float(distance.sum())
        places = np.clip(np.rint(np.clip(codes, -REACH, REACH)), -REACH, REACH).astype(np.int64)
        self.histogram += np.bincount(places + REACH, minlength=2 * REACH + 1)


class Comparison:
    """Collects what two sides gave, batch after batch.

    Args:
        left: the first side.
        right: the second.
        tolerance: largest difference taken for equal, in codes.
        threshold: fake probability from which a verdict is FAKE.
    """

    def __init__(
        self, left: Side, right: Side, tolerance: float = 0.0, threshold: float = 0.5
    ) -> None:
        self.left, self.right = left, right
        self.tolerance, self.threshold = tolerance, threshold
        self._sums: Dict[str, _Sums] = {}
        self._pairs: Dict[str, str] = {}
        self._alone: Tuple[Tuple[str, ...], Tuple[str, ...]] = ((), ())
        self._fakes: List[Tuple[float, float]] = []
        self._ious: List[float] = []
        self._pixels = [0, 0]
        self._names: List[str] = []
        self._labels: List[int] = []
        self._roles = self._find_roles()

    def add(
        self,
        left: Mapping[str, Value],
        right: Mapping[str, Value],
        names: Sequence[str] = (),
        labels: Sequence[int] = (),
    ) -> None:
        """Takes what both sides gave for one batch.

        Args:
            left: by common name.
            right: by common name.
            names: of the pictures.
            labels: 1 = REAL, 0 = FAKE, -1 = not known.

        Raises:
            MismatchError: the sides have no tensor in common, or one of two shapes.
        """
        if not self._pairs:
            self._pairs = align(self._ordered(self.left, left), self._ordered(self.right, right))
            if not self._pairs:
                raise MismatchError(
                    "The two sides have no tensor in common",
                    f"{self.left.text}: {_few(left)}; {self.right.text}: {_few(right)}",
                    "compare models of one network",
                )
            partners = set(self._pairs.values())
            self._alone = (
                tuple(name for name in left if name not in self._pairs),
                tuple(name for name in right if name not in partners),
            )
        for name, other in self._pairs.items():
            if name in left and other in right:
                self._sums.setdefault(name, _Sums()).add(name, left[name], right[other])
        self._judge(left, right, names, labels)

    def result(self, stimulus: str, images: int, notes: Iterable[str] = ()) -> Parity:
        """The comparison so far."""
        wiring = self.left.wiring or self.right.wiring
        mine = self.left.wiring is not None
        types = {} if wiring is None else {s.tensor: s.type for s in _makers(wiring)}
        tensors = tuple(
            TensorResult(
                name,
                self._pairs[name],
                str(types.get(name if mine else self._pairs[name], "")),
                sums.shape,
                sums.fix_points,
                sums.values,
                sums.different,
                sums.largest,
                sums.total / max(sums.values, 1),
                tuple(
                    (int(at) - REACH, int(sums.histogram[at])) for at in sums.histogram.nonzero()[0]
                ),
                sums.largest <= self.tolerance,
            )
            for name, sums in self._sums.items()
        )
        constants = self._constants()
        return Parity(
            (_described(self.left), _described(self.right)),
            stimulus,
            images,
            self.tolerance,
            tensors,
            self._alone,
            self._divergence(tensors, constants),
            tuple(name for name, equal in constants.items() if not equal),
            self._verdicts(),
            tuple(notes),
        )

    def _ordered(self, side: Side, values: Mapping[str, Value]) -> List[str]:
        wiring = side.wiring or self.left.wiring or self.right.wiring
        order = [] if wiring is None else wiring.tensors
        known = [name for name in order if name in values]
        return known + [name for name in values if name not in set(order)]

    def _find_roles(self) -> Tuple[Optional[Tuple[str, str]], Optional[Tuple[str, str]]]:
        """Names of mask and classifier on both sides; a recording has its partner's."""
        found: List[Optional[Tuple[str, str]]] = []
        for side, other in ((self.left, self.right), (self.right, self.left)):
            wiring = side.wiring or other.wiring
            if wiring is None or wiring.mask is None or wiring.classifier is None:
                found.append(None)
            else:
                found.append((wiring.mask, wiring.classifier))
        return found[0], found[1]

    def _judge(
        self,
        left: Mapping[str, Value],
        right: Mapping[str, Value],
        names: Sequence[str],
        labels: Sequence[int],
    ) -> None:
        answers = []
        for values, roles in ((left, self._roles[0]), (right, self._roles[1])):
            if roles is None or roles[0] not in values or roles[1] not in values:
                return
            mask = first_largest(values[roles[0]].array)
            real = sigmoid(values[roles[1]].real.reshape(-1).astype(np.float32))
            answers.append((mask, 1.0 - real.astype(np.float64)))
        (masks, fakes), (other_masks, other_fakes) = answers
        for at, (mask, other) in enumerate(zip(masks, other_masks)):
            self._fakes.append((float(fakes[at]), float(other_fakes[at])))
            empty = not mask.any() and not other.any()
            self._ious.append(1.0 if empty else iou(mask == 1, other == 1))
            self._pixels[0] += int(np.count_nonzero(mask != other))
            self._pixels[1] += mask.size
            self._names.append(names[at] if at < len(names) else f"picture {len(self._names)}")
            self._labels.append(int(labels[at]) if at < len(labels) else -1)

    def _verdicts(self) -> Optional[Verdicts]:
        if not self._fakes:
            return None
        fakes = np.array(self._fakes)
        verdicts = fakes >= self.threshold
        flips = np.flatnonzero(verdicts[:, 0] != verdicts[:, 1])
        labels = np.array(self._labels)
        known = labels >= 0
        accuracy = None
        if known.any():
            right = verdicts[known] == (labels[known] == 0)[:, None]
            accuracy = (float(right[:, 0].mean()), float(right[:, 1].mean()))
        return Verdicts(
            len(fakes),
            len(flips),
            tuple(self._names[at] for at in flips),
            float(np.abs(fakes[:, 0] - fakes[:, 1]).max()),
            float(np.mean(self._ious)),
            float(np.min(self._ious)),
            self._pixels[0] / max(self._pixels[1], 1),
            accuracy,
        )

    def _constants(self) -> Dict[str, bool]:
        """Parameters both sides have, and whether they are equal."""
        mine, theirs = self.left.constants, self.right.constants
        return {
            name: np.array_equal(mine[name].reshape(-1), theirs[name].reshape(-1))
            for name in mine
            if name in theirs
        }

    def _divergence(
        self, tensors: Sequence[TensorResult], constants: Mapping[str, bool]
    ) -> Optional[Divergence]:
        first = next((tensor for tensor in tensors if not tensor.tolerated), None)
        if first is None:
            return None
        wiring, name = self.left.wiring, first.name
        known = {tensor.name: tensor.tolerated for tensor in tensors}
        if wiring is None:
            wiring, name = self.right.wiring, first.other
            known = {tensor.other: tensor.tolerated for tensor in tensors}
        if wiring is None:
            return Divergence(first.name, (), (), (), "the operators of neither side are known")
        sources, read, operators = wiring.before(name, known)
        inputs = tuple((source, known[source]) for source in sources)
        parameters = tuple((constant, constants.get(constant)) for constant in read)
        return Divergence(
            first.name, tuple(operators), inputs, parameters, _conclusion(first, inputs, parameters)
        )


def _conclusion(
    tensor: TensorResult,
    inputs: Sequence[Tuple[str, bool]],
    constants: Sequence[Tuple[str, Optional[bool]]],
) -> str:
    wrong = [name for name, equal in constants if equal is False]
    rounded = None in tensor.fix_points and tensor.fix_points != (None, None)
    if not inputs and rounded:
        return "it is the input: here the rounding to codes begins"
    if not inputs:
        return "it has no compared input: the two sides were not fed alike"
    if not all(equal for _, equal in inputs):
        return "an input differs already; it comes later in the order of the operators"
    if wrong:
        return f"its inputs are equal, its parameters are not: {', '.join(wrong)}"
    if tensor.fix_points[0] != tensor.fix_points[1] and None not in tensor.fix_points:
        return (
            "its inputs are equal, the tensor is kept at another fix point: "
            f"{tensor.fix_points[0]} and {tensor.fix_points[1]}"
        )
    if any(equal is None for _, equal in constants):
        return "its inputs are equal: the operator is computed otherwise, or its parameters differ"
    if rounded:
        return "its inputs are equal: here the rounding to codes begins"
    return "its inputs and parameters are equal: the operator itself is computed otherwise"


def _steps(left: Value, right: Value) -> float:
    """Codes per unit of value."""
    known = [value.fix_point for value in (left, right) if value.fix_point is not None]
    if known:
        return float(2.0 ** min(known))
    largest = float(np.abs(left.array).max()) if left.array.size else 0.0
    return 127.0 / largest if np.isfinite(largest) and largest > 0 else 1.0


def _makers(wiring: Wiring) -> Iterable[Any]:
    """The steps that make tensors, the type of a ``fix`` replaced by what it rounds."""
    by_name = {step.name: step for step in wiring.steps}
    seen = set()
    for step in wiring.steps:
        if step.tensor is None or step.tensor in seen:
            continue
        seen.add(step.tensor)
        maker = step
        while (
            maker.type in ("fix", "relu") and maker.reads and by_name[maker.reads[0]].tensor is None
        ):
            maker = by_name[maker.reads[0]]
        yield _Maker(step.tensor, maker.type)


@dataclass(frozen=True)
class _Maker:
    tensor: str
    type: str


def _described(side: Side) -> Dict[str, str]:
    return {"text": side.text, "kind": side.kind, "about": side.about}


def _few(values: Mapping[str, Value]) -> str:
    names = list(values)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
