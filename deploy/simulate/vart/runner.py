"""The classes of the module ``vart``, with the genuine signatures, return types and errors."""

from __future__ import annotations

import operator
from typing import Any, Callable, List, Optional, Sequence, Tuple, Type, TypeVar

import numpy as np

from ..abort import abort
from ..buffers import HostBuffer, host_buffer
from ..card import LoadedRunner, RunnerTensor, wait_for
from ..construction import FAIL
from ..options import active_options
from ..xir import Subgraph, Tensor, inside
from ..xir.binding import pybind11_object

F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R", bound="Runner")

_CREATE = "create_runner(subgraph: xir.Subgraph, mode: str = '') -> vart.Runner"
_CREATE_EXT = "create_runner(arg0: xir.Subgraph, arg1: str) -> vart.RunnerExt"
_EXECUTE = (
    "execute_async(self: vart.Runner, inputs: List[buffer], outputs: List[buffer],"
    " enable_dynamic_array: bool = False) -> Tuple[int, int]"
)
_WAIT = "wait(self: vart.Runner, arg0: Tuple[int, int]) -> int"


def _declared(line: str) -> Callable[[F], F]:
    """Puts the line of the genuine docstring before a method's own."""

    def decorate(function: F) -> F:
        function.__doc__ = f"{line}\n\n{function.__doc__}"
        return function

    return decorate


class _Bound(pybind11_object):
    """Base of the module's classes: nobody but the module makes objects of them."""

    __slots__ = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        del args, kwargs
        raise TypeError(f"vart.{type(self).__name__}: No constructor defined!")


class Runner(_Bound):
    """A subgraph on the card."""

    __slots__ = ("_loaded", "_subgraph", "_tensors")

    _loaded: LoadedRunner
    _subgraph: Subgraph
    _tensors: Tuple[List[Tensor], List[Tensor]]

    @staticmethod
    @_declared(_CREATE)
    def create_runner(subgraph: Any, mode: Any = "") -> Runner:
        """Makes a subgraph ready to run; ``mode`` is a key of its ``runner`` attribute.

        Raises:
            XirAbort: as the genuine libraries abort; see ``construction``.
        """
        return _created(Runner, subgraph, mode, _CREATE)

    @_declared("get_input_tensors(self: vart.Runner) -> List[xir.Tensor]")
    def get_input_tensors(self) -> List[Tensor]:
        """What ``execute_async`` takes; the first dimension is the batch of the hardware."""
        return list(self._tensors[0])

    @_declared("get_output_tensors(self: vart.Runner) -> List[xir.Tensor]")
    def get_output_tensors(self) -> List[Tensor]:
        """What ``execute_async`` fills."""
        return list(self._tensors[1])

    @_declared(_EXECUTE)
    def execute_async(
        self, inputs: Any, outputs: Any, enable_dynamic_array: Any = False
    ) -> Tuple[int, int]:
        """Starts one batch; returns the job, to be given to ``wait``.

        Raises:
            TypeError: no lists of buffers.
            ValueError, BufferError: one of them is read-only.
            XirAbort: element types, numbers or sizes that the genuine runner dies of.
        """
        if not isinstance(enable_dynamic_array, (bool, int, float, np.generic, type(None))):
            raise _mismatch(_EXECUTE, "enable_dynamic_array is no bool")
        given = _host_buffers(inputs, "inputs"), _host_buffers(outputs, "outputs")
        return self._loaded.execute(*given, dynamic=bool(enable_dynamic_array))

    @_declared(_WAIT)
    def wait(self, arg0: Any) -> int:
        """Blocks until the job of the pair is done; 0 is success."""
        if not _is_sequence(arg0) or len(arg0) != 2:
            raise _mismatch(_WAIT, f"{arg0!r:.80} is no pair of job and status")
        try:
            number, _ = operator.index(arg0[0]), operator.index(arg0[1])
        except TypeError:
            number = -1
        if number < 0:
            raise _mismatch(_WAIT, f"{arg0!r:.80} is no pair of job and status")
        return wait_for(number)

    def __repr__(self) -> str:
        return f"vart::Runner@0x{id(self):x}"


