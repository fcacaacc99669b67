"""Which events are failures of a processor, and the exception that stands for each."""

from __future__ import annotations

from typing import NamedTuple

from chronopype_mp.core.error_kinds import error_like, kind_like
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
    kind = ProcessorTimeoutError if event.timeout else kind_like(event.type_path)
    error = error_like(kind, event.message, event.worker, event.type_name, event.traceback)
    error.__cause__ = event.exception
    return error


def _death(event: WorkerDied) -> ProcessorError:
    if event.error_type is not None:
        kind = kind_like(event.error_type_path)
        message, traceback = event.error_message or "", event.error or ""
        error = error_like(kind, message, event.worker, event.error_type, traceback)
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
