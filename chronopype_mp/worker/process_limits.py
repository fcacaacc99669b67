"""Sets a worker process's priority, cores and limits, and measures what it uses."""

from __future__ import annotations

import os
import resource
import sys

from chronopype_mp.core.boot import WorkerBoot
from chronopype_mp.timing import cpu_time

__all__ = ["Usage", "apply_resources"]

PAGE = resource.getpagesize()


def apply_resources(boot: WorkerBoot) -> None:
    """Set niceness, cores and soft limits.

    Raises:
        OSError: the system refuses one.
        ValueError: a soft limit is above the hard one.
    """
    if boot.nice:
        os.nice(boot.nice)
    if boot.cores:
        os.sched_setaffinity(0, boot.cores)
    for name, limit in boot.rlimits.items():
        number = getattr(resource, f"RLIMIT_{name}")
        resource.setrlimit(number, (limit, resource.getrlimit(number)[1]))


class Usage:
    """Measures what this process uses. It keeps the kernel's file open."""

    def __init__(self) -> None:
        self._statm = os.open("/proc/self/statm", os.O_RDONLY) if sys.platform == "linux" else None

    def __call__(self) -> tuple[int, float]:
        """Return the resident memory in bytes and the CPU time used so far in seconds."""
        if self._statm is not None:
            rss = int(os.pread(self._statm, 100, 0).split()[1]) * PAGE
        else:
            # The peak, in bytes on macOS: the closest figure without a dependency.
            rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return rss, cpu_time()
