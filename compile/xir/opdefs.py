"""Operator definitions of XIR: which inputs and attributes each operator type has.

The writer stores them in files it makes, and both reader and writer hold operators against them.
All types of the vendor's release 3.5 are here; another one is taken as it comes, as a custom
operator is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Dict, Iterable, List, Tuple

from .attributes import Attr, AttrKind
from .graph import DataType, Op, OpDef
from .schema import SCHEMA, encode_attr

# One line per type: name | inputs | attributes.
#   input      name, "?" optional, "+" one and more or "*" any number, ":" element type
#   attribute  name ":" kind, "[n]" the length of a vector, "=" the default of an optional one
_TABLE = """
data |  | shape:int32s data_type:string
data-fix |  | shape:int32s data_type:string
const |  | shape:int32s data_type:string data:bytes
const-fix |  | shape:int32s data_type:string data:bytes
fix | input:float | $FIX
float2fix | input:float | $FIX
fix2float | input:xint | $FIX
upload | input:float |
download | input:xint |
conv2d | $FLOATS | $CONV pad_mode:string $PAD group:int32=1
conv2d-fix | $FIXED | $CONV $PAD nonlinear:string= $HARD group:int32=1
depthwise-conv2d | $FLOATS | $CONV pad_mode:string $PAD
depthwise-conv2d-fix | $FIXED | $CONV $PAD nonlinear:string= $HARD
transposed-conv2d | $FLOATS | $CONV pad_mode:string $PAD
transposed-conv2d-fix | $FIXED | $CONV $PAD nonlinear:string= $HARD
transposed-depthwise-conv2d | $FLOATS | $CONV pad_mode:string $PAD
transposed-depthwise-conv2d-fix | $FIXED | $CONV $PAD nonlinear:string= $HARD
inner-product | $FLOATS | axis:int32
matmul | input+:float bias?:float | transpose_a:bool transpose_b:bool
maxpool2d | input:float | $POOL pad_mode:string $PAD global:bool=false
avgpool2d | input:float | $POOL pad_mode:string $PAD global:bool=false $COUNT
pool-fix | input:xint | $POOL $PAD type:string
concat | input+:float | axis:int32
concat-fix | input+:xint | axis:int32
add | input+:float |
sub | input+:float |
mul | input+:float |
eltwise-fix | input+:xint | nonlinear:string=NONE type:string=ADD
relu | input:float |
relu6 | input:float |
leaky-relu | input:float | alpha:float
prelu | input:float weight:float |
elu | input:float | alpha:float=1
gelu | input:float |
hard-sigmoid | input:float |
hard-swish | input:float |
sigmoid | input:float |
tanh | input:float |
softmax | input:float | axis:int32
batchnorm | input:float $MOMENTS | axis:int32 epsilon:float
reshape | input:float shape?:int | shape:int32s=0
reshape-fix | input:xint | shape:int32s
flatten | input:float | start_axis:int32 end_axis:int32
squeeze | input:float | axis:int32s=
transpose | input:float | order:int32s
stack | input+:float | axis:int32
strided_slice | input:float | begin:int32s end:int32s strides:int32s
pad | input:float | paddings:int32s mode:string constant_values:floats=
pad-fix | input:xint | paddings:int32s mode:string constant_values:bytes=
resize | input:float size?:int | mode:string $RESIZE scale:floats=
upsample-fix | input:xint size?:int | mode:string $RESIZE scale:floats[2]
downsample-fix | input:xint size?:int | mode:string $RESIZE scale:floats[2]
reduction_mean | input:float | axis:int32s keep_dims:bool
argmax | input:float | axis:int32
argmax-fix | input:xint | axis:int32
reduction_max | input:float | axis:int32s keep_dims:bool
reduction_max-fix | input:xint | axis:int32s keep_dims:bool
reduction_product | input:float | axis:int32s keep_dims:bool
reduction_sum | input:float | axis:int32s keep_dims:bool
div | input+:float |
max | input+:float |
min | input+:float |
depthwise-fix | input+:xint | type:string=MUL
neg | input:float |
exp | input:float |
celu | input:float | alpha:float=1
selu | input:float |
mish | input:float |
swish | input:float |
hard-sigmoid-fix | input:float |
hard-softmax | input:float | axis:int32 type:string
hard-tanh | input:float |
identity | input:xint |
placeholder | input:float |
cast | input:float | data_type:string
shape | input:float |
scale | input:float scale:float bias?:float | axis:int32=-1
threshold | input:xint threshold:xint |
l2_normalize | input:float | axis:int32s= epsilon:double=1e-12
groupnorm | $AFFINE | num_groups:int32 num_channels:int32 eps:float affine:bool
instancenorm | $AFFINE | eps:float affine:bool
strided_slice-fix | input:float | begin:int32s end:int32s strides:int32s
reorg | input:float | scale:int32 reverse:bool
reorg-fix | input:float | scale:int32 reverse:bool
pixel-shuffle | input:float | scale:int32 upscale:bool
pixel-shuffle-fix | input:float | scale:int32 reverse:bool
gstiling | input:float | reverse:bool stride:int32
tile-fix | input:xint | reverse:bool stride:int32
maxpool1d | input:float | $LINE pad_mode:string $ENDS global:bool=false
conv1d | $FLOATS | $LINE dilation:int32s[1]=1 pad_mode:string $ENDS
conv3d | $FLOATS | $VOLUME pad_mode:string $FACES
conv3d-fix | $FIXED | $VOLUME $FACES nonlinear:string= $HARD
depthwise-conv3d | $FLOATS | $VOLUME pad_mode:string $FACES
depthwise-conv3d-fix | $FIXED | $VOLUME $FACES nonlinear:string= $HARD
transposed-conv3d | $FLOATS | $VOLUME pad_mode:string $FACES
transposed-conv3d-fix | $FIXED | $VOLUME $FACES nonlinear:string= $HARD
transposed-depthwise-conv3d | $FLOATS | $VOLUME pad_mode:string $FACES
transposed-depthwise-conv3d-fix | $FIXED | $VOLUME $FACES nonlinear:string= $HARD
correlation1d_elemwise | input*:float | pad_size:int32 $MADE
correlation1d_elemwise-fix | input*:float | pad_size:int32 $MADE
correlation2d_elemwise | input*:float | pad_size:int32 $MADE
correlation2d_elemwise-fix | input*:float | pad_size:int32 $MADE
cost_volume | input*:float | maxdisp:int32 $MADE
cost_volume-fix | input*:float | maxdisp:int32 $MADE
priorbox | input+:float | min_sizes:floats max_sizes:floats= aspect_ratio:floats= $BOXES
random_standard_normal |  | $MADE seed:int32=0 seed2:int32=0
"""

_SHORT = {
    "$FLOATS": "input:float weights:float bias?:float",
    "$FIXED": "input:xint weights:xint bias?:xint",
    "$CONV": "kernel:int32s[2] stride:int32s[2] dilation:int32s[2]=1,1",
    "$POOL": "kernel:int32s[2] stride:int32s[2]",
    "$PAD": "pad:int32s[4]=0,0,0,0",
    "$HARD": "hsigmoid_in:int32=-128 shift_hsigmoid:int32=-128 shift_hswish:int32=-128",
    "$FIX": "fix_point:int32 bit_width:int32 round_mode:string if_signed:bool",
    "$COUNT": "count_include_pad:bool=true count_include_invalid:bool=true",
    "$MOMENTS": "gamma:float beta:float moving_mean:float moving_var:float",
    "$AFFINE": "input:float weight?:float bias?:float",
    "$LINE": "kernel:int32s[1] stride:int32s[1]",
    "$ENDS": "pad:int32s[2]=0,0",
    "$VOLUME": "kernel:int32s[3] stride:int32s[3] dilation:int32s[3]=1,1,1",
    "$FACES": "pad:int32s[6]=0,0,0,0,0,0",
    "$MADE": "shape:int32s data_type:string",
    "$BOXES": "flip:bool clip:bool variance:floats step:floats offset:float",
    "$RESIZE": "align_corners:bool=false half_pixel_centers:bool=false",
}

# (required, repeated) -> number in the file.
_OCCURRENCE = {(True, False): 0, (False, False): 1, (False, True): 2, (True, True): 3}


@dataclass(frozen=True)
class ArgDefinition:
    """One named input: whether it must be there, may be repeated, and its element type."""

    name: str
    required: bool
    repeated: bool
    dtype: DataType


@dataclass(frozen=True)
class AttrDefinition:
    """One attribute; ``default`` carries the kind, also of a required one.

    Attributes:
        length: of a vector, 1 for a scalar, 0 where any length goes.
    """

    name: str
    required: bool
    default: Attr
    length: int


@dataclass(frozen=True)
class Definition:
    """What operators of one type look like."""

    type: str
    inputs: Tuple[ArgDefinition, ...]
    attrs: Tuple[AttrDefinition, ...]


@lru_cache(maxsize=None)
def definitions() -> Dict[str, Definition]:
    """All definitions, by operator type."""
    table = _TABLE
    for short, text in _SHORT.items():
        table = table.replace(short, text)
    parsed = [_definition(line) for line in table.strip().splitlines()]
    return {definition.type: definition for definition in parsed}


def is_built_in(op_type: str) -> bool:
    """Whether the vendor's library knows ``op_type`` itself; if not, it is a custom operator."""
    return op_type in definitions()


