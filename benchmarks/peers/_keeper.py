"""Runs one command and always ends everything that it started: _keeper.py SECONDS COMMAND...

The keeper is the subreaper of its descendants. A process that loses its parent, such as a daemon,
becomes its child, in whatever session. The keeper therefore finds all of them among its children,
by pid. It ends early, together with them, on SIGTERM or when the process that started it dies. The
command runs in its own session and temporary directory, which is removed at the end.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from types import FrameType

import psutil

__all__ = ["TIMED_OUT"]

TIMED_OUT = 124
"""The exit status after a timeout, like timeout(1)."""

ENDING = 15.0
"""Seconds after which processes that cannot be killed are left behind."""

TIDYING = 3.0
"""Seconds that resource trackers have to remove the semaphores of killed processes."""

TRACKER = "multiprocessing.resource_tracker"
"""In the command line of resource trackers. They end when the last process they track ends."""

QUIET = "ignore:resource_tracker"
"""The warnings of trackers would hide the last output of the program."""

SHORT = "/tmp"
"""Used instead of TMPDIR, because the long paths of Ray's sockets must stay under 108 bytes."""

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def main(seconds: float, command: list[str]) -> int:
    """Run the command for at most ``seconds``. Return its exit status, 128 + n for signal n."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    signal.signal(signal.SIGTERM, _leave)
    with tempfile.TemporaryDirectory(prefix="peer-", dir=SHORT) as directory:
        environ = {**os.environ, "TMPDIR": directory, "PYTHONWARNINGS": QUIET}
        try:
            program = subprocess.Popen(command, cwd=directory, env=environ, start_new_session=True)
            status = program.wait(seconds)
        except subprocess.TimeoutExpired:
            return TIMED_OUT
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            end_descendants()
    return 128 - status if status < 0 else status


def end_descendants() -> None:
    """Kill all descendants until there are none, because they may start others meanwhile."""
    me, began = psutil.Process(), time.monotonic()
    while (found := me.children(recursive=True)) and time.monotonic() - began < ENDING:
        tidying = time.monotonic() - began < TIDYING
        for process in found:
            with contextlib.suppress(psutil.Error):
                if not (tidying and _tidies(process)):
                    process.kill()
        psutil.wait_procs(found, timeout=0.2)


def _tidies(process: psutil.Process) -> bool:
    """Return whether a process is a resource tracker of multiprocessing."""
    return any(TRACKER in argument for argument in process.cmdline())


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
