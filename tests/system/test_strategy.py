"""The strategy of `examples/exchange_feeds.py`, killed again and again beside two markets."""

from __future__ import annotations

import importlib
import random
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chronopype_mp import Output, TickProcessor, remote
from chronopype_mp.console.demo_trading import Order, Position, Trade, Trading
from chronopype_mp.events import WorkerReady
from chronopype_mp.testing import EventRecorder, faults
from tests.system.clocks import run
from tests.system.test_messages import make_clock
from tests.waiting import Noticeboard, running

EXAMPLES = Path(__file__).parents[2] / "examples"
MARKETS = ("calm-1", "calm-2")
KILLS = 4


class Market(TickProcessor):
    """Has a new price in every tick, and the remote methods of the example's feed."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.price = 0.0
        self.trades: list[Trade] = []

    def tick(self, timestamp: float) -> None:
        self.price = int(self.price) + 1 + random.random()
        self.emit(self.price, topic=f"prices.{self.name}", retain=True)

    @remote
    def trade(self, amount: int) -> None:
        self.trades.append(Trade(len(self.trades) + 1, amount, self.price))

    @remote
    def trades_after(self, number: int) -> list[Trade]:
        return self.trades[number : number + 100]


def test_positions_and_orders_are_exact_and_no_price_comes_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each process begins with a whole snapshot and books all that came later, in order."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    example: Any = importlib.import_module("exchange_feeds")

    class Watched(example.Strategy):  # type: ignore[misc]
        """Trades in every tick, and tells each price."""

        snapshot_interval = 0.2
        trade_interval = 0.0

        def on_message(self, topic: str, payload: float) -> None:
            super().on_message(topic, payload)
            self.emit(payload, topic=f"told.{topic}")

    async def scenario() -> None:
        trading, changes = Trading(), Noticeboard()
        begins: list[dict[str, Position]] = []
        prices: dict[tuple[str, int], list[float]] = defaultdict(list)

        def take(output: Output) -> None:
            if output.topic == "positions":
                positions = msgspec.convert(
                    output.payload, dict[str, Position], from_attributes=True
                )
                begins.append(positions)
                trading.began(positions)
            elif output.topic.startswith("told"):
                prices[output.topic, output.incarnation].append(output.payload)
            else:
                trading.booked(msgspec.convert(output.payload, Order, from_attributes=True))
            changes.notify()

        async with make_clock("forkserver", tick_size=0.02) as clock:
            events = EventRecorder(clock.events)
            clock.outputs.subscribe(take, worker="strategy")
            markets = [clock.add_processor(Market(name), name=name) for name in MARKETS]
            strategy = clock.add_processor(Watched(), name="strategy")
            for handle in (*markets, strategy):
                await handle.wait_ready()

            def booked() -> int:
                return sum(position.trades for position in trading.positions.values())

            async with running(clock):
                for incarnation in range(2, KILLS + 2):
                    goal = booked() + random.randint(20, 60)
                    await changes.until(lambda goal=goal: booked() >= goal)
                    faults.kill(strategy)
                    await events.wait_for(WorkerReady, worker="strategy", incarnation=incarnation)
                goal = booked() + 20
                await changes.until(lambda: booked() >= goal)
            strategy.stop()
            await strategy.wait_stopped()
            trades: dict[str, list[Trade]] = {name: [] for name in MARKETS}
            for market in markets:
                done = trades[market.name]
                while answer := await market.call("trades_after", len(done)):
                    done += answer

        assert trading.problems(trades) == []
        assert len(begins) == KILLS + 1
        for before, after in pairwise(begins):
            for name in MARKETS:
                assert after[name].trades > before[name].trades
        for told in prices.values():
            assert all(first < second for first, second in pairwise(told))
        assert {(topic, incarnation) for topic, incarnation in prices} == {
            (f"told.prices.{name}", number) for name in MARKETS for number in range(1, KILLS + 2)
        }

    run(scenario())
