"""The compiler's ``-e/--options``: a dict in text form, read safely and held against the model.

The vendor's program hands the text to ``eval``; here it is only ever a literal.
"""

from __future__ import annotations

import ast
import shlex
from dataclasses import dataclass
from typing import Any, Callable, Dict, Optional, Tuple

from ..errors import UsageError
from .xir.graph import Graph

EXAMPLE = """--options '{"input_shape": "1,224,224,3"}'"""


@dataclass(frozen=True)
class CompilerOptions:
    """What ``--options`` asks for.

    Attributes:
        input_shape: shape of the model's input, NHWC; ``None`` takes the model's.
        output_ops: operators whose values are the outputs; empty takes the model's.
        plugins: libraries with operators of one's own; a list as the vendor's program reads it.
        mode: a word of the vendor's program such as ``normal``; empty takes its default.
    """

    input_shape: Optional[Tuple[int, ...]] = None
    output_ops: Tuple[str, ...] = ()
    plugins: str = ""
    mode: str = ""

    def to_dict(self) -> Dict[str, str]:
        """The dict in the vendor's form: every value is a string, what is not given is left out."""
        record = {
            "input_shape": ",".join(map(str, self.input_shape or ())),
            "output_ops": ",".join(self.output_ops),
            "plugins": self.plugins,
            "mode": self.mode,
        }
        return {key: value for key, value in record.items() if value}

    def check(self, graph: Graph) -> None:
        """Holds the options against the quantized model they are for.

        Raises:
            UsageError: the model has another input shape, or no operator of a given name.
        """
        inputs = {op.name: op.tensor.dims for op in graph.ops.values() if op.type == "data"}
        if self.input_shape is not None and self.input_shape not in inputs.values():
            shapes = ", ".join(f"{name}: {_joined(dims)}" for name, dims in inputs.items())
            raise UsageError(
                f"No input of {graph.name!r} has the shape {_joined(self.input_shape)}",
                f"a quantized model's shape is fixed; its inputs are {shapes} (NHWC)",
                "leave input_shape out, or quantize again with the other size",
            )
        for name in self.output_ops:
            _check_output(graph, name)


NO_OPTIONS = CompilerOptions()


def parse_options(text: str) -> CompilerOptions:
    """Reads the text of ``--options``: a JSON object or a Python dict literal; empty for none.

    Raises:
        UsageError: it is no such dict, has an unknown key, or a value of the wrong form.
    """
    if not text.strip():
        return NO_OPTIONS
    try:
        record = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise UsageError(
            "The compiler's options cannot be read", f"{_why(text, error)} in {text!r}", EXAMPLE
        ) from None
    if not isinstance(record, dict):
        raise UsageError(
            "The compiler's options are no dict", f"a {type(record).__name__}: {text!r}", EXAMPLE
        )
    unknown = [key for key in record if key not in _READERS]
    if unknown:
        raise UsageError(
            f"The compiler has no option {', '.join(map(repr, unknown))}",
            f"known are {', '.join(_READERS)}",
            EXAMPLE,
        )
    return CompilerOptions(**{key: _READERS[key](key, value) for key, value in record.items()})


def output_ops_hint(names: Tuple[str, ...]) -> str:
    """The words of a command line that ask for these outputs."""
    return "--options " + shlex.quote(str({"output_ops": ",".join(names)}).replace("'", '"'))


def _why(text: str, error: BaseException) -> str:
    """What is wrong with a text that is no literal, above all quotes that the shell took."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return f"{getattr(error, 'msg', error)} (quote the whole in single quotes, '{{...}}')"
    names = sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)})
    if names:
        return f"no quotes around {', '.join(names)} (quote the whole in single quotes, '{{...}}')"
    return "something that is no plain dict"


def _check_output(graph: Graph, name: str) -> None:
    closed = f"{name}_fix"
    op = graph.ops.get(name)
    if op is not None and (op.type == "fix" or closed not in graph.ops):
        return
    ends = [op.name for op in graph.ops.values() if op.name.endswith(name) and op.name != name]
    if closed in graph.ops:
        seen, suggested = f"its quantized value is {closed}", closed
    else:
        tails = [op.name for op in graph.tail_ops() if op.type != "const"]
        seen = f"the model ends in {', '.join(tails)}"
        suggested = (ends or tails or [name])[0]
    raise UsageError(
        f"{name!r} cannot be an output of {graph.name!r}"
        + ("" if op is not None else ": it has no such operator"),
        seen,
        output_ops_hint((suggested,)),
    )


def _shape(key: str, value: Any) -> Tuple[int, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    try:
        found = tuple(int(part) for part in parts)
    except (TypeError, ValueError):
        found = ()
    if not found or min(found) < 1:
        raise _wrong(key, value, "a list of sizes such as '1,224,224,3'")
    if found[0] != 1:
        raise UsageError(
            f"The option {key} asks for a batch of {found[0]}",
            f"{value!r}; a model is compiled for one image, the card runs one on each engine",
            f"""--options '{{"input_shape": "{_joined((1, *found[1:]))}"}}'""",
        )
    return found


def _names(key: str, value: Any) -> Tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)) or not all(isinstance(p, str) for p in parts):
        raise _wrong(key, value, "operators' names separated by commas")
    found = tuple(part.strip() for part in parts)
    if not all(found) or len(set(found)) < len(found):
        raise _wrong(key, value, "operators' names separated by commas, each once")
    return found


def _word(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _wrong(key, value, "a text")
    return value.strip()


def _wrong(key: str, value: Any, wanted: str) -> UsageError:
    return UsageError(
        f"The compiler's option {key} cannot be {value!r}", f"wanted is {wanted}", EXAMPLE
    )


def _joined(dims: Tuple[int, ...]) -> str:
    return ",".join(map(str, dims))


_READERS: Dict[str, Callable[[str, Any], Any]] = {
    "input_shape": _shape,
    "output_ops": _names,
    "plugins": _word,
    "mode": _word,
}
