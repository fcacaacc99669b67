"""The bounded buffer of a worker's outputs. Its edge is `chronopype_mp.worker.emitter`.

Outputs are numbered as they come in, from 1. Those in the buffer are always a row without a gap:
the newest is added at one end, and batches and dropped outputs leave at the other.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import NamedTuple

from chronopype_mp.core.outputs import BATCH_BYTES, BATCH_OUTPUTS

__all__ = ["OUTPUT_BYTES", "OutputBuffer", "Taken"]

OUTPUT_BYTES = 64
"""Bytes that an output takes besides its own, about."""


class Taken(NamedTuple):
    """Outputs that have left the buffer to be sent.

    Attributes:
        first: the number of the first.
        items: the encoded outputs.
    """

    first: int
    items: list[bytes]


class OutputBuffer:
    """Keeps outputs until they are sent.

    Args:
        bound: bytes that it may hold. A single output may exceed it.

    Attributes:
        bytes: those that it holds.
        numbered: outputs that have come in so far.
        dropped: those of them that were dropped.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._items: deque[bytes] = deque()
        self.bytes = 0
        self.numbered = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._items)

    def fits(self, item: bytes) -> bool:
        """Whether there is room for another output."""
        return not self._items or self.bytes + len(item) + OUTPUT_BYTES <= self._bound

    def put(self, item: bytes) -> None:
        """Add an output. The oldest ones are dropped if there is no room."""
        self._items.append(item)
        self.numbered += 1
        self.bytes += len(item) + OUTPUT_BYTES
        while self.bytes > self._bound and len(self._items) > 1:
            self.bytes -= len(self._items.popleft()) + OUTPUT_BYTES
            self.dropped += 1

    def take(self) -> Taken:
        """Remove and return the oldest outputs, as many as make one frame."""
        first, size, count = self.numbered - len(self._items) + 1, 0, 0
        for item in islice(self._items, BATCH_OUTPUTS):
            size += len(item)
            count += 1
            if size >= BATCH_BYTES:
                break
        items = [self._items.popleft() for _ in range(count)]
        self.bytes -= size + OUTPUT_BYTES * count
        return Taken(first, items)

    def drop_all(self) -> None:
        """Drop what is left."""
        self.dropped += len(self._items)
        self._items.clear()
        self.bytes = 0
