"""A processor over an HTTP API: the client is made in the worker, checked, and ticked.

    python examples/http_api.py [--url http://host:port] [--seconds 10]

Without ``--url`` it starts `servers.py` as a server of its own. The processor is the one of
chronopype's documentation; only the import differs.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
import sys
import time

import aiohttp
from servers import ServerProcess

from chronopype_mp import ClockConfig, ClockMode, NetworkProcessor, NetworkStatus
from chronopype_mp.clocks import RealtimeClock
from chronopype_mp.events import Event, NetworkChanged, WorkerDied, WorkerReady

LOG_EVERY = 20
"""Ticks between two lines about the price."""


class ApiClient:
    """A client that keeps the newest price at hand, so that a tick need not wait for the network.

    Args:
        url: the API's address.
    """

    def __init__(self, url: str) -> None:
        self._session = aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(total=2.0))
        self._request: asyncio.Task[None] | None = None
        self.price: float | None = None
        self.fetched = 0
        self.failed = 0

    async def health_check(self) -> bool:
        """Return whether the API says that it is well."""
        async with self._session.get("/health") as response:
            return response.ok

    def process(self, timestamp: float) -> float | None:
        """Return the newest price, None before the first, and have the next one fetched."""
        if self._request is None or self._request.done():
            self._request = asyncio.get_running_loop().create_task(self._fetch())
        return self.price

    async def _fetch(self) -> None:
        try:
            async with self._session.get("/price", raise_for_status=True) as response:
                self.price = float((await response.json())["price"])
            self.fetched += 1
        except (aiohttp.ClientError, TimeoutError):
            self.failed += 1  # whether the connection is lost is for the health check to say

    async def close(self) -> None:
        """Give up a request under way and close the connections."""
        if self._request is not None:
            self._request.cancel()
            await asyncio.wait({self._request})
        await self._session.close()


async def create_api_client(url: str) -> ApiClient:
    """Return a client; it connects at its first request."""
    return ApiClient(url)


class ApiProcessor(NetworkProcessor):
    """Processes a price at every tick while the API is healthy.

    Args:
        url: the API's address.
        check_interval: seconds between two health checks.
    """

    LOGGER_NAME = "ApiProcessor"

    def __init__(self, url: str, check_interval: float = 1.0) -> None:
        super().__init__()
        self.url = url
        self.check_network_interval = check_interval
        self.client: ApiClient | None = None
        self.ticks = 0

    @classmethod
    def logger(cls) -> logging.Logger:
        """Return the logger; its records come out in the clock's process."""
        return logging.getLogger(cls.LOGGER_NAME)

    async def check_network(self) -> NetworkStatus:
        """Check whether the API is reachable and well."""
        if self.client is None:
            return NetworkStatus.NOT_CONNECTED  # start_network() comes next
        try:
            if await self.client.health_check():
                return NetworkStatus.CONNECTED
            return NetworkStatus.NOT_CONNECTED
        except (aiohttp.ClientError, TimeoutError):
            return NetworkStatus.ERROR

    async def start_network(self) -> None:
        """Make the client; in the worker, for a session does not travel."""
        self.client = await create_api_client(self.url)

    async def stop_network(self) -> None:
        """Close the client."""
        client, self.client = self.client, None
        if client is not None:
            await client.close()

    def tick(self, timestamp: float) -> None:
        """Process the price; only runs while connected."""
        assert self.client is not None
        price = self.client.process(timestamp)
        self.ticks += 1
        if price is not None and self.ticks % LOG_EVERY == 0:
            self.logger().info("price %.3f after %d ticks", price, self.ticks)


def show(event: Event) -> None:
    """Print what happened."""
    match event:
        case NetworkChanged():
            print(f"{event.worker}: network {event.before.name} -> {event.after.name}", flush=True)
        case WorkerReady():
            print(f"{event.worker}: ready, pid {event.pid}", flush=True)
        case WorkerDied():
            print(event, flush=True)


async def run(url: str, seconds: float) -> None:
    """Tick the processor for a while; print what happens and what came of it."""
    config = ClockConfig(clock_mode=ClockMode.REALTIME, tick_size=0.1, start_time=time.time())
    async with RealtimeClock(config) as clock:
        clock.events.subscribe(show, NetworkChanged, WorkerReady, WorkerDied)
        handle = clock.add_processor(ApiProcessor(url), name="api")
        await handle.wait_ready()
        await clock.run_til(time.time() + seconds)
    account = handle.statistics()
    print(
        f"{handle.name}: {account.published} ticks due: {account.run} run, "
        f"{account.missed} missed, {account.skipped} skipped, {account.lost} lost; "
        f"largest gap {account.largest_gap:.3f} s, {account.restarts} restarts"
    )


async def main(arguments: argparse.Namespace) -> None:
    """Run against the server asked for, or against one of our own."""
    if arguments.url:
        await run(arguments.url, arguments.seconds)
        return
    server = await ServerProcess.start()
    try:
        await run(server.http, arguments.seconds)
    finally:
        await server.close()


def parse() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description="A processor over an HTTP API.")
    parser.add_argument("--url", help="the API's address; default: a server of our own")
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    if not 0.0 < arguments.seconds < math.inf:
        parser.error(f"--seconds {arguments.seconds}: must be above 0 and finite")
    return arguments


if __name__ == "__main__":
    logging.basicConfig(format="%(name)s: %(message)s")
    ApiProcessor.logger().setLevel(logging.INFO)
    try:
        asyncio.run(main(parse()))
    except KeyboardInterrupt:
        sys.exit(130)
