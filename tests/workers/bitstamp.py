"""An exchange that speaks Bitstamp's REST API, in a process of its own: PORT KEY.

There is a trade every 50 ms, numbered by its time. So the trades are the same after a restart.
"""

from __future__ import annotations

import hashlib
import hmac
import sys
import time
from typing import Any

from aiohttp import web

__all__ = ["SECRET", "application"]

SECRET = "signing"
"""What requests with a key are signed with."""

TRADES_PER_SECOND = 20

LISTED = 60 * TRADES_PER_SECOND
"""How many trades are listed: those of the last minute."""

MARKETS = [
    {
        "name": name,
        "market_symbol": name.replace("/", "").lower(),
        "base_currency": name.partition("/")[0],
        "base_decimals": 8,
        "counter_currency": name.partition("/")[2],
        "counter_decimals": 2,
        "minimum_order_value": "10",
        "trading": "Enabled",
        "instant_order_counter_decimals": 2,
        "instant_and_market_orders": "Enabled",
        "description": name.replace("/", " / "),
        "market_type": "SPOT",
    }
    for name in ("BTC/USD", "ETH/USD")
]


def ticker(name: str) -> dict[str, str]:
    return {
        "timestamp": str(int(time.time())),
        "open": "99.00",
        "high": "102.00",
        "low": "98.00",
        "last": "100.50",
        "volume": "1000.00000000",
        "vwap": "100.00",
        "bid": "100.00",
        "ask": "101.00",
        "open_24": "99.00",
        "percent_change_24": "1.52",
        "pair": name,
    }


def trade(number: int) -> dict[str, str]:
    return {
        "date": str(number // TRADES_PER_SECOND),
        "tid": str(number),
        "amount": "0.50000000",
        "type": str(number % 2),
        "price": f"{100 + number % 10}.00",
    }


async def markets(request: web.Request) -> web.Response:
    return web.json_response(MARKETS)


async def tickers(request: web.Request) -> web.Response:
    return web.json_response([ticker(market["name"]) for market in MARKETS])


async def one_ticker(request: web.Request) -> web.Response:
    pair = request.match_info["pair"]
    (name,) = (market["name"] for market in MARKETS if market["market_symbol"] == pair)
    return web.json_response(ticker(name))


async def transactions(request: web.Request) -> web.Response:
    newest = int(time.time() * TRADES_PER_SECOND)
    return web.json_response([trade(number) for number in range(newest, newest - LISTED, -1)])


async def order_book(request: web.Request) -> web.Response:
    now = time.time()
    return web.json_response(
        {
            "timestamp": str(int(now)),
            "microtimestamp": str(int(now * 1e6)),
            "bids": [[f"{100 - level}.00", "1.00000000"] for level in range(50)],
            "asks": [[f"{101 + level}.00", "1.00000000"] for level in range(50)],
        }
    )


def is_signed(request: web.Request, body: str) -> bool:
    """Whether a request has the signature of what it is."""
    headers = request.headers
    text = (
        f"{headers['X-Auth']}{request.method}http://{request.host}{request.path}"
        f"{headers['Content-Type']}{headers['X-Auth-Nonce']}{headers['X-Auth-Timestamp']}"
        f"{headers['X-Auth-Version']}{body}"
    )
    wanted = hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).hexdigest()
    return hmac.compare_digest(wanted, headers["X-Auth-Signature"])


def application(key: str) -> web.Application:
    """Return the exchange.

    Args:
        key: the only API key.
    """

    async def balances(request: web.Request) -> web.Response:
        def error(code: str, reason: str) -> web.Response:
            answer = {"status": "error", "reason": reason, "code": code}
            return web.json_response(answer, status=403)

        if request.headers["X-Auth"] != f"BITSTAMP {key}":
            return error("API0001", "API key not found")
        if not is_signed(request, await request.text()):
            return error("API0005", "Invalid signature")
        row: Any = {"currency": "usd", "total": "7.00", "available": "5.00", "reserved": "2.00"}
        return web.json_response([row])

    app = web.Application()
    app.router.add_get("/api/v2/markets/", markets)
    app.router.add_get("/api/v2/ticker/", tickers)
    app.router.add_get("/api/v2/ticker/{pair}/", one_ticker)
    app.router.add_get("/api/v2/transactions/{pair}/", transactions)
    app.router.add_get("/api/v2/order_book/{pair}/", order_book)
    app.router.add_post("/api/v2/account_balances/", balances)
    return app


if __name__ == "__main__":
    web.run_app(
        application(sys.argv[2]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        print=None,
        shutdown_timeout=0.1,
    )
