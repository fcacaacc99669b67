"""What is particular to ccxt: its objects for exchanges, and its errors."""

from __future__ import annotations

import difflib
import logging
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from chronopype_mp import PermanentFailure, RetryAfter
from workers._http_status import retry_after

if TYPE_CHECKING:
    from workers.exchange import ExchangeOptions

__all__ = ["CREDENTIALS", "FEEDS", "client_for", "did_you_mean", "failure_of"]

CREDENTIALS = (
    "accountId",
    "apiKey",
    "login",
    "password",
    "privateKey",
    "secret",
    "token",
    "twofa",
    "uid",
    "walletAddress",
)
"""The names that ccxt has for them."""

FEEDS = {
    "tickers": "fetchTicker",
    "trades": "fetchTrades",
    "order_books": "fetchOrderBook",
    "balance": "fetchBalance",
}
"""What ccxt calls the ability of an exchange to serve each feed."""

LONGEST_REASON = 300
"""Characters; an error may have the whole body of a response, such as a page of HTML."""

THROTTLE_DELAY = 0.01
"""Seconds between two looks of ccxt's throttler at the time. It would look every millisecond."""


def client_for(ccxt: Any, options: ExchangeOptions, logger: logging.Logger) -> Any:
    """Return ccxt's object for an exchange, without retries and without a session.

    Args:
        ccxt: the module ``ccxt.async_support``.
        options: what to poll.
        logger: what the object logs to.

    Raises:
        PermanentFailure: the options do not fit the exchange.
    """
    if options.exchange not in ccxt.exchanges:
        hint = did_you_mean(options.exchange, ccxt.exchanges)
        raise PermanentFailure(f"ccxt {ccxt.__version__} has no {options.exchange!r}{hint}")
    logger.setLevel(logging.INFO)  # it logs requests with their keys at debug level
    client = getattr(ccxt, options.exchange)(
        {
            **{name: secret.reveal() for name, secret in options.credentials.items()},
            "enableRateLimit": True,
            "tokenBucket": {"delay": THROTTLE_DELAY},
            "timeout": round(options.timeout * 1000),
            "options": {**options.exchange_options, "maxRetriesOnFailure": 0},
            "logger": logger,
        }
    )
    client.own_session = False
    for feed in options.feeds:
        if not client.has[FEEDS[feed]]:
            raise PermanentFailure(f"{client.id} has no {FEEDS[feed]}, which {feed!r} needs")
    if options.sandbox:
        if not client.urls.get("test"):
            raise PermanentFailure(f"{client.id} has no sandbox")
        client.set_sandbox_mode(True)
    if options.credentials:
        lacking = [
            name
            for name, is_needed in client.requiredCredentials.items()
            if is_needed and name not in options.credentials
        ]
        if lacking:
            raise PermanentFailure(f"{client.id} needs the credentials {', '.join(lacking)}, too")
    if options.base_url is not None:
        client.urls["api"] = _moved(client.urls["api"], options.base_url.reveal())
    return client


def failure_of(
    ccxt: Any, error: Exception, reason: str, headers: Mapping[str, str] | None, timeout: float
) -> Exception:
    """Return what to raise for an error of ccxt.

    Args:
        ccxt: the module ``ccxt.async_support``.
        error: the error.
        reason: its text without secrets.
        headers: of the last response; None: there was none.
        timeout: how long an answer may take, seconds.
    """
    reason = reason[:LONGEST_REASON]
    if isinstance(error, ccxt.AuthenticationError):
        return PermanentFailure(f"the exchange refused the credentials: {reason}")
    if isinstance(error, ccxt.NotSupported | ccxt.BadSymbol | ccxt.RestrictedLocation):
        return PermanentFailure(reason)
    if isinstance(error, ccxt.RequestTimeout) and isinstance(error.__cause__, TimeoutError):
        return TimeoutError(f"no answer within {timeout:g} s: {reason}")
    # ccxt takes it for an error of the exchange if the connection breaks in an answer.
    if not isinstance(error, ccxt.OperationFailed) and error.__cause__ is None:
        return RuntimeError(reason)
    seconds = retry_after({name.title(): value for name, value in (headers or {}).items()})
    return ConnectionError(reason) if seconds is None else RetryAfter(seconds, reason)


def did_you_mean(text: str, choices: Iterable[str]) -> str:
    """Return a hint at similar names, to follow a message; empty if there are none."""
    close = difflib.get_close_matches(text, list(choices), n=3)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def _moved(urls: Any, base: str) -> Any:
    """Return ccxt's URLs, which may be nested, with another host."""
    if isinstance(urls, dict):
        return {name: _moved(url, base) for name, url in urls.items()}
    return base.rstrip("/") + urllib.parse.urlsplit(urls).path
