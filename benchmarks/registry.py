"""The benchmarks by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from benchmarks.report import Result

__all__ = ["BENCHMARKS", "find"]

BENCHMARKS = {
    "throughput": "free-running ticks through 1 to 32 workers, without loss",
    "latency": "time from publishing a tick to its hook, and CPU per tick",
    "jitter": "time from a tick's deadline to its publishing, under load",
    "isolation": "effect of a faulty worker on healthy ones",
    "restart": "time from the SIGKILL of a worker to the first tick of its replacement",
    "dispatch": "cost of a tick inside a worker",
    "outputs": "rate and latency of outputs to the owner, and ticks beside a flood of them",
    "messages": "messages from 1 and 8 workers to 1 and 8 others, and ticks beside a flood",
    "density": "start, memory and CPU of 10 to 1000 workers",
    "connections": "memory of workers with ready-made processors, with and without preload",
}
"""The names, each with a short description."""


def find(name: str) -> Callable[[bool], Result]:
    """Return a benchmark's ``measure``. Its argument says whether to do a quick run."""
    measure: Callable[[bool], Result] = importlib.import_module(f"benchmarks.{name}").measure
    return measure
