"""The ready-made processor ``exchange``, with an exchange in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from chronopype_mp import ConfigError, Limits, NetworkStatus, ProcessorSpec, Supervision
from chronopype_mp.events import DeathReason, WorkerDied
from chronopype_mp.testing import ProcessorTest, faults
from tests.system.backends import KINDS, PASSWORD, Backend, Data, listening
from tests.system.clocks import run as run_long
from tests.system.connected import BOUND, Connected
from tests.waiting import run, running
from tests.workers import bitstamp
from tests.workers.ordeal import QUICK, Ordeal
from workers._base import Secret, Url
from workers.exchange import ExchangeOptions, ExchangeProcessor

pytest.importorskip("ccxt", reason="the package ccxt is not installed (extra exchange)")

KIND = KINDS["http"]._replace(
    name="exchange",
    feed="workers.exchange:ExchangeProcessor",
    client="ccxt",
    command=lambda directory, port: [sys.executable, bitstamp.__file__, str(port), PASSWORD],
    lost="ConnectionError: ExchangeNotAvailable: bitstamp GET http://127.0.0.1:",
    silent="TimeoutError: no answer within 2 s: RequestTimeout: bitstamp GET ",
    refused="the exchange refused the credentials: AuthenticationError: bitstamp {",
)

SYMBOL = "BTC/USD"


def options(port: int, password: str, **given: Any) -> ExchangeOptions:
    return ExchangeOptions(
        **{
            "exchange": "bitstamp",
            "symbols": (SYMBOL,),
            "base_url": Url(f"http://127.0.0.1:{port}"),
            "credentials": {"apiKey": Secret(password), "secret": Secret(bitstamp.SECRET)},
            "poll_interval": 0.1,
            "topic": "market",
            **QUICK,
            "timeout": 2.0,  # also of the import of ccxt, four times
            **given,
        }
    )


def test_an_exchange_survives_what_may_happen_to_its_server(ordeal: Ordeal) -> None:
    ordeal(KIND, options, topic=f"market.tickers.{SYMBOL}")


MEGABYTE = 1 << 20


def test_trades_come_once_each_and_in_order(data: Data) -> None:
    """While the exchange is gone and back, and while the worker is restarted.

    Once because of ``max_rss``, and once in a rolling restart.
    """

    async def scenario(server: Backend) -> None:
        watched = Connected(tick_size=0.1)
        trades = watched.clock.outputs("market.trades.*")
        given = options(server.port, PASSWORD, feeds=("trades",))
        spec = ProcessorSpec(target=KIND.feed, options={"options": given})
        most = 400 * MEGABYTE
        numbers: list[int] = []

        async def until_now() -> None:
            now = int(time.time() * bitstamp.TRADES_PER_SECOND)
            async with asyncio.timeout(BOUND):
                while not numbers or numbers[-1] < now:
                    output = await anext(trades)
                    assert output.topic == f"market.trades.{SYMBOL}"
                    numbers.append(int(output.payload["id"]))

        async with watched.clock as clock, running(clock):
            supervision = Supervision(limits=Limits(max_rss=most))
            watched.feed = clock.add_processor(spec, name="feed", supervision=supervision)
            await watched.until(NetworkStatus.CONNECTED)
            await until_now()
            assert len(numbers) > bitstamp.LISTED // 2  # what was there before
            server.kill()
            await watched.until(NetworkStatus.NOT_CONNECTED)
            server.start()
            await watched.until(NetworkStatus.CONNECTED)
            await until_now()
            faults.leak(watched.feed, most)
            death = await watched.events.wait_for(WorkerDied, worker="feed", timeout=BOUND)
            assert death.reason is DeathReason.LIMIT_EXCEEDED
            assert "above max_rss" in (death.detail or "")
            await watched.until(NetworkStatus.CONNECTED)
            await clock.restart_all()
            await until_now()
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))

    with listening(KIND, data) as server:
        run_long(scenario(server))


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def serving(broken: Handler | None = None) -> AsyncIterator[int]:
    """Run an exchange whose tickers are answered by a handler; yield its port."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        is_broken = "ticker" in request.path
        return await (broken if broken is not None and is_broken else handler)(request)

    app = bitstamp.application(PASSWORD)
    app.middlewares.append(middleware)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def outcome(broken: Handler | None = None, **given: Any) -> tuple[NetworkStatus, str]:
    """Return the status that a first attempt ends with, and its reason."""
    async with serving(broken) as port:
        processor = ExchangeProcessor(options(port, PASSWORD, **given))
        async with ProcessorTest(processor) as test:
            ends = (NetworkStatus.CONNECTED, NetworkStatus.ERROR)
            failed = [NetworkStatus.CONNECTING, NetworkStatus.NOT_CONNECTED]
            await test.until(
                lambda: test.transitions[-1] in ends or test.transitions[-2:] == failed
            )
            return test.transitions[-1].status, test.transitions[-1].reason


MAINTENANCE = """{"error": "Bitstamp.net is under scheduled maintenance. We'll be back soon."}"""


