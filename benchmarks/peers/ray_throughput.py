"""The throughput of no-op ticks to Ray actors: ray_throughput.py ACTORS TICKS.

The driver sends batches of ticks, and collects the results of a batch while the next one is in
flight. Task events are not recorded, because they only feed the dashboard, which is off.
"""

from __future__ import annotations

import json
import sys
import time

import _local_ray
import ray

BATCH = 1000
"""Ticks per batch. At most twice as many are in flight per actor."""


class Ticked:
    """Counts its ticks."""

    def __init__(self) -> None:
        self.count = 0

    def tick(self, timestamp: float) -> None:
        self.count += 1

    def counted(self) -> int:
        """Return the number of ticks."""
        return self.count


def main() -> None:
    """Print the figures."""
    number, ticks = int(sys.argv[1]), int(sys.argv[2])
    _local_ray.start()
    actor_class = ray.remote(num_cpus=0, enable_task_events=False)(Ticked)
    actors = [actor_class.remote() for _ in range(number)]
    ray.get([actor.counted.remote() for actor in actors])
    began = time.perf_counter()
    under_way: list[ray.ObjectRef] = []
    for start in range(0, ticks, BATCH):
        batch = [
            actor.tick.remote(float(tick))
            for tick in range(start, min(start + BATCH, ticks))
            for actor in actors
        ]
        ray.get(under_way)
        under_way = batch
    ray.get(under_way)
    taken = time.perf_counter() - began
    counts = ray.get([actor.counted.remote() for actor in actors])
    ray.shutdown()
    if counts != [ticks] * number:
        sys.exit(f"ticks were lost: {counts}")
    print(json.dumps({"ticks_per_s": ticks / taken, "deliveries_per_s": ticks * number / taken}))


if __name__ == "__main__":
    main()
