"""A snapshot on its way: encoded state, cut into parts that fit into frames, and put together.

Only a whole snapshot comes out of an `Assembly`, whatever becomes of single parts. A worker that is
killed while it sends leaves a half one behind, which the first part of the next one replaces.
"""

from __future__ import annotations

import msgspec

from chronopype_mp.core.messages import StatePart

__all__ = ["MAX_STATE", "PART_SIZE", "Assembly", "SavedState", "pieces_of"]

MAX_STATE = 3_000_000
"""Bytes of a snapshot. A worker's outbox holds one."""

PART_SIZE = 64_000
"""Bytes of a part."""


class SavedState(msgspec.Struct, frozen=True):
    """A snapshot.

    Attributes:
        version: the ``snapshot_version`` of the processor's class.
        taken_at: when it was taken, wall clock in seconds.
        data: what ``snapshot()`` returned, in msgpack.
    """

    version: int
    taken_at: float
    data: bytes


def pieces_of(data: bytes) -> list[bytes]:
    """Return encoded state in pieces of at most `PART_SIZE`, at least one."""
    return [data[at : at + PART_SIZE] for at in range(0, len(data), PART_SIZE)] or [b""]


class Assembly:
    """Puts the parts of one worker's snapshots together."""

    def __init__(self) -> None:
        self._of = (0, 0)
        self._pieces: list[bytes] = []

    def take(self, part: StatePart) -> SavedState | None:
        """Take a part; return the snapshot if it is whole now.

        The parts of a snapshot must come in their order. With a gap it is given up.
        """
        of = (part.incarnation, part.serial)
        if part.index == 0:
            self._of, self._pieces = of, []
        size = sum(map(len, self._pieces)) + len(part.data)
        if of != self._of or part.index != len(self._pieces) or size > MAX_STATE:
            self._pieces = []
            return None
        self._pieces.append(part.data)
        if len(self._pieces) < part.count:
            return None
        data, self._pieces = b"".join(self._pieces), []
        return SavedState(part.version, part.taken_at, data)
