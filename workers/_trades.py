"""Which trades of a page are new."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

__all__ = ["New", "Seen", "new_trades"]

OVERLAP = 1
"""Milliseconds that two pages share: exchanges may exclude trades of the very time of ``since``."""


class Seen(msgspec.Struct, frozen=True):
    """The newest trades of a market that were emitted.

    Args:
        since: the time from which to request trades, milliseconds since the epoch.
        keys: what tells apart the trades from then on that were emitted.
    """

    since: int
    keys: list[str]


class New(NamedTuple):
    """The trades to emit, what is seen then, and whether trades before them may be missing."""

    trades: list[dict[str, Any]]
    seen: Seen | None
    is_gap: bool


def new_trades(page: Iterable[dict[str, Any]], seen: Seen | None) -> New:
    """Return the trades of a page that were not emitted yet, oldest first.

    Args:
        page: trades as ccxt returns them, requested with ``seen.since``.
        seen: what was emitted of this market; None: nothing.
    """
    trades = sorted(page, key=_age)
    if not trades:
        return New([], seen, False)
    known = set(seen.keys) if seen else set()
    new = {_key(trade): trade for trade in trades if _key(trade) not in known}
    since = max(_time(trades[-1]) - OVERLAP, seen.since if seen else 0)
    keys = dict.fromkeys(_key(trade) for trade in trades if _time(trade) >= since)
    is_gap = bool(known) and len(new) == len({_key(trade) for trade in trades})
    return New(list(new.values()), Seen(since, list(keys)), is_gap)


def _time(trade: dict[str, Any]) -> int:
    return trade["timestamp"] or 0


def _key(trade: dict[str, Any]) -> str:
    """Return the trade's number, or what it is if the exchange gives none."""
    return trade["id"] or "/".join(
        str(trade[name]) for name in ("timestamp", "side", "price", "amount")
    )


def _age(trade: dict[str, Any]) -> tuple[int, int, str]:
    """Return what to sort by. Numbers are texts, and "10" comes after "9"."""
    return _time(trade), len(_key(trade)), _key(trade)
