"""The DPUCVDX8H parameter blob: where every int8 weight and bias of a layer stands in ``REG_0``.

The vendor does not document the layout. It was found by comparing genuine compiled models with
their quantized source (1x1 to 4x4 kernels, up to 192 input and 64 output channels). Two points
are inferred, no sample shows them: blocks of outputs beyond 64, and the order of kernel
positions against input groups where there are several of both; nor can the packing of kernel rows
into channels be checked value by value. A model of the vendor's that needs one of these is not
computed with. Depthwise weights of genuine models are not readable; in our own they stand in plain
order.
"""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np

from ..errors import FormatError, UnsupportedError
from .targets import CHANNEL_PARALLEL, OUTPUT_PARALLEL
from .xir.graph import Graph, Op, Subgraph

SIMULATED_STAMP = "deepfake-fpga."
"""How the key of our own entry in ``libs_info`` begins."""

PROVEN_CHANNELS = 64
"""Up to here the genuine samples reach, in the two ways ``unproven_layout`` names."""

WEIGHTS_HINT = (
    "add --weights UYNet_int.xmodel, the quantized file it was compiled from: its constants are "
    "taken by name"
)
"""What to do where the constants of a compiled model cannot be read."""

_PAIR_ORDER = np.array([0, 2, 1, 3, 4, 6, 5, 7])
"""Within 16 outputs, the place of each pair of neighbours."""

Shape = Tuple[int, ...]


def is_simulated(graph: Graph) -> bool:
    """Whether our own compiler made ``graph``, so that it holds no instructions for a card."""
    libs = graph.get("libs_info") or {}
    return any(str(key).startswith(SIMULATED_STAMP) for key in libs)


def weight_bytes(shape: Sequence[int], augmented: bool = False) -> int:
    """Bytes the weights of one convolution take in the blob, padding included.

    Args:
        shape: ``[out, kh, kw, in]``.
        augmented: kernel rows are packed into the channel axis.
    """
    out, height, width, channels = _effective(shape, augmented)
    return _round_up(out, OUTPUT_PARALLEL) * height * width * _round_up(channels, CHANNEL_PARALLEL)


def bias_bytes(count: int) -> int:
    """Bytes the biases of one layer take in the blob, padding included."""
    return _round_up(count, OUTPUT_PARALLEL)


def pack_weights(weights: np.ndarray, augmented: bool = False) -> bytes:
    """Puts the weights of one convolution in the engine's order.

    Args:
        weights: int8 ``[out, kh, kw, in]``; transposed convolutions in XIR's orientation.
        augmented: pack kernel rows into the channel axis (first layers with few channels).

    Returns:
        ``weight_bytes(weights.shape, augmented)`` bytes.
    """
    block = np.zeros(weight_bytes(weights.shape, augmented), np.int8)
    block[_weight_offsets(weights.shape, augmented)] = weights
    return block.tobytes()


def unpack_weights(block: bytes, shape: Sequence[int], augmented: bool = False) -> np.ndarray:
    """The weights of one convolution from the engine's order; undoes ``pack_weights``.

    Returns:
        int8 ``[out, kh, kw, in]``.
    """
    values: np.ndarray = np.frombuffer(block, np.int8)[_weight_offsets(shape, augmented)]
    return values


def pack_bias(bias: np.ndarray) -> bytes:
    """Puts the biases of one layer (int8 ``[out]``) in the engine's order."""
    block = np.zeros(bias_bytes(bias.size), np.int8)
    block[_bias_offsets(bias.size)] = bias
    return block.tobytes()


def unpack_bias(block: bytes, count: int) -> np.ndarray:
    """The biases of one layer, int8 ``[count]``; undoes ``pack_bias``."""
    values: np.ndarray = np.frombuffer(block, np.int8)[_bias_offsets(count)]
    return values


def constant_bytes(consumer: Op, shape: Sequence[int]) -> int:
    """Bytes the constant of ``shape`` that ``consumer`` reads takes in the blob."""
    if len(shape) == 1:
        return bias_bytes(shape[0])
    if is_plain(consumer):
        return _round_up(int(np.prod(shape)), OUTPUT_PARALLEL)
    return weight_bytes(shape, is_augmented(consumer))


