"""The benchmarks by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from benchmarks.report import Result

__all__ = ["BENCHMARKS", "find"]

BENCHMARKS = {
    "throughput": "ticks that run freely through 1 to 32 workers, none lost",
    "latency": "from the publishing of a tick to its hook, and the CPU of that",
    "jitter": "from a tick's deadline to its publishing, whatever the owner's loop does",
    "isolation": "what healthy workers notice of a neighbour in trouble",
    "restart": "from the SIGKILL of a worker to the first tick of the next",
    "dispatch": "what a tick costs inside a worker",
    "density": "start, memory and CPU of 10 to 1000 workers",
}
"""Name, and what it measures in a few words."""


def find(name: str) -> Callable[[bool], Result]:
    """Return the ``measure`` of a benchmark; its argument says whether it shall be quick."""
    measure: Callable[[bool], Result] = importlib.import_module(f"benchmarks.{name}").measure
    return measure
