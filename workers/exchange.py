"""Polls the REST API of an exchange: tickers, trades, order books and the balance."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from chronopype_mp import ConfigError, NetworkStatus, PermanentFailure
from workers._aiohttp import once
from workers._base import (
    Options,
    ReadyMade,
    Seconds,
    Secret,
    Url,
    check_options,
    optional,
    positive,
    required,
    url_with,
)
from workers._ccxt import CREDENTIALS, client_for, did_you_mean, failure_of
from workers._tls import Tls
from workers._trades import Seen, new_trades

if TYPE_CHECKING:
    import aiohttp

__all__ = ["ExchangeOptions", "ExchangeProcessor"]

CHECKS = {"fetchTime": "fetch_time", "fetchTicker": "fetch_ticker"}
"""Requests that show whether an exchange answers, the cheapest first."""


class ExchangeOptions(Options, frozen=True, kw_only=True):
    """What to poll.

    Args:
        timeout: for each answer, seconds; as in `Options`.
        exchange: its name in ccxt, such as ``"kraken"``.
        symbols: markets by ccxt's names, such as ``"BTC/USDT"`` or ``"BTC/USDT:USDT"``.
        feeds: what to request in every round.
        poll_interval: the pause between two rounds, seconds.
        depth: the best bids and asks of an order book that are emitted.
        credentials: by ccxt's names, such as ``apiKey`` and ``secret``. They are tried with a
            request for the balance whenever the processor connects.
        sandbox: whether to use the exchange's test network.
        base_url: where to send requests instead of the exchange's hosts, such as a gateway.
        exchange_options: ccxt's ``options`` for the exchange, such as
            ``{"defaultType" = "swap"}``.
        tls: of the connection.
        topic: the first words of the topics; None emits nothing.
    """

    timeout: Seconds = 10.0
    exchange: str
    symbols: tuple[str, ...]
    feeds: tuple[Literal["tickers", "trades", "order_books", "balance"], ...] = ("tickers",)
    poll_interval: Seconds = 5.0
    depth: int = 20
    credentials: dict[str, Secret] = msgspec.field(default_factory=dict)
    sandbox: bool = False
    base_url: Url | None = None
    exchange_options: dict[str, Any] = msgspec.field(default_factory=dict)
    tls: Tls = Tls()
    topic: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(
            self,
            symbols=_some,
            feeds=_some,
            poll_interval=positive,
            depth=positive,
            credentials=_credentials,
            base_url=optional(url_with("http", "https")),
        )
        if "balance" in self.feeds and not self.credentials:
            raise ConfigError("ExchangeOptions", "feeds", self.feeds, "needs credentials")


def _some(values: tuple[str, ...]) -> str | None:
    return None if values and len(set(values)) == len(values) else "must have some, each once"


def _credentials(given: dict[str, Secret]) -> str | None:
    wrong = [name for name in given if name not in CREDENTIALS]
    return f"may have {', '.join(CREDENTIALS)}, but not {', '.join(wrong)}" if wrong else None


class ExchangeProcessor(ReadyMade):
    """Requests the feeds in rounds. One request at a time is under way.

    Args:
        options: what to poll.

    Attributes:
        trade_gaps: how often trades may have been missed in this process, because none of a page
            was known.
    """

    options: ExchangeOptions
    mirrored = (*ReadyMade.mirrored, "trade_gaps")
    _client: Any = None
    _session: aiohttp.ClientSession | None = None

    def __init__(self, options: ExchangeOptions) -> None:
        super().__init__(options)
        self.trade_gaps = 0
        self._seen: dict[str, Seen] = {}

    def snapshot(self) -> dict[str, Seen]:
        return self._seen

    def restore(self, state: dict[str, Seen]) -> None:
        self._seen = state

    def stop(self) -> None:
        self._is_stopping = True
        super().stop()

    async def start_network(self) -> None:
        aiohttp: Any = required("aiohttp", "exchange")
        # The import takes most of a second, in which the event loop goes on.
        self._ccxt: Any = await asyncio.to_thread(required, "ccxt.async_support", "exchange")
        self._turn = asyncio.Lock()
        self._is_stopping = False
        if self._client is None:
            logger = self.logger().getChild("ccxt")
            self._client = client_for(self._ccxt, self.options, logger)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self.options.tls.context()),
            middlewares=(once(aiohttp),),
        )
        self._client.session = self._session
        self._client.open()
        markets = await self._request("load_markets")
        for symbol in self.options.symbols:
            if symbol not in markets:
                hint = did_you_mean(symbol, markets)
                raise PermanentFailure(f"{self._client.id} has no market {symbol!r}{hint}")
        if self.options.credentials:
            await self._request("fetch_balance")

    async def check_network(self) -> NetworkStatus:
        if self._session is None:
            return NetworkStatus.NOT_CONNECTED
        for ability, method in CHECKS.items():
            if self._client.has[ability] is True:
                arguments = self.options.symbols[:1] if ability == "fetchTicker" else ()
                await self._request(method, *arguments)
                break
        return NetworkStatus.CONNECTED

    async def run_network(self) -> None:
        polls = {
            "tickers": self._poll_tickers,
            "trades": self._poll_trades,
            "order_books": self._poll_order_books,
            "balance": self._poll_balance,
        }
        while True:
            for feed in self.options.feeds:
                await polls[feed]()
            await asyncio.sleep(self.options.poll_interval)

    async def stop_network(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            try:
                await self._client.close()  # so that none of its tasks makes another session
            finally:
                await session.close()

    async def _request(self, method: str, *arguments: Any) -> Any:
        """Call a method of the client while no other call is under way, and count its bytes.

        Raises:
            Exception: what the network loop makes the right decision of.
        """
        async with self._turn:
            client = self._client
            client.last_response_headers = client.last_http_response = None
            try:
                result = await getattr(client, method)(*arguments)
            except self._ccxt.BaseError as error:
                headers = client.last_response_headers
                reason, timeout = self.shown(error), self.options.timeout
                raise failure_of(self._ccxt, error, reason, headers, timeout) from None
            self.payload_bytes += len(client.last_http_response or "")
            self.heard()
            return result

    async def _polled(self, method: str, *arguments: Any) -> Any:
        """Do so once there is room to emit the answer."""
        await self.drain_outputs()
        return await self._request(method, *arguments)

    async def _poll_tickers(self) -> None:
        symbols = self.options.symbols
        tickers: Iterable[dict[str, Any]]
        if len(symbols) > 1 and self._client.has["fetchTickers"]:
            tickers = (await self._polled("fetch_tickers", list(symbols))).values()
        else:
            tickers = [await self._polled("fetch_ticker", symbol) for symbol in symbols]
        for ticker in tickers:
            self._receive(f"tickers.{_word(ticker['symbol'])}", ticker)

    async def _poll_trades(self) -> None:
        for symbol in self.options.symbols:
            seen = self._seen.get(symbol)
            page = await self._polled("fetch_trades", symbol, seen.since if seen else None)
            if self._is_stopping:
                return  # the last snapshot has been taken; the next process emits them
            trades, seen, is_gap = new_trades(page, seen)
            if is_gap:
                self.trade_gaps += 1
                self.logger().warning(
                    "trades of %s before %s may be missing: none of the %d that came was known; "
                    "a shorter poll_interval helps if the market is busy",
                    symbol,
                    trades[0]["datetime"],
                    len(trades),
                )
            for trade in trades:
                self._receive(f"trades.{_word(symbol)}", trade)
            if seen is not None:
                self._seen[symbol] = seen

    async def _poll_order_books(self) -> None:
        depth = self.options.depth
        for symbol in self.options.symbols:
            book = await self._polled("fetch_order_book", symbol)
            book = {**book, "bids": book["bids"][:depth], "asks": book["asks"][:depth]}
            self._receive(f"order_books.{_word(symbol)}", book)

    async def _poll_balance(self) -> None:
        self._receive("balance", await self._polled("fetch_balance"))

    def _receive(self, words: str, payload: dict[str, Any]) -> None:
        """Emit one of ccxt's structures without ``info``, which is the same once more."""
        topic = self.options.topic
        payload = {name: value for name, value in payload.items() if name != "info"}
        self.received(payload, 0, topic if topic is None else f"{topic}.{words}")


def _word(symbol: str) -> str:
    """Return a symbol as one word of a topic."""
    return symbol.replace(".", "_").replace("*", "_")
