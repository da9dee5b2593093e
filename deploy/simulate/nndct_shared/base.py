"""The names of ``nndct_shared.base`` that scripts import."""

from __future__ import annotations

from ....quantize import graph as _graph


class NNDCT_OP:  # noqa: N801 - the genuine name
    """Operator types as the genuine module spells them, e.g. ``NNDCT_OP.CONV2D``."""

    INPUT = _graph.INPUT
    CONV2D = _graph.CONV2D
    DEPTHWISE_CONV2D = _graph.DEPTHWISE_CONV2D
    CONVTRANSPOSE2D = _graph.CONV_TRANSPOSE2D
    DENSE = _graph.DENSE
    BATCH_NORM = _graph.BATCH_NORM
    RELU = _graph.RELU
    RELU6 = _graph.RELU6
    LEAKY_RELU = _graph.LEAKY_RELU
    SIGMOID = _graph.SIGMOID
    TANH = _graph.TANH
    SOFTMAX = _graph.SOFTMAX
    MAX_POOL = _graph.MAXPOOL
    AVG_POOL = _graph.AVGPOOL
    ADAPTIVEAVGPOOL2D = _graph.ADAPTIVE_AVGPOOL
    ADD = _graph.ADD
    MULTIPLY = _graph.MUL
    CONCAT = _graph.CONCAT
    RESIZE = _graph.RESIZE
    FLATTEN = _graph.FLATTEN
    RESHAPE = _graph.RESHAPE
