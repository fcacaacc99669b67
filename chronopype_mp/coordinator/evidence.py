"""Evidence: what the coordinator knows of a process that has ended."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from chronopype_mp.core.messages import LOADING
from chronopype_mp.core.stimuli import Evidence
from chronopype_mp.launchers import ProcessEnd

if TYPE_CHECKING:
    from chronopype_mp.coordinator.incarnation import Incarnation

__all__ = ["gather"]


def gather(
    incarnation: Incarnation, end: ProcessEnd, output: tuple[str, ...], ticks_lost: int
) -> Evidence:
    """Collect what is known of a process that was launched and has ended.

    Args:
        incarnation: the process; its record still shows what it reported last.
        end: what the launcher says.
        output: its last lines.
        ticks_lost: ticks that it did not account for.
    """
    record, fatal = incarnation.record, incarnation.fatal
    was_ready = incarnation.was_ready
    return Evidence(
        pid=incarnation.pid,
        exitcode=end.exitcode,
        signal=_signal_name(end.exitcode),
        output=output,
        error=None if fatal is None else fatal.traceback,
        error_type=None if fatal is None else fatal.type_name,
        error_type_path="" if fatal is None else fatal.type_path,
        error_message=None if fatal is None else fatal.message,
        exception=None if fatal is None else incarnation.exception(fatal.serial),
        stacks=end.stacks,
        killed=incarnation.is_killed,
        unloadable=fatal is not None and fatal.hook == LOADING,
        ticks_lost=ticks_lost,
        last_tick=record.state.last_timestamp if was_ready else None,
        loop_lag=record.snapshot.lag if was_ready else 0.0,
        network_status=record.network_status,
        network_error=record.network_error_of(incarnation.number),
    )


def _signal_name(exitcode: int | None) -> str | None:
    if exitcode is None or exitcode >= 0:
        return None
    try:
        return signal.Signals(-exitcode).name
    except ValueError:
        return f"signal {-exitcode}"
