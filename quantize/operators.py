"""The table of PyTorch modules, functions and tensor methods the quantizer understands.

An operator is one entry: what is called (a module class, a function or a method name) and the
function that turns the call into a node, in ``layers``, ``pooling``, ``elementwise`` or
``movement``.

Importing this module imports torch.
"""

from __future__ import annotations

import operator
from typing import Any, Dict, Optional

import torch
import torch.nn.functional as F
from torch import nn

from . import graph as g
from .calls import Builder, Call
from .elementwise import (
    binary,
    gelu,
    hardtanh,
    larger_or_smaller,
    leaky_relu,
    matmul,
    mean,
    prelu,
    softmax,
    unary,
)
from .graph import Node
from .layers import (
    batch_norm_module,
    conv_function,
    conv_module,
    conv_transpose_function,
    conv_transpose_module,
    linear_function,
    linear_module,
)
from .movement import (
    chunk,
    concat,
    dropout,
    dropout_function,
    expand_as,
    flatten,
    item,
    moved,
    pad,
    permute,
    reshape,
    same,
    transpose,
)
from .pooling import (
    adaptive_avg_pool,
    avg_pool_function,
    avg_pool_module,
    interpolate_function,
    max_pool_function,
    max_pool_module,
    upsample_module,
)


def builder_for(kind: str, target: Any, module: Optional[nn.Module]) -> Optional[Builder]:
    """The entry for an fx call of ``kind`` on ``target``; ``None`` where there is none."""
    if kind == "call_module":
        return MODULES.get(type(module))
    if kind == "call_method":
        return METHODS.get(target)
    return FUNCTIONS.get(target)


def _not_here(call: Call) -> Node:
    """An operator that the vendor quantizes by rules that are not in this package."""
    raise call.unsupported("the vendor's quantizer has rules for it that are not known here")


MODULES: Dict[type, Builder] = {
    nn.Conv2d: conv_module,
    nn.ConvTranspose2d: conv_transpose_module,
    nn.Linear: linear_module,
    nn.BatchNorm1d: batch_norm_module,
    nn.BatchNorm2d: batch_norm_module,
    nn.ReLU: unary(g.RELU),
    nn.ReLU6: unary(g.RELU6),
    nn.LeakyReLU: leaky_relu,
    nn.Hardtanh: hardtanh,
    nn.PReLU: prelu,
    nn.GELU: gelu,
    nn.Mish: unary(g.MISH),
    nn.Sigmoid: unary(g.SIGMOID),
    nn.Tanh: unary(g.TANH),
    nn.Hardsigmoid: unary(g.HARDSIGMOID),
    nn.Hardswish: unary(g.HARDSWISH),
    nn.Softmax: softmax,
    nn.MaxPool2d: max_pool_module,
    nn.AvgPool2d: avg_pool_module,
    nn.AdaptiveAvgPool2d: adaptive_avg_pool,
    nn.Upsample: upsample_module,
    nn.UpsamplingNearest2d: upsample_module,
    nn.UpsamplingBilinear2d: upsample_module,
    nn.Flatten: flatten,
    nn.Dropout: dropout,
    nn.Dropout2d: dropout,
    nn.Identity: same,
    nn.Unflatten: reshape,
    nn.PixelShuffle: moved(g.PIXEL_SHUFFLE),
    nn.ZeroPad2d: pad,
    nn.ConstantPad2d: pad,
    nn.ReflectionPad2d: pad,
    nn.ReplicationPad2d: pad,
    nn.Conv1d: _not_here,
    nn.Conv3d: _not_here,
    nn.ConvTranspose1d: _not_here,
    nn.ConvTranspose3d: _not_here,
    nn.MaxPool1d: _not_here,
    nn.LayerNorm: _not_here,
    nn.GroupNorm: _not_here,
    nn.InstanceNorm1d: _not_here,
    nn.InstanceNorm2d: _not_here,
    nn.InstanceNorm3d: _not_here,
    nn.BatchNorm3d: _not_here,
}

