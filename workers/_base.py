"""What the ready-made processors share: options, secrets, counters, outputs and time limits."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import typing
import urllib.parse
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, Self

import msgspec

from chronopype_mp import BackoffPolicy, ConfigError, NetworkProcessor, PermanentFailure
from workers._payloads import Form, NotDecodedError, decoded

__all__ = [
    "Options",
    "ReadyMade",
    "Seconds",
    "Secret",
    "Url",
    "check_options",
    "optional",
    "positive",
    "required",
    "url_with",
]

Seconds = Annotated[float, msgspec.Meta(extra={"unit": "s"})]
"""A time in seconds. A fleet file may write it as ``"250ms"`` or ``"5s"``."""

HIDDEN = "<secret>"

SHORT = 3
"""Characters of a value in a query that is not taken for a secret by itself."""


class Secret(str):
    """A string that is not shown by ``repr``, ``str`` or formatting; `reveal` returns it."""

    __slots__ = ()

    def __new__(cls, text: str = "") -> Self:
        return super().__new__(cls, text[:])  # str() would show what hides the text

    def __repr__(self) -> str:
        return HIDDEN

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def reveal(self) -> str:
        """Return the string itself. Pass it to the client, and to nothing that logs."""
        return self[:]

    def parts(self) -> set[str]:
        """Return the texts that must not be shown."""
        return {self.reveal()}


class Url(Secret):
    """A URL that is shown without its user, password, query and fragment."""

    __slots__ = ()

    def __repr__(self) -> str:
        try:
            split = urllib.parse.urlsplit(self.reveal())
        except ValueError:
            return HIDDEN
        host = split.netloc.rpartition("@")[2]
        return urllib.parse.urlunsplit((split.scheme, host, split.path, "", ""))

    __str__ = __repr__

    def parts(self) -> set[str]:
        split = urllib.parse.urlsplit(self.reveal())
        quoted = {split.netloc.rpartition("@")[0], split.password or "", split.query}
        # Shorter values, such as a limit, would only garble a message.
        quoted |= {v for _, v in urllib.parse.parse_qsl(split.query) if len(v) > SHORT}
        return {*quoted, *map(urllib.parse.unquote, quoted)} - {""}


def positive(value: object) -> str | None:
    """Return what is wrong with a number that must be finite and more than 0."""
    if isinstance(value, int | float) and 0 < value < float("inf"):
        return None
    return "must be a finite number of more than 0"


def _hidden(kind: type[Secret]) -> Callable[[Any], str | None]:
    """Return a check of what a program might give as a plain string, which would be shown."""

    def check(value: Any) -> str | None:
        parts = value.values() if isinstance(value, Mapping) else value
        if not isinstance(parts, Iterable) or isinstance(parts, str):
            parts = (value,)
        if any(type(part) is str for part in parts):
            return f"must be a {kind.__name__}; from workers import {kind.__name__}"
        return None

    return check


def optional(check: Callable[[Any], str | None]) -> Callable[[Any], str | None]:
    """Return a check that None passes as well."""
    return lambda value: None if value is None else check(value)


def url_with(*schemes: str) -> Callable[[str], str | None]:
    """Return a check of URLs that must have one of these schemes, and a host."""

    def check(value: str) -> str | None:
        try:
            split = urllib.parse.urlsplit(value[:])
            _ = split.port  # is read now
        except ValueError as error:
            return f"is not a URL: {error}"
        if split.scheme not in schemes or not split.hostname:
            return f"must begin with {' or '.join(f'{each}://' for each in schemes)} and a host"
        return None

    return check


def check_options(options: msgspec.Struct, **checks: Callable[[Any], str | None]) -> None:
    """Check the values of options, for their ``__post_init__``.

    Args:
        options: the struct.
        checks: for each field, a function that returns what is wrong with its value, or None.

    Raises:
        ConfigError: a value is wrong. It names the struct, the field and the value.
    """
    for name, check in checks.items():
        value = getattr(options, name)
        problem = check(value)
        if problem is not None:
            raise ConfigError(type(options).__name__, name, value, problem)


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The options of all ready-made processors.

    Args:
        check_interval: the time between two checks while connected, seconds.
        timeout: for the answer to a check, and for each step of connecting, seconds.
        backoff: the wait before the next attempt to connect.
        retry_refused_after: the wait after the server has refused the key, seconds; None tries
            once.

    Raises:
        ConfigError: a value is out of range.
    """

    check_interval: Seconds = 10.0
    timeout: Seconds = 5.0
    backoff: BackoffPolicy = BackoffPolicy()
    retry_refused_after: Seconds | None = None

    def __post_init__(self) -> None:
        for field in msgspec.structs.fields(self):
            for kind in (field.type, *typing.get_args(field.type)):
                if isinstance(kind, type) and issubclass(kind, Secret):
                    check_options(self, **{field.name: _hidden(kind)})
        check_options(
            self,
            check_interval=positive,
            timeout=positive,
            retry_refused_after=optional(positive),
        )


