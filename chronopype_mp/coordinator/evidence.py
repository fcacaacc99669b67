"""What can be found out about a process that does not answer, or has ended."""

from __future__ import annotations

import contextlib
import os
import signal
import struct

import psutil

from chronopype_mp.coordinator.record import Life, WorkerRecord
from chronopype_mp.core.boot import STACKS_HEADER
from chronopype_mp.core.stimuli import Evidence
from chronopype_mp.timing import monotonic

__all__ = ["gather", "is_stopped", "python_runs", "size_of_stacks"]

LONGEST_STACKS = 262_144
"""Bytes of stacks that are kept."""


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped by SIGSTOP or a debugger."""
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    except psutil.Error:
        return False


def size_of_stacks(life: Life) -> int:
    """Return how many bytes of stacks a process has written, because its loop stands still."""
    try:
        return max(0, os.stat(life.stacks).st_size - STACKS_HEADER.size)
    except OSError:
        return 0


def python_runs(life: Life, silence: float) -> bool:
    """Whether Python ran in a process less than ``silence`` seconds ago; True if nobody knows."""
    try:
        with open(life.stacks, "rb") as file:
            (ran_at,) = STACKS_HEADER.unpack(file.read(STACKS_HEADER.size))
    except (OSError, struct.error):
        return True
    return monotonic() - float(ran_at) < silence


def gather(record: WorkerRecord, life: Life, exitcode: int | None, lost: int) -> Evidence:
    """Collect what is known of a process that has ended, and close its pipes.

    Args:
        record: whose process it was.
        life: it.
        exitcode: as in `WorkerDied`.
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
        exitcode=exitcode,
        signal=_signal_name(exitcode),
        output=output,
        error=None if fatal is None else fatal.traceback,
        error_type=None if fatal is None else fatal.type_name,
        error_message=None if fatal is None else fatal.message,
        exception=None if fatal is None else life.process.exception(fatal.serial),
        stacks=_take_stacks(life),
        killed=life.kill_asked,
        ticks_lost=lost,
        last_tick=record.state.last_timestamp if life.ready else None,
        loop_lag=record.snapshot.lag if life.ready else 0.0,
        network_status=record.network_status,
        network_error=record.network_error,
    )


def _take_stacks(life: Life) -> str | None:
    """Return the stacks in the watchdog's file, and remove that."""
    if not life.stacks:
        return None
    stacks = ""
    with contextlib.suppress(OSError):
        with open(life.stacks, "rb") as file:
            everything = file.read()[STACKS_HEADER.size :]
        # Those that were asked for tell more of the end than what was written before.
        written = everything[life.stacks_asked_at :] or everything
        if len(written) > LONGEST_STACKS:
            # faulthandler's first thread is the newest; its last, and ours, has the event loop.
            half = LONGEST_STACKS // 2
            written = written[:half] + b"\n...\n" + written[-half:]
        stacks = written.decode(errors="replace")
        os.unlink(life.stacks)
    return stacks or None


def _signal_name(exitcode: int | None) -> str | None:
    if exitcode is None or exitcode >= 0:
        return None
    try:
        return signal.Signals(-exitcode).name
    except ValueError:
        return f"signal {-exitcode}"
