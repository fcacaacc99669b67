"""The last retained message of each topic. Its edge is `chronopype_mp.coordinator.retained`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from chronopype_mp.core.message_frames import MessageBatch, Value, Values
from chronopype_mp.core.topics import match_any

__all__ = ["RETAINED_BYTES", "RetainedValues"]

RETAINED_BYTES = 64 * 1024 * 1024
"""Bytes of retained values. Further ones displace those that were published least recently."""

VALUE_BYTES = 500
"""Bytes that a value takes besides its payload, about."""

PART_BYTES = 64 * 1024
"""Bytes after which a part of an answer takes no further value."""


class RetainedValues:
    """Keeps the last message of each topic.

    Attributes:
        bytes: what the values take, about.
        displaced: values that were displaced.
    """

    def __init__(self, bound: int = RETAINED_BYTES) -> None:
        self._bound = bound
        self._values: dict[str, Value] = {}
        self.bytes = 0
        self.displaced = 0

    def __len__(self) -> int:
        return len(self._values)

    def put(self, topic: str, batch: MessageBatch) -> None:
        """Retain the last message of a batch in place of the one before."""
        self._forget(topic)
        payload = batch.payloads[-1].copy()  # it is a part of its frame
        value = Value(batch.worker, batch.incarnation, batch.last, topic, payload)
        self._values[topic] = value
        self.bytes += len(payload) + VALUE_BYTES
        while self.bytes > self._bound and len(self._values) > 1:
            self._forget(next(iter(self._values)))
            self.displaced += 1

    def _forget(self, topic: str) -> None:
        value = self._values.pop(topic, None)
        if value is not None:
            self.bytes -= len(value.payload) + VALUE_BYTES

    def answer(self, request: int, patterns: Sequence[str]) -> Iterator[Values]:
        """Yield the values of the topics that one of the patterns chooses, in parts.

        The order is that in which they were published.
        """
        part, size, values = 0, 0, list[Value]()
        for topic, value in self._values.items():
            if match_any(patterns, topic):
                if values and size >= PART_BYTES:
                    yield Values(request, part, False, values)
                    part, size, values = part + 1, 0, []
                values.append(value)
                size += len(value.payload)
        yield Values(request, part, True, values)
