"""The inbox decodes incoming reports; frames that do not decode are counted and dropped."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable

import msgspec

from chronopype_mp.core.codec import FrameError, decode_report
from chronopype_mp.core.messages import Uplink
from chronopype_mp.timing import monotonic
from chronopype_mp.transport.base import Hub

__all__ = ["DropCounts", "Inbox"]

BATCH = 10
"""Frames handled between two looks at the time."""

TURN = 0.001
"""Seconds spent on reports in one turn of the event loop. The ticker thread waits for the
interpreter meanwhile."""

DRAIN_WITHIN = 0.05
"""Seconds, at most, for `Inbox.drain`: somebody may send faster than anybody can read."""

MARK = b"\xc1 mark %d"
"""Never a report: no msgpack begins with that byte."""


class DropCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Frames that were dropped.

    Attributes:
        garbage: did not decode.
        foreign: named a worker that is not there.
        stale: came from an incarnation that is not the present one.
        forged: named a present incarnation without knowing its token.
    """

    garbage: int = 0
    foreign: int = 0
    stale: int = 0
    forged: int = 0


class Inbox:
    """Reads reports.

    Args:
        hub: where they come from.
        deliver: called with each report; returns None, or the field of `DropCounts` that counts
            a report that it drops.

    Attributes:
        dropped: frames dropped so far.
    """

    def __init__(self, hub: Hub, deliver: Callable[[Uplink], str | None]) -> None:
        self._hub = hub
        self._deliver = deliver
        self._handled = 0
        self._numbers = itertools.count()
        self._marks: dict[bytes, asyncio.Future[None]] = {}
        self.dropped = DropCounts()

    def read(self) -> int:
        """Handle one batch; return its number of frames."""
        frames = self._hub.receive(BATCH)
        for frame in frames:
            try:
                report = decode_report(frame)
            except FrameError:
                if not self._is_mark(frame):
                    self.drop("garbage")
                continue
            self._handled += 1
            refused = self._deliver(report)
            if refused is not None:
                self.drop(refused)
        return len(frames)

    def on_readable(self) -> None:
        """Handle what fits into one turn; the hub calls again while there is more."""
        self._read_for(TURN)

    def drain(self) -> None:
        """Handle everything that has come in, or as much as fits into `DRAIN_WITHIN`.

        The hub takes frames from its workers in turn, so a flood of one hides no other.
        """
        self._read_for(DRAIN_WITHIN)

    def _read_for(self, seconds: float) -> None:
        end = monotonic() + seconds
        while self.read() == BATCH and monotonic() < end:
            pass

    async def catch_up(self, timeout: float) -> None:
        """Handle everything sent before this call, including what the transport still holds.

        Args:
            timeout: seconds after which it returns regardless.
        """
        handled = -1
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                # An echo may overtake frames of a long queue; then other frames come with it.
                while handled != self._handled:
                    handled = self._handled
                    await self._echo()

    async def _echo(self) -> None:
        """Send a mark and wait until it has come in."""
        mark = MARK % next(self._numbers)
        if self._hub.echo(mark):
            self._marks[mark] = asyncio.get_running_loop().create_future()
            await self._marks[mark]

    def _is_mark(self, frame: bytes) -> bool:
        waiting = self._marks.pop(frame, None)
        if waiting is None:
            return False
        if not waiting.done():  # the waiter may have timed out
            waiting.set_result(None)
        return True

    def drop(self, kind: str) -> None:
        """Count a frame that is dropped.

        Args:
            kind: the field of `DropCounts`.
        """
        self.dropped = msgspec.structs.replace(
            self.dropped, **{kind: getattr(self.dropped, kind) + 1}
        )