def missing_attributes(op: Op) -> List[str]:
    """Names of the attributes that an operator of this type must have and ``op`` has not."""
    definition = definitions().get(op.type)
    if definition is None:
        return []
    return [a.name for a in definition.attrs if a.required and a.name not in op.attrs]


def problems(op: Op) -> List[str]:
    """What the vendor's library would abort at when it adds ``op`` to a graph, in sentences."""
    definition = definitions().get(op.type)
    if definition is None:
        return []
    found = [f"attribute {name!r} is missing" for name in missing_attributes(op)]
    for attr in definition.attrs:
        if attr.name in op.attrs and op.attrs[attr.name].kind is not attr.default.kind:
            found.append(
                f"attribute {attr.name!r} is of kind {op.attrs[attr.name].kind.name}, "
                f"not {attr.default.kind.name}"
            )
    for arg in definition.inputs:
        count = len(op.inputs.get(arg.name, ()))
        if arg.required and not count:
            found.append(f"input {arg.name!r} is missing")
        if count > 1 and not arg.repeated:
            found.append(f"input {arg.name!r} is given {count} times, once is possible")
    known = {arg.name for arg in definition.inputs}
    found += [f"there is no input {name!r}" for name in op.inputs if name not in known]
    return found


def op_defs(types: Iterable[str]) -> List[OpDef]:
    """The definitions of ``types`` as the file stores them, by name; unknown types are left out."""
    table = definitions()
    return [OpDef(name, _wire(table[name])) for name in sorted(set(types)) if name in table]


