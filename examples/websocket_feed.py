"""A processor for a WebSocket feed. It reconnects by itself and never delays a tick.

    python examples/websocket_feed.py [--url ws://host:port] [--seconds 10]

Without ``--url`` it starts `servers.py` as its own server. In chronopype's documentation the tick
awaits ``recv()``, so a silent server stops the ticks. Here a reader task keeps the newest quote for
the next tick.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import math
import sys
import time

from servers import ServerProcess
from websockets import ConnectionClosed, State
from websockets.asyncio.client import ClientConnection, connect

from chronopype_mp import ClockConfig, ClockMode, NetworkProcessor, NetworkStatus
from chronopype_mp.clocks import RealtimeClock
from chronopype_mp.events import Event, NetworkChanged, WorkerDied, WorkerReady

LOG_EVERY = 20
"""Messages between log lines with the price."""


class WebSocketProcessor(NetworkProcessor):
    """Processes the newest quote at every tick.

    Args:
        url: the feed's address.
        check_interval: seconds between checks of the connection.
        stale_after: seconds of silence after which the feed counts as lost.
    """

    LOGGER_NAME = "WebSocketProcessor"
    start_network_timeout = 5.0

    def __init__(self, url: str, check_interval: float = 0.5, stale_after: float = 5.0) -> None:
        super().__init__()
        self.url = url
        self.stale_after = stale_after
        self.check_network_interval = check_interval
        self.ws: ClientConnection | None = None
        self.newest: str | bytes | None = None
        self.processed = 0

    @classmethod
    def logger(cls) -> logging.Logger:
        """Return the logger. Its records are logged in the clock's process."""
        return logging.getLogger(cls.LOGGER_NAME)

    async def check_network(self) -> NetworkStatus:
        """Check whether the connection is open."""
        is_open = self.ws is not None and self.ws.state is State.OPEN
        return NetworkStatus.CONNECTED if is_open else NetworkStatus.NOT_CONNECTED

    async def start_network(self) -> None:
        """Connect. If the server is down, the network loop tries again later."""
        self.ws = await connect(self.url, open_timeout=3.0, close_timeout=1.0)

    async def stop_network(self) -> None:
        """Close the connection, including after a loss."""
        ws, self.ws = self.ws, None
        self.newest = None
        if ws is not None:
            await ws.close()

    def on_connected(self) -> None:
        """Log the connection."""
        super().on_connected()
        self.logger().info("WebSocket connected to %s", self.url)

    async def run_network(self) -> None:
        """Keep the newest message. The connection is lost when this ends."""
        assert self.ws is not None
        try:
            async for message in self.ws:
                self.newest = message
                self.heard()
        except ConnectionClosed as error:
            self.logger().info("feed lost: %s", error)

    async def async_tick(self, timestamp: float) -> None:
        """Process the newest message, if one arrived since the last tick."""
        message, self.newest = self.newest, None
        if message is not None:
            self.process_message(message, timestamp)

    def process_message(self, message: str | bytes, timestamp: float) -> None:
        """Process a quote."""
        quote = json.loads(message)
        self.processed += 1
        if self.processed % LOG_EVERY == 0:
            age = time.time() - quote["at"]
            self.logger().info("price %s, %.0f ms old", quote["price"], 1000 * age)


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
        handle = clock.add_processor(WebSocketProcessor(url), name="feed")
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
        await run(server.ws, arguments.seconds)
    finally:
        await server.close()


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="A processor for a WebSocket feed.")
    parser.add_argument("--url", help="the feed's address; default: start a server")
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    if not 0.0 < arguments.seconds < math.inf:
        parser.error(f"--seconds {arguments.seconds}: must be positive and finite")
    return arguments


if __name__ == "__main__":
    logging.basicConfig(format="%(name)s: %(message)s")
    WebSocketProcessor.logger().setLevel(logging.INFO)
    try:
        asyncio.run(main(parse()))
    except KeyboardInterrupt:
        sys.exit(130)
