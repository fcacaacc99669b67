"""The start time and memory of concurrent Ray actors: ray_density.py COUNT.

``start_ms`` is the time from the first request until all actors have answered, per actor.
``uss_mb`` is the unshared memory of the median actor. The head node's own processes do not count.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time

import _local_ray
import psutil
import ray


class Idle:
    """Does nothing."""

    def pid(self) -> int:
        """Return its process id."""
        return os.getpid()


def main() -> None:
    """Print the figures."""
    count = int(sys.argv[1])
    _local_ray.start()
    actor_class = ray.remote(num_cpus=0)(Idle)
    began = time.perf_counter()
    actors = [actor_class.remote() for _ in range(count)]
    pids = ray.get([actor.pid.remote() for actor in actors])
    taken = time.perf_counter() - began
    uss = [psutil.Process(pid).memory_full_info().uss for pid in pids]
    ray.shutdown()
    figures = {"start_ms": 1e3 * taken / count, "uss_mb": statistics.median(uss) / 1e6}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
