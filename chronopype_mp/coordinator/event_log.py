"""Events as log records."""

from __future__ import annotations

import logging
from pathlib import Path

from chronopype_mp.core.connection import CHECK_RETURNED, NetworkStatus
from chronopype_mp.core.worker_events import (
    Event,
    FramesDropped,
    NetworkChanged,
    ProcessorFailed,
    WorkerBackingOff,
    WorkerDied,
    WorkerQuarantined,
    WorkerReady,
)
from chronopype_mp.exceptions import PermanentFailure

__all__ = ["log_event"]

OWN_CODE = f'  File "{Path(__file__).parents[1]}'
"""How the line of a frame of this package begins in a traceback."""

LIBRARIES = ("/lib/python3", "/site-packages/", "/dist-packages/")
"""In the paths of the standard library and of installed packages."""

logger = logging.getLogger("chronopype_mp.events")


def log_event(clock: str, event: Event) -> None:
    """Log an event to the logger ``chronopype_mp.events``.

    Args:
        clock: the clock's name.
        event: the event; its class decides the level.
    """
    match event:
        case WorkerDied():
            logger.error("%s: %s", clock, event)
        case WorkerQuarantined():
            logger.error(
                "%s: worker %r is quarantined: %s; handle.restart() restarts it",
                clock,
                event.worker,
                event.detail or "its restart budget is spent",
            )
        case ProcessorFailed():
            logger.warning(
                "%s: %s of worker %r failed: %s: %s%s%s",
                clock,
                event.hook,
                event.worker,
                event.type_name,
                event.message,
                _place(event.traceback),
                _outlook(event),
            )
            if event.traceback:
                logger.debug("%s", event.traceback)
        case FramesDropped():
            logger.warning(
                "%s: dropped frames: %d garbage, %d from unknown workers, "
                "%d from earlier incarnations, %d forged",
                clock,
                event.garbage,
                event.foreign,
                event.stale,
                event.forged,
            )
        case NetworkChanged():
            logger.log(
                logging.WARNING if _is_vain(event) else logging.INFO,
                "%s: worker %r: network %s → %s%s%s",
                clock,
                event.worker,
                event.before.name,
                event.after.name,
                f" ({why})" if (why := event.reason or event.error) else "",
                _outlook(event),
            )
        case WorkerReady():
            logger.info(
                "%s: worker %r is ready (incarnation %d, pid %d)",
                clock,
                event.worker,
                event.incarnation,
                event.pid,
            )
        case WorkerBackingOff():
            logger.info("%s: worker %r restarts in %.1f s", clock, event.worker, event.delay)
        case _:
            logger.debug("%s: %s", clock, event)


def _is_vain(event: NetworkChanged) -> bool:
    """Whether a change is all that tells of an attempt to connect that was in vain."""
    is_attempt = event.before is NetworkStatus.CONNECTING
    is_connected = event.after is NetworkStatus.CONNECTED
    return is_attempt and not is_connected and (event.reason or "").startswith(CHECK_RETURNED)


def _outlook(event: NetworkChanged | ProcessorFailed) -> str:
    """Return when the next attempt to connect is due, to follow a message."""
    if event.next_attempt is not None:
        return f"; next attempt in {max(0.0, event.next_attempt - event.at):.1f} s"
    if isinstance(event, ProcessorFailed) and event.type_name == PermanentFailure.__name__:
        return "; no further attempt before handle.reconnect() or a restart"
    return ""


def _place(traceback: str) -> str:
    """Return where an exception was raised, to follow a message; "" if the user has no part in it.

    It is the last frame of a traceback, if possible of one in the user's own code.
    """
    lines = traceback.splitlines()
    frames = [index for index, line in enumerate(lines) if line.startswith('  File "')]
    foreign = [index for index in frames if not lines[index].startswith(OWN_CODE)]
    if not foreign:
        return ""
    own = [index for index in foreign if not any(part in lines[index] for part in LIBRARIES)]
    last = (own or foreign)[-1]
    place = lines[last].strip()
    code = lines[last + 1 : last + 2]
    # Without the source, another frame or the exception follows.
    has_code = bool(code) and code[0].startswith("    ")
    return f" [{place}: {code[0].strip()}]" if has_code else f" [{place}]"