def pack_constant(consumer: Op, values: np.ndarray) -> bytes:
    """The blob's bytes for one constant, by the operator that reads it.

    Args:
        consumer: a ``*-fix`` convolution.
        values: int8, its weights (rank 4) or biases (rank 1).
    """
    if values.ndim == 1:
        return pack_bias(values)
    if is_plain(consumer):
        return values.tobytes().ljust(constant_bytes(consumer, values.shape), b"\0")
    return pack_weights(values, is_augmented(consumer))


def unpack_constant(consumer: Op, block: bytes, shape: Sequence[int]) -> np.ndarray:
    """The constant of ``shape`` that ``consumer`` reads, int8; undoes ``pack_constant``."""
    if len(shape) == 1:
        return unpack_bias(block, shape[0])
    if is_plain(consumer):
        values: np.ndarray = np.frombuffer(block, np.int8)[: int(np.prod(shape))]
        return values.reshape(tuple(shape))
    return unpack_weights(block, shape, is_augmented(consumer))


def is_augmented(consumer: Op) -> bool:
    """Whether the kernel rows of this convolution are packed into its channel axis."""
    return bool(consumer.get("channel_augmentation", 0))


def is_plain(consumer: Op) -> bool:
    """Whether the weights of this operator keep their plain order in our own models."""
    return "depthwise" in consumer.type


def unproven_layout(consumer: Op, shape: Sequence[int]) -> Optional[str]:
    """Why the place of each value of a constant is not established for the vendor's files.

    Args:
        consumer: the convolution that reads it.
        shape: of its weights ``[out, kh, kw, in]`` or its biases ``[out]``.

    Returns:
        A phrase, or ``None`` where genuine files were compared with their source.
    """
    if shape[0] > PROVEN_CHANNELS and not is_plain(consumer):
        return f"more than {PROVEN_CHANNELS} output channels"
    if len(shape) == 1:
        return None
    if is_plain(consumer):
        return "depthwise weights"
    if is_augmented(consumer):
        return "kernel rows packed into channels (channel_augmentation)"
    if shape[1] * shape[2] > 1 and shape[3] > PROVEN_CHANNELS:
        return f"a kernel above 1x1 with more than {PROVEN_CHANNELS} input channels"
    return None


