"""A compiled model on disk: the graph, what its outputs mean, and the preprocessing it wants.

Everything about meaning is in ``manifest.json`` beside the ``.xmodel``; a model from elsewhere
has none, and then the roles of its outputs are deduced from their shapes.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ..compile.targets import DEFAULT_TARGET, Target, target_by_name
from ..compile.xir.graph import Graph, Op, Subgraph
from ..errors import FormatError, MismatchError, MissingError
from ..preprocessing import Preprocessing

MANIFEST = "manifest.json"
"""Name of the file beside a compiled model that says what it is."""

DEFAULT_BATCH = 8


@dataclass(frozen=True)
class Artifact:
    """A compiled model ready to be opened by a session.

    Attributes:
        path: the ``.xmodel``.
        graph: its content.
        preprocessing: how a picture becomes the input.
        input_op: name of the operator that stands for the input.
        mask: tensor name of the mask logits, ``[1, H, W, classes]``, int8 or float32.
        classifier: tensor name of the classifier output, ``[1, 1]``, float32 or int8.
        batch: pictures the target computes at once.
        target: the DPU's name, for people.
        manifest: the manifest's content, empty without one.
        reason: where roles and preprocessing come from, for people.
    """

    path: Path
    graph: Graph
    preprocessing: Preprocessing
    input_op: str
    mask: str
    classifier: str
    batch: int
    target: str
    manifest: Mapping[str, Any]
    reason: str


def load_artifact(path: Path, weights: Optional[Path] = None) -> Artifact:
    """Reads a compiled model and the manifest beside it.

    Args:
        path: an ``.xmodel`` written by ``deepfake-fpga compile`` or ``vai_c_xir``.
        weights: the quantized ``*_int.xmodel`` it was compiled from, where its constants are to be
            taken from there, by name, instead of from the compiled file.

    Raises:
        MissingError: there is no such file.
        FormatError: it is no xmodel, or the manifest is no JSON object.
        MismatchError: it is not compiled, the manifest or the weights do not fit it, or the roles
            of its outputs cannot be told.
    """
    from ..compile.xir.xmodel import read_xmodel

    path = Path(path)
    if not path.is_file():
        raise MissingError(
            "There is no compiled model", str(path), "deepfake-fpga compile writes one"
        )
    graph = read_xmodel(path)
    if weights is not None:
        from ..compile.constants import place_constants

        place_constants(graph, read_xmodel(weights))
    return artifact_of(graph, path, read_manifest(path.with_name(MANIFEST)))


def artifact_of(graph: Graph, path: Path, manifest: Optional[Mapping[str, Any]] = None) -> Artifact:
    """What ``load_artifact`` makes of a graph in memory.

    Args:
        graph: a compiled model.
        path: where it is from, for messages.
        manifest: the content of its manifest, if there is one.

    Raises:
        MismatchError: see ``load_artifact``.
    """
    dpu = graph.subgraphs("DPU")
    if not dpu:
        raise MismatchError(
            "The model is not compiled: it has no DPU subgraph",
            str(path),
            f"deepfake-fpga compile -x {path} -a 8pe_normal -o {path.parent} -n YNET",
        )
    manifest = dict(manifest or {})
    input_op = _input_op(graph, path)
    reason = []
    if manifest.get("preprocessing"):
        preprocessing = Preprocessing.from_json(_object(manifest, "preprocessing", path))
        reason.append("preprocessing from the manifest")
    else:
        shape = input_op.tensor.dims
        preprocessing = Preprocessing(height=shape[1], width=shape[2])
        reason.append("no manifest: standard preprocessing")
    _check_input(input_op, preprocessing, path)
    if manifest.get("outputs"):
        mask, classifier = _named_outputs(graph, _object(manifest, "outputs", path), path)
        reason.append("outputs by name from the manifest")
    else:
        mask, classifier = _outputs_by_shape(graph, preprocessing, path)
        reason.append("outputs told apart by shape")
    target = str(dpu[0].get("dpu_name", ""))
    return Artifact(
        path,
        graph,
        preprocessing,
        input_op.name,
        mask,
        classifier,
        batch_of(dpu[0]),
        target,
        manifest,
        "; ".join(reason),
    )


def batch_of(subgraph: Subgraph) -> int:
    """Pictures the target computes at once: the ``_<n>PE`` in its name, 8 where it has none.

    Nothing else in a compiled file states the batch; all its tensors have a first dimension of 1.
    """
    found = re.search(r"_(\d+)PE(?:_|$)", str(subgraph.get("dpu_name", "")))
    return int(found.group(1)) if found else DEFAULT_BATCH


def pace_target(artifact: Artifact) -> Target:
    """The build of the card whose pace a model is held to: its own, else the usual one."""
    target = target_by_name(artifact.target) or target_by_name(DEFAULT_TARGET)
    assert target is not None
    return target


def read_manifest(path: Path) -> Optional[Dict[str, Any]]:
    """The JSON object in ``path``, ``None`` where there is no such file.

    Raises:
        FormatError: it is not a JSON object.
    """
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise FormatError("The manifest is no JSON", f"{path}: {error}") from None
    if not isinstance(record, dict):
        raise FormatError("The manifest is no JSON object", str(path))
    return record


def output_ops(graph: Graph) -> List[Op]:
    """The model's outputs in the order of ``return_ops`` where that is recorded.

    Operators that nothing reads, constants left out.
    """
    tails = [op for op in graph.tail_ops() if not op.type.startswith(("const", "data"))]
    order = {str(name): at for at, name in enumerate(graph.get("return_ops", ()))}
    return sorted(tails, key=lambda op: min(_rank(order, op.name), _rank(order, op.tensor.name)))


def _rank(order: Mapping[str, int], name: str) -> int:
    # A trailing conversion to float appends one underscore to the name it converts.
    return min(order.get(name, len(order)), order.get(name.rstrip("_"), len(order)))


def _input_op(graph: Graph, path: Path) -> Op:
    found = [op for op in graph.ops.values() if op.type in ("data", "data-fix")]
    if len(found) != 1 or len(found[0].tensor.dims) != 4:
        raise MismatchError(
            "The model does not take one picture",
            f"{path}: inputs {[(op.name, list(op.tensor.dims)) for op in found]}",
        )
    return found[0]


def _check_input(op: Op, preprocessing: Preprocessing, path: Path) -> None:
    wanted = (preprocessing.height, preprocessing.width, 3)
    if tuple(op.tensor.dims[1:]) != wanted:
        raise MismatchError(
            "The model's input does not fit its preprocessing",
            f"{path}: input {op.name!r} is {list(op.tensor.dims)}, "
            f"preprocessing gives {[1, *wanted]} (NHWC)",
            "compile the model again, so that both are written together",
        )


def _named_outputs(graph: Graph, names: Mapping[str, Any], path: Path) -> Tuple[str, str]:
    found = {}
    for role in ("mask", "classifier"):
        name = names.get(role)
        if not isinstance(name, str) or graph.producer(name) is None:
            raise MismatchError(
                f"The manifest's output {role!r} is not in the model",
                f"{path}: {name!r}; outputs are {_listed(output_ops(graph))}",
                "compile the model again, so that both are written together",
            )
        found[role] = name
    return found["mask"], found["classifier"]


def _outputs_by_shape(graph: Graph, preprocessing: Preprocessing, path: Path) -> Tuple[str, str]:
    size = (preprocessing.height, preprocessing.width)
    outputs = output_ops(graph)
    masks = [op for op in outputs if _is_mask(op, size)]
    classifiers = [op for op in outputs if tuple(op.tensor.dims) == (1, 1)]
    if len(masks) != 1 or len(classifiers) != 1:
        raise MismatchError(
            "The model's outputs are not one mask and one classifier output",
            f"{path}: {_listed(outputs)}; wanted [1, {size[0]}, {size[1]}, classes] and [1, 1]",
            f"name them in {MANIFEST} beside the model: "
            '{"outputs": {"mask": "...", "classifier": "..."}}',
        )
    return masks[0].tensor.name, classifiers[0].tensor.name


def _is_mask(op: Op, size: Tuple[int, int]) -> bool:
    dims = op.tensor.dims
    return len(dims) == 4 and tuple(dims[1:3]) == size and dims[3] >= 2


def _listed(ops: List[Op]) -> str:
    return ", ".join(f"{op.tensor.name} {list(op.tensor.dims)}" for op in ops) or "none"


def _object(manifest: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
    value = manifest[key]
    if not isinstance(value, dict):
        raise MismatchError(
            f"{key!r} in the manifest is not an object", f"{path.with_name(MANIFEST)}: {value!r}"
        )
    return value
