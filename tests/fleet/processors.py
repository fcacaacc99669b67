"""Processors that fleet files of tests name."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from chronopype_mp import ConfigError, NetworkProcessor, NetworkStatus, TickProcessor


class Tls(msgspec.Struct):
    """Options in a table of their own."""

    ca: str
    verify: bool = True


class Feed(NetworkProcessor):
    """Connects at once."""

    def __init__(
        self,
        url: str,
        depth: int = 10,
        *,
        timeout: float = 1.0,
        symbols: tuple[str, ...] = (),
        tls: Tls | None = None,
    ) -> None:
        super().__init__()
        self.url = url

    @classmethod
    def logger(cls) -> logging.Logger:
        return logging.getLogger("tests.feed")

    async def check_network(self) -> NetworkStatus:
        return NetworkStatus.CONNECTED


class Plain(TickProcessor):
    """Takes nothing."""

    def __init__(self, value: object = None) -> None:
        super().__init__()


class Account(msgspec.Struct):
    """Options that show a secret in their error."""

    key: str

    def __post_init__(self) -> None:
        raise ValueError(f"the key {self.key} is wrong")


class Trader(TickProcessor):
    """Takes an account."""

    def __init__(self, account: Account) -> None:
        super().__init__()


class Key(str):
    """A string of a class of its own."""


class QuoteOptions(msgspec.Struct, frozen=True):
    """All options of a processor."""

    url: str
    key: Key | None = None
    depth: int = 10

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ConfigError("QuoteOptions", "depth", self.depth, "must be at least 1")


class Quotes(Feed):
    """Takes one struct."""

    def __init__(self, options: QuoteOptions) -> None:
        super().__init__(options.url)


class MoreQuotes(Quotes):
    """Takes what its base class takes."""


class Lost(Feed):
    """Never connects."""

    async def check_network(self) -> NetworkStatus:
        return NetworkStatus.NOT_CONNECTED


class WithPath(TickProcessor):
    """Takes a path."""

    def __init__(self, path: Path) -> None:
        super().__init__()


class FailsToStart(TickProcessor):
    """Its worker never becomes READY."""

    def start(self, timestamp: float) -> None:
        raise RuntimeError("does not start")


class WrongHook(TickProcessor):
    """Its hook has an argument too many."""

    def tick(self, timestamp: float, more: int) -> None:  # type: ignore[override]
        """Never called."""


def made(url: str) -> Feed:
    """Return a processor, as a function may."""
    return Feed(url)


def takes_anything(**options: object) -> TickProcessor:
    """Return a processor, whatever the options are."""
    return Plain(options)


NOT_A_PROCESSOR = 3
