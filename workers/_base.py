"""What the ready-made processors share: secrets, counters, outputs and checks of options."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from chronopype_mp import ConfigError, NetworkProcessor, PermanentFailure

__all__ = ["ReadyMade", "Seconds", "Secret", "check_options", "positive", "required"]

Seconds = Annotated[float, msgspec.Meta(extra={"unit": "s"})]
"""A time in seconds. A fleet file may write it as ``"250ms"`` or ``"5s"``."""

HIDDEN = "<secret>"


class Secret(str):
    """A string that is not shown by ``repr``, ``str`` or formatting; `reveal` returns it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return HIDDEN

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(HIDDEN, spec)

    def reveal(self) -> str:
        """Return the string itself. Pass it to the client, and to nothing that logs."""
        return self[:]


def positive(value: object) -> str | None:
    """Return what is wrong with a number that must be finite and more than 0."""
    if isinstance(value, int | float) and 0 < value < float("inf"):
        return None
    return "must be a finite number of more than 0"


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

    Attributes:
        payloads: how many payloads this process has received.
        payload_bytes: their size.
    """

    mirrored = ("payloads", "payload_bytes")

    def __init__(self) -> None:
        super().__init__()
        self.payloads = 0
        self.payload_bytes = 0

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
