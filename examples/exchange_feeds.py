"""Eight feeds of a troubled exchange, and a strategy that trades on their prices.

    python examples/exchange_feeds.py [--seconds 30] [--key KEY]

`ExchangeFeed` shows how to write a connection, `Strategy` how processors work together and how
state survives a ``kill -9``. The exchange is a fake, whose troubles are over after 10 s. The exit
status is 1 if a feed is not connected at the end. ``--key wrong`` shows a failure that is not
retried.
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
from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar

import msgspec
from server_process import run_exchange
from websockets import InvalidStatus, State, WebSocketException
from websockets.asyncio.client import ClientConnection, connect

from chronopype_mp import (
    BackoffPolicy,
    CallError,
    ClockConfig,
    ClockMode,
    NetworkProcessor,
    NetworkStatus,
    Output,
    PermanentFailure,
    RealtimeClock,
    RemoteError,
    RetryAfter,
    TickProcessor,
    remote,
)
from chronopype_mp.events import Event, NetworkChanged

MARKETS = ("calm-1", "calm-2")
"""The feeds at which the strategy trades."""


@dataclass(frozen=True)
class Trade:
    """A trade at a market. A negative amount was sold. The numbers of a market begin with 1."""

    number: int
    amount: int
    price: float


@dataclass(frozen=True)
class Position:
    """The strategy's position at a market, after this many trades."""

    amount: int = 0
    trades: int = 0


@dataclass(frozen=True)
class Order:
    """A trade that the strategy has booked, and its position at this market since."""

    market: str
    trade: Trade
    position: int


class ExchangeFeed(NetworkProcessor):
    """Publishes the newest price of a feed at each tick, and trades at it."""

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
        self.market = url.rpartition("/")[2]
        self.price = math.nan
        self.trades: list[Trade] = []  # a real exchange would keep them

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
            self.emit(self.price, topic=f"prices.{self.market}", retain=True)

    @remote
    def trade(self, amount: int) -> None:
        """Trade at the newest price."""
        if self.ws is None:
            raise ConnectionError(f"{self.market} is not connected")
        self.trades.append(Trade(len(self.trades) + 1, amount, self.price))

    @remote
    def trades_after(self, number: int) -> list[Trade]:
        """Return the next trades after the one with this number, at most 100."""
        return self.trades[number : number + 100]


def meaning(refused: InvalidStatus) -> Exception:
    """Return what the HTTP status of a refused connection means for the next attempt."""
    status, headers = refused.response.status_code, refused.response.headers
    if status in (401, 403):
        return PermanentFailure(f"HTTP {status}: the key is not accepted")
    wait = headers.get("Retry-After", "")
    return RetryAfter(float(wait), f"HTTP {status}") if wait.isdigit() else refused


class Strategy(TickProcessor):
    """Buys at the market that is below the mean of all feeds, or sells at the one above.

    It learns of its trades only by asking the markets for those after the last one that it has
    booked. So the next process goes on from the last snapshot, whatever happened since then.
    """

    output_types: ClassVar = {"orders.*": Order, "positions": dict[str, Position]}
    snapshot_interval = 1.0
    trade_interval = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.prices: dict[str, float] = {}
        self.positions = {market: Position() for market in MARKETS}
        self.next_trade = 0.0
        self.subscribe("prices.*")

    @classmethod
    def logger(cls) -> logging.Logger:
        """Return the logger."""
        return logging.getLogger("Strategy")

    def snapshot(self) -> dict[str, Position]:
        """Return what the next process needs. Called between two ticks."""
        return self.positions

    def restore(self, state: dict[str, Position]) -> None:
        """Go on from the last snapshot of the process before."""
        self.positions = state

    def start(self, timestamp: float) -> None:
        """Tell the owner where this process begins."""
        super().start(timestamp)
        self.emit(self.positions, topic="positions")

    def on_message(self, topic: str, payload: float) -> None:
        """Note a price."""
        self.prices[topic.removeprefix("prices.")] = payload

    async def async_tick(self, timestamp: float) -> None:
        """Book the trades since the last tick, and trade once a second."""
        try:
            for market in MARKETS:
                await self.book(market)
            if timestamp >= self.next_trade and self.prices.keys() >= set(MARKETS):
                self.next_trade = timestamp + self.trade_interval
                mean = fmean(self.prices.values())
                market = max(MARKETS, key=lambda name: abs(self.prices[name] - mean))
                await self.call(market, "trade", 1 if self.prices[market] < mean else -1)
        except (CallError, RemoteError) as error:  # whether it has traded, the next tick finds out
            self.logger().warning("%s", error)

    async def book(self, market: str) -> None:
        """Book the trades of a market that are not in the position yet, and report them."""
        position = self.positions[market]
        answer = await self.call(market, "trades_after", position.trades)
        for trade in msgspec.convert(answer, list[Trade]):
            position = Position(position.amount + trade.amount, trade.number)
            self.positions = self.positions | {market: position}
            self.emit(Order(market, trade, position.amount), topic=f"orders.{market}")


