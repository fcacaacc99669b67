"""Hurting workers on purpose, to see what becomes of it: rehearse your failures.

Each function takes a worker's handle and returns at once; what comes of it is in the events::

    faults.hold_gil(handle, 30.0)
    death = await recorder.wait_for(WorkerDied, worker=handle.name, timeout=60.0)
    assert death.reason is DeathReason.GIL_STUCK

`kill`, `stop` and `resume` are signals from outside and work on any worker process. The others are
carried out by the worker itself, in its event loop, and need one that is READY and listens. With
the inline launcher nearly all of them hurt the whole program, so they are refused.
"""

from __future__ import annotations

import os
import signal

from chronopype_mp.coordinator.handle import WorkerHandle
from chronopype_mp.core.checks import at_least, whole
from chronopype_mp.core.events import WorkerStatus
from chronopype_mp.exceptions import WorkerError

__all__ = [
    "block_loop",
    "burn_cpu",
    "crash",
    "drop_reports",
    "exit_at_once",
    "exit_in_hook",
    "flood_logs",
    "flood_output",
    "hold_gil",
    "ignore_signals",
    "junk_output",
    "kill",
    "leak",
    "resume",
    "spin",
    "start_children",
    "stop",
]


def kill(handle: WorkerHandle) -> int:
    """Send SIGKILL; return the pid. Raises WorkerError if there is no process."""
    return _signal(handle, signal.SIGKILL)


def stop(handle: WorkerHandle) -> int:
    """Send SIGSTOP; return the pid. Raises WorkerError if there is no process."""
    return _signal(handle, signal.SIGSTOP)


def resume(handle: WorkerHandle) -> int:
    """Send SIGCONT; return the pid. Raises WorkerError if there is no process."""
    return _signal(handle, signal.SIGCONT)


def block_loop(handle: WorkerHandle, seconds: float) -> None:
    """Block the event loop in C code that releases the GIL (`time.sleep`)."""
    _inflict(handle, "block_loop", seconds)


def spin(handle: WorkerHandle, seconds: float) -> None:
    """Block the event loop in Python code."""
    _inflict(handle, "spin", seconds)


def hold_gil(handle: WorkerHandle, seconds: float) -> None:
    """Block all threads: C code that keeps the GIL, at most 4,000 s."""
    _inflict(handle, "hold_gil", seconds)


def leak(handle: WorkerHandle, size: int) -> None:
    """Allocate ``size`` bytes and never give them back."""
    _inflict(handle, "leak", size)


def burn_cpu(handle: WorkerHandle, seconds: float) -> None:
    """Use a whole core while the event loop goes on turning."""
    _inflict(handle, "burn_cpu", seconds)


def exit_in_hook(handle: WorkerHandle, code: int) -> None:
    """Raise SystemExit in the event loop, as `sys.exit` in a hook does; ``code`` is 0 to 255."""
    whole("faults.exit_in_hook", "code", code, 0, 255)
    _inflict(handle, "exit_in_hook", code)


def exit_at_once(handle: WorkerHandle, code: int) -> None:
    """End the process with `os._exit`: nothing is flushed; ``code`` is 0 to 255."""
    whole("faults.exit_at_once", "code", code, 0, 255)
    _inflict(handle, "exit_at_once", code)


def crash(handle: WorkerHandle) -> None:
    """Read from address 0: a segmentation fault."""
    _inflict(handle, "crash", 0)


def ignore_signals(handle: WorkerHandle) -> None:
    """Ignore SIGTERM and the command to stop from now on."""
    _inflict(handle, "ignore_signals", 0)


def flood_logs(handle: WorkerHandle, records: int) -> None:
    """Log so many records as fast as possible."""
    _inflict(handle, "flood_logs", records)


def flood_output(handle: WorkerHandle, lines: int) -> None:
    """Print so many lines to stdout as fast as possible."""
    _inflict(handle, "flood_output", lines)


def junk_output(handle: WorkerHandle, size: int) -> None:
    """Write ``size`` random bytes to stderr."""
    _inflict(handle, "junk_output", size)


def drop_reports(handle: WorkerHandle, seconds: float) -> None:
    """Send no report, from whichever thread, for so long; the worker is healthy otherwise."""
    _inflict(handle, "drop_reports", seconds)


def start_children(handle: WorkerHandle, seconds: float) -> None:
    """Start two child processes that sleep for so long, one of them in a session of its own."""
    _inflict(handle, "start_children", seconds)


def _signal(handle: WorkerHandle, number: signal.Signals) -> int:
    pid = _pid(handle)
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        raise WorkerError(handle.name, "its process has just ended") from None
    return pid


def _inflict(handle: WorkerHandle, fault: str, amount: float) -> None:
    at_least(f"faults.{fault}", "amount", amount, 0.0)
    _pid(handle)
    if handle.status is not WorkerStatus.READY:
        raise WorkerError(handle.name, f"it is {handle.status.name}, and must be READY for that")
    handle._rehearse(fault, float(amount))


def _pid(handle: WorkerHandle) -> int:
    if handle.pid is None:
        raise WorkerError(handle.name, "it has no process now")
    if handle.pid == os.getpid():
        raise WorkerError(handle.name, "it is inline: that would hurt this very program")
    return handle.pid
