"""What is known of a process that has ended."""

from __future__ import annotations

import signal

from chronopype_mp.coordinator.record import Life, WorkerRecord
from chronopype_mp.core.stimuli import Evidence
from chronopype_mp.launchers import ProcessEnd

__all__ = ["gather"]


def gather(record: WorkerRecord, life: Life, end: ProcessEnd, lost: int) -> Evidence:
    """Collect what is known of a process that has ended, and close its pipes.

    Args:
        record: whose process it was.
        life: it.
        end: how it ended.
        lost: ticks that it did not account for.
    """
    assert life.process is not None
    fatal = life.fatal
    output: tuple[str, ...] = ()
    if life.output is not None:
        output = life.output.finish()
        record.output_lines += life.output.lines
    return Evidence(
        pid=life.process.pid,
        exitcode=end.exitcode,
        signal=_signal_name(end.exitcode),
        output=output,
        error=None if fatal is None else fatal.traceback,
        error_type=None if fatal is None else fatal.type_name,
        error_message=None if fatal is None else fatal.message,
        exception=None if fatal is None else life.process.exception(fatal.serial),
        stacks=end.stacks,
        killed=life.kill_asked,
        ticks_lost=lost,
        last_tick=record.state.last_timestamp if life.ready else None,
        loop_lag=record.snapshot.lag if life.ready else 0.0,
        network_status=record.network_status,
        network_error=record.network_error,
    )


def _signal_name(exitcode: int | None) -> str | None:
    if exitcode is None or exitcode >= 0:
        return None
    try:
        return signal.Signals(-exitcode).name
    except ValueError:
        return f"signal {-exitcode}"