class RunnerExt(Runner):
    """A runner that gives out buffers."""

    __slots__ = ()

    @staticmethod
    @_declared(_CREATE_EXT)
    def create_runner(*args: Any) -> Optional[RunnerExt]:  # type: ignore[override]
        """As ``Runner.create_runner``; ``None`` for a subgraph of the CPU."""
        if len(args) != 2:
            raise _mismatch(_CREATE_EXT, f"{len(args)} arguments")
        runner = _created(RunnerExt, args[0], args[1], _CREATE_EXT)
        return runner if runner._loaded.on_card else None

    @_declared("get_inputs(self: vart.RunnerExt) -> List[vart.TensorBuffer]")
    def get_inputs(self) -> List[TensorBuffer]:
        """New host memory for each input, at every call."""
        return [_tensor_buffer(t, i) for t, i in zip(self._tensors[0], self._loaded.inputs)]

    @_declared("get_outputs(self: vart.RunnerExt) -> List[vart.TensorBuffer]")
    def get_outputs(self) -> List[TensorBuffer]:
        """New host memory for each output, at every call."""
        return [_tensor_buffer(t, i) for t, i in zip(self._tensors[1], self._loaded.outputs)]


class TensorBuffer(_Bound):
    """Host memory of one tensor; ``numpy.asarray`` gives a writable view of it."""

    __slots__ = ("_array", "_tensor")

    _array: np.ndarray
    _tensor: Tensor

    @_declared("get_tensor(self: vart.TensorBuffer) -> xir.Tensor")
    def get_tensor(self) -> Tensor:
        """The runner's tensor."""
        return self._tensor

    # Python code can grant its memory to memoryview only from 3.12 on; numpy asks for this first.
    @property
    def __array_interface__(self) -> Any:
        """How numpy finds the memory."""
        return self._array.__array_interface__

    def __buffer__(self, flags: int) -> memoryview:
        """How ``memoryview`` finds the memory."""
        del flags
        return self._array.data

    def __str__(self) -> str:
        place, size = self._array.ctypes.data, self._array.nbytes
        return (
            f"TensorBuffer{{@0x{id(self):x},tensor={self._tensor},location=HOST_VIRT,"
            f"data=[(Virt=0x{place:x}, {size})]}}"
        )

    def __repr__(self) -> str:
        return str(self)


for _class in (Runner, RunnerExt, TensorBuffer):
    _class.__module__ = "vart"


def _created(kind: Type[R], subgraph: Any, mode: Any, signature: str) -> R:
    if not isinstance(mode, str) or not (subgraph is None or isinstance(subgraph, Subgraph)):
        raise _mismatch(signature, f"got {subgraph!r:.80} and {mode!r:.40}")
    if subgraph is None:
        raise abort(*FAIL, "subgraph is null")
    graph, record = inside.graph_of(subgraph), inside.subgraph_of(subgraph)
    loaded = LoadedRunner(graph, record, mode, active_options())
    runner = kind.__new__(kind)
    runner._loaded, runner._subgraph = loaded, subgraph
    runner._tensors = (
        [_xir_tensor(one) for one in loaded.inputs],
        [_xir_tensor(one) for one in loaded.outputs],
    )
    return runner


def _xir_tensor(one: RunnerTensor) -> Tensor:
    return inside.runner_tensor(
        one.info.name, one.info.shape, one.tensor.dtype, one.tensor.bits, one.attrs
    )


def _tensor_buffer(tensor: Tensor, one: RunnerTensor) -> TensorBuffer:
    buffer = TensorBuffer.__new__(TensorBuffer)
    buffer._array, buffer._tensor = np.zeros(one.info.shape, one.info.dtype), tensor
    return buffer


def _host_buffers(given: Any, name: str) -> List[HostBuffer]:
    """Memory of a list's elements; an array instead of a list is the list of its rows, as there."""
    if not _is_sequence(given):
        raise _mismatch(_EXECUTE, f"{name} is no list: {given!r:.80}")
    elements: Sequence[Any] = list(given)
    try:
        # All are looked at before the first is asked for writing, as the genuine binding does.
        views: List[Any] = [
            one._array if isinstance(one, TensorBuffer) else one for one in elements
        ]
        for view in views:
            memoryview(view)
    except TypeError as error:
        raise _mismatch(_EXECUTE, f"{name}: {error}") from None
    return [host_buffer(view) for view in views]


def _is_sequence(value: Any) -> bool:
    return (
        hasattr(value, "__getitem__")
        and hasattr(value, "__len__")
        and not isinstance(value, (str, bytes, dict, TensorBuffer))
    )


def _mismatch(signature: str, evidence: str) -> TypeError:
    name, _, rest = signature.partition("(")
    return TypeError(
        f"{name}(): incompatible function arguments. The following argument types are supported:\n"
        f"    1. ({rest}\n\nInvoked with: {evidence}"
    )
