"""The errors that stand for exceptions of a worker, whose objects stay there."""

from __future__ import annotations

import functools
import sys
from typing import Any

from chronopype_mp.core.error_text import path_of
from chronopype_mp.exceptions import ProcessorError, RemoteError

__all__ = ["error_like", "kind_like"]

MEANT_FOR_PYTHON = (StopIteration, StopAsyncIteration)
"""Exceptions that a coroutine must not raise."""

HEAP_TYPE = 1 << 9
"""Py_TPFLAGS_HEAPTYPE: the type was made by a class statement, or as by one."""

KINDS_KEPT = 100


def error_like(
    kind: type[ProcessorError], message: str, worker: str, type_name: str, traceback: str
) -> ProcessorError:
    """Make an error of a kind without running code of the original's type."""
    builtin: Any = kind
    while builtin.__flags__ & HEAP_TYPE:
        builtin = builtin.__base__
    error: ProcessorError = builtin.__new__(kind, message)
    ProcessorError.__init__(error, message, worker=worker, type_name=type_name, traceback=traceback)
    return error


def kind_like(path: str, base: type[ProcessorError] = ProcessorError) -> type[ProcessorError]:
    """Return the class of errors that stand for an exception whose type is defined at ``path``.

    It is ``base``, or a subclass of it and of that type.
    """
    try:
        original = _loaded(path)
        if original is None:
            return base
        return _standing_for(original, base)  # type: ignore[arg-type]  # classes are hashable
    except Exception:  # the layout of the type forbids it, or code of the type's
        return base


def _loaded(path: str) -> type | None:
    """Return an exception type of a module that is loaded; imports nothing.

    Code that names the type has loaded its module.
    """
    module, _, name = path.partition(":")
    found: object = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, "__dict__", {}).get(part)
    if isinstance(found, type) and issubclass(found, Exception) and path_of(found) == path:
        return found
    return None


@functools.lru_cache(maxsize=KINDS_KEPT)
def _standing_for(original: type, base: type[ProcessorError]) -> type[ProcessorError]:
    """Return a subclass of ``base`` and ``original`` that looks like a ``base``."""
    if issubclass(original, MEANT_FOR_PYTHON):
        return base
    bases = (original,) if issubclass(original, base) else (base, original)
    namespace: dict[str, object] = {
        # Properties of the original would hide the values.
        **{name: _value(name) for name in (*ProcessorError.__annotations__, *base.__annotations__)},
        "__doc__": original.__doc__,
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__str__": ProcessorError.__str__,
        "__repr__": ProcessorError.__repr__,
        "__reduce__": _reduce,
        "__setattr__": BaseException.__setattr__,
    }
    kind: type[ProcessorError] = type(original.__name__, bases, namespace)
    str(error_like(kind, "", "", "", ""))
    return kind


def _value(name: str) -> property:
    return property(lambda error: vars(error)[name])


def _reduce(error: ProcessorError) -> tuple[object, ...]:
    """Copy and pickle as the base: the class cannot be found by its name."""
    base = RemoteError if isinstance(error, RemoteError) else ProcessorError
    return base, (error.message,), dict(vars(error))