def required(module: str, extra: str) -> Any:
    """Import the client library of a processor, in its worker.

    Args:
        module: its name, such as ``"aiohttp"``.
        extra: the extra of this package that installs it.

    Raises:
        PermanentFailure: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise  # the library lacks something itself
        raise PermanentFailure(
            f"{module} is not installed; run: pip install 'chronopype-mp[{extra}]'"
        ) from error


class ReadyMade(NetworkProcessor):
    """Counts what it receives, and emits it.

    ``handle.mirrored`` shows the counters. The latency of the checks is in the worker's statistics,
    as ``check_latency``.

    Args:
        options: what it does.

    Attributes:
        payloads: how many payloads this process has received.
        payload_bytes: their size.
        rejected: how many messages of a stream were dropped, because they did not decode.
    """

    mirrored: tuple[str, ...] = ("payloads", "payload_bytes", "rejected")

    def __init__(self, options: Options) -> None:
        super().__init__()
        self._options = options  # private, so that it is not reported to the owner
        self.payloads = 0
        self.payload_bytes = 0
        self.rejected = 0
        self.check_network_interval = options.check_interval
        # The client's own limits come first: their errors say more.
        self.check_network_timeout = 2 * options.timeout
        self.start_network_timeout = 4 * options.timeout
        self.network_backoff = options.backoff
        self.retry_permanent_after = options.retry_refused_after

    @property
    def options(self) -> Any:
        """What it does. A subclass states the type: ``options: HttpOptions``."""
        return self._options

    @classmethod
    def logger(cls) -> logging.Logger:
        """Return the logger, named after the module of the class."""
        return logging.getLogger(cls.__module__)

    def received(self, payload: object, size: int, topic: str | None) -> None:
        """Count a payload, note that the connection is not silent, and emit the payload.

        Args:
            payload: anything that ``emit`` takes.
            size: its size as received, bytes.
            topic: the topic to emit it with; None emits nothing.
        """
        self.payloads += 1
        self.payload_bytes += size
        self.heard()
        if topic is not None:
            self.emit(payload, topic=topic)

    def received_bytes(self, data: bytes, form: Form, topic: str | None) -> None:
        """Do the same for a message of a stream. One that does not decode is counted and dropped.

        Args:
            data: what has come.
            form: as what it is emitted.
            topic: as for `received`.
        """
        try:
            payload = decoded(data, form)
        except NotDecodedError as error:
            self.heard()
            self.rejected += 1
            if self.rejected == 1:
                self.logger().warning("%s; such messages are dropped and counted", error)
            return
        self.received(payload, len(data), topic)

    @contextlib.contextmanager
    def expecting(self, *errors: type[Exception]) -> Iterator[None]:
        """Turn a client's errors into a lost connection whose reason shows no secret.

        Args:
            errors: exceptions of the client that mean only that there is no connection.

        Raises:
            ConnectionError: one of them was raised.
        """
        try:
            yield
        except errors as error:
            raise ConnectionError(self.shown(error)) from None

    @contextlib.asynccontextmanager
    async def answering(self, *errors: type[Exception]) -> AsyncIterator[None]:
        """Do the same for an exchange with the server that ``options.timeout`` limits.

        Args:
            errors: as for `expecting`.

        Raises:
            ConnectionError: one of them was raised.
            TimeoutError: it took too long.
        """
        limit = asyncio.timeout(self.options.timeout)
        try:
            with self.expecting(*errors):
                async with limit:
                    yield
        except TimeoutError:
            if limit.expired():
                raise TimeoutError(f"no answer within {self.options.timeout:g} s") from None
            raise

    def shown(self, error: BaseException) -> str:
        """Return the kind and text of an error, without the secrets of the options."""
        return self.without_secrets(f"{type(error).__name__}: {error}".removesuffix(": "))

    def without_secrets(self, text: str) -> str:
        """Return a text in which the secrets of the options are replaced."""
        for secret in sorted(set(_secrets(self.options)), key=len, reverse=True):
            text = text.replace(secret, HIDDEN)
        return text


def _secrets(value: object) -> Iterator[str]:
    """Yield the texts in options that must not be shown."""
    if isinstance(value, Secret):
        yield from value.parts() - {""}
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from _secrets(getattr(value, name))
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _secrets(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _secrets(each)
