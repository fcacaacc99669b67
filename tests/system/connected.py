"""A clock with a worker whose network status a test follows."""

from __future__ import annotations

from chronopype_mp import NetworkStatus, WorkerHandle
from chronopype_mp.events import NetworkChanged
from tests.system.clocks import Watched

BOUND = 30.0
"""Seconds; far more than anything here needs on an idle machine."""

MANY = 100
"""Changes; as many as a server that is slow to start may cost."""


class Connected(Watched):
    """A running clock with a worker that has a connection, and a neighbour."""

    feed: WorkerHandle
    _changes = 0

    async def until(self, status: NetworkStatus, reason: str = "") -> NetworkChanged:
        """Return the next change to a status whose reason has this text."""
        for _ in range(MANY):
            self._changes += 1
            change = await self.events.wait_for(
                NetworkChanged, worker="feed", count=self._changes, timeout=BOUND
            )
            assert change.reason
            if change.after is status and reason in change.reason:
                return change
        seen = self.events.of(NetworkChanged, worker="feed")
        raise AssertionError(f"no change to {status} because of {reason!r}: {seen}")

    def changes_to(self, status: NetworkStatus) -> list[NetworkChanged]:
        return self.events.of(NetworkChanged, worker="feed", after=status)
