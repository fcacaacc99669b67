"""Percentiles, CPU time, memory, and how a tick that was published is matched with its arrival."""

from __future__ import annotations

import bisect
import math
import statistics
import time
from collections.abc import Iterable, Sequence

import psutil

from benchmarks.report import Sample

__all__ = ["MeasurementError", "cpu_time", "footprint", "latencies", "percentiles"]

PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}

ROUNDING = 1e-6
"""Seconds by which two writings of the same tick's timestamp may differ."""


class MeasurementError(Exception):
    """What was to be measured did not happen; the message says what."""


def percentiles(values: Iterable[float]) -> Sample:
    """Return p50, p99 and p99.9, by nearest rank.

    Those for which there are too few values are left out: p99 of 50 values would be their largest.

    Raises:
        MeasurementError: there is no value at all.
    """
    ordered = sorted(values)
    if not ordered:
        raise MeasurementError("no tick arrived")
    count = len(ordered)
    return {
        name: ordered[math.ceil(part * count) - 1]
        for name, part in PERCENTILES.items()
        if round(count * (1 - part), 6) >= 1 or part == 0.5
    }


def latencies(
    due: Iterable[tuple[float, float]], arrived: Sequence[tuple[float, float]], end: float
) -> list[float]:
    """Return how long each tick took until it, or a later one in its place, was entered, seconds.

    So a tick that was dropped or replaced counts as late, not as absent.

    Args:
        due: timestamp and time of publishing (or of the deadline) of each tick.
        arrived: timestamp and time of entry of those that were run, oldest first.
        end: what counts as the time of entry where nothing arrived any more.
    """
    timestamps = [timestamp for timestamp, _ in arrived]
    entered = [*(entry for _, entry in arrived), end]
    return [
        entered[bisect.bisect_left(timestamps, timestamp - ROUNDING)] - since
        for timestamp, since in due
    ]


def cpu_time(pid: int) -> float:
    """Return the CPU time of all threads of a process so far, seconds.

    On Linux from the process' CPU clock, which counts in nanoseconds; elsewhere as psutil has it.
    """
    try:
        return time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(3)
    except (OSError, AttributeError):
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system)


def footprint(pids: Sequence[int]) -> Sample:
    """Return USS and PSS of the median process, MB."""
    found = [psutil.Process(pid).memory_full_info() for pid in pids]
    return {
        "USS": statistics.median(each.uss for each in found) / 1e6,
        "PSS": statistics.median(each.pss for each in found) / 1e6,
    }
