"""The processor as bytes, made once, when it is added.

dill with ``recurse`` takes along what a class or function of the main module (or of a notebook)
refers to, and nothing else of it; what can be imported travels by name.
"""

from __future__ import annotations

import warnings

import dill

from chronopype_mp.exceptions import TransferError
from chronopype_mp.processors import ProcessorSpec, TickProcessor

__all__ = ["pack"]


def pack(source: TickProcessor | ProcessorSpec) -> bytes:
    """Return a processor, or the spec of one, as it travels to its worker.

    Raises:
        TransferError: it cannot; names the attribute that stops it.
    """
    try:
        return _dump(source)
    except Exception as error:
        if isinstance(source, ProcessorSpec):
            attributes = {f"options[{name!r}]": value for name, value in source.options.items()}
            attributes["target"] = source.target
        else:
            attributes = dict(vars(source))
        for name, value in attributes.items():
            try:
                _dump(value)
            except Exception as cause:
                raise TransferError(type(source).__name__, name, _brief(cause)) from cause
        raise TransferError(type(source).__name__, None, _brief(error)) from error


def _dump(value: object) -> bytes:
    with warnings.catch_warnings():
        # dill warns of what it could not find by name and would fail on in the worker.
        warnings.simplefilter("error", dill.PicklingWarning)
        frame: bytes = dill.dumps(value, recurse=True)
    return frame


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}".rstrip(
        ": "
    )
