"""What the soak test sees of workers, of their processes, and of the memory of the owner."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable

import psutil

from chronopype_mp import WorkerHandle, WorkerStatus
from chronopype_mp.events import WorkerReady

MALLOC = "in use of malloc"

SETTLED = 5.0
"""Minutes after which growth counts; in a run of less than twice that, its second half counts."""


class Record:
    """What was seen of one worker.

    Attributes:
        starts: the processes that were started.
        readies: those that became READY.
        asked: the incarnations that were stopped on request.
        deaths: the incarnations that died.
        unwritten: the deaths whose dossier may have no file.
    """

    def __init__(self) -> None:
        self.starts = self.readies = self.unwritten = 0
        self.asked: set[int] = set()
        self.deaths: list[int] = []


class ProcessWatch:
    """Watches processes from outside: no worker stays READY after the end of its process.

    Args:
        within: seconds, at most, for which a worker is READY after the end of its process.
        problem: called with each problem.
        stopped: returns for how many seconds this process was stopped so far.
    """

    def __init__(
        self,
        within: float,
        problem: Callable[[str], None],
        stopped: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.within = within
        self.problem = problem
        self.stopped = stopped
        self.fds: set[int] = set()

    def watch(self, handle: WorkerHandle, event: WorkerReady) -> None:
        """Watch the process of a worker that has become READY."""
        if handle.incarnation != event.incarnation:
            return
        loop = asyncio.get_running_loop()
        try:
            fd = os.pidfd_open(event.pid)
        except ProcessLookupError:
            self.ended(handle, event)
            return
        except OSError:  # no file descriptor is left
            loop.call_later(1.0, self.watch, handle, event)
            return
        self.fds.add(fd)

        def on_end() -> None:
            self.leave(fd)
            self.ended(handle, event)

        loop.add_reader(fd, on_end)

    def ended(self, handle: WorkerHandle, event: WorkerReady) -> None:
        """Check, once its deadlines are over, that the worker is not READY in the process."""
        loop = asyncio.get_running_loop()

        def check(stopped: float) -> None:
            if handle.status is not WorkerStatus.READY or handle.incarnation != event.incarnation:
                return
            if (more := self.stopped() - stopped) > 0.0:  # the deadlines are later by that
                loop.call_later(more, check, stopped + more)
            else:
                self.problem(f"{event.worker}: READY for too long after the end of {event.pid}")

        loop.call_later(self.within, check, self.stopped())

    def leave(self, fd: int) -> None:
        """Stop watching a process."""
        asyncio.get_running_loop().remove_reader(fd)
        self.fds.remove(fd)
        os.close(fd)

    def close(self) -> None:
        """Stop watching all processes."""
        for fd in list(self.fds):
            self.leave(fd)


class MemoryWatch:
    """Records the memory of this process."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.sizes: dict[str, list[int]] = {}

    async def run(self) -> None:
        """Record every 5 s, until cancelled."""
        while True:
            try:
                sizes = _memory()
            except (OSError, psutil.Error):  # no file descriptor is left
                sizes = {}
            if sizes:
                self.times.append(time.monotonic())
                for name, size in sizes.items():
                    self.sizes.setdefault(name, []).append(size)
            await asyncio.sleep(5.0)

    def slopes(self) -> dict[str, float]:
        """Return the growth per minute once settled, in bytes, by the kind of memory."""
        return {name: self._slope(sizes) for name, sizes in self.sizes.items()}

    def _slope(self, sizes: list[int]) -> float:
        begin = self.times[0] + min(60.0 * SETTLED, (self.times[-1] - self.times[0]) / 2)
        first = sum(moment < begin for moment in self.times)
        if len(sizes) - first < 3:
            return 0.0
        return statistics.linear_regression(self.times[first:], sizes[first:]).slope * 60.0


class _Malloc(ctypes.Structure):
    """glibc's ``struct mallinfo2``."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            [
                "arena",
                "ordblks",
                "smblks",
                "hblks",
                "hblkhd",
                "usmblks",
                "fsmblks",
                "uordblks",
                "fordblks",
                "keepcost",
            ]
        )
    ]


def _memory() -> dict[str, int]:
    """Return the memory of this process and how much of it is in use, in bytes.

    Fragmentation lets resident memory grow too. Garbage that waits to be collected is no growth.
    """
    gc.collect()
    sizes = {
        "resident": psutil.Process().memory_info().rss,
        "Python objects (of 64 bytes each)": 64 * sys.getallocatedblocks(),
    }
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallinfo2"):
        libc.mallinfo2.restype = _Malloc
        info = libc.mallinfo2()
        sizes[MALLOC] = info.uordblks + info.hblkhd
    return sizes


def find_left() -> dict[str, list[str]]:
    """Return what this program has: its processes, threads and descriptors."""
    gc.collect()
    me = psutil.Process()
    psutil.wait_procs([c for c in me.children(recursive=True) if c.ppid() != me.pid], timeout=5)
    found: dict[str, list[str]] = {"descriptors": []}
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one of this listing
            found["descriptors"].append(os.readlink(f"/proc/self/fd/{fd}"))
    found["threads"] = [thread.name for thread in threading.enumerate()]
    found["processes"] = [str(child) for child in me.children(recursive=True)]
    return found
