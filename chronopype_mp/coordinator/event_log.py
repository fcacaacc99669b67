"""Events as log records."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from chronopype_mp.core.connection import (
    CHECK_RETURNED,
    RECONNECT_REQUESTED,
    STOP_REQUESTED,
    NetworkStatus,
)
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

__all__ = ["log_event"]

OWN_CODE = f'  File "{Path(__file__).parents[1]}'
"""How the line of a frame of this package begins in a traceback."""

IN_GROUP = re.compile(r"^ *\| ", re.MULTILINE)
"""What comes before the lines of an exception group and of the exceptions in it."""

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
                "%s: %s of worker %r failed: %s%s%s",
                clock,
                event.hook,
                event.worker,
                f"{event.type_name}: {event.message}".removesuffix(": "),
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
                logging.WARNING if _is_trouble(event) else logging.INFO,
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


def _is_trouble(event: NetworkChanged) -> bool:
    """Whether a change tells of a lost connection, or of an attempt in vain that no error tells of.

    Also of an error after which there is no attempt.
    """
    reason = event.reason or ""
    if event.before is NetworkStatus.CONNECTED:
        return reason not in (STOP_REQUESTED, RECONNECT_REQUESTED)
    is_attempt = event.before is NetworkStatus.CONNECTING
    is_vain = is_attempt and event.after is not NetworkStatus.CONNECTED
    return (is_vain and reason.startswith(CHECK_RETURNED)) or _is_final(event)


def _is_final(event: NetworkChanged) -> bool:
    return event.after is NetworkStatus.ERROR and event.next_attempt is None


def _outlook(event: NetworkChanged | ProcessorFailed) -> str:
    """Return when the next attempt to connect is due, to follow a message."""
    if event.next_attempt is not None:
        return f"; next attempt in {max(0.0, event.next_attempt - event.at):.1f} s"
    if isinstance(event, NetworkChanged) and _is_final(event):
        return "; no further attempt is planned, but handle.reconnect() or a restart makes one"
    return ""


def _place(traceback: str) -> str:
    """Return where an exception was raised, to follow a message; "" if the user has no part in it.

    It is the last frame of a traceback, if possible of one in the user's own code.
    """
    lines = IN_GROUP.sub("", traceback).splitlines()
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
