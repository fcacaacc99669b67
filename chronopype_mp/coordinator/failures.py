"""Which events are failures of a processor, and the exception that stands for each."""

from __future__ import annotations

import functools
import sys
from typing import Any, NamedTuple

from chronopype_mp.core.error_text import path_of
from chronopype_mp.core.worker_events import Event, ProcessorFailed, WorkerDied
from chronopype_mp.exceptions import ProcessorError, ProcessorTimeoutError

__all__ = ["ProcessorFailure", "failure_of", "is_network_hook"]

NETWORK_HOOKS = frozenset(
    {
        "check_network",
        "start_network",
        "run_network",
        "stop_network",
        "on_connected",
        "on_disconnected",
    }
)

MEANT_FOR_PYTHON = (StopIteration, StopAsyncIteration)
"""Exceptions that a coroutine must not raise."""

HEAP_TYPE = 1 << 9
"""Py_TPFLAGS_HEAPTYPE: the type was made by a class statement, or as by one."""

KINDS_KEPT = 100


def is_network_hook(hook: str) -> bool:
    """Return whether the network loop handles failures of a hook, by trying again."""
    return hook in NETWORK_HOOKS or hook.startswith("task ")


class ProcessorFailure(NamedTuple):
    """A failure to pass to ``error_callback`` or to raise."""

    worker: str
    error: ProcessorError


def failure_of(event: Event) -> ProcessorFailure | None:
    """Return the failure that an event reports, or None if it reports none.

    The failure holds a `ProcessorError`, whatever the launcher, because data from a socket is never
    unpickled. With the inline launcher its ``__cause__`` is the original exception.
    """
    match event:
        case ProcessorFailed() if not is_network_hook(event.hook):
            return ProcessorFailure(event.worker, _error(event))
        case WorkerDied():
            return ProcessorFailure(event.worker, _death(event))
    return None


def _error(event: ProcessorFailed) -> ProcessorError:
    kind = ProcessorTimeoutError if event.timeout else _kind(event.type_path)
    error = _make(kind, event.message, event.worker, event.type_name, event.traceback)
    error.__cause__ = event.exception
    return error


def _death(event: WorkerDied) -> ProcessorError:
    if event.error_type is not None:
        kind = _kind(event.error_type_path)
        message, traceback = event.error_message or "", event.error or ""
        error = _make(kind, message, event.worker, event.error_type, traceback)
        error.__cause__ = event.exception
        return error
    if event.pid is None:
        how = "could not be started"
    else:
        how = f"died ({event.reason.value}, exit status {event.exitcode})"
    return ProcessorError(
        f"worker {event.worker!r} {how}",
        worker=event.worker,
        type_name="WorkerDied",
        traceback=event.error or "",
    )


def _make(
    kind: type[ProcessorError], message: str, worker: str, type_name: str, traceback: str
) -> ProcessorError:
    """Make an error of a kind without running code of the original's type."""
    builtin: Any = kind
    while builtin.__flags__ & HEAP_TYPE:
        builtin = builtin.__base__
    error: ProcessorError = builtin.__new__(kind, message)
    ProcessorError.__init__(error, message, worker=worker, type_name=type_name, traceback=traceback)
    return error


def _kind(path: str) -> type[ProcessorError]:
    """Return the class of errors that stand for an exception whose type is defined at ``path``."""
    try:
        original = _loaded(path)
        return ProcessorError if original is None else _standing_for(original)
    except Exception:  # the layout of the type forbids it, or code of the type's
        return ProcessorError


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
def _standing_for(original: type) -> type[ProcessorError]:
    """Return a subclass of `ProcessorError` and ``original`` that looks like a `ProcessorError`."""
    if issubclass(original, MEANT_FOR_PYTHON):
        return ProcessorError
    bases = (original,) if issubclass(original, ProcessorError) else (ProcessorError, original)
    namespace: dict[str, object] = {
        # Properties of the original would hide the values.
        **{name: _value(name) for name in ("worker", "type_name", "message", "traceback")},
        "__doc__": original.__doc__,
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__str__": ProcessorError.__str__,
        "__repr__": ProcessorError.__repr__,
        "__reduce__": _reduce,
        "__setattr__": BaseException.__setattr__,
    }
    kind: type[ProcessorError] = type(original.__name__, bases, namespace)
    str(_make(kind, "", "", "", ""))
    return kind


def _value(name: str) -> property:
    return property(lambda error: vars(error)[name])


def _reduce(error: ProcessorError) -> tuple[object, ...]:
    """Copy and pickle as a `ProcessorError`: the class cannot be found by its name."""
    return ProcessorError, (error.message,), dict(vars(error))
