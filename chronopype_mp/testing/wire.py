"""Wire: a clock's sockets, for tests that send frames of their own."""

from __future__ import annotations

from chronopype_mp.clocks.base import BaseClock
from chronopype_mp.coordinator.handle import WorkerHandle
from chronopype_mp.coordinator.inbox import DropCounts

__all__ = ["Wire"]


class Wire:
    """Access to the transport of a clock that is entered.

    Args:
        clock: whose transport it is.

    Attributes:
        up: the address to which workers send their reports.
        down: the address from which they receive ticks and commands.

    Raises:
        ValueError: the clock is not entered.
    """

    def __init__(self, clock: BaseClock) -> None:
        coordinator = clock._coordinator
        if coordinator is None:
            raise ValueError("the clock is not entered, so it has no transport")
        self._coordinator = coordinator
        self.up = coordinator.hub.up
        self.down = coordinator.hub.down

    @property
    def dropped(self) -> DropCounts:
        """Frames that the coordinator has dropped so far."""
        return self._coordinator.dropped

    def publish(self, *frames: bytes) -> None:
        """Publish frames as they are, after everything that was published before."""
        for frame in frames:
            self._coordinator.ticker.publish(frame)

    def token(self, handle: WorkerHandle) -> int:
        """Return the token that the reports of a worker's present incarnation carry.

        Raises:
            ValueError: the worker has no process.
        """
        incarnation = handle._record.incarnation
        if incarnation is None:
            raise ValueError(f"worker {handle.name!r} has no process")
        return incarnation.token
