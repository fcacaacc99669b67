"""The inbox: reports as they come in, decoded; what is none is counted and dropped."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from chronopype_mp.core.codec import FrameError, decode_report
from chronopype_mp.core.messages import Uplink
from chronopype_mp.transport.base import Hub

__all__ = ["DropCounts", "Inbox"]

BATCH = 200
"""Frames handled in one turn of the event loop."""


class DropCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Frames that were dropped.

    Attributes:
        garbage: did not decode.
        foreign: named a worker that is not there.
        stale: came from an incarnation that is not the present one.
    """

    garbage: int = 0
    foreign: int = 0
    stale: int = 0


class Inbox:
    """Reads reports.

    Args:
        hub: where from.
        deliver: called with each report; returns ``"foreign"`` or ``"stale"`` for one that it
            does not take.

    Attributes:
        dropped: what was dropped so far.
    """

    def __init__(self, hub: Hub, deliver: Callable[[Uplink], str | None]) -> None:
        self._hub = hub
        self._deliver = deliver
        self.dropped = DropCounts()

    def read(self) -> int:
        """Handle one batch; return how many frames it had."""
        frames = self._hub.receive(BATCH)
        for frame in frames:
            try:
                report = decode_report(frame)
            except FrameError:
                self._drop("garbage")
                continue
            refused = self._deliver(report)
            if refused is not None:
                self._drop(refused)
        return len(frames)

    def on_readable(self) -> None:
        """Handle one batch; the hub asks again while there is more."""
        self.read()

    def drain(self) -> None:
        """Handle all that has come in."""
        while self.read() == BATCH:
            pass

    def _drop(self, kind: str) -> None:
        self.dropped = msgspec.structs.replace(
            self.dropped, **{kind: getattr(self.dropped, kind) + 1}
        )
