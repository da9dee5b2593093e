"""Names of the genuine module that the drop-in has only to say that it does not do them."""

from __future__ import annotations

from typing import Any, Callable, NoReturn

from ....errors import UnsupportedError


def refusing(name: str) -> Callable[..., Any]:
    """Something that can be imported as ``name`` and raises a clear error when it is called."""

    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        del args, kwargs
        raise UnsupportedError(
            f"The drop-in pytorch_nndct has no {name}",
            "it quantizes trained models; training and pruning need the vendor's tool",
            "quantize the trained model with torch_quantizer, with fast_finetune if need be",
        )

    refuse.__name__ = refuse.__qualname__ = name
    return refuse
