"""The demo's check of its strategy: every report must be what the markets did."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from chronopype_mp.console.demo_trading import Order, Position, Trade, Trading

AMOUNTS = {"a": (1, 1, -1), "b": (-1,)}
TRADES = {
    market: [Trade(number, amount, 10.0 + number) for number, amount in enumerate(amounts, 1)]
    for market, amounts in AMOUNTS.items()
}


def order(market: str, number: int, position: int | None = None, price: float = 10.0) -> Order:
    amount = AMOUNTS[market][number - 1]
    if position is None:
        position = sum(AMOUNTS[market][:number])
    return Order(market, Trade(number, amount, price + number), position)


def before_the_kill() -> Trading:
    trading = Trading()
    trading.began({"a": Position(), "b": Position()})
    for each in (order("a", 1), order("b", 1), order("a", 2)):
        trading.booked(each)
    return trading


def after_the_kill(
    positions: dict[str, Position], orders: Iterable[Order], trading: Trading | None = None
) -> list[str]:
    trading = trading or before_the_kill()
    trading.began(positions)
    for each in orders:
        trading.booked(each)
    return trading.problems(TRADES)


SNAPSHOT = {"a": Position(1, 1), "b": Position(-1, 1)}


def test_a_strategy_that_goes_on_from_its_snapshot_is_good() -> None:
    """It reports again what came after the snapshot, and the owner is told so."""
    trading = before_the_kill()
    assert after_the_kill(SNAPSHOT, [order("a", 2), order("a", 3)], trading) == []
    assert trading.positions == {"a": Position(1, 3), "b": Position(-1, 1)}
    assert trading.summary == "4 orders; began with +0 at a, +0 at b; then +1 at a, -1 at b"
    assert trading.booked(order("a", 3)) == ("order 3 at a: sold 1 at 13.0, position +1 (again)")


def test_a_report_that_died_with_its_process_is_no_problem() -> None:
    """The snapshot may have an order whose report was lost, and the last trade is not booked."""
    assert after_the_kill(SNAPSHOT | {"a": Position(1, 3)}, []) == []
    assert after_the_kill(SNAPSHOT, [order("a", 2)]) == []


@pytest.mark.parametrize(
    ("positions", "orders", "said"),
    [
        ({"a": Position(), "b": Position()}, [], "began again without its snapshot"),
        (SNAPSHOT | {"a": Position(2, 1)}, [], "began with a wrong position at a: 2"),
        (SNAPSHOT | {"a": Position(1, 9)}, [], "began with a wrong position at a: 1"),
        (SNAPSHOT, [order("a", 3)], "order 3 at a came after order 1"),
        (SNAPSHOT, [order("a", 2), order("a", 2)], "order 2 at a came after order 2"),
        (SNAPSHOT, [order("a", 2, position=3)], "order 2 at a is not what the market did"),
        (SNAPSHOT, [order("a", 2, price=9.0)], "order 2 at a is not what the market did"),
        (SNAPSHOT, [], "missed 2 trades"),
    ],
)
def test_a_position_or_order_that_is_wrong_is_named(
    positions: dict[str, Position], orders: list[Order], said: str
) -> None:
    assert said in after_the_kill(positions, orders)