@pytest.mark.parametrize(
    ("status", "headers", "body", "reason"),
    [
        (429, {"Retry-After": "7"}, "", "retry after 7 s: RateLimitExceeded: bitstamp GET "),
        (429, {}, "slow down", "ConnectionError: RateLimitExceeded: bitstamp GET "),
        (418, {"retry-after": "90"}, "", "retry after 90 s: DDoSProtection: "),
        (503, {}, "<html>" * 1000, "ConnectionError: ExchangeNotAvailable: "),
        (503, {"Retry-After": "5"}, "<html>", "retry after 5 s: ExchangeNotAvailable: "),
        (200, {}, MAINTENANCE, "ConnectionError: OnMaintenance: "),
        (504, {}, "", "ConnectionError: RequestTimeout: "),
    ],
)
def test_an_error_decides_on_the_next_attempt(
    status: int, headers: dict[str, str], body: str, reason: str
) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=status, headers=headers, text=body)

    after, found = run(outcome(handler))
    assert after is NetworkStatus.NOT_CONNECTED
    assert reason in found
    assert len(found) < 500


def test_a_connection_that_breaks_in_an_answer_is_lost() -> None:
    """To ccxt that is an error of the exchange."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"[")
        assert request.transport is not None
        request.transport.abort()
        return response

    after, reason = run(outcome(handler))
    assert after is NetworkStatus.NOT_CONNECTED
    assert "ConnectionError: ExchangeError: bitstamp GET " in reason


def test_an_answer_that_nobody_expects_is_an_error() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response({"error": "No such thing"})

    async def scenario() -> None:
        with pytest.raises(RuntimeError, match=r"ExchangeError: bitstamp .*No such thing"):
            await outcome(handler)

    run(scenario())


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"exchange": "bitstump"}, "has no 'bitstump'; did you mean 'bitstamp'"),
        ({"symbols": ("BTC/US",)}, "bitstamp has no market 'BTC/US'; did you mean 'BTC/USD'"),
        ({"sandbox": True}, "bitstamp has no sandbox"),
        (
            {"credentials": {"apiKey": Secret(PASSWORD)}},
            "bitstamp needs the credentials secret, too",
        ),
        (
            {"credentials": {"apiKey": Secret(PASSWORD), "secret": Secret("hunter2-wrong")}},
            "refused the credentials: AuthenticationError: bitstamp invalid signature",
        ),
    ],
)
def test_options_that_do_not_fit_the_exchange_are_tried_once(
    given: dict[str, Any], reason: str
) -> None:
    after, found = run(outcome(**given))
    assert after is NetworkStatus.ERROR
    assert "PermanentFailure: " in found
    assert reason in found
    assert "hunter2" not in found


class Heard(ExchangeProcessor):
    """Keeps the last payload of each topic."""

    def __init__(self, options: ExchangeOptions) -> None:
        super().__init__(options)
        self.emitted: dict[str, Any] = {}

    def received(self, payload: object, size: int, topic: str | None) -> None:
        assert topic is not None
        self.emitted[topic] = payload
        super().received(payload, size, None)


def test_each_feed_has_its_topics() -> None:
    """What is emitted is what ccxt makes of it, without the raw answer."""
    feeds = ("tickers", "order_books", "balance", "trades")
    symbols = (SYMBOL, "ETH/USD")

    async def scenario() -> dict[str, Any]:
        async with serving() as port:
            processor = Heard(options(port, PASSWORD, feeds=feeds, symbols=symbols, depth=3))
            async with ProcessorTest(processor) as test:
                await test.reaches(NetworkStatus.CONNECTED)
                await test.until(lambda: "market.trades.ETH/USD" in processor.emitted)
                assert processor.payloads >= len(processor.emitted)
                assert processor.payload_bytes > 10_000
                assert processor.trade_gaps == 0
                return processor.emitted

    emitted = run(scenario())
    words = [f"{feed}.{symbol}" for feed in feeds if feed != "balance" for symbol in symbols]
    assert emitted.keys() == {f"market.{word}" for word in [*words, "balance"]}
    assert not [topic for topic, payload in emitted.items() if "info" in payload]
    assert emitted["market.tickers.BTC/USD"]["last"] == 100.5
    assert emitted["market.order_books.ETH/USD"]["bids"] == [[100.0, 1.0], [99.0, 1.0], [98.0, 1.0]]
    assert emitted["market.balance"]["free"] == {"USD": 5.0}


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"symbols": ()}, "symbols = (): must have some, each once"),
        ({"feeds": ("tickers", "tickers")}, "must have some, each once"),
        ({"poll_interval": 0.0}, "poll_interval = 0.0: must be"),
        ({"credentials": {"key": Secret("k")}}, "may have accountId, apiKey, login, "),
        ({"feeds": ("balance",), "credentials": {}}, "needs credentials"),
        ({"base_url": Url("example.com")}, "must begin with http:// or https:// and a host"),
    ],
)
def test_wrong_options_are_refused(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        options(1, PASSWORD, **given)
    assert problem in str(caught.value)
