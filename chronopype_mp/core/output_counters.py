"""The counts of a worker's outputs, as its reports carry them."""

from __future__ import annotations

import msgspec

__all__ = ["OutputCounters"]


class OutputCounters(msgspec.Struct, frozen=True):
    """What one process has counted of its outputs.

    Attributes:
        emitted: calls of ``emit``, whether somebody reads the topic or not.
        sent: outputs handed to the socket.
        dropped: outputs that somebody wanted and that were dropped in the worker.
    """

    emitted: int = 0
    sent: int = 0
    dropped: int = 0

    def merged(self, other: OutputCounters) -> OutputCounters:
        """Return the counts of both together."""
        return OutputCounters(
            self.emitted + other.emitted, self.sent + other.sent, self.dropped + other.dropped
        )
