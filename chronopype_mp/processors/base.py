"""TickProcessor, the base of everything that a clock ticks."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol

import msgspec

from chronopype_mp.core.checks import whole
from chronopype_mp.core.connection import NetworkStatus
from chronopype_mp.processors.models import ProcessorState

__all__ = ["HOSTED_BY", "Hosting", "Mirror", "TickProcessor"]


class Hosting(Protocol):
    """What a worker's host keeps for the processor that it hosts.

    Attributes:
        network_settings: by name, seconds; those that differ from the processor's own.
    """

    network_settings: dict[str, float]

    @property
    def state(self) -> ProcessorState:
        """The state, as counted by the host."""
        ...


HOSTED_BY: ContextVar[Hosting | None] = ContextVar("HOSTED_BY", default=None)
"""The host in whose tasks code runs.

An inline worker hosts the owner's very object. This tells the processor's code in the worker from
the owner's code outside.
"""


class Mirror(Protocol):
    """What a clock keeps for a registered processor: what its worker reported last."""

    @property
    def state(self) -> ProcessorState:
        """The state last seen."""
        ...

    @property
    def network_status(self) -> NetworkStatus:
        """The network status last seen."""
        ...

    @property
    def last_connected_timestamp(self) -> float:
        """When the network was last connected, wall clock; nan if never."""
        ...

    def network_setting_changed(self, name: str, value: float) -> None:
        """Take note that the owner set one of the network settings."""
        ...


class TickProcessor:
    """Something that is ticked. Subclass it and override what is needed.

    `start`, `tick` or `async_tick`, and `stop` run in the worker process. The object that was
    given to ``clock.add_processor`` stays behind in the owner's process, where `state` shows what
    the worker reported last.

    Args:
        stats_window_size: how many execution times are kept, 1 to 10,000; a clock sets its own.

    Raises:
        ConfigError: ``stats_window_size`` is out of range.
    """

    # Class-level defaults, so that a subclass whose __init__ does not call this one still works.
    _own_state: ProcessorState = ProcessorState()
    _stats_window_size: int = 100
    _mirror: Mirror | None = None
    _host: Hosting | None = None
    _is_hosted_in_place: bool = False

    def __init__(self, stats_window_size: int = 100) -> None:
        self._stats_window_size = whole(
            type(self).__name__, "stats_window_size", stats_window_size, 1, 10_000
        )

    @property
    def state(self) -> ProcessorState:
        """The host's state in a worker, the clock's while registered, else this object's own."""
        source: Hosting | Mirror | None = self._host or self._mirror
        return self._own_state if source is None else source.state

    @property
    def current_timestamp(self) -> float:
        """Timestamp of the last tick that ended (the start's before the first), else 0.0."""
        return self.state.last_timestamp or 0.0

    def start(self, timestamp: float) -> None:
        """Run once in the worker before the first tick.

        Args:
            timestamp: the clock's time, seconds.
        """
        self._own_state = msgspec.structs.replace(
            self._own_state, is_active=True, last_timestamp=timestamp
        )

    def tick(self, timestamp: float) -> None:
        """Run at every tick, unless `async_tick` is overridden.

        Args:
            timestamp: a multiple of the clock's tick size, seconds.
        """

    async def async_tick(self, timestamp: float) -> None:
        """Run at every tick; calls `tick`. Cancelled when it exceeds ``processor_timeout``.

        Args:
            timestamp: a multiple of the clock's tick size, seconds.
        """
        self.tick(timestamp)

    def stop(self) -> None:
        """Run once in the worker after the last tick."""
        self._own_state = msgspec.structs.replace(self._own_state, is_active=False)

    def pause(self) -> None:
        """Run in the worker when the processor is paused."""

    def resume(self) -> None:
        """Run in the worker when the processor is resumed."""

    def record_execution(self, seconds: float) -> None:
        """Add an execution time to this object's own state; a clock does not call this."""
        self._own_state = self._own_state.update_execution_time(seconds, self._stats_window_size)

    def record_error(self, error: Exception, timestamp: float) -> None:
        """Add an error to this object's own state; a clock does not call this."""
        self._own_state = self._own_state.record_error(error, timestamp)

    @property
    def _hosting(self) -> Hosting | None:
        """The host for code that runs in the worker, None for the owner's code."""
        if self._is_hosted_in_place and HOSTED_BY.get() is not self._host:
            return None
        return self._host

    @property
    def _wants_ticks(self) -> bool:
        """Whether the host lets ticks through now."""
        return True
