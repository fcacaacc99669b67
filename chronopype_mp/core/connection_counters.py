"""What a processor's connection is counted by: its checks, connects and connected time."""

from __future__ import annotations

import msgspec

from chronopype_mp.core.histogram import Durations, Histogram

__all__ = ["ConnectionCounters", "ConnectionRecorder"]


class ConnectionCounters(msgspec.Struct, frozen=True, array_like=True):
    """The figures of a connection at one moment.

    Attributes:
        check_latency: how long the network checks took, also those that failed or timed out.
            Checks that were interrupted do not count.
        connects: how often the status has become CONNECTED.
        connected_seconds: how long it was CONNECTED.
    """

    check_latency: Histogram = Histogram()
    connects: int = 0
    connected_seconds: float = 0.0


class ConnectionRecorder:
    """Counts in the process that has the connection. Times are monotonic, seconds."""

    def __init__(self) -> None:
        self._checks = Durations()
        self._connects = 0
        self._connected_seconds = 0.0
        self._connected_at: float | None = None

    def checked(self, seconds: float) -> None:
        """Count a check that took ``seconds``."""
        self._checks.add(round(seconds * 1e9))

    def connected(self, now: float) -> None:
        """Take note that the status has become CONNECTED."""
        self._connects += 1
        self._connected_at = now

    def disconnected(self, now: float) -> None:
        """Take note that the status is CONNECTED no longer."""
        self._connected_seconds = self._seconds(now)
        self._connected_at = None

    def counters(self, now: float) -> ConnectionCounters:
        """Return the figures, those of the present connection included."""
        return ConnectionCounters(self._checks.histogram, self._connects, self._seconds(now))

    def _seconds(self, now: float) -> float:
        present = 0.0 if self._connected_at is None else max(0.0, now - self._connected_at)
        return self._connected_seconds + present