async def main(arguments: argparse.Namespace) -> int:
    """Print transitions and orders, and a table at the end. Return the exit status."""
    began, connects, booked = time.time(), Counter[str](), Counter[str]()

    def line(at: float, who: str, text: str) -> None:
        print(f"{at - began:5.1f} s  {who:<11}  {text}", flush=True)

    def show(event: Event) -> None:
        assert isinstance(event, NetworkChanged)
        connects[event.worker] += event.after is NetworkStatus.CONNECTED
        change = f"{event.before.name} -> {event.after.name}: {event.reason}"
        if event.next_attempt is not None:
            change += f"; next attempt in {max(0.0, event.next_attempt - event.at):.1f} s"
        line(event.at, event.worker, change)

    def show_order(output: Output) -> None:
        market, trade = output.payload.market, output.payload.trade
        again = " (again)" if trade.number <= booked[market] else ""  # after a kill -9
        booked[market] = max(booked[market], trade.number)
        verb = "bought" if trade.amount > 0 else "sold"
        text = f"order {trade.number} at {market}: {verb} {abs(trade.amount)} at {trade.price}"
        line(output.at, output.worker, f"{text}, position {output.payload.position:+d}{again}")

    def show_positions(output: Output) -> None:
        positions = (
            f"{each.amount:+d} at {market} after {each.trades} orders"
            for market, each in output.payload.items()
        )
        line(output.at, output.worker, f"process {output.incarnation}: {', '.join(positions)}")

    config = ClockConfig(clock_mode=ClockMode.REALTIME, tick_size=0.1)
    async with run_exchange() as feeds, RealtimeClock(config) as clock:
        clock.events.subscribe(show, NetworkChanged)
        clock.outputs.subscribe(show_order, "orders.*")
        clock.outputs.subscribe(show_positions, "positions")
        for name, feed in feeds.items():
            processor = ExchangeFeed(feed.url, arguments.key or feed.key, feed.ca)
            clock.add_processor(processor, name=name)
        strategy = clock.add_processor(Strategy(), name="strategy")
        await asyncio.gather(*(worker.wait_ready() for worker in clock.workers))
        line(time.time(), "strategy", f"survives kill -9 {strategy.pid}")
        await clock.run_til(time.time() + arguments.seconds)
        workers = [each for each in clock.workers if each is not strategy]
        rows = [(each.name, each.network_status, each.statistics()) for each in workers]
    print("\nfeed         connects  ticks  held back  at the end     scripted trouble")
    for name, status, ticks in rows:
        row = f"{name:<11}  {connects[name]:8}  {ticks.run:5}  {ticks.skipped:9}  {status.name:<13}"
        print(f"{row}  {feeds[name].trouble.value}")
    return int(any(status is not NetworkStatus.CONNECTED for _, status, _ in rows))


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
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
