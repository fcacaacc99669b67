"""The throughput of no-op ticks to dask actors: dask_throughput.py ACTORS TICKS.

There is one worker process per actor. An asynchronous client talks to the workers directly, with a
bounded number of calls in flight per actor. ``tick`` is a coroutine function, which a worker runs
in its event loop. A plain function would run in a thread.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import dask
from distributed import Client, LocalCluster
from distributed.actor import Actor

IN_FLIGHT = 128
"""Calls in flight to all actors together, at most 16 to each.

Each call takes a connection. More calls were slower."""


class Ticked:
    """Counts its ticks."""

    def __init__(self) -> None:
        self.count = 0

    async def tick(self, timestamp: float) -> None:
        self.count += 1

    async def counted(self) -> int:
        """Return the number of ticks."""
        return self.count


async def deliver(actor: Actor, ticks: int, in_flight: int) -> None:
    """Send all ticks to an actor, in order except for those that are in flight together."""
    remaining = iter(range(ticks))

    async def one_after_another() -> None:
        for tick in remaining:
            await actor.tick(float(tick))

    await asyncio.gather(*(one_after_another() for _ in range(in_flight)))


async def run(number: int, ticks: int) -> float:
    """Return the duration in seconds."""
    cluster = LocalCluster(
        n_workers=number,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,
        memory_limit=0,
        asynchronous=True,
    )
    in_flight = max(1, min(16, IN_FLIGHT // number))
    async with cluster, Client(cluster, asynchronous=True, direct_to_workers=True) as client:
        await client.wait_for_workers(number)
        futures = [
            client.submit(Ticked, actor=True, pure=False, workers=[nanny.worker_address])
            for nanny in cluster.workers.values()
        ]
        actors = await asyncio.gather(*futures)
        warm_up = 2 * in_flight  # opens the connections
        await asyncio.gather(*(deliver(actor, warm_up, in_flight) for actor in actors))
        began = time.perf_counter()
        await asyncio.gather(*(deliver(actor, ticks, in_flight) for actor in actors))
        taken = time.perf_counter() - began
        counts = [await actor.counted() for actor in actors]
    if counts != [warm_up + ticks] * number:
        sys.exit(f"ticks were lost: {counts}")
    return taken


def main() -> None:
    """Print the figures."""
    number, ticks = int(sys.argv[1]), int(sys.argv[2])
    dask.config.set({"logging.distributed": "error"})
    taken = asyncio.run(run(number, ticks))
    print(json.dumps({"ticks_per_s": ticks / taken, "deliveries_per_s": ticks * number / taken}))


if __name__ == "__main__":
    main()
