"""Which events are failures of a processor, and the exception that stands for each."""

from __future__ import annotations

from typing import NamedTuple

from chronopype_mp.core.events import Event, ProcessorFailed, WorkerDied
from chronopype_mp.exceptions import ProcessorError, ProcessorTimeoutError

__all__ = ["ProcessorFailure", "failure_of"]

NETWORK_HOOKS = frozenset(
    {"check_network", "start_network", "stop_network", "on_connected", "on_disconnected"}
)
"""The network loop handles failures of these hooks by trying again."""


class ProcessorFailure(NamedTuple):
    """A failure to pass to ``error_callback`` or to raise."""

    worker: str
    error: BaseException


def failure_of(event: Event) -> ProcessorFailure | None:
    """Return the failure that an event reports, or None if it reports none.

    With the inline launcher the failure holds the original exception. Otherwise it holds a
    `ProcessorError`, because data from a socket is never unpickled.
    """
    match event:
        case ProcessorFailed() if event.hook not in NETWORK_HOOKS:
            return ProcessorFailure(event.worker, _error(event))
        case WorkerDied():
            return ProcessorFailure(event.worker, _death(event))
    return None


def _error(event: ProcessorFailed) -> BaseException:
    if event.exception is not None and not event.timeout:
        return event.exception
    kind = ProcessorTimeoutError if event.timeout else ProcessorError
    return kind(
        event.message,
        worker=event.worker,
        type_name=event.type_name,
        traceback=event.traceback,
    )


def _death(event: WorkerDied) -> BaseException:
    if event.exception is not None:
        return event.exception
    if event.error_type is not None:
        return ProcessorError(
            event.error_message or "",
            worker=event.worker,
            type_name=event.error_type,
            traceback=event.error or "",
        )
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