FUNCTIONS: Dict[Any, Builder] = {
    F.conv1d: _not_here,
    F.conv3d: _not_here,
    F.conv_transpose1d: _not_here,
    F.conv_transpose3d: _not_here,
    F.max_pool1d: _not_here,
    F.layer_norm: _not_here,
    F.group_norm: _not_here,
    F.instance_norm: _not_here,
    torch.sqrt: _not_here,
    F.conv2d: conv_function,
    torch.conv2d: conv_function,
    F.conv_transpose2d: conv_transpose_function,
    torch.conv_transpose2d: conv_transpose_function,
    F.linear: linear_function,
    F.pad: pad,
    F.hardtanh: hardtanh,
    F.hardtanh_: hardtanh,
    F.prelu: prelu,
    torch.prelu: prelu,
    F.gelu: gelu,
    F.mish: unary(g.MISH),
    torch.exp: unary(g.EXP),
    torch.matmul: matmul,
    operator.matmul: matmul,
    torch.mean: mean,
    torch.max: larger_or_smaller(g.MAX),
    torch.min: larger_or_smaller(g.MIN),
    operator.getitem: item,
    F.pixel_shuffle: moved(g.PIXEL_SHUFFLE),
    torch.pixel_shuffle: moved(g.PIXEL_SHUFFLE),
    torch.squeeze: moved(g.SQUEEZE),
    torch.unsqueeze: moved(g.UNSQUEEZE),
    torch.permute: permute,
    torch.transpose: transpose,
    torch.chunk: chunk,
    F.relu: unary(g.RELU),
    F.relu_: unary(g.RELU),
    torch.relu: unary(g.RELU),
    torch.relu_: unary(g.RELU),
    F.relu6: unary(g.RELU6),
    F.leaky_relu: leaky_relu,
    F.sigmoid: unary(g.SIGMOID),
    torch.sigmoid: unary(g.SIGMOID),
    F.tanh: unary(g.TANH),
    torch.tanh: unary(g.TANH),
    F.hardsigmoid: unary(g.HARDSIGMOID),
    F.hardswish: unary(g.HARDSWISH),
    F.softmax: softmax,
    torch.softmax: softmax,
    F.max_pool2d: max_pool_function,
    torch.max_pool2d: max_pool_function,
    F.avg_pool2d: avg_pool_function,
    F.adaptive_avg_pool2d: adaptive_avg_pool,
    F.interpolate: interpolate_function,
    torch.cat: concat,
    torch.concat: concat,
    operator.add: binary(g.ADD),
    operator.iadd: binary(g.ADD),
    torch.add: binary(g.ADD),
    operator.sub: binary(g.SUB),
    operator.isub: binary(g.SUB),
    operator.truediv: binary(g.DIV),
    operator.itruediv: binary(g.DIV),
    torch.div: binary(g.DIV),
    torch.true_divide: binary(g.DIV),
    torch.multiply: binary(g.MUL),
    torch.subtract: binary(g.SUB),
    torch.sub: binary(g.SUB),
    operator.mul: binary(g.MUL),
    operator.imul: binary(g.MUL),
    torch.mul: binary(g.MUL),
    torch.flatten: flatten,
    torch.reshape: reshape,
    F.dropout: dropout_function,
}

METHODS: Dict[str, Builder] = {
    "sqrt": _not_here,
    "relu": unary(g.RELU),
    "relu_": unary(g.RELU),
    "sigmoid": unary(g.SIGMOID),
    "sigmoid_": unary(g.SIGMOID),
    "tanh": unary(g.TANH),
    "softmax": softmax,
    "add": binary(g.ADD),
    "add_": binary(g.ADD),
    "sub": binary(g.SUB),
    "mul": binary(g.MUL),
    "mul_": binary(g.MUL),
    "flatten": flatten,
    "view": reshape,
    "reshape": reshape,
    "sub_": binary(g.SUB),
    "div": binary(g.DIV),
    "div_": binary(g.DIV),
    "mean": mean,
    "max": larger_or_smaller(g.MAX),
    "min": larger_or_smaller(g.MIN),
    "matmul": matmul,
    "exp": unary(g.EXP),
    "tanh_": unary(g.TANH),
    "squeeze": moved(g.SQUEEZE),
    "unsqueeze": moved(g.UNSQUEEZE),
    "expand": moved(g.EXPAND),
    "expand_as": expand_as,
    "repeat": moved(g.REPEAT),
    "permute": permute,
    "transpose": transpose,
    "chunk": chunk,
    "contiguous": moved(g.CONTIGUOUS),
    "detach": same,
    "float": same,
}
