"""Injects faults into workers, to rehearse failures.

Each function takes a worker's handle and returns at once. The events show the consequences::

    faults.hold_gil(handle, 30.0)
    death = await recorder.wait_for(WorkerDied, worker=handle.name, timeout=60.0)
    assert death.reason is DeathReason.GIL_STUCK

`kill`, `stop` and `resume` send signals from outside and work on any worker process. The worker
itself carries out the other faults in its event loop. It must be READY, and its loop must not be
blocked. Faults are rejected with the inline launcher, because most of them would affect the whole
program.
"""

from __future__ import annotations

import os
import signal

from chronopype_mp.coordinator.handle import WorkerHandle
from chronopype_mp.core.checks import at_least, whole
from chronopype_mp.core.worker_events import WorkerStatus
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
    """Block the event loop for ``seconds`` in C code that releases the GIL (`time.sleep`)."""
    _inflict(handle, "block_loop", seconds)


def spin(handle: WorkerHandle, seconds: float) -> None:
    """Block the event loop for ``seconds`` in Python code."""
    _inflict(handle, "spin", seconds)


def hold_gil(handle: WorkerHandle, seconds: float) -> None:
    """Block all threads for ``seconds`` in C code that holds the GIL, at most 4,000 s."""
    _inflict(handle, "hold_gil", seconds)


def leak(handle: WorkerHandle, size: int) -> None:
    """Allocate ``size`` bytes and never free them."""
    _inflict(handle, "leak", size)


def burn_cpu(handle: WorkerHandle, seconds: float) -> None:
    """Use a whole core for ``seconds`` while the event loop keeps turning."""
    _inflict(handle, "burn_cpu", seconds)


def exit_in_hook(handle: WorkerHandle, code: int) -> None:
    """Raise SystemExit in the event loop, as `sys.exit` in a hook does; ``code`` is 0 to 255."""
    whole("faults.exit_in_hook", "code", code, 0, 255)
    _inflict(handle, "exit_in_hook", code)


def exit_at_once(handle: WorkerHandle, code: int) -> None:
    """End the process with `os._exit`, which flushes nothing; ``code`` is 0 to 255."""
    whole("faults.exit_at_once", "code", code, 0, 255)
    _inflict(handle, "exit_at_once", code)


def crash(handle: WorkerHandle) -> None:
    """Cause a segmentation fault by reading from address 0."""
    _inflict(handle, "crash", 0)


def ignore_signals(handle: WorkerHandle) -> None:
    """Ignore the signal and the command to stop from now on."""
    _inflict(handle, "ignore_signals", 0)


def flood_logs(handle: WorkerHandle, records: int) -> None:
    """Log ``records`` records as fast as possible."""
    _inflict(handle, "flood_logs", records)


def flood_output(handle: WorkerHandle, lines: int) -> None:
    """Print ``lines`` lines to stdout as fast as possible."""
    _inflict(handle, "flood_output", lines)


def junk_output(handle: WorkerHandle, size: int) -> None:
    """Write ``size`` random bytes to stderr."""
    _inflict(handle, "junk_output", size)


def drop_reports(handle: WorkerHandle, seconds: float) -> None:
    """Send no reports from any thread for ``seconds``. The worker is otherwise healthy."""
    _inflict(handle, "drop_reports", seconds)


def start_children(handle: WorkerHandle, seconds: float) -> None:
    """Start two child processes that sleep for ``seconds``, one of them in its own session."""
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
        raise WorkerError(handle.name, f"it is {handle.status.name}, but this needs READY")
    handle._rehearse(fault, float(amount))


def _pid(handle: WorkerHandle) -> int:
    if handle.pid is None:
        raise WorkerError(handle.name, "it has no process now")
    if handle.is_inline:
        raise WorkerError(handle.name, "it runs inline, so the fault would hit this process")
    return handle.pid
