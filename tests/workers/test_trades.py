"""Each trade is new once."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from workers._trades import Seen, new_trades


def trade(number: int, timestamp: int, **fields: Any) -> dict[str, Any]:
    return {"id": str(number), "timestamp": timestamp, **fields}


@given(st.data())
def test_every_trade_is_new_once_and_in_order(data: st.DataObject) -> None:
    """Whatever pages come, as long as each goes on where the one before ended."""
    steps = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=50))
    times = [1000 + sum(steps[: n + 1]) for n in range(len(steps))]
    market = [trade(number, time) for number, time in enumerate(times, 95)]
    ends = sorted([*data.draw(st.lists(st.integers(0, len(market)))), len(market)])
    seen, emitted = None, []
    for end in ends:
        page = [t for t in market[:end] if seen is None or t["timestamp"] >= seen.since]
        new = new_trades(data.draw(st.permutations(page)), seen)
        assert not new.is_gap
        emitted += new.trades
        seen = new.seen
    assert emitted == market


def test_a_page_without_a_known_trade_is_a_gap() -> None:
    seen = new_trades([trade(1, 1000)], None).seen
    assert seen == Seen(999, ["1"])
    new = new_trades([trade(4, 3000), trade(3, 2000)], seen)
    assert new.is_gap
    assert [each["id"] for each in new.trades] == ["3", "4"]
    assert new_trades([], new.seen) == ([], Seen(2999, ["4"]), False)


def test_trades_without_numbers_are_told_apart_by_what_they_are() -> None:
    one, other = (
        {"id": None, "timestamp": 1000, "side": "buy", "price": price, "amount": 1.0}
        for price in (1.0, 2.0)
    )
    new = new_trades([one], None)
    assert new_trades([one, other], new.seen).trades == [other]
