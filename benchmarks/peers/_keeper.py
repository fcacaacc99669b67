"""Runs one command and, whatever happens, ends all that it started: _keeper.py SECONDS COMMAND...

It is the subreaper of its descendants: who loses its parent, a daemon for instance, becomes its
child, whatever session it is in. So all of them are found by asking for its children, by id. It
ends early, and they with it, when it gets a SIGTERM or the process that started it dies. The
command runs in a session and a temporary directory of its own, which is removed in the end.
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
"""The exit status that says so, as timeout(1) has it."""

ENDING = 15.0
"""Seconds after which what cannot be killed is left."""

TIDYING = 3.0
"""Seconds that resource trackers have for the semaphores of those who were killed."""

TRACKER = "multiprocessing.resource_tracker"
"""In their command line. They end by themselves when the last one whom they track is gone."""

QUIET = "ignore:resource_tracker"
"""What trackers say would hide the last words of the program."""

SHORT = "/tmp"
"""Not TMPDIR: the paths of Ray's sockets, far below it, must stay under 108 bytes."""

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def main(seconds: float, command: list[str]) -> int:
    """Run the command for at most some seconds; return its exit status, 128 + n for signal n."""
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
    """Kill all descendants, until there are none: they may be starting others meanwhile."""
    me, began = psutil.Process(), time.monotonic()
    while (found := me.children(recursive=True)) and time.monotonic() - began < ENDING:
        tidying = time.monotonic() - began < TIDYING
        for process in found:
            with contextlib.suppress(psutil.Error):
                if not (tidying and _tidies(process)):
                    process.kill()
        psutil.wait_procs(found, timeout=0.2)


def _tidies(process: psutil.Process) -> bool:
    """Tell the resource trackers of multiprocessing."""
    return any(TRACKER in argument for argument in process.cmdline())


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