def op_def(definition: Definition) -> OpDef:
    """``definition`` as the file stores it."""
    return OpDef(definition.type, _wire(definition))


def _wire(definition: Definition) -> bytes:
    return SCHEMA.encode(
        "OpDef",
        {
            "name": definition.type,
            "input_args": [
                {
                    "name": arg.name,
                    "occur_type": _OCCURRENCE[arg.required, arg.repeated],
                    "data_type": arg.dtype.value,
                }
                for arg in definition.inputs
            ],
            "attrs": [
                {
                    "name": attr.name,
                    "occur_type": 0 if attr.required else 1,
                    "default_value": encode_attr(attr.default),
                    "list_length": attr.length,
                }
                for attr in definition.attrs
            ],
        },
    )


def _definition(line: str) -> Definition:
    name, inputs, attrs = (part.strip() for part in line.split("|"))
    return Definition(
        name,
        tuple(_arg(text) for text in inputs.split()),
        tuple(_attr(text) for text in attrs.split()),
    )


def _arg(text: str) -> ArgDefinition:
    name, _, dtype = text.partition(":")
    bare = name.rstrip("?+*")
    mark = name[len(bare) :]
    return ArgDefinition(bare, mark not in ("?", "*"), mark in ("+", "*"), DataType[dtype.upper()])


def _attr(text: str) -> AttrDefinition:
    left, optional, default = text.partition("=")
    name, _, kind_text = left.partition(":")
    kind_name, _, length = kind_text.partition("[")
    kind = AttrKind[kind_name.upper()]
    fixed = 0 if kind.is_vector or kind is AttrKind.BYTES else 1
    return AttrDefinition(
        name, not optional, _default(kind, default), int(length[:-1]) if length else fixed
    )


def _default(kind: AttrKind, text: str) -> Attr:
    if kind.is_vector:
        return Attr(kind, tuple(int(part) for part in text.split(",") if part))
    if kind is AttrKind.BYTES:
        return Attr(kind, b"")
    if kind is AttrKind.STRING:
        return Attr(kind, text)
    if kind is AttrKind.BOOL:
        return Attr(kind, text == "true")
    return Attr(kind, int(text or 0) if kind is AttrKind.INT32 else float(text or 0))
