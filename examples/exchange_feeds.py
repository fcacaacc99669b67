"""Eight feeds of a troubled exchange: `ExchangeFeed` shows how to write such a connection.

    python examples/exchange_feeds.py [--seconds 30] [--key KEY]

The exchange is a fake, whose troubles are over after 10 s. The exit status is 1 if a feed is not
connected at the end. ``--key wrong`` shows a failure that is not retried.
"""

import argparse
import asyncio
import json
import logging
import math
import ssl
import sys
import time
from collections import Counter

from server_process import run_exchange
from websockets import InvalidStatus, State, WebSocketException
from websockets.asyncio.client import ClientConnection, connect

from chronopype_mp import BackoffPolicy, ClockConfig, ClockMode, PermanentFailure, RetryAfter
from chronopype_mp.clocks import RealtimeClock
from chronopype_mp.events import Event, NetworkChanged
from chronopype_mp.processors import NetworkProcessor, NetworkStatus


class ExchangeFeed(NetworkProcessor):
    """Keeps the newest quote of a feed, and processes it at the next tick."""

    check_network_interval = 1.0
    stale_after = 3.0  # an open connection that is silent for longer is lost
    stable_after = 5.0  # a connection that drops sooner lengthens the backoff
    network_backoff = BackoffPolicy(minimum=0.5, maximum=30.0)
    expected_errors = (OSError, WebSocketException)  # back off; log no traceback

    def __init__(self, url: str, key: str, ca: str | None = None) -> None:
        super().__init__()
        self.url, self.key, self.ca = url, key, ca  # ca: of a private authority, in PEM
        self.ws: ClientConnection | None = None
        self.newest: str | bytes | None = None
        self.price = math.nan

    @classmethod
    def logger(cls) -> logging.Logger:
        """Return the logger."""
        return logging.getLogger("ExchangeFeed")

    async def check_network(self) -> NetworkStatus:
        """Check whether the connection is open."""
        is_open = self.ws is not None and self.ws.state is State.OPEN
        return NetworkStatus.CONNECTED if is_open else NetworkStatus.NOT_CONNECTED

    async def start_network(self) -> None:
        """Connect, and send pings from now on."""
        tls, headers = ssl.create_default_context(cadata=self.ca), {"X-API-Key": self.key}
        try:
            self.ws = await connect(
                self.url, ssl=tls, additional_headers=headers, open_timeout=3.0, close_timeout=1.0
            )
        except InvalidStatus as error:
            raise meaning(error) from error
        self.spawn(self.send_pings(self.ws))

    async def run_network(self) -> None:
        """Read the feed. The exception at its end is the reason of the loss."""
        assert self.ws is not None
        while True:
            message = await self.ws.recv()
            self.heard()
            if message != "pong":
                self.newest = message

    async def send_pings(self, ws: ClientConnection) -> None:
        """Send a ping every second. The exchange closes clients that send nothing."""
        while True:
            await ws.send("ping")
            await asyncio.sleep(1.0)

    async def stop_network(self) -> None:
        """Close the connection, also after a loss."""
        ws, self.ws, self.newest = self.ws, None, None
        if ws is not None:
            await ws.close()

    def tick(self, timestamp: float) -> None:
        """Process the newest quote, if one has come since the last tick. Never waits."""
        message, self.newest = self.newest, None
        if message is not None:
            self.price = json.loads(message)["price"]


def meaning(refused: InvalidStatus) -> Exception:
    """Return what the HTTP status of a refused connection means for the next attempt."""
    status, headers = refused.response.status_code, refused.response.headers
    if status in (401, 403):
        return PermanentFailure(f"HTTP {status}: the key is not accepted")
    wait = headers.get("Retry-After", "")
    return RetryAfter(float(wait), f"HTTP {status}") if wait.isdigit() else refused


async def main(arguments: argparse.Namespace) -> int:
    """Read the feeds. Print each transition, and a table at the end. Return the exit status."""
    began, connects = time.time(), Counter[str]()

    def show(event: Event) -> None:
        assert isinstance(event, NetworkChanged)
        connects[event.worker] += event.after is NetworkStatus.CONNECTED
        change = f"{event.before.name} -> {event.after.name}: {event.reason}"
        if event.next_attempt is not None:
            change += f"; next attempt in {max(0.0, event.next_attempt - event.at):.1f} s"
        print(f"{event.at - began:5.1f} s  {event.worker:<11}  {change}", flush=True)

    config = ClockConfig(clock_mode=ClockMode.REALTIME, tick_size=0.1)
    async with run_exchange() as feeds, RealtimeClock(config) as clock:
        clock.events.subscribe(show, NetworkChanged)
        for name, feed in feeds.items():
            processor = ExchangeFeed(feed.url, arguments.key or feed.key, feed.ca)
            clock.add_processor(processor, name=name)
        await asyncio.gather(*(worker.wait_ready() for worker in clock.workers))
        await clock.run_til(time.time() + arguments.seconds)
        rows = [(each.name, each.network_status, each.statistics()) for each in clock.workers]
    print("\nfeed         connects  ticks  held back  at the end     scripted trouble")
    for name, status, ticks in rows:
        row = f"{name:<11}  {connects[name]:8}  {ticks.run:5}  {ticks.skipped:9}  {status.name:<13}"
        print(f"{row}  {feeds[name].trouble.value}")
    return int(any(status is not NetworkStatus.CONNECTED for _, status, _ in rows))


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Eight feeds of a troubled exchange.")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--key", help="the API key; default: a valid one")
    arguments = parser.parse_args()
    if not 0.0 < arguments.seconds < math.inf:
        parser.error(f"--seconds {arguments.seconds}: must be positive and finite")
    return arguments


if __name__ == "__main__":
    logging.getLogger("chronopype_mp.events").setLevel(logging.ERROR)  # show() prints the changes
    try:
        sys.exit(asyncio.run(main(parse())))
    except RuntimeError as error:
        sys.exit(f"exchange_feeds.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
