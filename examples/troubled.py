"""Two faulty processors. Each of them affects only its own process.

    python examples/troubled.py [--seconds 15]

This runs both next to a healthy `http_api.ApiProcessor`, against its own server.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
import time

from http_api import ApiProcessor, parse, show
from servers import ServerProcess

from chronopype_mp import ClockConfig, ClockMode, NetworkStatus, Supervision
from chronopype_mp.clocks import RealtimeClock

BLOCK_AT = 3
"""The number of the health check that blocks briefly, counted from 1 in each process."""

STALL_AT = 6
"""The number of the health check that blocks for too long."""


class BlockingApi(ApiProcessor):
    """Blocks its event loop in a health check: first briefly, later until it is killed.

    Args:
        url: the API's address.
        block: the duration of the first block, seconds. Ticks are missed meanwhile.
        stall: the duration of the second block, seconds. It must exceed ``loop_stall_timeout``.
    """

    LOGGER_NAME = "BlockingApi"

    def __init__(self, url: str, block: float = 0.5, stall: float = 30.0) -> None:
        super().__init__(url)
        self.block = block
        self.stall = stall
        self.checks = 0

    async def check_network(self) -> NetworkStatus:
        """Check as usual, but sometimes block the event loop first."""
        self.checks += 1
        if self.checks == BLOCK_AT:
            time.sleep(self.block)  # noqa: ASYNC251 – the point of this class
        elif self.checks == STALL_AT:
            time.sleep(self.stall)  # noqa: ASYNC251 – the point of this class
        return await super().check_network()


class CrashingApi(ApiProcessor):
    """Reads address 0 every few seconds. No ``except`` catches this real segmentation fault.

    Args:
        url: the API's address.
        every: seconds from the first tick to the crash.
    """

    LOGGER_NAME = "CrashingApi"

    def __init__(self, url: str, every: float = 5.0) -> None:
        super().__init__(url)
        self.every = every
        self.first_tick: float | None = None

    def tick(self, timestamp: float) -> None:
        """Tick as usual until it is time to crash."""
        super().tick(timestamp)
        if self.first_tick is None:
            self.first_tick = timestamp
        elif timestamp - self.first_tick >= self.every:
            ctypes.string_at(0)


async def main(seconds: float) -> None:
    """Tick a healthy and both faulty processors. Print the events and the final accounts."""
    server = await ServerProcess.start()
    try:
        config = ClockConfig(clock_mode=ClockMode.REALTIME, tick_size=0.1)
        supervision = Supervision(loop_stall_timeout=2.0)
        async with RealtimeClock(config, supervision=supervision) as clock:
            clock.events.subscribe(show)
            handles = [
                clock.add_processor(ApiProcessor(server.http), name="healthy"),
                clock.add_processor(BlockingApi(server.http), name="blocks"),
                clock.add_processor(CrashingApi(server.http), name="crashes"),
            ]
            await clock.run_til(time.time() + seconds)
    finally:
        await server.close()
    for handle in handles:
        account = handle.statistics()
        print(f"{handle.name}: {account.run} ticks run, {account.restarts} restarts")


if __name__ == "__main__":
    try:
        asyncio.run(main(parse().seconds))
    except KeyboardInterrupt:
        sys.exit(130)
