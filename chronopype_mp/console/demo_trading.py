"""Follows the demo's strategy by its outputs, and checks its positions. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import msgspec

__all__ = ["Order", "Position", "Trade", "Trading", "positions_text"]

SOON = 3
"""Orders, one a second, after which a snapshot, also one a second, has some."""


class Trade(msgspec.Struct, frozen=True):
    """A ``Trade`` of ``examples/exchange_feeds.py``."""

    number: int
    amount: int
    price: float


class Order(msgspec.Struct, frozen=True):
    """An ``Order`` of ``examples/exchange_feeds.py``."""

    market: str
    trade: Trade
    position: int


class Position(msgspec.Struct, frozen=True):
    """A ``Position`` of ``examples/exchange_feeds.py``."""

    amount: int = 0
    trades: int = 0


class Trading:
    """What the strategy has reported, and what is wrong with it.

    Attributes:
        positions: the last ones that it reported, by market.
    """

    def __init__(self) -> None:
        self.positions: dict[str, Position] = {}
        self._problems: list[str] = []
        self._orders: list[Order] = []
        self._reported: set[tuple[str, int]] = set()
        self._begins: list[Mapping[str, Position]] = []

    @property
    def summary(self) -> str:
        """The number of orders, and the positions with which each process began."""
        begins = "; then ".join(positions_text(each) for each in self._begins)
        return f"{len(self._reported)} orders; began with {begins or 'nothing'}"

    def began(self, positions: Mapping[str, Position]) -> str:
        """Take the positions with which a process begins; return a line about them."""
        if (
            self._begins
            and len(self._reported) >= SOON
            and not any(p.trades for p in positions.values())
        ):
            self._problems.append("began again without its snapshot")
        self._begins.append(positions)
        self.positions = dict(positions)
        return f"begins with {positions_text(positions)}"

    def booked(self, order: Order) -> str:
        """Take an order; return a line about it."""
        market, trade = order.market, order.trade
        last = self.positions.get(market, Position()).trades
        if trade.number != last + 1:
            self._problems.append(f"order {trade.number} at {market} came after order {last}")
        again = (market, trade.number) in self._reported
        self._reported.add((market, trade.number))
        self.positions[market] = Position(order.position, trade.number)
        self._orders.append(order)
        verb = "bought" if trade.amount > 0 else "sold"
        text = f"order {trade.number} at {market}: {verb} {abs(trade.amount)} at {trade.price}"
        return f"{text}, position {order.position:+d}{' (again)' if again else ''}"

    def problems(self, trades: Mapping[str, Sequence[Trade]]) -> list[str]:
        """Return what is wrong with the reports.

        Args:
            trades: all trades of each market, as the market knows them.
        """
        problems = list(self._problems)
        sums = {
            market: [0, *accumulate(trade.amount for trade in done)]
            for market, done in trades.items()
        }
        for begin in self._begins:
            for market, position in begin.items():
                if sums[market][position.trades : position.trades + 1] != [position.amount]:
                    problems.append(f"began with a wrong position at {market}: {position.amount}")
        for order in self._orders:
            at, done = order.trade.number, trades[order.market]
            if done[at - 1 : at] != [order.trade] or sums[order.market][at] != order.position:
                problems.append(f"order {at} at {order.market} is not what the market did")
        missing = sum(len(done) - self.positions[name].trades for name, done in trades.items())
        if missing > 1:  # the last one may not have been booked
            problems.append(f"missed {missing} trades")
        return problems


def positions_text(positions: Mapping[str, Position]) -> str:
    """Return positions as text: ``+2 at calm-1, -1 at calm-2``."""
    return ", ".join(f"{each.amount:+d} at {market}" for market, each in positions.items())
