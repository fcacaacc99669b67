"""The counts of the messages that a processor gets, as its reports carry them."""

from __future__ import annotations

import msgspec

__all__ = ["MessageCounters"]


class MessageCounters(msgspec.Struct, frozen=True):
    """What one process has counted of the messages of other processors.

    Attributes:
        received: messages for its subscriptions.
        gaps: messages missing between two of the same publisher and topic.
    """

    received: int = 0
    gaps: int = 0

    def merged(self, other: MessageCounters) -> MessageCounters:
        """Return the counts of both together."""
        return MessageCounters(self.received + other.received, self.gaps + other.gaps)
