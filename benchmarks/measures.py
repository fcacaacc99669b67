"""Percentiles, CPU time, memory, and the latencies from published and arrived ticks."""

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
"""Seconds by which two representations of one timestamp may differ."""


class MeasurementError(Exception):
    """Something that was to be measured did not happen. The message says what."""


def percentiles(values: Iterable[float]) -> Sample:
    """Return p50, p99 and p99.9 by nearest rank.

    A percentile with too few values is left out. The p99 of 50 values would be their maximum.

    Raises:
        MeasurementError: there are no values.
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
    """Return the seconds until each tick, or a later one in its place, was entered.

    A tick that was dropped or replaced therefore counts as late, not as absent.

    Args:
        due: the timestamp and the time of publishing (or the deadline) of each tick.
        arrived: the timestamp and the time of entry of the ticks that ran, oldest first.
        end: the time of entry to assume if no later tick arrived.
    """
    timestamps = [timestamp for timestamp, _ in arrived]
    entered = [*(entry for _, entry in arrived), end]
    return [
        entered[bisect.bisect_left(timestamps, timestamp - ROUNDING)] - since
        for timestamp, since in due
    ]


def cpu_time(pid: int) -> float:
    """Return the CPU time of all threads of a process so far, seconds.

    On Linux this reads the process's CPU clock, which counts nanoseconds. Elsewhere it uses psutil.
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