def constant_arrays(
    graph: Graph, subgraph: Optional[Subgraph] = None, inferred: bool = False
) -> Dict[str, np.ndarray]:
    """Every ``const-fix`` of a compiled graph, wherever its bytes stand.

    Args:
        graph: compiled by us or by the vendor, for DPUCVDX8H (blob) or DPUCZDX8G (inline).
        subgraph: only those that its operators read.
        inferred: read the vendor's constants also where their order is inferred, not established;
            good for looking at, not for computing.

    Returns:
        Operator name to int8 array of the tensor's shape.

    Raises:
        UnsupportedError: the constants of another DPU, whose order is not known, or of a layer
            whose order no genuine sample shows.
        FormatError: a constant has neither bytes nor a place in a blob.
    """
    consumers = graph.consumers()
    wanted = [op for op in graph.ops.values() if op.type == "const-fix"]
    if subgraph is not None:
        read = {name for member in subgraph.all_ops() for name in graph.op(member).input_names}
        wanted = [op for op in wanted if op.name in read]
    homes: Dict[str, Subgraph] = {
        name: child for child in graph.subgraphs("DPU") for name in child.all_ops()
    }
    if not inferred and not is_simulated(graph):
        _refuse_unproven(wanted, consumers, homes)
    arrays: Dict[str, np.ndarray] = {}
    for op in wanted:
        try:
            arrays[op.name] = _array(graph, op, consumers[op.name], homes.get(op.name))
        except (TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
            raise FormatError(
                f"Constant {op.name!r} cannot be read",
                f"{type(error).__name__}: {error}",
                "the file is damaged or was changed: compile again, or " + WEIGHTS_HINT,
            ) from error
    return arrays


def _refuse_unproven(
    constants: List[Op], consumers: Dict[str, List[Op]], homes: Dict[str, Subgraph]
) -> None:
    found: List[Tuple[str, str]] = []
    for op in constants:
        home = homes.get(op.name)
        dpu = "" if home is None else str(home.get("dpu_name", ""))
        if dpu.startswith("DPUCVDX8H") and not op.get("data") and consumers[op.name]:
            why = unproven_layout(consumers[op.name][0], op.tensor.dims)
            if why is not None:
                found.append((op.tensor.name, why))
    if found:
        name, why = found[0]
        more = f", and {len(found) - 1} more constants" if len(found) > 1 else ""
        raise UnsupportedError(
            "The order of the weights in this model of the vendor's compiler is not established",
            f"constant {name!r} has {why}{more}",
            WEIGHTS_HINT,
        )


def _array(graph: Graph, op: Op, readers: List[Op], home: Optional[Subgraph]) -> np.ndarray:
    data = op.get("data", b"")
    if not data:
        return _from_blob(graph, op, readers, home)
    if len(data) != op.tensor.elements:
        raise FormatError(
            f"Constant {op.name!r} has {len(data)} bytes for {op.tensor.elements} values"
        )
    array: np.ndarray = np.frombuffer(data, np.int8).reshape(op.tensor.dims)
    return array


def _from_blob(graph: Graph, op: Op, readers: List[Op], home: Optional[Subgraph]) -> np.ndarray:
    blobs = home.get("reg_id_to_parameter_value", {}) if home is not None else {}
    blob = blobs.get(f"REG_{op.tensor.get('reg_id')}")
    start = op.tensor.get("ddr_addr")
    if home is None or blob is None or start is None or not readers:
        raise FormatError(
            f"Constant {op.name!r} has no bytes and no place in a parameter blob",
            f"graph {graph.name!r}",
            "compile the quantized model again, or " + WEIGHTS_HINT,
        )
    dpu = str(home.get("dpu_name", ""))
    shape = op.tensor.dims
    if dpu.startswith("DPUCZDX8G"):
        size = op.tensor.elements
        array: np.ndarray = np.frombuffer(_cut(blob, start, size, op), np.int8)
        return array.reshape(shape)
    reader = readers[0]
    if not dpu.startswith("DPUCVDX8H") or (is_plain(reader) and not is_simulated(graph)):
        kind = f"{reader.type} weights for " if dpu.startswith("DPUCVDX8H") else "weights for "
        raise UnsupportedError(
            f"The order of {kind}{dpu or 'an unnamed DPU'} is not known",
            f"constant {op.name!r}",
            WEIGHTS_HINT,
        )
    block = _cut(blob, start, constant_bytes(reader, shape), op)
    return unpack_constant(reader, block, shape)


def _cut(blob: bytes, start: int, size: int, op: Op) -> bytes:
    if start < 0 or start + size > len(blob):
        raise FormatError(
            f"Constant {op.name!r} reaches beyond its parameter blob",
            f"bytes {start} to {start + size} of {len(blob)}",
        )
    return blob[start : start + size]


def _effective(shape: Sequence[int], augmented: bool) -> Tuple[int, int, int, int]:
    out, height, width, channels = shape
    return (out, 1, width, height * channels) if augmented else (out, height, width, channels)


def _weight_offsets(shape: Sequence[int], augmented: bool) -> np.ndarray:
    """Byte offset of every weight, int64 of ``shape``.

    Outputs are interleaved in pairs, inputs in fours; the term of an output, of an input and of a
    kernel position are independent, so the three add up.
    """
    outputs, height, width, channels = _effective(shape, augmented)
    positions = height * width
    half = 64 * positions * -(-channels // CHANNEL_PARALLEL)
    unit = 2 * half
    o = np.arange(outputs)
    i = np.arange(channels)
    of_output = (
        (o // OUTPUT_PARALLEL) * 64 * unit
        + (o // 64 % 2) * 8 * unit
        + (o // 16 % 4) * 16 * unit
        + _PAIR_ORDER[o % 16 // 2] * unit
        + o % 2
    )
    of_input = (
        (i // 8 % 2) * half
        + 64 * positions * (i // CHANNEL_PARALLEL)
        + (i // 4 % 2) * 32
        + (i % 64 // 16) * 8
        + 2 * (i % 4)
    )
    of_position = 64 * np.arange(positions)
    offsets = of_output[:, None, None] + of_position[None, :, None] + of_input[None, None, :]
    if augmented:
        # [out, kw, kh * in] to [out, kh, kw, in]
        out, rows, width, channels = shape
        offsets = offsets.reshape(out, width, rows, channels).transpose(0, 2, 1, 3)
    table: np.ndarray = offsets.reshape(tuple(shape))
    return table


def _bias_offsets(count: int) -> np.ndarray:
    """Byte offset of every bias, int64 ``[count]``."""
    o = np.arange(count)
    within = o % 64
    offsets: np.ndarray = o // 64 * 64 + within // 8 % 2 * 32 + within // 16 * 8 + within % 8
    return offsets


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
