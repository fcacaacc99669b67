"""A processor for an HTTP API. It creates its client in the worker.

    python examples/http_api.py [--url http://host:port] [--seconds 10]

Without ``--url`` it starts `servers.py` as its own server. The processor follows the one in
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
"""Ticks between log lines with the price."""


class ApiClient:
    """A client that caches the newest price, so ticks do not wait for the network.

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
        """Return whether the API reports that it is healthy."""
        async with self._session.get("/health") as response:
            return response.ok

    def process(self, timestamp: float) -> float | None:
        """Return the newest price, or None before the first, and start fetching the next one."""
        if self._request is None or self._request.done():
            self._request = asyncio.get_running_loop().create_task(self._fetch())
        return self.price

    async def _fetch(self) -> None:
        try:
            async with self._session.get("/price", raise_for_status=True) as response:
                self.price = float((await response.json())["price"])
            self.fetched += 1
        except (aiohttp.ClientError, TimeoutError):
            self.failed += 1  # the health check decides whether the connection is lost

    async def close(self) -> None:
        """Cancel a pending request and close the connections."""
        if self._request is not None:
            self._request.cancel()
            await asyncio.wait({self._request})
        await self._session.close()


async def create_api_client(url: str) -> ApiClient:
    """Return a client. It connects on its first request."""
    return ApiClient(url)


class ApiProcessor(NetworkProcessor):
    """Processes a price at every tick while the API is healthy.

    Args:
        url: the API's address.
        check_interval: seconds between health checks.
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
        """Return the logger. Its records are logged in the clock's process."""
        return logging.getLogger(cls.LOGGER_NAME)

    async def check_network(self) -> NetworkStatus:
        """Check whether the API is reachable and healthy."""
        if self.client is None:
            return NetworkStatus.NOT_CONNECTED  # start_network() runs next
        try:
            if await self.client.health_check():
                return NetworkStatus.CONNECTED
            return NetworkStatus.NOT_CONNECTED
        except (aiohttp.ClientError, TimeoutError):
            return NetworkStatus.ERROR

    async def start_network(self) -> None:
        """Create the client in the worker, because a session cannot be sent to a process."""
        self.client = await create_api_client(self.url)

    async def stop_network(self) -> None:
        """Close the client."""
        client, self.client = self.client, None
        if client is not None:
            await client.close()

    def tick(self, timestamp: float) -> None:
        """Process the price. This runs only while connected."""
        assert self.client is not None
        price = self.client.process(timestamp)
        self.ticks += 1
        if price is not None and self.ticks % LOG_EVERY == 0:
            self.logger().info("price %.3f after %d ticks", price, self.ticks)


def show(event: Event) -> None:
    """Print an event."""
    match event:
        case NetworkChanged():
            print(f"{event.worker}: network {event.before.name} -> {event.after.name}", flush=True)
        case WorkerReady():
            print(f"{event.worker}: ready, pid {event.pid}", flush=True)
        case WorkerDied():
            print(event, flush=True)


async def run(url: str, seconds: float) -> None:
    """Tick the processor for ``seconds``. Print the events and the final account."""
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
    """Run against the given server, or start one."""
    if arguments.url:
        await run(arguments.url, arguments.seconds)
        return
    server = await ServerProcess.start()
    try:
        await run(server.http, arguments.seconds)
    finally:
        await server.close()


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="A processor for an HTTP API.")
    parser.add_argument("--url", help="the API's address; default: start a server")
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    if not 0.0 < arguments.seconds < math.inf:
        parser.error(f"--seconds {arguments.seconds}: must be positive and finite")
    return arguments


if __name__ == "__main__":
    logging.basicConfig(format="%(name)s: %(message)s")
    ApiProcessor.logger().setLevel(logging.INFO)
    try:
        asyncio.run(main(parse()))
    except KeyboardInterrupt:
        sys.exit(130)
